//! The sketches of the data path, on kernels that have IPVS: what they prove is what the balancers
//! lean on.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use tests::lab::command::run;
use tests::lab::program;
use tests::vm::kernel::Kernel;

use crate::stage::{must, turn};

/// A boot, and the sketch's own time-outs where it fails, on an emulated machine.
const SECONDS_MAX: u32 = 300;

/// Goal: internal VIPs and ingress by IPVS and by nft work on kernel 6.1. Method: the sketches.
#[test]
fn sketches_pass_on_debian_12() {
    let _turn = turn();
    must(pass(Kernel::Debian61, &["ipvs"]));
}

/// Goal: and on a current kernel. Method: the same.
#[test]
fn sketches_pass_on_user_mode_linux() {
    let _turn = turn();
    must(pass(Kernel::Uml, &["ipvs", "nft"]));
}

fn pass(kernel: Kernel, balancers: &[&str]) -> Result<()> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(PathBuf::from);
    let folder = workspace.context("the workspace")?.join("deploy/vm/prototypes");
    let runner = program("skein-vm")?;
    for sketch in ["dsr-vip.sh", "dsr-ingress.sh"] {
        for balancer in balancers {
            let (kind, env) = (kernel.to_string(), format!("LB={balancer}"));
            let file = folder.join(sketch);
            let (runner, file) = (runner.to_string_lossy(), file.to_string_lossy());
            let line = [&runner, "test", "--guest", &kind, "--env", &env, "--", &file];
            let told = run(SECONDS_MAX, &line)?.ok()?;
            ensure!(told.lines().last() == Some("PASS"), "{sketch} by {balancer}: {told}");
        }
    }
    Ok(())
}
