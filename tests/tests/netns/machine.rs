//! Missing requirements of a machine are reported before anything is built, in one line with the
//! remedy.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use lab::checkout;
use lab::command::{Output, run};
use lab::kinds::folder_of;

use crate::stage::turn;

const SECONDS: u32 = 60;
/// Of a disk that a build does not fit on.
const SMALL_DISK: &str = "size=1m";

/// Runs a script of `deploy/lab` in the checkout, behind `words` that change what it may do.
fn script(words: &[&str], name: &str, more: &[&str]) -> Result<Output> {
    let path = checkout().join("deploy/lab").join(name).to_string_lossy().into_owned();
    run(SECONDS, &[words, &[path.as_str()], more].concat())
}

/// A script's refusal: one line that has all of `wanted`.
fn refuses(output: &Output, wanted: &[&str]) -> Result<()> {
    ensure!(output.status == 1, "{output}");
    // It also prints its steps.
    let lines = output.stderr.lines().filter(|line| !line.starts_with("== "));
    let lines: Vec<&str> = lines.collect();
    ensure!(lines.len() == 1, "not one line: {output}");
    let lacks = wanted.iter().find(|word| !lines[0].contains(*word));
    ensure!(lacks.is_none(), "{lacks:?} is not in {lines:?}");
    Ok(())
}

/// A PATH whose first folder has a program of this name that is a shell's script.
fn replaced(folder: &Path, program: &str, script: &str) -> Result<String> {
    let path = folder.join(program);
    fs::write(&path, format!("#!/bin/sh\n{script}\n"))?;
    fs::set_permissions(&path, PermissionsExt::from_mode(0o755))?;
    let own = std::env::var_os("PATH").context("no PATH")?;
    Ok(format!("PATH={}:{}", folder.display(), own.to_string_lossy()))
}

/// `ip` that cannot make links of one type, as on a kernel without them.
fn without_links(folder: &Path, kind: &str) -> Result<String> {
    let real = run(SECONDS, &["sh", "-c", "PATH=$PATH:/usr/sbin:/sbin command -v ip"])?.ok()?;
    let script = format!(
        "case \" $* \" in *\" type {kind} \"*) echo 'Unknown device type' >&2; exit 2 ;; esac\n\
         exec {real} \"$@\""
    );
    replaced(folder, "ip", &script)
}

/// Goal: a user who cannot run the demo learns why and what to do. Method: the scripts of its first
/// steps, with what they need taken away.
#[test]
fn what_a_machine_lacks_is_said_in_one_line() {
    let _turn = turn();
    let told = [rights, kernel, room, demo_up].map(|check| check());
    for result in told {
        result.unwrap_or_else(|error| panic!("{error:#}"));
    }
}

fn rights() -> Result<()> {
    // Nobody else may be able to enter the checkout: it is the script's question that is answered.
    let folder = tempfile::tempdir()?;
    let path = replaced(folder.path(), "id", "echo 65534")?;
    refuses(&script(&["env", &path], "setup.sh", &[])?, &["need root", "sudo"])?;
    let unprivileged = ["setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"];
    let wanted = ["no network and mount namespaces", "--privileged", "Operation not permitted"];
    refuses(&script(&unprivileged, "setup.sh", &[])?, &wanted)
}

fn kernel() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let refusal = "echo 'Error: Could not process rule' >&2; exit 1";
    let path = replaced(folder.path(), "nft", refusal)?;
    let wanted = ["no nftables", "modprobe nf_tables", "Could not process rule"];
    refuses(&script(&["env", &path], "setup.sh", &[])?, &wanted)?;
    for (kind, option) in [("vxlan", "CONFIG_VXLAN"), ("bridge", "CONFIG_BRIDGE")] {
        let folder = tempfile::tempdir()?;
        let path = without_links(folder.path(), kind)?;
        let wanted = [option, "modprobe", "Unknown device type"];
        refuses(&script(&["env", &path], "setup.sh", &[])?, &wanted)?;
    }
    Ok(())
}

fn room() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let disk = folder.path().to_string_lossy().into_owned();
    run(SECONDS, &["mount", "-t", "tmpfs", "-o", SMALL_DISK, "none", &disk])?.ok()?;
    let target = format!("CARGO_TARGET_DIR={disk}/target");
    let said = script(&["env", &target], "demo.sh", &["up"]);
    run(SECONDS, &["umount", &disk])?.ok()?;
    refuses(&said?, &["the build needs", "MiB are free", "CARGO_TARGET_DIR", &disk])
}

fn demo_up() -> Result<()> {
    let folder = folder_of("skein-demo");
    ensure!(!folder.exists(), "the demo is up: make demo-down first");
    fs::create_dir_all(&folder)?;
    let said = [script(&[], "demo.sh", &["up"]), script(&[], "tiers.sh", &["tidy"])];
    fs::remove_dir(&folder)?;
    for output in said {
        refuses(&output?, &["up", "make demo-down", "skein-demo"])?;
    }
    Ok(())
}
