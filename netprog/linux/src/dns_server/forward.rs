//! Asks the host's resolvers, or those that a task names, as the C library does: in the order of
//! resolv.conf, the next one only after a failure or silence of the one before, so that a public
//! resolver's word does not count where an internal one has an answer. With a short deadline, and
//! a cache for the host's.
//!
//! hickory-resolver is not used: it picks resolvers by how fast they answered, and has no door for
//! a resolv.conf that changes.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use hickory_server::proto::op::{Message, Query, ResponseCode};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::cache::Cache;
use super::origin::Origin;
use super::upstream::Upstream;
use crate::facts;

/// How long a name is asked for: clients ask again after 5 s (RES_TIMEOUT in resolv.h), and must
/// hear of a failure before that.
pub const FORWARD_WAIT_MAX: Duration = Duration::from_millis(2500);
/// The file with the resolvers is looked at again after this, when a name is asked for.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Names asked for at once, from all sandboxes of the node; more wait, within their deadline.
pub(super) const FORWARDS_MAX: usize = 256;
/// The same of a sandbox with resolvers of its own.
const OWN_FORWARDS_MAX: usize = 64;
const DNS_PORT: u16 = 53;

/// Time since some fixed moment; never goes back.
pub type MonotonicClock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// No resolver has answered.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// There is none.
    #[error("the host has no resolvers: add a nameserver line to /etc/resolv.conf")]
    NoResolvers,
    /// Not in time.
    #[error("no answer within {} ms", FORWARD_WAIT_MAX.as_millis())]
    Late,
    /// All have failed; the last one so.
    #[error("ask {resolver}")]
    Failed {
        /// The last one that failed.
        resolver: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Asks the host's resolvers on behalf of all sandboxes, or a task's own on behalf of its sandbox.
pub struct Forwarder {
    resolvers: RwLock<Arc<[Upstream]>>,
    file: Option<Followed>,
    /// None for a task's own resolvers: tasks are many, and a cache is up to 16 MiB.
    cache: Option<Mutex<Cache>>,
    under_way: Semaphore,
    clock: MonotonicClock,
}

/// The file with the resolvers, as it was when it was last looked at.
struct Followed {
    path: PathBuf,
    seen: Mutex<(Option<Duration>, String)>,
}

impl Forwarder {
    /// With the resolvers of a resolv.conf, on port 53, also when it changes.
    #[must_use]
    pub fn following(resolv_conf: &Path, clock: MonotonicClock) -> Self {
        let file = Followed { path: resolv_conf.to_owned(), seen: Mutex::default() };
        Self { file: Some(file), ..Self::to(Vec::new(), clock) }
    }

    /// With resolvers on any port.
    #[must_use]
    pub fn to(resolvers: Vec<SocketAddr>, clock: MonotonicClock) -> Self {
        let resolver = |address| Upstream::new(address, Origin::Host);
        Self {
            resolvers: RwLock::new(resolvers.into_iter().map(resolver).collect()),
            file: None,
            cache: Some(Mutex::default()),
            under_way: Semaphore::new(FORWARDS_MAX),
            clock,
        }
    }

    /// With a task's own resolvers, on port 53, asked from its sandbox.
    #[must_use]
    pub fn within(sandbox: OwnedFd, resolvers: &[IpAddr], clock: MonotonicClock) -> Self {
        let origin = Origin::Sandbox(Arc::new(sandbox));
        let resolver =
            |ip: &IpAddr| Upstream::new(SocketAddr::new(*ip, DNS_PORT), Origin::clone(&origin));
        Self {
            resolvers: RwLock::new(resolvers.iter().map(resolver).collect()),
            file: None,
            cache: None,
            under_way: Semaphore::new(OWN_FORWARDS_MAX),
            clock,
        }
    }

    /// Takes over a resolv.conf that has changed. What others answered is forgotten: a name may be
    /// another one there. A file that cannot be read is being replaced; the old resolvers stay.
    fn look(&self, now: Duration) {
        let Some(Followed { path, seen }) = &self.file else { return };
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.0.is_some_and(|last| now < last + LOOK_INTERVAL) {
            return;
        }
        seen.0 = Some(now);
        let Ok(text) = std::fs::read_to_string(path) else { return };
        if text == seen.1 {
            return;
        }
        let address = |ip| Upstream::new(SocketAddr::new(ip, DNS_PORT), Origin::Host);
        let resolvers: Arc<[Upstream]> = facts::resolvers(&text).into_iter().map(address).collect();
        // A file that is being written may be empty yet.
        if resolvers.is_empty() && !self.resolvers().is_empty() {
            return;
        }
        *self.resolvers.write().unwrap_or_else(PoisonError::into_inner) = resolvers;
        if let Some(mut cache) = self.cache() {
            *cache = Cache::default();
        }
        seen.1 = text;
    }

    /// The answer of the cache or of the first resolver that has one. A resolver that refuses or
    /// fails does not end the search while another may still answer.
    pub async fn ask(&self, query: &Query) -> Result<Message, Unanswered> {
        self.look((self.clock)());
        let known = self.cache().and_then(|cache| cache.get(query, (self.clock)()));
        if let Some(found) = known {
            return Ok(found);
        }
        let resolvers = self.resolvers();
        let asking = async {
            let Ok(_permit) = self.under_way.acquire().await else { return Err(Unanswered::Late) };
            self.ask_in_turn(&resolvers, query).await
        };
        let message =
            timeout(FORWARD_WAIT_MAX, asking).await.map_err(|_elapsed| Unanswered::Late)??;
        // What resolvers of before say is not kept.
        if Arc::ptr_eq(&resolvers, &self.resolvers())
            && let Some(mut cache) = self.cache()
        {
            cache.put(query, &message, (self.clock)());
        }
        Ok(message)
    }

    fn resolvers(&self) -> Arc<[Upstream]> {
        self.resolvers.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn cache(&self) -> Option<std::sync::MutexGuard<'_, Cache>> {
        // Every entry is whole: a panic elsewhere leaves nothing half done.
        self.cache.as_ref().map(|cache| cache.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Each resolver but the last one has its share of the time.
    async fn ask_in_turn(
        &self,
        resolvers: &[Upstream],
        query: &Query,
    ) -> Result<Message, Unanswered> {
        let share = FORWARD_WAIT_MAX / u32::try_from(resolvers.len().max(1)).unwrap_or(u32::MAX);
        let mut best = Err(Unanswered::NoResolvers);
        for (at, resolver) in resolvers.iter().enumerate() {
            let limit = if at + 1 < resolvers.len() { share } else { FORWARD_WAIT_MAX };
            let asked = timeout(limit, resolver.ask(query, (self.clock)())).await;
            let late = |_elapsed| io::Error::new(io::ErrorKind::TimedOut, "it does not answer");
            match asked.map_err(late).flatten() {
                Ok(message) if is_final(message.metadata.response_code) => return Ok(message),
                Ok(message) => best = Ok(message),
                // A resolver's own word, if only a failure, is better than our own.
                Err(source) if best.is_err() => {
                    best = Err(Unanswered::Failed { resolver: resolver.address, source });
                }
                Err(_) => {}
            }
        }
        best
    }
}

/// Whether another resolver would not say otherwise.
fn is_final(code: ResponseCode) -> bool {
    matches!(code, ResponseCode::NoError | ResponseCode::NXDomain)
}
