//! Two real daemons with very many endpoints: the work for one change stays small, and a daemon
//! that is late reports it.

use std::time::Duration;

use anyhow::{Result, ensure};
use lab::sweep_dead;
use lab::wait::{Pace, wait_for};
use tests::bench::rows::Stage;

use crate::divergence::metric;
use crate::stage::turn;

const ROWS: usize = 10_000;
/// Measured on two cores: 2 s with a release build.
const FILL_MAX: Duration = Duration::from_secs(90);
const CHANGES: usize = 10;
/// From a change to both kernels; measured: 0.05 s with a release build.
const CHANGE_MAX: Duration = Duration::from_secs(5);
/// Longer than a change may take before it is told.
const PAUSE: Duration = Duration::from_secs(7);
const SOON: Duration = Duration::from_secs(30);
/// The daemon that is stopped.
const LATE: usize = 1;

/// Goal: with 10,000 endpoints on other nodes a change is in the kernels soon, nothing is late, and
/// a daemon that gets no time tells from when on the change had been there. Method: a member that
/// says that they run on it; SIGSTOP.
#[test]
fn many_endpoints_are_programmed_and_a_late_daemon_says_so() {
    let _turn = turn();
    run().unwrap_or_else(|error| panic!("{error:#}"));
}

fn run() -> Result<()> {
    sweep_dead()?;
    let mut stage = Stage::new("rows", ROWS)?;
    stage.fill(FILL_MAX)?;
    for _ in 0..CHANGES {
        stage.change(CHANGE_MAX)?;
    }
    for daemon in [0, LATE] {
        let took = metric(&stage.lab, daemon, "skein_change_last_milliseconds")?;
        ensure!(u128::from(took) < CHANGE_MAX.as_millis(), "daemon {daemon} took {took} ms");
    }
    stage.lab.nodes[LATE].pause(true)?;
    stage.say()?;
    Pace::new(PAUSE).wait();
    stage.lab.nodes[LATE].pause(false)?;
    wait_for(SOON, "the daemon to say that it is late", || {
        let said = format!("{:?}", stage.lab.nodes[LATE].skein(&["doctor"])?);
        ensure!(
            said.contains("a change was programmed") && said.contains("after it came"),
            "{said}"
        );
        Ok(())
    })
}
