//! A node's TLS configuration for both directions: the certificate, and the CAs that are trusted,
//! can be replaced while connections are open, and a certificate that has ended is taken for a
//! while.
//!
//! The key is the identity, the certificate a statement about it. A daemon that was off when its
//! certificate ended must be able to renew it, and managers that were all off must be able to elect
//! a leader first. So within [`CERTIFICATE_GRACE_MS`] an ended certificate is checked as of its
//! last moment; what it opens the callee decides, by the key that its state lists
//! (`transport::access`). One that begins later was signed by a manager whose clock is ahead, and
//! is checked as of its first moment: it would keep its node out until then.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use cluster::spec::CERTIFICATE_GRACE_MS;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use super::{Credentials, PkiError, certificates, lifetime_of, verify};

const GRACE: Duration = Duration::from_millis(CERTIFICATE_GRACE_MS);

/// A node's TLS configuration for both directions. Cheap to clone.
#[derive(Clone)]
pub struct Tls {
    /// For dialling peers.
    pub client: Arc<rustls::ClientConfig>,
    /// For answering peers and joiners: a client certificate is checked if there is one; routes
    /// for members insist on it.
    pub server: Arc<rustls::ServerConfig>,
    own: Arc<Own>,
    trusted: Arc<Trusted>,
}

/// The certificate that this node shows, and its key.
#[derive(Debug)]
struct Own(RwLock<Arc<CertifiedKey>>);

impl Tls {
    /// From a node's credentials.
    pub fn new(credentials: &Credentials) -> Result<Self, PkiError> {
        let provider = verify::provider();
        let trusted = Arc::new(Trusted(RwLock::new(Verifiers::of(&credentials.ca)?)));
        let own = Arc::new(Own(RwLock::new(certified(credentials)?)));
        let mut client = rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(PkiError::Tls)?
            .dangerous()
            .with_custom_certificate_verifier(trusted.clone())
            .with_client_cert_resolver(own.clone());
        client.alpn_protocols = vec![b"h2".to_vec()];
        let mut server = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(PkiError::Tls)?
            .with_client_cert_verifier(trusted.clone())
            .with_cert_resolver(own.clone());
        server.alpn_protocols = vec![b"h2".to_vec()];
        // Nothing is resumed: a certificate is checked against those that are trusted now.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(Self { client: Arc::new(client), server: Arc::new(server), own, trusted })
    }

    /// Whether a peer's chain is taken, as a client's and as a server's.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn takes(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> bool {
        let Ok(name) = ServerName::try_from(super::SERVER_NAME) else { return false };
        let server =
            self.trusted.verify_server_cert(end_entity, intermediates, &name, &[], now).is_ok();
        let client = self.trusted.verify_client_cert(end_entity, intermediates, now).is_ok();
        assert_eq!(server, client, "a node is a server and a client");
        server
    }

    /// Shows another certificate, and trusts others, on connections that are made from now on.
    pub fn replace(&self, credentials: &Credentials) -> Result<(), PkiError> {
        let (fresh, verifiers) = (certified(credentials)?, Verifiers::of(&credentials.ca)?);
        *self.trusted.0.write().unwrap_or_else(PoisonError::into_inner) = verifiers;
        *self.own.0.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }
}

/// The chain that a node shows: its certificate, what vouches for its CA, and the CAs themselves
/// for joiners.
fn certified(credentials: &Credentials) -> Result<Arc<CertifiedKey>, PkiError> {
    let mut chain = certificates(&credentials.certificate)?;
    chain.extend(certificates(&credentials.ca)?);
    let bad = |reason: String| PkiError::Read { what: "node key", reason };
    let key = PrivateKeyDer::from_pem_slice(credentials.key.as_bytes())
        .map_err(|e| bad(e.to_string()))?;
    let key = verify::provider().key_provider.load_private_key(key).map_err(PkiError::Tls)?;
    let certified = CertifiedKey::new(chain, key);
    certified.keys_match().map_err(PkiError::Tls)?;
    Ok(Arc::new(certified))
}

impl Own {
    fn get(&self) -> Arc<CertifiedKey> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ResolvesServerCert for Own {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.get())
    }
}

impl ResolvesClientCert for Own {
    fn resolve(&self, _issuers: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.get())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// The moment as of which a certificate is checked: now, or its last one if it ended within the
/// grace, or its first one if that is still to come.
fn checked_at(certificate: &CertificateDer<'_>, now: UnixTime) -> UnixTime {
    let Ok(lifetime) = lifetime_of(certificate) else { return now };
    let now = verify::begun_at(certificate, now);
    let end = Duration::from_secs(lifetime.end);
    let since = Duration::from_secs(now.as_secs()).saturating_sub(end);
    if since.is_zero() || since > GRACE { now } else { UnixTime::since_unix_epoch(end) }
}

/// Verifies peers by the CAs that are trusted now, and takes ended certificates for a while.
#[derive(Debug)]
struct Trusted(RwLock<Verifiers>);

#[derive(Debug, Clone)]
struct Verifiers {
    servers: Arc<WebPkiServerVerifier>,
    clients: Arc<dyn ClientCertVerifier>,
}

impl Verifiers {
    /// By these CAs, PEM.
    fn of(cas: &str) -> Result<Self, PkiError> {
        let provider = verify::provider();
        let mut roots = rustls::RootCertStore::empty();
        for ca in certificates(cas)? {
            roots.add(ca).map_err(PkiError::Tls)?;
        }
        let roots = Arc::new(roots);
        let unusable = |reason: String| PkiError::Read { what: "CA certificate", reason };
        let servers = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|e| unusable(e.to_string()))?;
        let clients = WebPkiClientVerifier::builder_with_provider(roots, provider)
            .allow_unauthenticated()
            .build()
            .map_err(|e| unusable(e.to_string()))?;
        Ok(Self { servers, clients })
    }
}

impl Trusted {
    fn get(&self) -> Verifiers {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ServerCertVerifier for Trusted {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let at = checked_at(end_entity, now);
        self.get().servers.verify_server_cert(end_entity, intermediates, server_name, ocsp, at)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.get().servers.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.get().servers.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.get().servers.supported_verify_schemes()
    }
}

impl ClientCertVerifier for Trusted {
    fn offer_client_auth(&self) -> bool {
        self.get().clients.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.get().clients.client_auth_mandatory()
    }

    /// None: a node has one certificate, and shows it.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let at = checked_at(end_entity, now);
        self.get().clients.verify_client_cert(end_entity, intermediates, at)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.get().clients.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.get().clients.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.get().clients.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use cluster::id::{ClusterId, NodeId};
    use cluster::spec::Role;
    use time::OffsetDateTime;

    use cluster::object::CaRotation;

    use super::super::{
        Authority, Ca, PeerIdentity, ca_name, certificate_der, cross_sign, new_ca, new_request,
        sign, trust_of,
    };
    use super::*;

    const DAYS: u64 = 90;
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    #[test]
    fn a_certificate_is_taken_before_it_begins_and_within_the_grace_after_its_end() {
        let begin = OffsetDateTime::UNIX_EPOCH + time::Duration::days(20_000);
        let identity = PeerIdentity { cluster: ClusterId(7), node: NodeId(9), role: Role::Worker };
        let ca = new_ca(identity.cluster, begin).unwrap();
        let (_key, request) = new_request().unwrap();
        let life = DAY * u32::try_from(DAYS).unwrap();
        let certificate = sign(&ca, &request, identity, begin, life).unwrap();
        let certificate = certificate_der(&certificate).unwrap();
        let verifier = Trusted(RwLock::new(Verifiers::of(&ca.certificate).unwrap()));
        let taken = |days: i64| {
            let now = u64::try_from((begin + time::Duration::days(days)).unix_timestamp()).unwrap();
            let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
            verifier.verify_client_cert(&certificate, &[], now).is_ok()
        };
        for (days, expected) in
            [(-60, true), (0, true), (89, true), (91, true), (119, true), (121, false)]
        {
            assert_eq!(taken(days), expected, "after {days} days");
        }
    }

    /// A cluster's CA at the stages of a rotation.
    struct Stages {
        before: Authority,
        during: Authority,
        after: Authority,
        /// Another one began before the first was complete.
        replaced: Authority,
    }

    /// By the clocks of the managers that made the old CA and that began the rotation.
    fn stages(made: OffsetDateTime, begun: OffsetDateTime) -> Stages {
        let state = crate::fixture::cluster();
        let mut cluster = cluster::object::Cluster::clone(state.cluster.as_ref().unwrap());
        let ca = |at| new_ca(cluster.id, at).unwrap();
        let (old, new, other) = (ca(made), ca(begun), ca(begun));
        (cluster.ca_certificate, cluster.ca_key) = (old.certificate.clone(), old.key.clone());
        let mut rotating = |to: &Ca| {
            let rotation = CaRotation {
                certificate: to.certificate.clone(),
                key: to.key.clone(),
                cross_signed: cross_sign(to, &old, begun).unwrap(),
                from: ca_name(&old.certificate).unwrap(),
                to: ca_name(&to.certificate).unwrap(),
                worker_token: String::new(),
                manager_token: String::new(),
                begun_at: cluster::time::Timestamp(0),
            };
            cluster.ca_rotation = Some(Box::new(rotation));
            Authority::of(&cluster)
        };
        let (during, replaced) = (rotating(&new), rotating(&other));
        Stages { before: Authority::alone(old), during, after: Authority::alone(new), replaced }
    }

    /// Goal: at no moment of a rotation does a node refuse another, and afterwards no node trusts
    /// the old CA; with right and wrong clocks of the managers that made the CAs. Method: all pairs
    /// of a node that trusts and one that shows, and joiners.
    #[test]
    fn nodes_accept_each_other_throughout_a_rotation() {
        let now = OffsetDateTime::UNIX_EPOCH + time::Duration::days(20_000);
        let ahead = now + time::Duration::days(60);
        for (made, begun) in [(now, now), (now, ahead), (ahead, now), (ahead, ahead)] {
            accept_each_other(now, stages(made, begun));
        }
    }

    fn accept_each_other(now: OffsetDateTime, stages: Stages) {
        let Stages { before, during, after, replaced } = stages;
        let (key, request) = new_request().unwrap();
        let identity = PeerIdentity { cluster: ClusterId(7), node: NodeId(9), role: Role::Worker };
        let nodes = [&before, &during, &after, &replaced].map(|authority| {
            let certificate = authority.sign(&request, identity, now, DAY).unwrap();
            Credentials { ca: authority.roots().to_owned(), certificate, key: key.clone() }
        });
        let at = Duration::from_secs(u64::try_from(now.unix_timestamp()).unwrap());
        let at = UnixTime::since_unix_epoch(at);
        let name = ServerName::try_from(super::super::SERVER_NAME).unwrap();
        let chain = |node: &Credentials| certified(node).unwrap().cert.clone();
        let accepts = |truster: &Credentials, shown: &Credentials| {
            let trusted = Trusted(RwLock::new(Verifiers::of(&truster.ca).unwrap()));
            let chain = chain(shown);
            let client = trusted.verify_client_cert(&chain[0], &chain[1..], at).is_ok();
            let server = trusted.verify_server_cert(&chain[0], &chain[1..], &name, &[], at).is_ok();
            assert_eq!(client, server);
            client
        };
        let table = nodes.each_ref().map(|one| nodes.each_ref().map(|other| accepts(one, other)));
        assert_eq!(
            table,
            [
                // Shown: before, during, after, replaced.
                [true, true, false, true],
                [true, true, true, true],
                [false, true, true, false],
                [true, true, false, true],
            ]
        );
        let joins = |token: &Authority, shown: &Credentials| {
            let first = super::super::certificates(token.roots()).unwrap();
            let joiner = verify::ByDigest::new(super::super::digest_of(first.last().unwrap()));
            let chain = chain(shown);
            joiner.verify_server_cert(&chain[0], &chain[1..], &name, &[], at).is_ok()
        };
        let old = nodes.each_ref().map(|shown| joins(&before, shown));
        let new = nodes.each_ref().map(|shown| joins(&after, shown));
        assert_eq!((old, new), ([true, true, false, true], [false, true, true, false]));
        let moved = |node: &Credentials| trust_of(node).unwrap();
        assert_eq!(moved(&nodes[1]).issuer, moved(&nodes[2]).issuer);
        assert_ne!(moved(&nodes[1]).issuer, moved(&nodes[0]).issuer);
        assert_eq!([1, 2, 1, 2], nodes.each_ref().map(|node| moved(node).roots.len()));
    }

    /// What is trusted changes for configurations that are in use.
    #[test]
    fn the_old_ca_is_dropped_without_a_restart() {
        let now = OffsetDateTime::UNIX_EPOCH + time::Duration::days(20_000);
        let Stages { before, during, after, .. } = stages(now, now);
        let (key, request) = new_request().unwrap();
        let identity = PeerIdentity { cluster: ClusterId(7), node: NodeId(9), role: Role::Worker };
        let [old, moving, new] = [&before, &during, &after].map(|authority| {
            let certificate = authority.sign(&request, identity, now, DAY).unwrap();
            Credentials { ca: authority.roots().to_owned(), certificate, key: key.clone() }
        });
        let tls = Tls::new(&old).unwrap();
        let at = Duration::from_secs(u64::try_from(now.unix_timestamp()).unwrap());
        let accepts = |shown: &Credentials| {
            let chain = certified(shown).unwrap().cert.clone();
            let at = UnixTime::since_unix_epoch(at);
            tls.trusted.verify_client_cert(&chain[0], &chain[1..], at).is_ok()
        };
        assert_eq!([&old, &moving, &new].map(accepts), [true, true, false]);
        tls.replace(&moving).unwrap();
        assert_eq!([&old, &moving, &new].map(accepts), [true, true, true]);
        tls.replace(&new).unwrap();
        assert_eq!([&old, &moving, &new].map(accepts), [false, true, true]);
        assert_eq!(tls.own.get().cert.len(), 2);
    }
}
