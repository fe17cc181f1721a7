//! Certificates, signing requests, keys and tokens, and the file that the keys are kept in.

use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cluster::id::{ClusterId, NodeId};
use cluster::object::UnlockKey;
use cluster::spec::Role;
use raft_store::{DiskKey, Presence, Sealer};
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use time::OffsetDateTime;

use super::AS_IT_IS;
use crate::key_file::{KeyFile, PLACE, read_unlock_key, unlock_key_text};
use crate::pki::verify::ByDigest;
use crate::pki::{self, Ca, Credentials, PeerCertificate, PeerIdentity, SERVER_NAME, Tls, Token};

/// First byte of a certificate's input: PEM; a certificate, a signing request, and a chain of two,
/// without PEM; a CA of the user's.
const FORMS: u8 = 5;
/// Under which keys are sealed.
const UNLOCK: UnlockKey = UnlockKey([7; 32]);
const IDENTITY: PeerIdentity =
    PeerIdentity { cluster: ClusterId(7), node: NodeId(9), role: Role::Manager };

fn now() -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH + time::Duration::days(20_000)
}

fn unix_now() -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(20_000 * 24 * 60 * 60))
}

fn ca() -> &'static Ca {
    static CA: OnceLock<Ca> = OnceLock::new();
    CA.get_or_init(|| pki::new_ca(IDENTITY.cluster, now()).expect("a CA is made"))
}

fn sign(request: &str) -> Result<String, pki::PkiError> {
    pki::sign(ca(), request, IDENTITY, now(), Duration::from_secs(60 * 60))
}

pub(super) fn credentials() -> Credentials {
    let (key, request) = pki::new_request().expect("a key is made");
    let certificate = sign(&request).expect("our own request is signed");
    Credentials { ca: ca().certificate.clone(), certificate, key }
}

fn pem(kind: &str, der: &[u8]) -> String {
    format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", STANDARD.encode(der))
}

/// A certificate, a signing request, a key or a token.
pub fn certificate(bytes: &[u8]) -> bool {
    let Some((form, bytes)) = bytes.split_first() else { return false };
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    match form % FORMS {
        0 => words(text),
        1 => peer(&CertificateDer::from(bytes)),
        2 => request(&pem("CERTIFICATE REQUEST", bytes)),
        3 => chain(bytes),
        _ => {
            let (certificate, key) = text.split_once('\0').unwrap_or((text, ""));
            let Ok(adopted) = pki::adopt(certificate, key, now()) else { return false };
            pki::cross_sign(&adopted, ca(), now()).is_ok_and(|crossed| words(&crossed))
        }
    }
}

/// Texts: PEM of all kinds, tokens, unlock keys.
fn words(text: &str) -> bool {
    let token = text.parse::<Token>();
    if let Ok(token) = &token {
        assert_eq!(token.to_string().parse().as_ref(), Ok(token), "a token changed on its way");
    }
    let unlock = read_unlock_key(text);
    if let Some(key) = &unlock {
        let again = read_unlock_key(&unlock_key_text(key));
        assert_eq!(again.as_ref(), Some(key), "an unlock key changed on its way");
    }
    let certificates = pki::certificates(text);
    let certificate = pki::certificate_der(text);
    assert!(certificate.is_ok() || !certificates.is_ok_and(|all| !all.is_empty()), "one is lost");
    token.is_ok()
        | unlock.is_some()
        | certificate.is_ok_and(|der| peer(&der))
        | request(text)
        | pki::ca_name(text).is_ok()
        | pki::gossip_seed(text).is_ok()
        | pki::request_for(text).is_ok()
}

fn peer(certificate: &CertificateDer<'_>) -> bool {
    let Ok(read) = PeerCertificate::read(certificate) else { return false };
    assert_eq!(pki::identity_of(certificate).ok(), Some(read.identity), "two readings differ");
    let _begin = pki::lifetime_of(certificate).is_ok();
    true
}

/// A request whose key is known is signed, and the certificate is of that key.
fn request(request: &str) -> bool {
    let Ok(key) = pki::key_of_request(request) else { return false };
    let Ok(signed) = sign(request) else { return false };
    let der = pki::certificate_der(&signed).expect("we made it");
    assert_eq!(PeerCertificate::read(&der).expect("we made it").key, key, "another key is signed");
    true
}

/// What a peer shows in a handshake: to a member, as a client and as a server, and to a joiner. No
/// fuzzer signs, so what is taken is the CA's.
fn chain(bytes: &[u8]) -> bool {
    static OWN: OnceLock<Tls> = OnceLock::new();
    let Some((length, bytes)) = bytes.split_first_chunk::<2>() else { return false };
    let length = usize::from(u16::from_be_bytes(*length));
    let Some((end_entity, rest)) = bytes.split_at_checked(length) else { return false };
    let (end_entity, rest) = (CertificateDer::from(end_entity), [CertificateDer::from(rest)]);
    let own = OWN.get_or_init(|| Tls::new(&credentials()).expect("they belong together"));
    let taken = own.takes(&end_entity, &rest, unix_now());
    let digest = pki::ca_digest(&ca().certificate).expect("we made it");
    let name = ServerName::try_from(SERVER_NAME).expect("it is a name");
    let joiner = ByDigest::new(digest);
    let joins = joiner.verify_server_cert(&end_entity, &rest, &name, &[], unix_now()).is_ok();
    if taken || joins {
        assert!(PeerCertificate::read(&end_entity).is_ok(), "who it is cannot be read");
    }
    taken && joins
}

/// One of each, in each form.
#[must_use]
pub fn certificate_seeds() -> Vec<Vec<u8>> {
    let credentials = credentials();
    let request = pki::request_for(&credentials.key).unwrap_or_default();
    let der = |pem: &str| {
        let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        STANDARD.decode(body).unwrap_or_default()
    };
    let token = Token { ca_digest: [7; 32], secret: pki::new_secret(9) }.to_string();
    let of = |form: u8, bytes: &[u8]| [&[form], bytes].concat();
    let own = der(&credentials.certificate);
    let length = u16::try_from(own.len()).unwrap_or_default().to_be_bytes();
    let other = pki::new_ca(ClusterId(9), now());
    let other = other.map(|ca| [ca.certificate, ca.key].join("\0")).unwrap_or_default();
    vec![
        of(0, credentials.certificate.as_bytes()),
        of(0, credentials.key.as_bytes()),
        of(0, request.as_bytes()),
        of(0, token.as_bytes()),
        of(0, unlock_key_text(&UNLOCK).as_bytes()),
        of(1, &own),
        of(2, &der(&request)),
        of(3, &[&length[..], &own, &der(&credentials.ca)].concat()),
        of(4, other.as_bytes()),
    ]
}

/// The file of a node's keys in a folder of the caller's: any bytes, or any sealed secrets, as no
/// fuzzer makes a seal.
pub fn key_file(folder: &Path, bytes: &[u8]) -> bool {
    let Some((kind, bytes)) = bytes.split_first() else { return false };
    let path = folder.join("node.json");
    let content = if *kind == AS_IT_IS {
        bytes.to_vec()
    } else {
        let sealer = Sealer::new(&DiskKey::from_bytes(UNLOCK.0)).expect("the key is long enough");
        let locked = STANDARD.encode(sealer.seal(PLACE, bytes).expect("it is short"));
        let public = Credentials { key: String::new(), ..shown().clone() };
        let mut stored = serde_json::json!(public);
        stored["locked"] = locked.into();
        stored.as_object_mut().and_then(|fields| fields.remove("key"));
        stored.to_string().into_bytes()
    };
    std::fs::write(&path, content).expect("the folder takes files");
    let file = KeyFile::at(path);
    let unlocked = file.unlock(&UNLOCK).is_ok();
    let Ok(Some(loaded)) = file.load() else { return false };
    assert!(unlocked, "locked keys were loaded");
    let _key = file.disk_key(Presence::Existing).is_ok();
    file.write(&loaded).expect("what was loaded can be written");
    let again = file.load().expect("what was written can be loaded");
    assert_eq!(
        again.map(|found| serde_json::json!(found)),
        Some(serde_json::json!(loaded)),
        "keys changed on their way"
    );
    true
}

fn shown() -> &'static Credentials {
    static SHOWN: OnceLock<Credentials> = OnceLock::new();
    SHOWN.get_or_init(credentials)
}

/// Keys in clear, locked ones, and what is sealed in these.
#[must_use]
pub fn key_file_seeds(folder: &Path) -> Vec<Vec<u8>> {
    let path = folder.join("seed.json");
    let file = KeyFile::at(path.clone());
    let read = || std::fs::read(&path).unwrap_or_default();
    let written = file.write(&credentials()).and_then(|()| file.disk_key(Presence::New));
    let clear = read();
    let locked = written.and_then(|_key| file.lock_with(Some(&UNLOCK))).map(|()| read());
    let clear_fields = serde_json::from_slice::<serde_json::Value>(&clear).unwrap_or_default();
    let secrets = clear_fields["secrets"].to_string();
    let _removed = std::fs::remove_file(&path);
    let of = |kind: u8, bytes: &[u8]| [&[kind], bytes].concat();
    vec![
        of(AS_IT_IS, &clear),
        of(AS_IT_IS, &locked.unwrap_or_default()),
        of(AS_IT_IS + 1, secrets.as_bytes()),
    ]
}
