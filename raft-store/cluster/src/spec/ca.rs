//! What the cluster's spec says of its CA.

use serde_json::Value;

use super::ClusterSpec;
use crate::rejection::{Code, Rejection};

/// Parts of `CAConfig` that are asked for and never kept.
const SIGNING: [&str; 2] = ["SigningCACert", "SigningCAKey"];

impl ClusterSpec {
    /// Refuses an external CA by its name; and a CA that stands in the spec, which is no place to
    /// keep its key.
    pub fn check_ca(&self) -> Result<(), Rejection> {
        let Some(ca) = self.extra.get("CAConfig") else { return Ok(()) };
        if let Some(external) = ca["ExternalCAs"].as_array().and_then(|list| list.first()) {
            let url = external["URL"].as_str().unwrap_or_default();
            let message = format!("external CA {url:?}: external CAs are not supported by Skein");
            return Err(Rejection::new(Code::Unimplemented, message));
        }
        if SIGNING.iter().any(|name| ca[*name].as_str().is_some_and(|text| !text.is_empty())) {
            let message = "a CA of your own is not supported by `swarm init`: give it to `swarm \
                           ca --rotate --ca-cert FILE --ca-key FILE` then";
            return Err(Rejection::new(Code::Unimplemented, message));
        }
        Ok(())
    }

    /// `CAConfig.ForceRotate`: who wants another CA counts it up.
    #[must_use]
    pub fn force_rotate(&self) -> u64 {
        self.extra.get("CAConfig").and_then(|ca| ca["ForceRotate"].as_u64()).unwrap_or(0)
    }

    /// Takes the CA out that a client wants: certificate and key, PEM, either one empty if it is
    /// not given.
    pub fn take_signing_ca(&mut self) -> [String; 2] {
        let Some(Value::Object(ca)) = self.extra.get_mut("CAConfig") else {
            return <[String; 2]>::default();
        };
        SIGNING.map(|name| match ca.remove(name) {
            Some(Value::String(text)) => text,
            _none => String::new(),
        })
    }
}
