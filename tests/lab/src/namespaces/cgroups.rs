//! The machine's control groups, for a daemon in a namespace: `ip netns exec` gives it a /sys in
//! which they are not mounted.

use std::fs;

/// Shell commands that mount what this machine has mounted, of what tasks can be limited by. What
/// cannot be mounted is missing for the daemon, which says so.
pub(super) fn mounting() -> String {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    commands(&table)
}

fn commands(table: &str) -> String {
    let mut lines = Vec::new();
    for line in table.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let Some(point) = left.split(' ').nth(4) else { continue };
        match right.split(' ').collect::<Vec<_>>().as_slice() {
            ["cgroup2", ..] => lines.push((point, "cgroup2 -o rw".to_owned())),
            ["cgroup", _, options] => {
                let known = ["memory", "cpu", "cpuacct", "pids"];
                let of = options.split(',').filter(|option| known.contains(option));
                let of: Vec<&str> = of.collect();
                if !of.is_empty() {
                    lines.push((point, format!("cgroup -o {}", of.join(","))));
                }
            }
            _other => {}
        }
    }
    // Several are in directories of a tmpfs.
    let above = match lines.as_slice() {
        [] | [("/sys/fs/cgroup", _)] => "",
        _several => "mount -t tmpfs cgroup /sys/fs/cgroup; ",
    };
    let mount = |(point, what): &(&str, String)| {
        format!("mkdir -p {point} && mount -t {what} cgroup {point}; ")
    };
    format!("{above}{}", lines.iter().map(mount).collect::<String>())
}

#[test]
fn what_the_machine_has_is_mounted_again() {
    let hybrid = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                  32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
                  33 31 0:30 / /sys/fs/cgroup/blkio rw - cgroup cgroup rw,blkio\n\
                  34 31 0:31 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
    assert_eq!(
        commands(hybrid),
        "mount -t tmpfs cgroup /sys/fs/cgroup; \
         mkdir -p /sys/fs/cgroup/cpu && \
         mount -t cgroup -o cpu,cpuacct cgroup /sys/fs/cgroup/cpu; \
         mkdir -p /sys/fs/cgroup/unified && \
         mount -t cgroup2 -o rw cgroup /sys/fs/cgroup/unified; "
    );
    let unified = "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
    assert_eq!(
        commands(unified),
        "mkdir -p /sys/fs/cgroup && mount -t cgroup2 -o rw cgroup /sys/fs/cgroup; "
    );
    assert_eq!(commands(""), "");
}
