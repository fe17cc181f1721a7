use super::*;

fn limits() -> Limits {
    Limits { memory_bytes: Some(1 << 20), nano_cpus: Some(1_500_000_000), pids: Some(9) }
}

#[test]
fn limits_become_the_files_of_either_version() {
    let lines = |version, limits: &Limits| -> Vec<String> {
        let settings = controllers(limits).flat_map(|name| settings(version, name, limits));
        settings.map(|Setting { file, value, .. }| format!("{file}={value}")).collect()
    };
    assert_eq!(
        lines(Version::Two, &limits()),
        ["memory.max=1048576", "memory.swap.max=1048576", "cpu.max=150000 100000", "pids.max=9"]
    );
    assert_eq!(
        lines(Version::One, &limits()),
        [
            "memory.limit_in_bytes=1048576",
            "memory.memsw.limit_in_bytes=2097152",
            "cpu.cfs_period_us=100000",
            "cpu.cfs_quota_us=150000",
            "pids.max=9"
        ]
    );
    let tiny = Limits { nano_cpus: Some(1), ..Limits::default() };
    assert_eq!(lines(Version::Two, &tiny), ["cpu.max=1000 100000"]);
}

/// Goal: each controller is looked for where it is. Method: a table as systemd makes it on a hybrid
/// host, with one controller in the unified hierarchy, two that share one, and one read-only.
#[test]
fn a_controller_is_found_in_the_hierarchy_that_has_it() {
    let unified = tempfile::tempdir().unwrap();
    fs::write(unified.path().join("cgroup.controllers"), "pids\n").unwrap();
    let table = format!(
        "28 23 0:24 / /c/memory rw - cgroup cgroup rw,memory\n\
         29 23 0:25 / /c/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
         30 23 0:26 / {} rw,relatime shared:9 - cgroup2 cgroup2 rw\n\
         31 23 0:27 / /c/pids rw - cgroup cgroup rw,pids\n\
         32 23 0:28 / /c/cpuset ro,nosuid - cgroup cgroup rw,cpuset\n\
         broken\n",
        unified.path().display()
    );
    let found = Hierarchies::of(&table);
    assert!(!found.old.contains_key("cpuset"));
    let group = |version, root: &str, controller| {
        let path = Path::new(root).join("skein/t1");
        Group { version, path, controllers: vec![controller] }
    };
    let unified = unified.path().to_str().unwrap();
    let expected = vec![
        group(Version::One, "/c/memory", "memory"),
        group(Version::One, "/c/cpu,cpuacct", "cpu"),
        group(Version::Two, unified, "pids"),
    ];
    assert_eq!(found.groups("t1", &limits()), Ok(expected));
    assert_eq!(found.groups("t1", &Limits::default()), Ok(vec![]));
}

#[test]
fn a_limit_without_its_controller_is_refused_by_name() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("cgroup.controllers"), "cpuset cpu memory\n").unwrap();
    let found = Hierarchies { unified: Some(root.path().into()), ..Hierarchies::default() };
    assert_eq!(found.groups("t1", &Limits { pids: None, ..limits() }).unwrap().len(), 1);
    assert_eq!(found.groups("t1", &limits()), Err("pids"));
    assert_eq!(Hierarchies::default().groups("t1", &limits()), Err("memory"));
}

#[test]
fn only_a_kill_counts_as_out_of_memory() {
    assert!(killed("low 0\noom 3\noom_kill 1\n"));
    assert!(killed("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"));
    assert!(!killed("low 0\noom 3\noom_kill 0\n"));
    assert!(!killed("oom_kill_disable 0\nunder_oom 0\n"));
    assert!(!killed(""));
}
