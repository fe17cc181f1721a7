//! The CA that signs for a cluster, and those that its nodes trust while another takes its place.

use std::time::Duration;

use cluster::object::{CaDigest, Cluster, Trust};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::ParsedCertificate;
use time::OffsetDateTime;

use super::{
    Ca, Credentials, PeerIdentity, PkiError, ca_digest, certificate_der, certificates, digest_of,
    lifetime_of, sign, verify,
};

/// The CA that signs, and those that are trusted.
#[derive(Debug, Clone)]
pub struct Authority {
    ca: Ca,
    /// What those accept it by who trust only the CA whose place it takes.
    cross_signed: Option<String>,
    roots: String,
}

impl Authority {
    /// A CA on its own.
    #[must_use]
    pub fn alone(ca: Ca) -> Self {
        Self { roots: ca.certificate.clone(), ca, cross_signed: None }
    }

    /// That of a cluster now.
    #[must_use]
    pub fn of(cluster: &Cluster) -> Self {
        let old = Ca { certificate: cluster.ca_certificate.clone(), key: cluster.ca_key.clone() };
        let Some(rotation) = &cluster.ca_rotation else { return Self::alone(old) };
        let ca = Ca { certificate: rotation.certificate.clone(), key: rotation.key.clone() };
        Self {
            roots: format!("{}\n{}", ca.certificate.trim_end(), old.certificate),
            ca,
            cross_signed: Some(rotation.cross_signed.clone()),
        }
    }

    /// Certificates of the CAs that are trusted, PEM, the newest one first.
    #[must_use]
    pub fn roots(&self) -> &str {
        &self.roots
    }

    /// Signs a request; see [`sign`]. After the node's certificate comes what lets those accept it
    /// who do not trust the new CA yet.
    pub fn sign(
        &self,
        request: &str,
        identity: PeerIdentity,
        now: OffsetDateTime,
        life: Duration,
    ) -> Result<String, PkiError> {
        let certificate = sign(&self.ca, request, identity, now, life)?;
        let Some(cross_signed) = &self.cross_signed else { return Ok(certificate) };
        Ok(format!("{}\n{cross_signed}", certificate.trim_end()))
    }
}

/// The CA of these PEM bytes, by name.
pub fn ca_name(certificate: &str) -> Result<CaDigest, PkiError> {
    Ok(CaDigest(ca_digest(certificate)?))
}

/// Who signed a node's certificate, and whom the node trusts.
pub fn trust_of(credentials: &Credentials) -> Result<Trust, PkiError> {
    let roots = certificates(&credentials.ca)?;
    let own = certificate_der(&credentials.certificate)?;
    let issuer = roots.iter().find(|root| is_of(&own, root));
    let issuer = issuer.ok_or_else(|| PkiError::Read {
        what: "node certificate",
        reason: "none of the CAs that the node trusts has signed it".to_owned(),
    })?;
    let name = |root: &CertificateDer<'_>| CaDigest(digest_of(root));
    Ok(Trust { issuer: name(issuer), roots: roots.iter().map(name).collect() })
}

/// Whether a CA itself signed a node's certificate; when does not matter.
pub(super) fn is_of(certificate: &CertificateDer<'_>, root: &CertificateDer<'_>) -> bool {
    let verified = || -> Result<(), PkiError> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(root.clone()).map_err(PkiError::Tls)?;
        let parsed = ParsedCertificate::try_from(certificate).map_err(PkiError::Tls)?;
        let end = UnixTime::since_unix_epoch(Duration::from_secs(lifetime_of(certificate)?.end));
        let algorithms = verify::provider().signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &roots, &[], end, algorithms)
            .map_err(PkiError::Tls)
    };
    verified().is_ok()
}
