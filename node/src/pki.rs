//! The cluster's certificate authority, node certificates and join tokens.
//!
//! A node's certificate says who it is: CN is the node id, OU its role (`swarm-manager` or
//! `swarm-worker`, swarmkit's words), O the cluster id. Every certificate also carries the DNS
//! name [`SERVER_NAME`], which is what a client checks: which node answers is decided by the
//! address that it dialled, and that the node belongs to the cluster by the CA.

use cluster::id::{ClusterId, NodeId};
use cluster::object::KeyDigest;
use cluster::spec::Role;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use ring::{digest, hkdf};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;

pub use authority::{Authority, ca_name, trust_of};
pub use successor::{adopt, cross_sign};
pub use tls::Tls;
pub use token::{Token, TokenError, new_secret, new_token};

mod authority;
mod successor;
mod tls;
mod token;
pub mod verify;

/// DNS name in every node's certificate.
pub const SERVER_NAME: &str = "skein-node";
/// How long the CA is good for, as Docker's (20 years).
const CA_DAYS: i64 = 20 * 365;
/// Clocks of nodes may differ by this much: certificates begin so long before they are signed.
pub const BACKDATE_SECONDS: u64 = 60 * 60;

/// Making or reading a certificate failed.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// rcgen refused.
    #[error("make {what}")]
    Make {
        /// Which certificate or key.
        what: &'static str,
        /// Its words.
        #[source]
        source: rcgen::Error,
    },
    /// Text that is not PEM or not what it should be.
    #[error("read {what}: {reason}")]
    Read {
        /// Which certificate or key.
        what: &'static str,
        /// Why not.
        reason: String,
    },
    /// rustls refused the configuration.
    #[error("configure TLS")]
    Tls(#[source] rustls::Error),
}

/// Who a certificate says that a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// Its role when the certificate was made.
    pub role: Role,
}

/// Whom a certificate is for, and which key it is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerCertificate {
    /// Who.
    pub identity: PeerIdentity,
    /// The key.
    pub key: KeyDigest,
    /// Its last second, since the Unix epoch.
    pub end: u64,
}

impl PeerCertificate {
    /// Reads a node's certificate.
    pub fn read(certificate: &CertificateDer<'_>) -> Result<Self, PkiError> {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
            .map_err(|e| PkiError::Read { what: "peer certificate", reason: e.to_string() })?;
        let key = KeyDigest(digest_of(parsed.public_key().raw));
        let end = lifetime_of(certificate)?.end;
        Ok(Self { identity: identity_of(certificate)?, key, end })
    }
}

/// The key that a signing request is for. That its maker holds the private key is checked here: a
/// request is signed with it (RFC 2986, section 4.2).
pub fn key_of_request(request: &str) -> Result<KeyDigest, PkiError> {
    let bad = |reason: String| PkiError::Read { what: "certificate request", reason };
    // It checks the signature.
    CertificateSigningRequestParams::from_pem(request).map_err(|e| bad(e.to_string()))?;
    let der = CertificateSigningRequestDer::from_pem_slice(request.as_bytes());
    let der = der.map_err(|e| bad(e.to_string()))?;
    let (_, parsed) = X509CertificationRequest::from_der(&der).map_err(|e| bad(e.to_string()))?;
    Ok(KeyDigest(digest_of(parsed.certification_request_info.subject_pki.raw)))
}

/// A CA's certificate and key, PEM.
#[derive(Debug, Clone)]
pub struct Ca {
    /// Certificate, PEM.
    pub certificate: String,
    /// Private key, PEM.
    pub key: String,
}

/// A node's key and certificate with the CA that it trusts, PEM.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Credentials {
    /// Certificates of the CAs that are trusted: the cluster's, and during a rotation before it the
    /// one that takes its place.
    pub ca: String,
    /// The node's certificate; during a rotation after it the new CA's that the old one signed.
    pub certificate: String,
    /// The node's private key.
    pub key: String,
}

fn make(what: &'static str) -> impl FnOnce(rcgen::Error) -> PkiError {
    move |source| PkiError::Make { what, source }
}

fn lifetime(params: &mut CertificateParams, now: OffsetDateTime, life: Duration) {
    params.not_before = now - std::time::Duration::from_secs(BACKDATE_SECONDS);
    params.not_after = now + life;
}

/// Makes a cluster's CA.
pub fn new_ca(cluster: ClusterId, now: OffsetDateTime) -> Result<Ca, PkiError> {
    let key = KeyPair::generate().map_err(make("CA key"))?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "swarm-ca");
    params.distinguished_name.push(DnType::OrganizationName, cluster.to_string());
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    lifetime(&mut params, now, Duration::days(CA_DAYS));
    let certificate = params.self_signed(&key).map_err(make("CA certificate"))?;
    Ok(Ca { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// A new key and a signing request for it, both PEM.
pub fn new_request() -> Result<(String, String), PkiError> {
    let key = KeyPair::generate().map_err(make("node key"))?;
    let request = request(&key)?;
    Ok((key.serialize_pem(), request))
}

/// The seed of the key by which a node proves what it says in gossip. It follows from the node's
/// own key (HKDF-SHA-256, RFC 5869), so that who has the one has the other, and no file holds it.
pub fn gossip_seed(key: &str) -> Result<[u8; 32], PkiError> {
    let bad = |reason: String| PkiError::Read { what: "node key", reason };
    let key = PrivatePkcs8KeyDer::from_pem_slice(key.as_bytes()).map_err(|e| bad(e.to_string()))?;
    let own = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(key.secret_pkcs8_der());
    let mut seed = [0; 32];
    (own.expand(&[b"skein gossip proofs"], hkdf::HKDF_SHA256))
        .and_then(|derived| derived.fill(&mut seed))
        .map_err(|_too_long| bad("a seed cannot be derived from it".to_owned()))?;
    Ok(seed)
}

/// A signing request for a key that a node has, PEM: what renews its certificate.
pub fn request_for(key: &str) -> Result<String, PkiError> {
    request(&KeyPair::from_pem(key).map_err(make("node key"))?)
}

fn request(key: &KeyPair) -> Result<String, PkiError> {
    let request = CertificateParams::default().serialize_request(key);
    request.and_then(|csr| csr.pem()).map_err(make("certificate request"))
}

/// Signs a request for as long as `life`. Only its public key is taken: every other field is the
/// signer's.
pub fn sign(
    ca: &Ca,
    request: &str,
    identity: PeerIdentity,
    now: OffsetDateTime,
    life: std::time::Duration,
) -> Result<String, PkiError> {
    let key = KeyPair::from_pem(&ca.key).map_err(make("CA key"))?;
    let issuer = Issuer::from_ca_cert_pem(&ca.certificate, key).map_err(make("CA certificate"))?;
    let mut csr = CertificateSigningRequestParams::from_pem(request)
        .map_err(|e| PkiError::Read { what: "certificate request", reason: e.to_string() })?;
    let mut params =
        CertificateParams::new(vec![SERVER_NAME.to_owned()]).map_err(make("node certificate"))?;
    params.distinguished_name.push(DnType::CommonName, identity.node.to_string());
    params.distinguished_name.push(DnType::OrganizationName, identity.cluster.to_string());
    params.distinguished_name.push(DnType::OrganizationalUnitName, role_unit(identity.role));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    lifetime(&mut params, now, Duration::try_from(life).unwrap_or(Duration::MAX));
    csr.params = params;
    Ok(csr.signed_by(&issuer).map_err(make("node certificate"))?.pem())
}

fn role_unit(role: Role) -> &'static str {
    match role {
        Role::Manager => "swarm-manager",
        Role::Worker => "swarm-worker",
    }
}

/// Seconds since the Unix epoch, as certificates count.
#[must_use]
pub fn now() -> u64 {
    crate::clock::timestamp().0 / 1000
}

/// The digest that a join token carries: SHA-256 of the CA certificate's DER.
pub fn ca_digest(ca: &str) -> Result<[u8; 32], PkiError> {
    let der = certificate_der(ca)?;
    Ok(digest_of(&der))
}

/// SHA-256.
#[must_use]
pub fn digest_of(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

/// Reads all certificates of a text.
pub fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    found.map_err(|e| PkiError::Read { what: "certificate", reason: e.to_string() })
}

/// Reads the first certificate of a text.
pub fn certificate_der(pem: &str) -> Result<CertificateDer<'static>, PkiError> {
    CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|e| PkiError::Read { what: "certificate", reason: e.to_string() })
}

/// Reads who a certificate belongs to.
pub fn identity_of(certificate: &CertificateDer<'_>) -> Result<PeerIdentity, PkiError> {
    let bad = |reason: String| PkiError::Read { what: "peer certificate", reason };
    let (_, parsed) =
        x509_parser::parse_x509_certificate(certificate).map_err(|e| bad(e.to_string()))?;
    let subject = parsed.subject();
    let first = |mut names: Box<dyn Iterator<Item = Option<String>> + '_>, what: &str| {
        names.next().flatten().ok_or_else(|| bad(format!("it has no {what}")))
    };
    let text =
        |a: &x509_parser::x509::AttributeTypeAndValue<'_>| a.as_str().ok().map(str::to_owned);
    let node = first(Box::new(subject.iter_common_name().map(text)), "common name")?;
    let cluster = first(Box::new(subject.iter_organization().map(text)), "organization")?;
    let unit = first(Box::new(subject.iter_organizational_unit().map(text)), "unit")?;
    let role = match unit.as_str() {
        "swarm-manager" => Role::Manager,
        "swarm-worker" => Role::Worker,
        other => return Err(bad(format!("unit {other:?} is no role"))),
    };
    let id = |text: &str| text.parse().map_err(|e: cluster::id::ParseIdError| bad(e.to_string()));
    let cluster: NodeId = id(&cluster)?;
    Ok(PeerIdentity { cluster: ClusterId(cluster.0), node: id(&node)?, role })
}

/// When a certificate begins and ends, in seconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    /// Its first second, which is an hour before it was signed.
    pub begin: u64,
    /// Its last second.
    pub end: u64,
}

/// When a certificate is good for.
pub fn lifetime_of(certificate: &CertificateDer<'_>) -> Result<Lifetime, PkiError> {
    let bad = |reason: String| PkiError::Read { what: "certificate", reason };
    let (_, parsed) =
        x509_parser::parse_x509_certificate(certificate).map_err(|e| bad(e.to_string()))?;
    let validity = parsed.validity();
    let seconds = |at: x509_parser::time::ASN1Time| u64::try_from(at.timestamp());
    let outside = |_negative| bad("it begins or ends before 1970".to_owned());
    let begin = seconds(validity.not_before).map_err(outside)?;
    Ok(Lifetime { begin, end: seconds(validity.not_after).map_err(outside)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signed_certificate_says_who_its_node_is() {
        let now = OffsetDateTime::UNIX_EPOCH + Duration::days(20_000);
        let identity = PeerIdentity { cluster: ClusterId(7), node: NodeId(9), role: Role::Manager };
        let ca = new_ca(identity.cluster, now).unwrap();
        let (key, request) = new_request().unwrap();
        let life = std::time::Duration::from_secs(90 * 24 * 60 * 60);
        let certificate = sign(&ca, &request, identity, now, life).unwrap();
        let lifetime = lifetime_of(&certificate_der(&certificate).unwrap()).unwrap();
        assert_eq!(lifetime.end - lifetime.begin, 90 * 24 * 60 * 60 + 60 * 60);
        assert_eq!(identity_of(&certificate_der(&certificate).unwrap()).unwrap(), identity);
        let credentials = Credentials { ca: ca.certificate.clone(), certificate, key };
        Tls::new(&credentials).unwrap();
    }

    #[test]
    fn each_key_has_one_seed_for_gossip() {
        let (one, _) = new_request().unwrap();
        let (other, _) = new_request().unwrap();
        assert_eq!(gossip_seed(&one).unwrap(), gossip_seed(&one).unwrap());
        assert_ne!(gossip_seed(&one).unwrap(), gossip_seed(&other).unwrap());
    }

    #[test]
    fn rubbish_is_named() {
        let error = ca_digest("rubbish").unwrap_err();
        assert!(error.to_string().starts_with("read certificate: "), "{error}");
    }
}
