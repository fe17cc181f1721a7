//! If something is missing, `skein-lab up --topology containers` names it and how to get it, and
//! leaves nothing behind.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use lab::command::{Output, run};
use lab::containers::Restart;
use lab::kinds::{TESTED_NAMES, folder_of};
use lab::{checkout, program, target_folder};

use crate::stage::{lab, must, project, turn};

/// Limit for a refusal, the start of a private engine and the build of an image included.
const REFUSAL_SECONDS: u32 = 240;
/// The lab that is refused.
const NAME: &str = TESTED_NAMES[2];
/// A user without any right.
const NOBODY: &str = "65534";

fn skein_lab() -> PathBuf {
    program("skein-lab").expect("it is built")
}

/// The command with this environment, `NAME=value`.
fn command(environment: &[String], word: &str, more: &[&str]) -> Output {
    let program = skein_lab().display().to_string();
    let own = [program.as_str(), word, "--name", NAME];
    let environment = environment.iter().map(String::as_str);
    let line: Vec<&str> =
        ["env"].into_iter().chain(environment).chain(own).chain(more.iter().copied()).collect();
    run(REFUSAL_SECONDS, &line).expect("env runs")
}

/// Fails unless the command refused and said all of `words`.
fn refuses(environment: &[String], words: &[&str]) {
    let more = ["--topology", "containers", "--nodes", "3"];
    let said = command(environment, "up", &more).refused().expect("a refusal");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in {said:?}");
    }
    assert!(!folder_of(NAME).exists(), "files stay: {said}");
}

/// On the engine of a project that is up: its network is taken, its containers are not touched.
#[test]
fn a_network_or_a_name_that_is_taken_is_said() {
    let _turn = turn();
    let lab = must(lab("taken", 1, Restart::ByHand));
    let running = must(project(&lab));
    let engine = format!("DOCKER_HOST={}", running.engine().url());
    let address = lab.nodes[0].address.to_string();
    let net = address.rsplit_once('.').expect("an address").0.to_owned();
    refuses(&[engine.clone(), format!("SKEIN_NET={net}")], &[&net, "in use here", "give another"]);
    let nonsense = "SKEIN_NET=nonsense".to_owned();
    refuses(&[engine.clone(), nonsense], &["nonsense", "first three bytes"]);

    // A container of the user's has a name that compose wants, of v1 or of v2: `up` stops
    // half-way, removes what it made, and leaves the stranger alone.
    let docker =
        |words: &[&str]| must(running.engine().docker(words).and_then(|output| output.ok()));
    let image = docker(&["images", "-q", "skein-demo"]);
    let image = image.lines().next().expect("the image of the nodes");
    let names = ["_node3_1", "-node3-1"].map(|end| format!("{}{end}", NAME));
    for name in &names {
        docker(&["create", "--name", name, image]);
    }
    refuses(&[engine], &["what was made is removed", "node3"]);
    let listed = docker(&["ps", "-a", "--format", "{{.Names}}"]);
    let left: Vec<_> = listed.lines().filter(|line| line.starts_with(NAME)).collect();
    assert_eq!(left.len(), names.len(), "{left:?}");
    for name in &names {
        assert!(left.contains(&name.as_str()), "{left:?}");
        docker(&["rm", name]);
    }
    assert!(!docker(&["ps", "-q"]).is_empty(), "the client of the project runs");
}

#[test]
fn docker_missing_or_dead_or_forbidden_is_said() {
    let _turn = turn();
    let folder = tempfile::tempdir().expect("a folder");
    let place = |name: &str| folder.path().join(name);
    let dead = format!("unix://{}", place("dead.sock").display());
    refuses(
        &[format!("DOCKER_HOST={dead}")],
        &[&dead, "does not answer", "systemctl start docker"],
    );

    // Nobody else may make a lab.
    let copy = place("skein-lab");
    fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("readable");
    fs::copy(skein_lab(), &copy).expect("a copy that anyone may run");
    let copy = copy.display().to_string();
    let line = ["setpriv", "--reuid", NOBODY, "--clear-groups", &copy, "up"];
    let said = run(REFUSAL_SECONDS, &line).and_then(|output| output.refused()).expect("a refusal");
    assert!(said.contains("needs root") && said.contains("sudo"), "{said}");

    // Nothing of Docker in the PATH.
    let programs = place("programs");
    fs::create_dir(&programs).expect("a folder");
    let path = format!("PATH={}", programs.display());
    refuses(std::slice::from_ref(&path), &["docker is not installed", "make setup-compose"]);
    command(&[path], "down", &[]).ok().expect("nothing can be there");
}

#[test]
fn an_image_cannot_be_built_without_network_and_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = checkout().join("deploy/container/tree.sh").display().to_string();
    let programs = target_folder().expect("a folder").display().to_string();
    let out = folder.path().join("out").display().to_string();
    let line = ["unshare", "--net", &script, &programs, &out];
    let said = run(REFUSAL_SECONDS, &line).and_then(|output| output.refused()).expect("a refusal");
    assert!(said.contains("packages cannot be fetched") && said.contains("mirror"), "{said}");
}

#[test]
fn taking_down_what_is_not_there_changes_nothing() {
    let _turn = turn();
    for _ in 0..2 {
        command(&[], "down", &[]).ok().expect("there is nothing to do");
    }
}
