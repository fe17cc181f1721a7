//! The profile `vm` of the compose file: services that are virtual machines.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::command::{Output, run};
use lab::containers::{Containers, Restart};
use lab::target_folder;
use lab::vm::images::Images;
use lab::vm::kernel::Kernel;
use lab::wait::wait_for;

use crate::stage::{lab, must, project, turn};

/// Two emulated guests boot side by side, on a machine with other work.
const READY_MAX: Duration = Duration::from_secs(300);
const ASK_SECONDS: u32 = 60;
const SKEIN: &str = "/opt/skein/skein";
/// Two make a cluster; the third of the file would be one more emulated guest.
const SERVICES: [&str; 2] = ["vm1", "vm2"];

/// Goal: a compose service is a node with a kernel of its own. Method: two of them, next to the
/// project's client, make a cluster; one is stopped as compose stops it, and comes back.
#[test]
fn services_of_the_vm_profile_are_a_cluster() {
    let _turn = turn();
    // What the guests boot from is made before they start, as README.md says.
    must(Images::build(Kernel::Debian61));
    let lab = must(lab("vms", 1, Restart::ByHand));
    let project = must(project(&lab));
    must(is_a_cluster(&project).with_context(|| told(&project)));
}

/// All that the guests' daemons said, and the end of their consoles.
fn told(project: &Containers) -> String {
    let mut text = String::new();
    for service in SERVICES {
        let log = compose(project, &["logs", "--no-color", service]);
        let tail = ["exec", "-T", service, "tail", "-n", "40", "/var/lib/skein-vm/console.log"];
        for output in [log, compose(project, &tail)] {
            text += &match output {
                Ok(output) => format!("--- {output}\n"),
                Err(error) => format!("--- {error:#}\n"),
            };
        }
    }
    text
}

/// docker-compose with the variables that the profile wants.
fn compose(project: &Containers, words: &[&str]) -> Result<Output> {
    let cache = lab::vm::cache::Cache::of_user()?;
    let variables = [
        format!("SKEIN_PROGRAMS={}", target_folder()?.display()),
        format!("SKEIN_CACHE={}", cache.folder().display()),
    ];
    project.compose_with(&variables, &[&["--profile", "vm"], words].concat())
}

/// Runs a program in the guest of a service.
fn in_guest(project: &Containers, service: &str, words: &[&str]) -> Result<String> {
    let id = compose(project, &["ps", "-q", service])?.ok()?;
    let line = project.engine().docker_line(&[&["exec", &id, "/vm.sh"], words].concat());
    run(ASK_SECONDS, &line)?.ok()
}

fn wait_daemon(project: &Containers, service: &str) -> Result<()> {
    wait_for(READY_MAX, &format!("the daemon of {service}"), || {
        in_guest(project, service, &[SKEIN, "info"]).map(drop)
    })
}

fn is_a_cluster(project: &Containers) -> Result<()> {
    ensure!(Path::new("/dev/net/tun").exists(), "there is no /dev/net/tun");
    compose(project, &[&["up", "-d"], SERVICES.as_slice()].concat())?.ok()?;
    for service in SERVICES {
        wait_daemon(project, service)?;
    }
    let kernel = in_guest(project, "vm1", &["uname", "-r"])?;
    ensure!(kernel.starts_with("6.1."), "the kernel of vm1 is {kernel}");
    let address = in_guest(project, "vm1", &["cat", "/proc/cmdline"])?;
    let address = address.split("skein.address=").nth(1).context("no address")?;
    let address = address.split('/').next().unwrap_or_default();
    in_guest(project, "vm1", &[SKEIN, "swarm", "init"])?;
    let token = in_guest(project, "vm1", &[SKEIN, "swarm", "join-token", "-q", "worker"])?;
    let manager = format!("{address}:2377");
    in_guest(project, "vm2", &[SKEIN, "swarm", "join", "--token", &token, &manager])?;
    two_are_ready(project)?;
    compose(project, &["stop", "vm2"])?.ok()?;
    compose(project, &["start", "vm2"])?.ok()?;
    wait_daemon(project, "vm2")?;
    two_are_ready(project)
}

fn two_are_ready(project: &Containers) -> Result<()> {
    wait_for(READY_MAX, "two ready nodes", || {
        let listed = in_guest(project, "vm1", &[SKEIN, "node", "ls"])?;
        ensure!(listed.matches("Ready").count() == SERVICES.len(), "{listed}");
        Ok(())
    })
}
