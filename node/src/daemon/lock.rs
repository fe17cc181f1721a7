//! Managers that are locked when they start.

use std::sync::atomic::Ordering;

use api::ApiError;

use super::Daemon;
use crate::causes::chain;
use crate::key_file::{KeyFileError, read_unlock_key};

impl Daemon {
    /// Whether this manager waits for its unlock key.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.locked.load(Ordering::Acquire)
    }

    /// Refuses what only a node of no cluster may do.
    pub(super) async fn check_outside(&self) -> Result<(), ApiError> {
        if self.is_locked() {
            return Err(ApiError::locked());
        }
        if self.member.read().await.is_some() {
            return Err(ApiError::already_member());
        }
        // What such a node would begin with is to forget the cluster, with the log of it.
        match self.data.identity().map_err(|e| ApiError::internal(e.to_string()))? {
            Some(identity) => Err(ApiError::unavailable(format!(
                "this node is in cluster {} by its data directory, and could not return to it: the \
                 daemon's log says why; restart the daemon",
                identity.cluster
            ))),
            None => Ok(()),
        }
    }

    /// Opens the keys and comes back as the manager that this node is.
    pub async fn unlock(&self, text: &str) -> Result<(), ApiError> {
        let _changing = self.changing.lock().await;
        if !self.is_locked() {
            return Err(match *self.member.read().await {
                Some(_) => ApiError::conflict("swarm is not locked"),
                None => ApiError::not_member(),
            });
        }
        let wrong = || ApiError::bad_request("swarm could not be unlocked: invalid key provided");
        let key = read_unlock_key(text).ok_or_else(wrong)?;
        self.data.keys().unlock(&key).map_err(|error| match error {
            KeyFileError::WrongKey(_) => wrong(),
            other => ApiError::internal(chain(&other)),
        })?;
        self.resume().await.map_err(|error| ApiError::internal(format!("{error:#}")))?;
        self.locked.store(false, Ordering::Release);
        Ok(())
    }
}
