//! What the demo says when something is missing: what it is and how to get it. Nothing of it stays.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;

use tests::containers::Containers;
use tests::lab::command::{Output, run};
use tests::lab::topology::Topology as _;

const DEMO: &str = env!("CARGO_BIN_EXE_skein-compose");
/// Limit for a refusal, the start of a private engine included.
const REFUSAL_SECONDS: u32 = 120;
/// A user without any right.
const NOBODY: &str = "65534";

/// The demo's command with this environment, `NAME=value`.
fn demo(environment: &[String], word: &str) -> Output {
    let mut line = vec!["env".to_owned()];
    line.extend(environment.iter().cloned());
    line.extend([DEMO, word].map(str::to_owned));
    run(REFUSAL_SECONDS, &line).expect("env runs")
}

/// Fails unless the demo refused and said all of `words`.
fn refuses(environment: &[String], words: &[&str]) {
    let said = demo(environment, "up").refused().expect("a refusal");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in {said:?}");
    }
    assert!(!Path::new("/var/lib/skein-compose").exists(), "files stay: {said}");
}

/// On the engine of a project that is up: its network is taken, its names are not touched.
pub(crate) fn check(running: &Containers) {
    let engine = format!("DOCKER_HOST={}", running.engine().url());
    let address = running.machines().expect("machines")[0].address().to_string();
    let net = address.rsplit_once('.').expect("an address").0.to_owned();
    refuses(&[engine.clone(), format!("SKEIN_NET={net}")], &[&net, "in use here", "give another"]);
    let nonsense = "SKEIN_NET=nonsense".to_owned();
    refuses(&[engine.clone(), nonsense], &["nonsense", "first three bytes"]);
    half_way(running, &engine);
    let ids = running.engine().docker(&["ps", "-q"]).and_then(|output| output.ok());
    assert_eq!(ids.expect("the engine answers").lines().count(), 6, "five nodes and a client run");
}

/// A container of the user's has a name that compose wants: `up` stops half-way, removes what it
/// made, and leaves the stranger alone.
fn half_way(running: &Containers, engine: &str) {
    let docker = |words: &[&str]| running.engine().docker(words).and_then(|output| output.ok());
    let images = docker(&["images", "-q", "skein-demo"]).expect("images");
    let image = images.lines().next().expect("the image of the nodes");
    // As compose v1 names it, and as v2 does.
    let names = ["skein-compose_node3_1", "skein-compose-node3-1"];
    for name in names {
        docker(&["create", "--name", name, image]).expect("a container of the user's");
    }
    refuses(&[engine.to_owned()], &["what was made is removed", "node3"]);
    let listed = docker(&["ps", "-a", "--format", "{{.Names}}"]).expect("containers");
    let left: Vec<_> = listed.lines().filter(|name| name.starts_with("skein-compose")).collect();
    assert_eq!(left.len(), names.len(), "{left:?}");
    for name in names {
        assert!(left.contains(&name), "{left:?}");
        docker(&["rm", name]).expect("it is ours");
    }
}

#[test]
fn docker_missing_or_dead_or_forbidden_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = |name: &str| folder.path().join(name);
    let dead = format!("unix://{}", place("dead.sock").display());
    refuses(
        &[format!("DOCKER_HOST={dead}")],
        &[&dead, "does not answer", "systemctl start docker"],
    );

    // A socket that only root may use.
    let socket = place("root.sock");
    let _listener = UnixListener::bind(&socket).expect("a socket");
    let mode = std::os::unix::fs::PermissionsExt::from_mode;
    fs::set_permissions(folder.path(), mode(0o755)).expect("readable");
    fs::set_permissions(&socket, mode(0o600)).expect("only root's");
    let copy = place("skein-compose");
    fs::copy(DEMO, &copy).expect("a copy that anyone may run");
    let host = format!("DOCKER_HOST=unix://{}", socket.display());
    let copy = copy.display().to_string();
    let line = ["setpriv", "--reuid", NOBODY, "--clear-groups", "env", &host, &copy, "up"];
    let said = run(REFUSAL_SECONDS, &line).and_then(|output| output.refused()).expect("a refusal");
    assert!(said.contains("no right to its socket") && said.contains("group docker"), "{said}");

    // Nothing of Docker in the PATH.
    let programs = place("programs");
    fs::create_dir(&programs).expect("a folder");
    let path = format!("PATH={}", programs.display());
    refuses(&[path], &["docker is not installed", "make setup-compose"]);
}

#[test]
fn an_image_cannot_be_built_without_network_and_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let script = root.join("deploy/container/tree.sh").display().to_string();
    let programs = Path::new(DEMO).parent().expect("a folder").display().to_string();
    let out = folder.path().join("out").display().to_string();
    let line = ["unshare", "--net", &script, &programs, &out];
    let said = run(REFUSAL_SECONDS, &line).and_then(|output| output.refused()).expect("a refusal");
    assert!(said.contains("packages cannot be fetched") && said.contains("mirror"), "{said}");
}

#[test]
fn taking_down_what_is_not_there_changes_nothing() {
    for _ in 0..2 {
        demo(&[], "down").ok().expect("there is nothing to do");
    }
}
