//! Keeps this node's certificate good, and of the CA that the managers name: asks them for a new
//! one of the same key at a random point of its life, so that nodes that joined together do not
//! all ask together, and again until one was given. Connections that are open keep the old one; new
//! ones show the new one.

use std::sync::Arc;
use std::time::Duration;

use cluster::object::Trust;
use cluster::spec::Role;
use time::OffsetDateTime;
use tokio::sync::watch;

use crate::causes::chain;
use crate::clock;
use crate::key_file::KeyFile;
use crate::manager::Manager;
use crate::member::office::Office;
use crate::pki::{self, Credentials, Lifetime, Tls};
use crate::telemetry::Seldom;
use crate::wire::{RenewAnswer, RenewCall};
use crate::worker::shell::WorkerHandle;

/// How often is looked whether it is time: wall clocks jump, and nothing rings when one does.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// The part of a certificate's life, in percent, in which it is renewed, as swarmkit's.
const DUE_PERCENT: std::ops::RangeInclusive<u64> = 50..=80;

/// How long after a node was told whom to trust it gets a certificate that fits, at most: all are
/// told at once, and one leader signs for them.
const MOVE_SPREAD: Duration = Duration::from_secs(5);

/// What it takes to renew.
pub struct Renewal {
    /// Where certificate and key are kept.
    pub file: Arc<KeyFile>,
    /// What shows the certificate.
    pub tls: Tls,
    /// Whose session with the leader is used.
    pub worker: WorkerHandle,
    /// This node's manager, while it is one.
    pub office: watch::Receiver<Option<Office>>,
    /// The certificate in use.
    pub credentials: Credentials,
    /// Where its last second is told, since the Unix epoch.
    pub end: watch::Sender<u64>,
}

impl Renewal {
    /// Runs for ever.
    pub async fn run(mut self) {
        let mut complaints = Seldom::default();
        let mut percent = draw();
        let mut told = self.worker.told.clone();
        let mut moves = Moves::default();
        loop {
            told.borrow_and_update();
            let moves_in = moves.due_in(self.wanted_trust(), clock::monotonic());
            let fits = self.has_its_role() && moves_in != Some(Duration::ZERO);
            let lifetime = self.lifetime();
            if let Ok(lifetime) = &lifetime {
                self.end.send_replace(lifetime.end);
            }
            match lifetime {
                Ok(lifetime) if fits && pki::now() < due(lifetime, percent) => {}
                Ok(lifetime) => match self.renew().await {
                    Ok(end) => {
                        tracing::info!(%end, "the node's certificate is renewed");
                        percent = draw();
                    }
                    Err(reason) => {
                        if let Some(more) = complaints.say() {
                            let left = lifetime.end.saturating_sub(pki::now());
                            tracing::warn!(reason, left_s = left, more, "renew the certificate");
                        }
                    }
                },
                Err(error) => {
                    // Its own certificate was read when it started.
                    tracing::error!(error = %chain(&error), "read the node's own certificate");
                    return;
                }
            }
            // What is new may be a role, or a CA. The sender has ended with the member.
            let moves_in = moves_in.filter(|left| !left.is_zero()).unwrap_or(LOOK_INTERVAL);
            let _ = tokio::time::timeout(LOOK_INTERVAL.min(moves_in), told.changed()).await;
        }
    }

    /// Whether the certificate names the role that the managers told; yes until they have.
    fn has_its_role(&self) -> bool {
        let told = self.worker.told.borrow().as_ref().map(|assignment| assignment.is_of_manager());
        let Some(manager) = told else { return true };
        let role = if manager { Role::Manager } else { Role::Worker };
        let der = pki::certificate_der(&self.credentials.certificate);
        der.and_then(|der| pki::identity_of(&der)).is_ok_and(|owner| owner.role == role)
    }

    /// Whom the managers told it to trust, if it is somebody else than it does.
    fn wanted_trust(&self) -> Option<Trust> {
        let told = self.worker.told.borrow().as_ref().and_then(|told| told.trust.clone())?;
        let own = pki::trust_of(&self.credentials).ok();
        (own.as_ref() != Some(&told)).then_some(told)
    }

    fn lifetime(&self) -> Result<Lifetime, pki::PkiError> {
        pki::lifetime_of(&pki::certificate_der(&self.credentials.certificate)?)
    }

    /// Gives when the new one ends. It is on disk before it is shown.
    async fn renew(&mut self) -> Result<OffsetDateTime, String> {
        let request = pki::request_for(&self.credentials.key).map_err(|e| chain(&e))?;
        let call = RenewCall { request };
        let manager = self.office.borrow().as_ref().map(|office| office.manager.clone());
        let answer = match manager.filter(Manager::leads) {
            // A leader signs for itself: it may have been off for so long that it would not let
            // itself in.
            Some(manager) => {
                let key = pki::key_of_request(&call.request).map_err(|e| chain(&e))?;
                manager.renew(manager.node, key, &call).await.map_err(|r| r.message)?
            }
            None => {
                let answer: Option<RenewAnswer> = self.worker.renew(&call).await;
                answer.ok_or("no manager could be asked, or none signs for this node")?
            }
        };
        let known = &self.credentials;
        let ca = answer.ca.unwrap_or_else(|| known.ca.clone());
        let fresh = Credentials { ca, certificate: answer.certificate, key: known.key.clone() };
        let trust = pki::trust_of(&fresh).map_err(|e| chain(&e))?;
        self.file.write(&fresh).map_err(|e| chain(&e))?;
        self.tls.replace(&fresh).map_err(|e| chain(&e))?;
        self.credentials = fresh;
        self.worker.trusts(trust).await;
        let end = self.lifetime().map_err(|e| chain(&e))?.end;
        let end = OffsetDateTime::from_unix_timestamp(i64::try_from(end).unwrap_or(i64::MAX));
        end.map_err(|e| e.to_string())
    }
}

/// When this node moves to the CAs that the managers named, drawn once for each telling.
#[derive(Default)]
struct Moves(Option<(Trust, Duration)>);

impl Moves {
    /// How long until it is to ask for a certificate that fits what it was told; none if it has
    /// one.
    fn due_in(&mut self, told: Option<Trust>, now: Duration) -> Option<Duration> {
        let told = told.or_else(|| {
            self.0 = None;
            None
        })?;
        let at = match &self.0 {
            Some((known, at)) if *known == told => *at,
            _other => now + rand::random_range(Duration::ZERO..=MOVE_SPREAD),
        };
        self.0 = Some((told, at));
        Some(at.saturating_sub(now))
    }
}

fn draw() -> u64 {
    rand::random_range(DUE_PERCENT)
}

/// When a certificate is to be renewed, at this part of its life. The hour before it was signed is
/// not of its life.
fn due(lifetime: Lifetime, percent: u64) -> u64 {
    let signed = lifetime.begin + pki::BACKDATE_SECONDS;
    signed + lifetime.end.saturating_sub(signed) * percent / 100
}

#[test]
fn a_certificate_is_due_in_the_middle_of_its_life() {
    let hour = 60 * 60;
    let lifetime = Lifetime { begin: 1_000_000, end: 1_000_000 + hour + 100 * hour };
    let signed = 1_000_000 + hour;
    assert_eq!(due(lifetime, 50), signed + 50 * hour);
    assert_eq!(due(lifetime, 80), signed + 80 * hour);
    // One that was good for less than it was back-dated is due when it is signed.
    let short = Lifetime { begin: 1_000_000, end: 1_000_001 };
    assert_eq!(due(short, 50), signed);
    for _ in 0..100 {
        assert!(DUE_PERCENT.contains(&draw()));
    }
}

#[test]
fn a_node_moves_once_it_is_told_and_not_all_at_once() {
    let trust = |ca: u8| {
        let issuer = cluster::object::CaDigest([ca; 32]);
        Some(Trust { issuer, roots: vec![issuer] })
    };
    let (mut moves, start) = (Moves::default(), Duration::from_secs(100));
    assert_eq!(moves.due_in(None, start), None);
    let first = moves.due_in(trust(1), start).unwrap();
    assert!(first <= MOVE_SPREAD);
    assert_eq!(moves.due_in(trust(1), start), Some(first), "drawn once");
    assert_eq!(moves.due_in(trust(1), start + MOVE_SPREAD), Some(Duration::ZERO));
    let drawn = (0..100).filter_map(|ca| moves.due_in(trust(ca), start));
    assert!(drawn.collect::<std::collections::BTreeSet<_>>().len() > 1, "spread");
    assert_eq!(moves.due_in(None, start), None, "it has moved");
}
