//! The unit of `deploy/systemd/` under a real systemd, on Debian 12's kernel: `start` returns when
//! the node is ready, and restart, crash and stop of the unit do not affect its tasks.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::Lab;
use lab::cluster::{CONVERGE_MAX, Task};
use lab::command::{Output, run, run_with_input};
use lab::scenario::background::Counter;
use lab::scenario::services::{make_network, serve_client, serve_echo};
use lab::scenario::{Check, check};
use lab::topology::Machine as _;
use lab::vm::kernel::Kernel;
use lab::vm::machine::VirtualMachine;
use lab::wait::wait_for;

use crate::stage::{guest, lab, must, turn};

const SYSTEMD: &str = "/lib/systemd/systemd";
/// An emulated systemd has much to do before it starts a unit.
const SYSTEMCTL_SECONDS: u32 = 150;
const POWEROFF_MAX: Duration = Duration::from_secs(120);
/// What systemd-shutdown says of processes that have not ended 10 s after its SIGTERM.
const SHUTDOWN_WAITS: &str = "Waiting for process";
/// What `make install` installs: place and text.
const FILES: [(&str, &str); 3] = [
    ("/etc/systemd/system/skein.service", include_str!("../../../deploy/systemd/skein.service")),
    ("/etc/sysctl.d/90-skein.conf", include_str!("../../../deploy/systemd/skein.sysctl.conf")),
    ("/etc/modules-load.d/skein.conf", include_str!("../../../deploy/systemd/skein.modules.conf")),
];

const CHECKS: &[Check] = &[
    ("the unit starts, and is ready then", start),
    ("services run", serve),
    ("a restart of the unit keeps the tasks and their connections", restart),
    ("a daemon that crashed is restarted while its tasks run", crash),
    ("a stop of the unit keeps the tasks, and a start finds them", stop_and_start),
    ("a daemon knows whether its machine stops", machine_stops),
];

/// Goal: what README.md of the unit promises. Method: a guest whose first program is systemd.
#[test]
fn the_unit_keeps_its_promises() {
    let _turn = turn();
    let mut lab = must(boots_systemd());
    must(check(&mut lab, CHECKS));
}

fn boots_systemd() -> Result<Lab> {
    let lab = lab("systemd", Kernel::Debian61, 1)?;
    let mut monitor = guest(&lab, 0)?.monitor;
    monitor.shut_down()?;
    monitor.guest.init = Some(SYSTEMD.to_owned());
    monitor.start()?;
    monitor.wait_boot()?;
    let first = monitor.run(SYSTEMCTL_SECONDS, &["cat", "/proc/1/comm"])?.ok()?;
    ensure!(first == "systemd", "the first program is {first}");
    Ok(lab)
}

fn systemctl(guest: &VirtualMachine, words: &[&str]) -> Result<Output> {
    guest.monitor.run(SYSTEMCTL_SECONDS, &[&["systemctl"], words].concat())
}

fn property(guest: &VirtualMachine, name: &str) -> Result<String> {
    systemctl(guest, &["show", "--value", "-p", name, "skein"])?.ok()
}

/// What `systemctl` and the journal say of the unit, for a failure.
fn told(guest: &VirtualMachine) -> String {
    let script = "systemctl status skein; journalctl -u skein -n 30 --no-pager";
    let said = guest.monitor.run(SYSTEMCTL_SECONDS, &["sh", "-c", script]);
    said.map_or_else(|error| format!("{error:#}"), |output| output.stdout + &output.stderr)
}

fn start(lab: &mut Lab) -> Result<()> {
    let guest = guest(lab, 0)?;
    for (place, text) in FILES {
        let script = "mkdir -p \"$(dirname \"$0\")\" && cat >\"$0\"";
        run_with_input(60, &guest.line(&["sh", "-c", script, place]), text)?.ok()?;
    }
    let skein = guest.program("skein")?;
    let settings = format!("SKEIN_ADVERTISE_ADDR={}", guest.address());
    let script = "mkdir -p /usr/local/bin /etc/default && cp \"$0\" /usr/local/bin/skein && \
        echo \"$1\" >/etc/default/skein && systemctl daemon-reload && sysctl -q --system && \
        systemctl restart systemd-modules-load && systemctl enable -q skein";
    guest.monitor.run(SYSTEMCTL_SECONDS, &["sh", "-c", script, &skein, &settings])?.ok()?;
    systemctl(&guest, &["start", "skein"])?.ok().with_context(|| told(&guest))?;
    // No waiting: it said that it is ready.
    lab.nodes[0].get("/_ping").with_context(|| told(&guest))?;
    let loaded = guest.ask(&["sh", "-c", "ls -d /sys/module/ip_vs_mh /sys/module/vxlan"])?;
    ensure!(loaded.lines().count() == 2, "{loaded}");
    let address = lab.nodes[0].address.to_string();
    lab.nodes[0].docker(&["swarm", "init", "--advertise-addr", &address])?.ok()?;
    lab.wait_nodes_ready(1)
}

fn serve(lab: &mut Lab) -> Result<()> {
    make_network(lab)?;
    serve_client(lab)?;
    serve_echo(lab, 2)?;
    Ok(())
}

/// Every task, by id and process.
fn tasks(lab: &Lab) -> Result<Vec<(String, i64)>> {
    let known = |task: Task| (task.id, task.pid);
    let both = [lab.wait_running(0, "client", 1)?, lab.wait_running(0, "echo", 2)?];
    Ok(both.into_iter().flatten().map(known).collect())
}

/// Does something to the unit while a connection of a task counts through the VIP; the daemon is
/// another one afterwards, everything else is as it was.
fn while_counting(lab: &Lab, act: impl FnOnce(&VirtualMachine) -> Result<()>) -> Result<()> {
    let guest = guest(lab, 0)?;
    let (before, daemon) = (tasks(lab)?, property(&guest, "MainPID")?);
    let client = lab.wait_running(0, "client", 1)?.remove(0);
    // By address: names are the daemon's to answer.
    let vip = format!("{}:7000", lab.vip(0, "echo", "vote")?);
    let counter = Counter::start(lab, &client, &vip)?;
    act(&guest).with_context(|| told(&guest))?;
    lab.wait_for(CONVERGE_MAX, "the daemon to answer", || lab.nodes[0].get("/_ping"))?;
    lab.wait_nodes_ready(1)?;
    let after = tasks(lab)?;
    counter.finish()?;
    ensure!(before == after, "tasks were {before:?}, are {after:?}\n{}", told(&guest));
    let next = property(&guest, "MainPID")?;
    ensure!(daemon != next && next != "0", "the daemon was {daemon}, is {next}");
    Ok(())
}

fn restart(lab: &mut Lab) -> Result<()> {
    while_counting(lab, |guest| systemctl(guest, &["restart", "skein"])?.ok().map(drop))
}

fn crash(lab: &mut Lab) -> Result<()> {
    while_counting(lab, |guest| {
        systemctl(guest, &["kill", "--kill-whom=main", "-s", "KILL", "skein"])?.ok()?;
        wait_for(CONVERGE_MAX, "systemd to start it again", || {
            let (restarts, state) =
                (property(guest, "NRestarts")?, property(guest, "ActiveState")?);
            ensure!(restarts == "1" && state == "active", "{restarts} restarts, {state}");
            Ok(())
        })
    })
}

/// What the daemon said on the way down is read off the disk: nobody is left to be asked.
fn machine_stops(lab: &mut Lab) -> Result<()> {
    let guest = guest(lab, 0)?;
    let script = "d=/etc/systemd/system/skein.service.d && mkdir -p $d && \
        printf '[Service]\\nStandardError=append:/var/lib/skein/said\\n' >$d/said.conf && \
        systemctl daemon-reload && systemctl restart skein";
    guest.monitor.run(SYSTEMCTL_SECONDS, &["sh", "-c", script])?.ok()?;
    guest.monitor.run(SYSTEMCTL_SECONDS, &["systemctl", "restart", "skein"])?.ok()?;
    // It may be down before the program's end can be told.
    let _ = guest.monitor.run(SYSTEMCTL_SECONDS, &["systemctl", "poweroff"])?;
    wait_for(POWEROFF_MAX, "the guest to switch off", || {
        ensure!(guest.monitor.pid().is_none(), "it runs\n{}", guest.monitor.console_tail());
        Ok(())
    })?;
    let console = guest.monitor.console_tail();
    ensure!(!console.contains(SHUTDOWN_WAITS), "a task held up the machine's end: {console}");
    let disk = guest.monitor.guest.data_disk();
    let said = run(60, &["debugfs", "-R", "cat said", &disk.to_string_lossy()])?.ok()?;
    let endings: Vec<_> = said.lines().filter(|line| line.contains(" stopping")).collect();
    ensure!(endings.len() == 2, "{said}");
    ensure!(endings[0].contains("tasks go on"), "a restart: {said}");
    ensure!(endings[1].contains("with the machine"), "a machine that stops: {said}");
    Ok(())
}

fn stop_and_start(lab: &mut Lab) -> Result<()> {
    while_counting(lab, |guest| {
        systemctl(guest, &["stop", "skein"])?.ok()?;
        let state = property(guest, "ActiveState")?;
        ensure!(state == "inactive", "it is {state} after a stop");
        systemctl(guest, &["start", "skein"])?.ok().map(drop)
    })
}
