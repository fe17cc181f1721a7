//! Query strings and bodies, parsed as Docker does.

use std::collections::BTreeMap;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, Query as AxumQuery};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::control_plane::Consistency;
use crate::error::ApiError;
use crate::json_case::{Shape, correct};

/// The largest request body that is read. Docker's service specs are some kilobytes; a stack with
/// long environment lists stays far below.
pub const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Parameters of a request; if one is repeated the first counts, as in Go's `Form.Get`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Params(BTreeMap<String, String>);

impl Params {
    /// Text of a parameter, empty where it is absent.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// A boolean as Docker's `BoolValue`: everything is true except these words.
    pub(crate) fn flag(&self, name: &str) -> bool {
        let word = self.text(name).trim().to_ascii_lowercase();
        !matches!(word.as_str(), "" | "0" | "no" | "false" | "none")
    }

    /// The `version` that an update is based on.
    pub(crate) fn version(&self, kind: &str) -> Result<u64, ApiError> {
        let text = self.text("version");
        text.parse().map_err(|error| {
            ApiError::bad_request(format!("invalid {kind} version '{text}': {error}"))
        })
    }

    /// `?consistency=stale` opts out of linearizable reads.
    pub(crate) fn consistency(&self) -> Consistency {
        if self.text("consistency") == "stale" {
            Consistency::Stale
        } else {
            Consistency::Linearizable
        }
    }

    /// All parameters, for routes that pass them on.
    pub(crate) fn into_map(self) -> BTreeMap<String, String> {
        self.0
    }
}

impl FromIterator<(String, String)> for Params {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        let mut map = BTreeMap::new();
        for (name, value) in pairs {
            map.entry(name).or_insert(value);
        }
        Self(map)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let AxumQuery(pairs) = AxumQuery::<Vec<(String, String)>>::from_request_parts(parts, state)
            .await
            .map_err(|error| ApiError::bad_request(error.body_text()))?;
        Ok(pairs.into_iter().collect())
    }
}

/// Go's durations of whole units, like `24h`, `1m30s` or `500ms`, in nanoseconds; `None` for
/// another text and for one beyond 64 bits.
#[must_use]
pub fn duration_ns(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        let unit = &rest[digits..];
        let end = unit.find(|c: char| c.is_ascii_digit()).unwrap_or(unit.len());
        let scale: u64 = match &unit[..end] {
            "ns" => 1,
            "us" | "µs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _other => return None,
        };
        total = total.checked_add(number.checked_mul(scale)?)?;
        rest = &unit[end..];
    }
    (!text.is_empty()).then_some(total)
}

/// Reads a JSON body, corrects key case and `null` with `shape`, and deserializes a `T`.
pub(crate) fn read_json<T: DeserializeOwned>(bytes: &[u8], shape: &Shape) -> Result<T, ApiError> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(ApiError::bad_request("invalid JSON: got EOF while reading request body"));
    }
    let mut value: Value = serde_json::from_slice(bytes).map_err(|error| invalid(&error))?;
    correct(&mut value, shape);
    from_value(value)
}

/// Reads a whole body within the limit.
pub(crate) async fn read_bytes(body: Body) -> Result<Bytes, ApiError> {
    axum::body::to_bytes(body, BODY_BYTES_MAX).await.map_err(|error| {
        let error = error.into_inner();
        if error.is::<http_body_util::LengthLimitError>() {
            ApiError::new(413, format!("request body is larger than {BODY_BYTES_MAX} bytes"))
        } else {
            ApiError::bad_request(format!("cannot read request body: {error}"))
        }
    })
}

/// Deserializes a `T` from JSON that is already corrected.
pub(crate) fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, ApiError> {
    serde_json::from_value(value).map_err(|error| invalid(&error))
}

fn invalid(error: &serde_json::Error) -> ApiError {
    ApiError::bad_request(format!("invalid JSON: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(pairs: &[(&str, &str)]) -> Params {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn booleans_are_read_as_docker_reads_them() {
        for word in ["1", "true", "True", "yes", "x"] {
            assert!(params(&[("force", word)]).flag("force"), "{word}");
        }
        for word in ["", "0", "no", "false", "False", "none"] {
            assert!(!params(&[("force", word)]).flag("force"), "{word}");
        }
        assert!(!params(&[]).flag("force"));
    }

    #[test]
    fn durations_are_gos() {
        for (text, expected) in [
            ("24h", Some(86_400_000_000_000)),
            ("1h30m", Some(5_400_000_000_000)),
            ("10ms", Some(10_000_000)),
            ("3us", Some(3_000)),
            ("7ns", Some(7)),
            ("", None),
            ("24", None),
            ("h", None),
            ("1d", None),
            ("99999999999999999999h", None),
            ("9999999999999999999h", None),
        ] {
            assert_eq!(duration_ns(text), expected, "{text}");
        }
    }

    #[test]
    fn version_is_required() {
        assert_eq!(params(&[("version", "7")]).version("service"), Ok(7));
        let error = params(&[]).version("service").unwrap_err();
        assert_eq!(
            (error.status, error.message.as_str()),
            (400, "invalid service version '': cannot parse integer from empty string")
        );
    }

    #[test]
    fn malformed_json_is_400_with_the_parsers_words() {
        let shape = Shape::Leaf;
        let message = |bytes: &[u8]| read_json::<Value>(bytes, &shape).unwrap_err().message;
        assert_eq!(message(b" "), "invalid JSON: got EOF while reading request body");
        assert_eq!(
            message(b"{\"a\":"),
            "invalid JSON: EOF while parsing a value at line 1 column 5"
        );
    }
}
