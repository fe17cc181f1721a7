//! Keeps this node's certificate good: asks the managers for a new one of the same key at a random
//! point of its life, so that nodes that joined together do not all ask together, and again until
//! one was given. Connections that are open keep the old one; new ones show the new one.

use std::sync::Arc;
use std::time::Duration;

use cluster::spec::Role;
use time::OffsetDateTime;
use tokio::sync::watch;

use crate::clock;
use crate::daemon::chain;
use crate::key_file::KeyFile;
use crate::manager::Manager;
use crate::member::Office;
use crate::pki::{self, Credentials, Lifetime, Tls};
use crate::telemetry::Seldom;
use crate::wire::{RenewAnswer, RenewCall};
use crate::worker::shell::WorkerHandle;

/// How often is looked whether it is time: wall clocks jump, and nothing rings when one does.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// The part of a certificate's life, in percent, in which it is renewed, as swarmkit's.
const DUE_PERCENT: std::ops::RangeInclusive<u64> = 50..=80;

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
        loop {
            told.borrow_and_update();
            let lifetime = self.lifetime();
            if let Ok(lifetime) = &lifetime {
                self.end.send_replace(lifetime.end);
            }
            match lifetime {
                Ok(lifetime) if self.has_its_role() && now() < due(lifetime, percent) => {}
                Ok(lifetime) => match self.renew().await {
                    Ok(end) => {
                        tracing::info!(%end, "the node's certificate is renewed");
                        percent = draw();
                    }
                    Err(reason) => {
                        if let Some(more) = complaints.say() {
                            let left = lifetime.end.saturating_sub(now());
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
            // What is new may be a role. Whoever told has ended with the member.
            let _ = tokio::time::timeout(LOOK_INTERVAL, told.changed()).await;
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
                manager.renew(manager.node, key, &call).map_err(|r| r.message)?
            }
            None => {
                let answer: Option<RenewAnswer> = self.worker.renew(&call).await;
                answer.ok_or("no manager could be asked, or none signs for this node")?
            }
        };
        let fresh = Credentials { certificate: answer.certificate, ..self.credentials.clone() };
        self.file.write(&fresh).map_err(|e| chain(&e))?;
        self.tls.replace(&fresh).map_err(|e| chain(&e))?;
        self.credentials = fresh;
        let end = self.lifetime().map_err(|e| chain(&e))?.end;
        let end = OffsetDateTime::from_unix_timestamp(i64::try_from(end).unwrap_or(i64::MAX));
        end.map_err(|e| e.to_string())
    }
}

fn draw() -> u64 {
    rand::random_range(DUE_PERCENT)
}

/// Seconds since the Unix epoch.
#[must_use]
pub fn now() -> u64 {
    clock::timestamp().0 / 1000
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
