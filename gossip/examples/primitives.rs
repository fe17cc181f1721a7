//! What the cryptography under gossip costs on this machine: signatures of the two kinds that a
//! node could prove its rows with, and the key that opens a datagram. Prints figures for
//! docs/benchmarks.md.
//!
//! `cargo run --release -p gossip --example primitives`

use std::hint::black_box;
use std::io::Write as _;
use std::time::Instant;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Prk, Salt};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _, UnparsedPublicKey,
};

/// Of each figure.
const RUNS: u32 = 5_000;
/// About what a row is when it is signed, and a full datagram.
const ROW: [u8; 128] = [7; 128];
const DATAGRAM: usize = 1_200;

#[expect(clippy::disallowed_methods, reason = "it measures, so its clock is a real one")]
fn clock() -> Instant {
    Instant::now()
}

fn figure<T>(what: &str, mut work: impl FnMut() -> T) {
    let begin = clock();
    for _ in 0..RUNS {
        black_box(work());
    }
    let micros = begin.elapsed().as_secs_f64() * 1e6 / f64::from(RUNS);
    writeln!(std::io::stdout(), "| {what} | {micros:.2} us |").expect("standard output is open");
}

fn derived(key: &Prk) -> LessSafeKey {
    let derived = key.expand(&[b"a run of a node"], &AES_256_GCM).expect("32 bytes can be had");
    LessSafeKey::new(UnboundKey::from(derived))
}

fn main() {
    let random = SystemRandom::new();
    let ed25519 = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("any 32 bytes are a seed");
    let proof = ed25519.sign(&ROW);
    let key = UnparsedPublicKey::new(&ED25519, ed25519.public_key().as_ref());
    figure("sign, Ed25519", || ed25519.sign(&ROW));
    figure("verify, Ed25519", || key.verify(&ROW, proof.as_ref()).expect("it was signed"));

    let kind = &ECDSA_P256_SHA256_ASN1_SIGNING;
    let document = EcdsaKeyPair::generate_pkcs8(kind, &random).expect("a key");
    let p256 = EcdsaKeyPair::from_pkcs8(kind, document.as_ref(), &random).expect("that key");
    let proof = p256.sign(&random, &ROW).expect("a signature");
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, p256.public_key().as_ref());
    figure("sign, ECDSA P-256", || p256.sign(&random, &ROW).expect("a signature"));
    figure("verify, ECDSA P-256", || key.verify(&ROW, proof.as_ref()).expect("it was signed"));

    let cluster = Salt::new(HKDF_SHA256, b"purpose").extract(&[7; 32]);
    figure("derive the key of a datagram", || derived(&cluster));
    let key = derived(&cluster);
    let mut datagram = vec![7; DATAGRAM];
    figure("seal a datagram of 1,200 bytes", || {
        let nonce = Nonce::assume_unique_for_key([7; 12]);
        key.seal_in_place_separate_tag(nonce, Aad::empty(), &mut datagram).expect("it is short")
    });
}
