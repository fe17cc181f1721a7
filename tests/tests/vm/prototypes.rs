//! Prototypes of the IPVS data path: they show that the kernel does what the balancer relies on.
//! They are shell scripts, so that a kernel can also be tested by hand with `skein-vm test`.

use anyhow::{Result, ensure};
use lab::command::run;
use lab::vm::kernel::Kernel;
use lab::{checkout, program};

use crate::stage::{must, turn};

/// A boot, and the sketch's own time-outs where it fails, on an emulated machine.
const SECONDS_MAX: u32 = 300;

/// Goal: what the balancer leans on is there on kernel 6.1. Method: the sketches, by IPVS.
#[test]
fn sketches_pass_on_debian_12() {
    let _turn = turn();
    must(pass(Kernel::Debian61, "ipvs"));
}

fn pass(kernel: Kernel, balancer: &str) -> Result<()> {
    let folder = checkout().join("deploy/vm/prototypes");
    let runner = program("skein-vm")?;
    for sketch in ["dsr-vip.sh", "dsr-ingress.sh"] {
        let (kind, env) = (kernel.to_string(), format!("LB={balancer}"));
        let file = folder.join(sketch);
        let (runner, file) = (runner.to_string_lossy(), file.to_string_lossy());
        let line = [&runner, "test", "--guest", &kind, "--env", &env, "--", &file];
        let told = run(SECONDS_MAX, &line)?.ok()?;
        ensure!(told.lines().last() == Some("PASS"), "{sketch} by {balancer}: {told}");
    }
    Ok(())
}
