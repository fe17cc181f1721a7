//! The file of a node's keys: its certificate, the key of that, and on a manager the key that seals
//! the log and snapshots. With autolock both keys are sealed under the cluster's unlock key, which
//! is on no disk of a manager in clear.
//!
//! All of it is one file, so that a change of the lock is one write.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use cluster::object::UnlockKey;
use cluster::state::State;
use raft_store::{DISK_KEY_BYTES, DiskKey, Presence, Sealer};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::disk::{self, DiskError};
use crate::pki::Credentials;
use crate::telemetry::Seldom;

/// What the sealed part is sealed for.
pub(crate) const PLACE: &[u8] = b"keys of a node";
/// Pause after keys could not be written.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Field of the credentials that is secret.
const SECRET: &str = "key";

/// As it is on disk: what is public, and the secrets in clear or sealed.
#[derive(Serialize, Deserialize)]
struct Stored {
    #[serde(flatten)]
    public: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secrets: Option<Secrets>,
    /// Base64 of the sealed JSON of the secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    locked: Option<String>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Secrets {
    /// The certificate's, PEM.
    key: Value,
    /// Base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    disk_key: Option<String>,
}

/// Keys that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// They are sealed, and the unlock key is not known.
    #[error("the keys in {0} are locked: give the unlock key by `docker swarm unlock`")]
    Locked(String),
    /// Another unlock key, or damage.
    #[error("the keys in {0} do not open with that unlock key")]
    WrongKey(String),
    /// Something else is in the file.
    #[error("{path} is damaged: {reason}")]
    Damaged {
        /// Which.
        path: String,
        /// How it is known.
        reason: String,
    },
    /// There is a log, and no key for it.
    #[error("{0} holds no disk key, and nothing else opens the Raft log")]
    NoDiskKey(String),
    /// No random bytes, or keys that cannot be sealed.
    #[error("seal keys: {0}")]
    Seal(#[from] std::io::Error),
}

/// The file, and the key that opens it. The data directory stays locked while it is used.
pub struct KeyFile {
    path: PathBuf,
    /// Under which the secrets are sealed; none: they are in clear.
    unlock: Mutex<Option<UnlockKey>>,
}

impl KeyFile {
    /// A file that need not exist yet.
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        Self { path, unlock: Mutex::new(None) }
    }

    fn hold(&self) -> MutexGuard<'_, Option<UnlockKey>> {
        self.unlock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn damaged(&self, reason: impl ToString) -> KeyFileError {
        KeyFileError::Damaged { path: self.name(), reason: reason.to_string() }
    }

    fn read(&self, unlock: Option<&UnlockKey>) -> Result<Option<(Stored, Secrets)>, KeyFileError> {
        let Some(mut stored) = disk::read_json::<Stored>(&self.path)? else { return Ok(None) };
        let secrets = match (stored.secrets.take(), stored.locked.take(), unlock) {
            (Some(secrets), _, _) => secrets,
            (None, Some(_), None) => return Err(KeyFileError::Locked(self.name())),
            (None, Some(locked), Some(unlock)) => self.open(&locked, unlock)?,
            (None, None, _) => return Err(self.damaged("it holds no keys")),
        };
        Ok(Some((stored, secrets)))
    }

    fn open(&self, locked: &str, unlock: &UnlockKey) -> Result<Secrets, KeyFileError> {
        let sealed = STANDARD.decode(locked).map_err(|e| self.damaged(e))?;
        let sealer = Sealer::new(&DiskKey::from_bytes(unlock.0))?;
        let opened = sealer.open(PLACE, &sealed);
        let opened = opened.map_err(|_broken| KeyFileError::WrongKey(self.name()))?;
        serde_json::from_slice(&opened).map_err(|e| self.damaged(e))
    }

    fn put(
        &self,
        mut stored: Stored,
        secrets: Secrets,
        unlock: Option<&UnlockKey>,
    ) -> Result<(), KeyFileError> {
        match unlock {
            None => stored.secrets = Some(secrets),
            Some(unlock) => {
                let content = serde_json::to_vec(&secrets).map_err(std::io::Error::from)?;
                let sealer = Sealer::new(&DiskKey::from_bytes(unlock.0))?;
                stored.locked = Some(STANDARD.encode(sealer.seal(PLACE, &content)?));
            }
        }
        Ok(disk::write_json(&self.path, &stored)?)
    }

    /// The node's certificate and key; `None` if there is no file.
    pub fn load(&self) -> Result<Option<Credentials>, KeyFileError> {
        let unlock = self.hold();
        let Some((stored, secrets)) = self.read(unlock.as_ref())? else { return Ok(None) };
        let mut fields = stored.public;
        fields.insert(SECRET.to_owned(), secrets.key);
        let credentials = serde_json::from_value(Value::Object(fields));
        credentials.map(Some).map_err(|e| self.damaged(e))
    }

    /// Puts others in the place of those that are there, or changes nothing.
    pub fn write(&self, credentials: &Credentials) -> Result<(), KeyFileError> {
        let unlock = self.hold();
        let disk_key = self.read(unlock.as_ref())?.and_then(|(_, secrets)| secrets.disk_key);
        let mut public = match serde_json::to_value(credentials).map_err(std::io::Error::from)? {
            Value::Object(fields) => fields,
            other => return Err(self.damaged(other)),
        };
        let key = public.remove(SECRET).unwrap_or_default();
        let stored = Stored { public, secrets: None, locked: None };
        self.put(stored, Secrets { key, disk_key }, unlock.as_ref())
    }

    /// The key of the log, or a new one for a log that is yet to be made.
    pub fn disk_key(&self, presence: Presence) -> Result<DiskKey, KeyFileError> {
        let unlock = self.hold();
        let gone = || KeyFileError::NoDiskKey(self.name());
        let (stored, secrets) = self.read(unlock.as_ref())?.ok_or_else(gone)?;
        if let Some(text) = &secrets.disk_key {
            let bytes = STANDARD.decode(text).ok().and_then(|key| key.try_into().ok());
            let reason = || self.damaged(format!("its disk key is not of {DISK_KEY_BYTES} bytes"));
            return bytes.map(DiskKey::from_bytes).ok_or_else(reason);
        }
        if presence == Presence::Existing {
            return Err(gone());
        }
        let key = DiskKey::generate()?;
        let disk_key = Some(STANDARD.encode(key.as_bytes()));
        self.put(stored, Secrets { disk_key, ..secrets }, unlock.as_ref())?;
        Ok(key)
    }

    /// Forgets the key of a log that is gone.
    pub fn forget_disk_key(&self) -> Result<(), KeyFileError> {
        let unlock = self.hold();
        match self.read(unlock.as_ref())? {
            Some((stored, secrets)) if secrets.disk_key.is_some() => {
                self.put(stored, Secrets { disk_key: None, ..secrets }, unlock.as_ref())
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Forgets the keys, and under what they were sealed: the next cluster's are its own.
    pub fn forget(&self) -> Result<(), DiskError> {
        let mut unlock = self.hold();
        disk::remove(&self.path)?;
        *unlock = None;
        Ok(())
    }

    /// Seals the keys under another unlock key, or leaves them in clear.
    pub fn lock_with(&self, next: Option<&UnlockKey>) -> Result<(), KeyFileError> {
        let mut unlock = self.hold();
        if unlock.as_ref() == next {
            return Ok(());
        }
        if let Some((stored, secrets)) = self.read(unlock.as_ref())? {
            self.put(stored, secrets, next)?;
        }
        *unlock = next.cloned();
        Ok(())
    }

    /// Opens sealed keys for this process.
    pub fn unlock(&self, key: &UnlockKey) -> Result<(), KeyFileError> {
        let mut unlock = self.hold();
        self.read(Some(key))?;
        *unlock = Some(key.clone());
        Ok(())
    }
}

/// Keeps the keys of a manager locked as the cluster has it, until it is stopped. When this ends no
/// write is under way.
pub async fn follow(
    keys: Arc<KeyFile>,
    mut state: watch::Receiver<Arc<State>>,
    stop: CancellationToken,
) {
    let mut complaints = Seldom::default();
    let mut done = None;
    loop {
        let wanted = state.borrow_and_update().cluster.as_ref().map(|c| c.unlock_key.clone());
        if let Some(wanted) = wanted.filter(|wanted| done.as_ref() != Some(wanted)) {
            let (file, key) = (keys.clone(), wanted.clone());
            let locked = tokio::task::spawn_blocking(move || file.lock_with(key.as_ref())).await;
            if let Ok(Err(error)) = locked {
                if let Some(more) = complaints.say() {
                    tracing::error!(error = %crate::causes::chain(&error), more, "lock the keys");
                }
                if stop.run_until_cancelled(tokio::time::sleep(RETRY_PAUSE)).await.is_none() {
                    return;
                }
                continue;
            }
            done = Some(wanted);
        }
        let Some(Ok(())) = stop.run_until_cancelled(state.changed()).await else { return };
    }
}

/// Begins the text of an unlock key, as swarmkit's.
const UNLOCK_KEY: &str = "SWMKEY-1-";

/// The text of an unlock key: swarmkit's prefix, and base64 without padding.
#[must_use]
pub fn unlock_key_text(key: &UnlockKey) -> String {
    format!("{UNLOCK_KEY}{}", STANDARD_NO_PAD.encode(key.0))
}

/// The inverse of [`unlock_key_text`].
#[must_use]
pub fn read_unlock_key(text: &str) -> Option<UnlockKey> {
    let key = STANDARD_NO_PAD.decode(text.trim().strip_prefix(UNLOCK_KEY)?).ok()?;
    key.try_into().ok().map(UnlockKey)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn credentials() -> Credentials {
        Credentials { ca: "CA".into(), certificate: "CERT".into(), key: "SECRET".into() }
    }

    fn file(dir: &tempfile::TempDir) -> KeyFile {
        KeyFile::at(dir.path().join("node.json"))
    }

    fn text(dir: &tempfile::TempDir) -> String {
        std::fs::read_to_string(dir.path().join("node.json")).unwrap()
    }

    #[test]
    fn a_disk_key_is_made_once_and_stays_when_the_certificate_changes() {
        let dir = tempfile::tempdir().unwrap();
        let keys = file(&dir);
        assert!(keys.load().unwrap().is_none());
        keys.write(&credentials()).unwrap();
        let error = keys.disk_key(Presence::Existing).unwrap_err().to_string();
        assert!(error.contains("holds no disk key"), "{error}");
        let made = keys.disk_key(Presence::New).unwrap();
        keys.write(&Credentials { certificate: "RENEWED".into(), ..credentials() }).unwrap();
        assert_eq!(keys.disk_key(Presence::Existing).unwrap(), made);
        assert_eq!(keys.load().unwrap().unwrap().certificate, "RENEWED");
        let mode = dir.path().join("node.json").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        keys.forget_disk_key().unwrap();
        assert!(keys.disk_key(Presence::Existing).is_err());
    }

    /// Goal: a stolen disk of a locked manager gives no key. Method: what is in the file, and each
    /// way to read it in a new process.
    #[test]
    fn locked_keys_open_with_their_unlock_key_alone() {
        let dir = tempfile::tempdir().unwrap();
        let keys = file(&dir);
        keys.write(&credentials()).unwrap();
        let disk_key = keys.disk_key(Presence::New).unwrap();
        assert!(text(&dir).contains("SECRET"));
        let (first, second) = (UnlockKey([1; 32]), UnlockKey([2; 32]));
        keys.lock_with(Some(&first)).unwrap();
        let clear = STANDARD.encode(disk_key.as_bytes());
        assert!(!text(&dir).contains("SECRET") && !text(&dir).contains(&clear));
        assert!(text(&dir).contains("CERT"), "what is public stays readable");

        let again = file(&dir);
        assert!(matches!(again.load(), Err(KeyFileError::Locked(_))));
        assert!(matches!(again.write(&credentials()), Err(KeyFileError::Locked(_))));
        assert!(matches!(again.unlock(&second), Err(KeyFileError::WrongKey(_))));
        assert!(
            matches!(again.load(), Err(KeyFileError::Locked(_))),
            "a wrong key changes nothing"
        );
        again.unlock(&first).unwrap();
        assert_eq!(again.load().unwrap().unwrap().key, "SECRET");
        assert_eq!(again.disk_key(Presence::Existing).unwrap(), disk_key);

        again.lock_with(Some(&second)).unwrap();
        let third = file(&dir);
        assert!(matches!(third.unlock(&first), Err(KeyFileError::WrongKey(_))));
        third.unlock(&second).unwrap();
        third.lock_with(None).unwrap();
        assert_eq!(file(&dir).load().unwrap().unwrap().key, "SECRET");
    }

    #[test]
    fn unlock_keys_have_swarmkits_text() {
        let key = UnlockKey([0xA5; 32]);
        let text = unlock_key_text(&key);
        assert_eq!(text, "SWMKEY-1-paWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaU");
        assert_eq!(read_unlock_key(&text), Some(key));
        for wrong in ["", "SWMKEY-1-", "SWMTKN-1-paWl", &text[..30], &format!("{text}AA")] {
            assert_eq!(read_unlock_key(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_damaged_file_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        for content in ["{}", r#"{"ca":"CA","locked":"%"}"#, r#"{"ca":"CA","secrets":{"key":7}}"#] {
            std::fs::write(dir.path().join("node.json"), content).unwrap();
            let keys = file(&dir);
            let error = keys.unlock(&UnlockKey([1; 32])).and_then(|()| keys.load()).unwrap_err();
            let text = error.to_string();
            assert!(text.contains("node.json") && text.contains("is damaged"), "{content}: {text}");
        }
    }
}
