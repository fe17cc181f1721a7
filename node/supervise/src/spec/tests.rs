use super::*;

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn signals_are_read_in_every_spelling_of_docker() {
    let table = [
        ("SIGTERM", Some(15)),
        ("term", Some(15)),
        ("9", Some(9)),
        ("SIGRTMIN+3", Some(37)),
        ("RTMIN", Some(34)),
        ("RTMAX-1", Some(63)),
        ("RTMAX-40", None),
        ("0", None),
        ("65", None),
        ("SIGNOPE", None),
        ("", None),
    ];
    for (text, expected) in table {
        assert_eq!(parse_signal(text), expected, "{text}");
    }
}

#[test]
fn probes_are_read_as_docker_reads_them() {
    assert_eq!(Probe::parse(&[]), Ok(None));
    assert_eq!(Probe::parse(&words(&["NONE"])), Ok(None));
    assert_eq!(
        Probe::parse(&words(&["CMD", "true", "x"])),
        Ok(Some(Probe::Command(words(&["true", "x"]))))
    );
    let shell = Probe::parse(&words(&["CMD-SHELL", "exit 1"])).unwrap().unwrap();
    assert_eq!(shell.argv(), words(&["/bin/sh", "-c", "exit 1"]));
    assert!(Probe::parse(&words(&["CMD"])).is_err());
    assert!(Probe::parse(&words(&["curl"])).is_err());
}

#[test]
fn a_spec_that_no_node_can_launch_says_why() {
    let good = LaunchSpec::new("t1", Root::Host, words(&["true"]));
    assert_eq!(good.refusal(), None);
    let refused = |change: fn(&mut LaunchSpec)| {
        let mut spec = good.clone();
        change(&mut spec);
        spec.refusal().unwrap_or_default()
    };
    assert_eq!(refused(|s| s.argv.clear()), "image host has no default command: set one");
    assert_eq!(refused(|s| s.task = "../x".into()), "task id \"../x\" is not a plain name");
    assert!(refused(|s| s.env.push("A=\0".into())).contains("zero byte"));
    assert!(refused(|s| drop(s.sysctls.insert("vm.x".into(), "1".into()))).contains("\"vm.x\""));
    let tmpfs = MountSource::Tmpfs { size_bytes: None, mode: None };
    let mut spec = good.clone();
    spec.mounts.push(Mount { target: "/".into(), source: tmpfs, read_only: false });
    assert_eq!(
        spec.refusal().unwrap_or_default(),
        "mount target \"/\" is not an absolute path below /"
    );
}

#[test]
fn the_hostname_defaults_to_twelve_characters_of_the_task_id() {
    let mut spec = LaunchSpec::new("abcdefghijklmnopqrst", Root::Host, words(&["true"]));
    assert_eq!(spec.hostname(), "abcdefghijkl");
    spec.hostname = Some("web".into());
    assert_eq!(spec.hostname(), "web");
}
