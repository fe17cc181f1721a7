//! The CA is rotated in the storm, and a removed worker joins again in the meantime.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use cluster::object::{CaDigest, Trust};
use lab::Node;
use lab::cluster::text;
use skein::pki::{self, Credentials};

use super::super::{CANDIDATE, LEAVER, MANAGERS};
use super::Storm;
use crate::adversary::CLUSTER_PORT;
use crate::ca::{credentials, opens_nothing, trust};

/// A rotation, completed or in progress.
pub(super) struct Rotation {
    /// The CA whose place another one takes.
    from: CaDigest,
    /// What the candidate showed under it.
    shown: Credentials,
    /// A worker's token of that time.
    token: String,
    /// As whom the leaver goes.
    left: String,
}

/// Whether a rotation runs, and the CA that tokens are for, as a node tells them.
fn told(node: &Node) -> Result<(bool, CaDigest)> {
    let swarm = node.get("/swarm")?;
    let runs = swarm["RootRotationInProgress"].as_bool().context("no rotation state")?;
    Ok((runs, pki::ca_name(&text(&swarm["TLSInfo"]["TrustRoot"]))?))
}

pub(super) fn rotate(storm: &mut Storm<'_>) -> Result<()> {
    let rotation = match storm.rotating.take() {
        Some(rotation) => rotation,
        None => before(storm)?,
    };
    let over = go_on(storm, &rotation);
    match &over {
        Ok(()) => storm.old_token = Some(rotation.token),
        Err(_not_yet) => storm.rotating = Some(rotation),
    }
    over
}

fn before(storm: &Storm<'_>) -> Result<Rotation> {
    let (runs, from) = told(storm.asked())?;
    ensure!(!runs, "a rotation that nobody waits for runs");
    let token = storm.asked().docker(&["swarm", "join-token", "-q", "worker"])?.ok()?;
    let shown = credentials(&storm.lab.nodes[CANDIDATE])?;
    Ok(Rotation { from, shown, token, left: storm.lab.nodes[LEAVER].cluster_id()? })
}

fn go_on(storm: &mut Storm<'_>, rotation: &Rotation) -> Result<()> {
    storm.put_out(&rotation.left)?;
    let (runs, ca) = told(storm.asked())?;
    if !runs && ca == rotation.from {
        storm.asked().docker(&["swarm", "ca", "--rotate", "--detach"])?.ok()?;
    }
    let was_out = storm.lab.nodes[LEAVER].cluster_id()?.is_empty();
    let ready = storm.take_in();
    let joined = was_out && !storm.lab.nodes[LEAVER].cluster_id()?.is_empty();
    storm.joined_meanwhile += usize::from(joined && told(storm.asked())?.0);
    ready?;
    let now = all_say(storm, rotation.from)?;
    for node in &storm.lab.nodes {
        let trust = trust(node)?;
        ensure!(trust == Trust { issuer: now, roots: vec![now] }, "{}: {trust:?}", node.name);
    }
    let manager = SocketAddr::new(storm.asked().address.into(), CLUSTER_PORT);
    let own = credentials(&storm.lab.nodes[CANDIDATE])?;
    opens_nothing(storm.lab, &rotation.shown, &own, manager)
}

/// The CA that every manager says has taken over.
fn all_say(storm: &Storm<'_>, from: CaDigest) -> Result<CaDigest> {
    let managers = storm.lab.nodes[..MANAGERS].iter();
    let told: Result<Vec<_>> = managers.map(told).collect();
    let told = told?;
    let (_, now) = told[0];
    ensure!(
        told.iter().all(|said| *said == (false, now)) && now != from,
        "{told:?} after {from:?}"
    );
    Ok(now)
}
