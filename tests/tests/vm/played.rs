//! Scenarios for every kind of lab, on guests: each node detects that its kernel can balance with
//! IPVS. User-mode Linux, which is fast, runs those that need IPVS or a separate kernel; Debian
//! 12's kernel, which is emulated, runs published ports. VIPs are in `cluster.rs`, on both, and
//! daemons that restart while their tasks run in `systemd.rs`. `skein-lab play` runs the others.
//! The restart scenario needs faster machines: a killed daemon has to be back within its node's
//! lease of 2.5 s, which three guests that count and ping on two processors do not always achieve.

use anyhow::{Context as _, Result, ensure};
use lab::Lab;
use lab::cluster::CONVERGE_MAX;
use lab::scenario::{Scenario, check, cold_restart, ingress, node_loss, rollout};
use lab::vm::kernel::Kernel;

use crate::stage::{lab, must, turn};

const GUESTS_PER_SECOND: u32 = 60;

fn play(kernel: Kernel, scenario: &Scenario) {
    let _turn = turn();
    let mut lab = must(lab(scenario.name, kernel, scenario.nodes));
    must(scenario.play(&mut lab));
    must(check(&mut lab, &[("the balancer is IPVS on every node", balances_by_ipvs)]));
}

/// Run while services are there: their VIPs and published ports are firewall marks whose real
/// servers are reached by direct routing, and no table of nftables chooses a backend.
pub(crate) fn balances_by_ipvs(lab: &mut Lab) -> Result<()> {
    for node in &lab.nodes {
        let log = node.log();
        ensure!(log.contains("balancer=\"ipvs\""), "{} chose another: {log}", node.name);
        let script = "for n in /run/skein/netns/fabric-*; do nsenter --net=$n ipvsadm -Ln; done";
        let table = node.run(60, &["sh", "-c", script])?.ok()?;
        let direct = table.lines().filter(|line| line.contains(" Route ")).count();
        ensure!(table.contains("FWM ") && direct > 0, "{}: {table}", node.name);
        ensure!(!table.contains(" Masq "), "{} rewrites addresses: {table}", node.name);
    }
    Ok(())
}

#[test]
fn ingress_answers_on_every_node() {
    play(Kernel::Uml, &ingress::SCENARIO);
}

#[test]
fn node_loss_is_made_good() {
    play(Kernel::Uml, &node_loss::SCENARIO);
}

/// Three managers lose their power at once: their logs survive.
#[test]
fn cold_restart_finds_what_was_agreed() {
    play(Kernel::Uml, &cold_restart::SCENARIO);
}

/// As on namespaces, at a rate that guests on two processors stand.
#[test]
fn no_request_fails_while_a_service_changes() {
    let _turn = turn();
    let mut lab = must(lab("rollout", Kernel::Uml, 3));
    must(lab.make_cluster(1));
    must(rollout::prepare(&mut lab));
    must(balances_by_ipvs(&mut lab));
    for step in rollout::Step::ALL {
        let counts = must(rollout::run(&mut lab, step, GUESTS_PER_SECOND));
        assert!(counts.sent > 0, "{step:?}: nothing was asked");
    }
    must(check(&mut lab, &[("limits hold on cgroup v2 alone", limits_hold)]));
}

/// Memory kills and is told as 137, processes beyond the limit are not made, and the CPU's quota is
/// what the spec says.
fn limits_hold(lab: &mut Lab) -> Result<()> {
    let mounted = lab.nodes[0].run(20, &["grep", "-c", " cgroup ", "/proc/mounts"])?;
    ensure!(mounted.stdout.trim() == "0", "there is cgroup v1 too: {mounted}");
    let large = ["perl", "-e", "my $text = 'x' x (300 << 20); print length $text"];
    let many = ["sh", "-c", "for i in $(seq 40); do sleep 100 & done; wait"];
    for (name, flag, line, code) in [
        ("large", ["--limit-memory", "32M"], large, "(137)"),
        ("many", ["--limit-pids", "20"], many, "(2)"),
    ] {
        let words = [&["--name", name, "--restart-condition", "none"], &flag[..], &["host"]];
        lab.create_service(0, &[words.concat(), line.to_vec()].concat())?;
        lab.wait_for(CONVERGE_MAX, &format!("{name} to end"), || {
            let tasks = lab.all_tasks(0, name)?;
            let task = tasks.first().context("no task")?;
            let told = task.state == "failed" && task.message.contains(code);
            ensure!(told, "{} {}", task.state, task.message);
            Ok(())
        })?;
    }
    let words = ["--name", "slow", "--limit-cpu", "0.5", "host", "sleep", "100"];
    lab.create_service(0, &words)?;
    let task = &lab.wait_running(0, "slow", 1)?[0];
    let script = "cat /sys/fs/cgroup$(cut -d: -f3 /proc/$0/cgroup)/cpu.max";
    let quota = lab.nodes[task.node].run(20, &["sh", "-c", script, &task.pid.to_string()])?.ok()?;
    ensure!(quota == "50000 100000", "{quota}");
    Ok(())
}

#[test]
fn ingress_answers_on_debian_12() {
    play(Kernel::Debian61, &ingress::SCENARIO);
}
