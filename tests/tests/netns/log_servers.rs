//! The log drivers that send lines elsewhere.

use std::os::unix::net::UnixDatagram;

use anyhow::{Context as _, Result, ensure};
use lab::Lab;
use lab::cluster::CONVERGE_MAX;
use lab::scenario::Check;
use lab::scenario::services::remove_services;

use crate::stage::Stage;

const CHECKS: &[Check] = &[
    ("lines go to a syslog server, and service logs answers", lines_are_sent),
    ("a server that is away holds up no task", a_server_is_away),
    ("what is not honoured is refused by name", unknown_options_are_refused),
];

/// Goal: `syslog` and `journald` mean here what they mean in Docker. Method: docker's client makes
/// services, a socket of the test's own is the server.
#[test]
fn tasks_log_to_servers() {
    Stage::cluster("log-servers", 1, 1).check(CHECKS);
}

fn lines_are_sent(lab: &mut Lab) -> Result<()> {
    let path = lab.nodes[0].folder()?.join("syslog");
    let server = UnixDatagram::bind(&path)?;
    server.set_read_timeout(Some(CONVERGE_MAX))?;
    let address = format!("syslog-address=unixgram://{}", path.display());
    let flags = [
        "--name",
        "talker",
        "--log-driver",
        "syslog",
        "--log-opt",
        &address,
        "--log-opt",
        "syslog-facility=local0",
        "--log-opt",
        "syslog-format=rfc3164",
        "--log-opt",
        "tag={{.DaemonName}}/{{.Name}}",
        "--stop-grace-period",
        "1s",
        "host",
    ];
    lab.create_service(0, &[flags.as_slice(), &["sh", "-c", "echo hello; sleep 1d"]].concat())?;
    let task = lab.wait_running(0, "talker", 1)?.swap_remove(0);
    let mut message = [0; 1024];
    let count = server.recv(&mut message).context("no message came")?;
    let message = String::from_utf8_lossy(&message[..count]).into_owned();
    // Facility 16, severity 6; time and host are the node's.
    let tag = format!(" skein/talker.1.{}[", task.id);
    let told = message.starts_with("<134>") && message.contains(&tag);
    ensure!(told && message.ends_with("]: hello\n"), "{message:?}");
    wait_logged(lab, "talker", "hello")?;
    remove_services(lab, &["talker"])
}

fn wait_logged(lab: &Lab, service: &str, line: &str) -> Result<()> {
    lab.wait_for(CONVERGE_MAX, "the line in the service's logs", || {
        let lines = lab.nodes[0].docker(&["service", "logs", "--raw", service])?.ok()?;
        ensure!(lines.lines().any(|other| other == line), "{lines:?}");
        Ok(())
    })
}

fn a_server_is_away(lab: &mut Lab) -> Result<()> {
    // Nobody listens on the first, no host has the second, and no journal runs in a lab.
    let nobody = "syslog-address=tcp://127.0.0.1:9";
    let nowhere = "syslog-address=tcp://203.0.113.1:514";
    for (name, driver, option) in [
        ("refused", "syslog", nobody),
        ("silent", "syslog", nowhere),
        ("journal", "journald", "labels=com.docker.swarm.service.name"),
    ] {
        let flags = ["--name", name, "--log-driver", driver, "--log-opt", option];
        let flags = [flags.as_slice(), &["--stop-grace-period", "1s", "host"]].concat();
        // More than the queue holds.
        let line = "i=0; while [ $i -lt 20000 ]; do printf '%0100d\\n' $i; i=$((i+1)); done; \
                    echo done; sleep 1d";
        lab.create_service(0, &[flags.as_slice(), &["sh", "-c", line]].concat())?;
        lab.wait_running(0, name, 1)?;
        wait_logged(lab, name, "done")?;
        remove_services(lab, &[name])?;
    }
    Ok(())
}

fn unknown_options_are_refused(lab: &mut Lab) -> Result<()> {
    for (driver, option) in [
        ("syslog", "syslog-tls-ca-cert=/ca.pem"),
        ("syslog", "syslog-address=tcp+tls://192.0.2.1:6514"),
        ("syslog", "max-buffer-size=1m"),
        ("journald", "env-regex=^A"),
        ("journald", "tag={{.Service.Name}}"),
    ] {
        let flags = ["service", "create", "--detach", "--name", "x", "--log-driver", driver];
        let line = [flags.as_slice(), &["--log-opt", option, "host", "true"]].concat();
        let refused = lab.nodes[0].docker(&line)?;
        let name = option.split('=').next().unwrap_or(option);
        ensure!(refused.status != 0 && refused.stderr.contains(name), "{refused}");
    }
    Ok(())
}
