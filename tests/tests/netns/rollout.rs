//! No request fails while backends of a service are added, removed and lost.

use lab::scenario::rollout::{PER_SECOND, Step, prepare, run};

use crate::stage::Stage;

/// Goal: a change of a service loses none of its requests. Method: 600 requests a second, from
/// source ports that are used again every few seconds, during each kind of change.
#[test]
fn no_request_fails_while_a_service_changes() {
    let mut stage = Stage::cluster("rollout", 3, 1);
    stage.check(&[
        ("services start", prepare),
        ("an update that stops first fails no request", |lab| step(lab, Step::UpdateStopFirst)),
        ("an update that starts first fails no request", |lab| step(lab, Step::UpdateStartFirst)),
        ("from 2 tasks to 12 and back no request fails", |lab| step(lab, Step::Scale)),
        ("a drained node fails no request", |lab| step(lab, Step::Drain)),
        ("a lost node fails none but those that it had", |lab| step(lab, Step::Loss)),
    ]);
}

fn step(lab: &mut lab::Lab, step: Step) -> anyhow::Result<()> {
    let counts = run(lab, step, PER_SECOND)?;
    anyhow::ensure!(counts.sent > 0, "nothing was asked");
    Ok(())
}
