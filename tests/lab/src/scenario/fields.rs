//! Fields of a service's spec, as far as their effect shows in its tasks.

use anyhow::{Result, ensure};

use super::Scenario;
use super::services::{NETWORK, make_network, probe, serve};
use crate::Lab;
use crate::cluster::CONVERGE_MAX;

/// Goal: what the API honours takes effect in a task. Method: real clients set it, and programs of
/// the task tell.
pub const SCENARIO: Scenario = Scenario {
    name: "fields",
    nodes: 1,
    managers: 1,
    checks: &[
        ("a network is made", make_network),
        ("templates are written out for each task", templates),
        ("a log has the size that its service requests, or is not stored", logs),
        ("a task's own resolvers, which may be tasks, are asked for other names", own_resolvers),
    ],
};

fn templates(lab: &mut Lab) -> Result<()> {
    let flags = [
        "--replicas",
        "2",
        "--label",
        "tier=front",
        "--hostname",
        "{{.Service.Name}}-{{.Task.Slot}}",
        "--env",
        "WHERE={{.Node.Hostname}}/{{index .Service.Labels \"tier\"}}",
    ];
    for task in serve(lab, "named", &flags, &[&probe(lab)?, "serve", "9"], 2)? {
        let line = "hostname; tr '\\0' '\\n' < /proc/1/environ | grep ^WHERE=";
        let told = lab.in_task(&task, &["sh", "-c", line])?.ok()?;
        let expected = format!("named-{}\nWHERE={}/front", task.slot, lab.nodes[0].name);
        ensure!(told.trim() == expected, "{told:?} is not {expected:?}");
    }
    Ok(())
}

fn logs(lab: &mut Lab) -> Result<()> {
    // Two files hold less: each is above its size by less than one batch of 64 KiB.
    let line = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; sleep 1d";
    let program = ["sh", "-c", line];
    let limits = ["--log-driver", "local", "--log-opt", "max-size=4k", "--log-opt", "max-file=2"];
    serve(lab, "short", &limits, &program, 1)?;
    lab.wait_for(CONVERGE_MAX, "the last line, without the first", || {
        let lines = lab.nodes[0].docker(&["service", "logs", "--raw", "short"])?.ok()?;
        ensure!(lines.lines().last() == Some("line 19999"), "{:?}", lines.lines().last());
        ensure!(!lines.contains("line 0\n"), "{} lines", lines.lines().count());
        Ok(())
    })?;
    serve(lab, "mute", &["--log-driver", "none"], &program, 1)?;
    let refused = lab.nodes[0].docker(&["service", "logs", "mute"])?;
    let words = "configured logging driver does not support reading";
    ensure!(refused.status != 0 && refused.stderr.contains(words), "{refused}");
    Ok(())
}

fn own_resolvers(lab: &mut Lab) -> Result<()> {
    let probe = probe(lab)?;
    // It knows one name, and nobody outside the network can reach it.
    let server =
        serve(lab, "names", &[], &[&probe, "names", "0.0.0.0:53"], 1)?[0].address(NETWORK)?;
    let server = server.to_string();
    let flags = ["--dns", &server, "--dns-search", "own.example", "--dns-option", "timeout:2"];
    let asker = &serve(lab, "asker", &flags, &[&probe, "serve", "9"], 1)?[0];
    let file = lab.in_task(asker, &["cat", "/etc/resolv.conf"])?.ok()?;
    let expected = "nameserver 127.0.0.11\nsearch own.example\noptions timeout:2 ndots:0";
    ensure!(file.trim() == expected, "{file:?}");
    lab.wait_for(CONVERGE_MAX, "the task's own resolver", || {
        for over in ["+notcp", "+tcp"] {
            let line = ["dig", "+short", "+tries=1", "+time=3", over, "www.example"];
            let told = lab.in_task(asker, &line)?.ok()?;
            ensure!(told.trim() == "203.0.113.9", "{over}: {told:?}");
        }
        Ok(())
    })?;
    // The host's resolver, whom others ask, is silent.
    let other = &lab.running(0, "names")?[0];
    let told = lab.in_task(other, &["dig", "+tries=1", "+time=10", "www.example"])?.ok()?;
    ensure!(told.contains("status: SERVFAIL"), "{told}");
    Ok(())
}
