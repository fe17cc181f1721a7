use super::*;

fn limits() -> Limits {
    Limits { memory_bytes: Some(1 << 20), nano_cpus: Some(1_500_000_000), pids: Some(9) }
}

#[test]
fn limits_become_the_files_of_cgroup_v2() {
    let lines: Vec<String> =
        settings(&limits()).iter().map(|(file, value)| format!("{file}={value}")).collect();
    assert_eq!(lines, ["memory.max=1048576", "cpu.max=150000 100000", "pids.max=9"]);
    let tiny = Limits { nano_cpus: Some(1), ..Limits::default() };
    assert_eq!(settings(&tiny), vec![("cpu.max", "1000 100000".to_owned())]);
}

#[test]
fn a_limit_without_its_controller_is_refused_by_name() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("cgroup.controllers"), "cpuset cpu memory\n").unwrap();
    let check = |limits: &Limits| supported_at(Some(root.path()), limits);
    assert_eq!(check(&Limits::default()), Ok(()));
    assert_eq!(check(&Limits { pids: None, ..limits() }), Ok(()));
    assert!(check(&limits()).unwrap_err().contains("no pids controller on cgroup v2"));
    assert!(supported_at(None, &limits()).unwrap_err().contains("no memory controller"));
    assert_eq!(supported_at(None, &Limits::default()), Ok(()));
}

#[test]
fn the_unified_hierarchy_is_found_beside_the_old_ones() {
    let table = "29 23 0:25 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                 30 23 0:26 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
    assert_eq!(unified(table), Some(PathBuf::from("/sys/fs/cgroup/unified")));
    assert_eq!(unified(""), None);
}

#[test]
fn only_a_kill_counts_as_out_of_memory() {
    assert!(killed("low 0\noom 3\noom_kill 1\n"));
    assert!(!killed("low 0\noom 3\noom_kill 0\n"));
    assert!(!killed(""));
}
