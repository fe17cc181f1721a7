//! The CA that is to take the place of a cluster's: one of the user's is checked before anything
//! changes, and the old CA signs for it.

use cluster::id::{ClusterId, NodeId};
use cluster::spec::Role;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData as _,
};
use time::{Duration, OffsetDateTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::der_parser::asn1_rs::Tag;
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::AttributeTypeAndValue;

use super::authority::is_of;
use super::{
    CA_DAYS, Ca, PeerIdentity, PkiError, certificate_der, certificates, lifetime, make,
    new_request, sign,
};

/// The longest certificate, and the longest key, that is taken, PEM.
const PEM_BYTES_MAX: usize = 16 << 10;
/// A CA of the user's is good for so long at least, as swarmkit's.
const CA_DAYS_MIN: i64 = 365;
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

fn refused(reason: impl Into<String>) -> PkiError {
    PkiError::Read { what: "the CA that is to take over", reason: reason.into() }
}

/// Takes a CA of the user's, if nodes' certificates can be signed and verified with it.
pub fn adopt(certificate: &str, key: &str, now: OffsetDateTime) -> Result<Ca, PkiError> {
    if certificate.len().max(key.len()) > PEM_BYTES_MAX {
        return Err(refused(format!(
            "its certificate and its key may have {PEM_BYTES_MAX} bytes each"
        )));
    }
    let found = certificates(certificate).map_err(|error| refused(error.to_string()))?;
    let [der] = &found[..] else {
        return Err(refused(format!(
            "{} certificates are given: give the one of the CA that is to sign",
            found.len()
        )));
    };
    let (_, parsed) = X509Certificate::from_der(der)
        .map_err(|error| refused(format!("its certificate cannot be read: {error}")))?;
    check_purpose(&parsed)?;
    check_life(&parsed, now)?;
    let pair = KeyPair::from_pem(key).map_err(|error| {
        refused(format!(
            "its key cannot be used ({error}): give a private key as PKCS #8, like the output of \
             `openssl pkcs8 -topk8 -nocrypt -in KEY`"
        ))
    })?;
    if pair.subject_public_key_info() != parsed.public_key().raw {
        return Err(refused("its key is not that of its certificate: give the two that belong"));
    }
    let body = certificate.split(BEGIN).nth(1).and_then(|rest| rest.split(END).next());
    let body = body.unwrap_or_default();
    let ca = Ca { certificate: format!("{BEGIN}{body}{END}\n"), key: key.to_owned() };
    try_out(&ca, now)?;
    Ok(ca)
}

fn check_purpose(parsed: &X509Certificate<'_>) -> Result<(), PkiError> {
    let bad = |error: x509_parser::error::X509Error| refused(error.to_string());
    let constraints = parsed.basic_constraints().map_err(bad)?;
    if !constraints.is_some_and(|found| found.value.ca) {
        return Err(refused("its certificate is not that of a CA (basic constraints, CA:TRUE)"));
    }
    let usage = parsed.key_usage().map_err(bad)?;
    if usage.is_some_and(|found| !found.value.key_cert_sign()) {
        return Err(refused("its certificate does not allow to sign certificates (key usage)"));
    }
    Ok(())
}

fn check_life(parsed: &X509Certificate<'_>, now: OffsetDateTime) -> Result<(), PkiError> {
    let (begin, end) = (parsed.validity().not_before, parsed.validity().not_after);
    let (begin, end) = (begin.to_datetime(), end.to_datetime());
    let day = OffsetDateTime::date;
    if end <= now {
        return Err(refused(format!("its certificate has expired on {}", day(end))));
    }
    if end < now + Duration::days(CA_DAYS_MIN) {
        return Err(refused(format!(
            "its certificate expires too soon, on {}: give one that is good for {CA_DAYS_MIN} days \
             at least",
            day(end)
        )));
    }
    if begin > now {
        return Err(refused(format!("its certificate is not valid before {}", day(begin))));
    }
    Ok(())
}

/// Signs a certificate and verifies it, as each node will.
fn try_out(ca: &Ca, now: OffsetDateTime) -> Result<(), PkiError> {
    let (_, request) = new_request()?;
    let nobody = PeerIdentity { cluster: ClusterId(0), node: NodeId(0), role: Role::Worker };
    let signed = sign(ca, &request, nobody, now, std::time::Duration::from_secs(60))?;
    if !is_of(&certificate_der(&signed)?, &certificate_der(&ca.certificate)?) {
        return Err(refused(
            "what it signs cannot be verified: give a CA with an ECDSA (P-256, P-384), Ed25519 or \
             RSA key of 2048 bits or more, and a plain subject",
        ));
    }
    Ok(())
}

/// A CA's subject and key in a certificate that another CA signs: who trusts that one accepts by it
/// what the CA has signed.
pub fn cross_sign(new: &Ca, old: &Ca, now: OffsetDateTime) -> Result<String, PkiError> {
    let key = KeyPair::from_pem(&old.key).map_err(make("CA key"))?;
    let issuer = Issuer::from_ca_cert_pem(&old.certificate, key).map_err(make("CA certificate"))?;
    let subject = certificate_der(&new.certificate)?;
    let (_, parsed) =
        X509Certificate::from_der(&subject).map_err(|error| refused(error.to_string()))?;
    let mut params = CertificateParams::default();
    params.distinguished_name = name_of(&parsed)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    lifetime(&mut params, now, Duration::days(CA_DAYS));
    // It says who, not when: nodes check it by clocks that may be behind this one, and behind that
    // of the manager that made the old CA.
    params.not_before = OffsetDateTime::UNIX_EPOCH;
    let key = KeyPair::from_pem(&new.key).map_err(make("CA key"))?;
    let signed = params.signed_by(&key, &issuer).map_err(make("CA certificate"))?;
    let (_, written) =
        X509Certificate::from_der(signed.der()).map_err(|error| refused(error.to_string()))?;
    if written.subject().as_raw() != parsed.subject().as_raw() {
        return Err(refused(format!(
            "its subject {} cannot be written again: give a CA with a plain subject, like CN=ca",
            parsed.subject()
        )));
    }
    Ok(signed.pem())
}

fn name_of(parsed: &X509Certificate<'_>) -> Result<DistinguishedName, PkiError> {
    let mut name = DistinguishedName::new();
    for attribute in parsed.subject().iter_attributes() {
        let arcs = attribute.attr_type().iter();
        let arcs: Option<Vec<u64>> = arcs.map(Iterator::collect);
        let arcs = arcs.ok_or_else(|| refused("its subject has a type out of range"))?;
        name.push(DnType::from_oid(&arcs), value_of(attribute)?);
    }
    Ok(name)
}

fn value_of(attribute: &AttributeTypeAndValue<'_>) -> Result<DnValue, PkiError> {
    let unusual = || refused("its subject has text of an unusual kind: give UTF-8 text");
    let text = attribute.as_str().map_err(|_not_text| unusual())?;
    let bad = |error: rcgen::Error| refused(error.to_string());
    match attribute.attr_value().tag() {
        Tag::Utf8String => Ok(DnValue::Utf8String(text.to_owned())),
        Tag::PrintableString => Ok(DnValue::PrintableString(text.try_into().map_err(bad)?)),
        Tag::Ia5String => Ok(DnValue::Ia5String(text.try_into().map_err(bad)?)),
        _other => Err(unusual()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::new_ca;
    use super::*;

    fn now() -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + Duration::days(20_000)
    }

    fn own(change: impl FnOnce(&mut CertificateParams)) -> Ca {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "own");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        lifetime(&mut params, now(), Duration::days(CA_DAYS));
        change(&mut params);
        let certificate = params.self_signed(&key).unwrap().pem();
        Ca { certificate, key: key.serialize_pem() }
    }

    #[test]
    fn a_ca_that_cannot_take_over_is_refused_by_its_fault() {
        let (good, other) = (own(|_| {}), own(|_| {}));
        let node = own(|params| params.is_ca = IsCa::NoCa);
        let mute = own(|params| params.key_usages = vec![KeyUsagePurpose::DigitalSignature]);
        let old = own(|params| params.not_after = now() - Duration::days(1));
        let soon = own(|params| params.not_after = now() + Duration::days(364));
        let later = own(|params| params.not_before = now() + Duration::days(1));
        let both = format!("{}{}", good.certificate, other.certificate);
        let long = "x".repeat(PEM_BYTES_MAX + 1);
        for (certificate, key, reason) in [
            ("rubbish", &good.key, "0 certificates are given"),
            (&both, &good.key, "2 certificates are given"),
            (&long, &good.key, "16384 bytes"),
            (&good.certificate, &"rubbish".to_owned(), "its key cannot be used"),
            (&good.certificate, &other.key, "its key is not that of its certificate"),
            (&node.certificate, &node.key, "not that of a CA"),
            (&mute.certificate, &mute.key, "does not allow to sign"),
            (&old.certificate, &old.key, "has expired on 2024-10-03"),
            (&soon.certificate, &soon.key, "expires too soon, on 2025-10-03"),
            (&later.certificate, &later.key, "not valid before 2024-10-05"),
        ] {
            let error = adopt(certificate, key, now()).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
        let text = format!("a comment\n{}\nand more", good.certificate);
        let taken = adopt(&text, &good.key, now()).unwrap();
        assert_eq!(taken.certificate.trim(), good.certificate.trim().replace('\r', ""));
    }

    #[test]
    fn a_name_that_cannot_be_written_again_is_refused() {
        let old = new_ca(ClusterId(1), now()).unwrap();
        let plain = own(|params| {
            params.distinguished_name.push(DnType::OrganizationName, "Überall AG");
            params
                .distinguished_name
                .push(DnType::CountryName, DnValue::PrintableString("DE".try_into().unwrap()));
        });
        cross_sign(&plain, &old, now()).unwrap();
        let unusual = own(|params| {
            let text = DnValue::BmpString("own".try_into().unwrap());
            params.distinguished_name.push(DnType::OrganizationName, text);
        });
        let error = cross_sign(&unusual, &old, now()).unwrap_err().to_string();
        assert!(error.contains("its subject has text of an unusual kind"), "{error}");
    }
}
