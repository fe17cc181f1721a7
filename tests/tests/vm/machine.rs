//! A guest by itself: its kernel, programs in it, its disk through a loss of power, its reboot.

use anyhow::{Result, ensure};
use lab::command::{run, run_with_input};
use lab::process;
use lab::topology::Machine as _;
use lab::vm::kernel::Kernel;

use crate::stage::{guest, lab, must, turn};

/// Goal: user-mode Linux is a machine of its own. Method: one guest, from outside.
#[test]
fn a_guest_of_user_mode_linux_is_a_machine() {
    let _turn = turn();
    must(is_a_machine(Kernel::Uml, "7."));
}

/// Goal: so is Debian 12's kernel in QEMU. Method: the same.
#[test]
fn a_guest_of_debian_12_is_a_machine() {
    let _turn = turn();
    must(is_a_machine(Kernel::Debian61, "6.1."));
}

fn is_a_machine(kernel: Kernel, version: &str) -> Result<()> {
    let lab = lab("machine", kernel, 1)?;
    let guest = guest(&lab, 0)?;
    let told = guest.ask(&["uname", "-r"])?;
    ensure!(told.starts_with(version), "the kernel is {told}, not {version}");
    programs_run(&guest)?;
    has_what_a_node_needs(&guest)?;
    disk_survives(&guest)?;
    clock_is_its_own(&guest)?;
    let folder = lab.folder().to_owned();
    drop(lab);
    let left = process::of_folder(&folder);
    ensure!(left.is_empty() && !folder.exists(), "{left:?} of {} stay", folder.display());
    Ok(())
}

fn programs_run(guest: &lab::vm::machine::VirtualMachine) -> Result<()> {
    let line = guest.line(&["sh", "-c", "cat; echo to-stderr >&2; exit 7"]);
    let output = run_with_input(30, &line, "words in")?;
    ensure!(output.status == 7 && output.stdout == "words in", "{output}");
    ensure!(output.stderr.contains("to-stderr"), "{output}");
    let missing = run(30, &guest.line(&["skein-no-such-program"]))?;
    ensure!(missing.status == 255 && missing.stderr.contains("refused"), "{missing}");
    // A caller that is ended takes its program along.
    let output = run(2, &guest.line(&["sh", "-c", "echo $$ >/tmp/pid; exec tail -f /dev/null"]))?;
    ensure!(output.status == 124, "the time limit did not end it: {output}");
    let gone = "for i in $(seq 100); do [ -e /proc/$(cat /tmp/pid) ] || exit 0; sleep 0.1; done; \
        exit 1";
    guest.ask(&["sh", "-c", gone])?;
    Ok(())
}

fn has_what_a_node_needs(guest: &lab::vm::machine::VirtualMachine) -> Result<()> {
    let controllers = guest.ask(&["cat", "/sys/fs/cgroup/cgroup.subtree_control"])?;
    for name in ["memory", "cpu", "pids"] {
        ensure!(controllers.contains(name), "no {name} among {controllers}");
    }
    let table = guest.ask(&["ipvsadm", "-Ln"])?;
    ensure!(table.contains("IP Virtual Server"), "{table}");
    let script = "ip link add vx0 type vxlan id 9 dstport 4789 && ip link del vx0 && \
        nft add table bridge t && nft delete table bridge t && \
        ip link add wg0 type wireguard && ip link del wg0 && ip netns add x && ip netns del x";
    guest.ask(&["sh", "-c", script])?;
    let skein = guest.program("skein")?;
    ensure!(guest.ask(&[&skein, "--version"])?.contains("skein"), "no skein");
    Ok(())
}

fn disk_survives(guest: &lab::vm::machine::VirtualMachine) -> Result<()> {
    let file = "/var/lib/skein/word";
    guest.ask(&["sh", "-c", &format!("echo kept >{file} && sync {file}")])?;
    let first = guest.monitor.boot_id()?;
    guest.monitor.kill()?;
    ensure!(guest.monitor.pid().is_none(), "it is on after its monitor was killed");
    guest.monitor.start()?;
    let second = guest.monitor.wait_boot()?;
    ensure!(first != second, "the same boot after a loss of power");
    ensure!(guest.ask(&["cat", file])? == "kept", "the file is another one");
    let third = guest.monitor.reboot()?;
    ensure!(third != second, "the same boot after a reboot");
    ensure!(guest.ask(&["cat", file])? == "kept", "the file is another one");
    Ok(())
}

fn clock_is_its_own(guest: &lab::vm::machine::VirtualMachine) -> Result<()> {
    let time = |words: &[&str]| -> Result<i64> { Ok(run(20, words)?.ok()?.parse()?) };
    guest.move_clock(3600)?;
    let ahead = guest.ask(&["date", "+%s"])?.parse::<i64>()? - time(&["date", "+%s"])?;
    ensure!((3500..3700).contains(&ahead), "the guest's clock is {ahead} s ahead");
    guest.monitor.shut_down()?;
    ensure!(guest.monitor.pid().is_none(), "it is on after it was shut down");
    Ok(())
}
