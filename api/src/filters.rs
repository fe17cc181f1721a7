//! Docker's `filters` parameter: JSON in two forms, and the rules by which values match.

use std::collections::{BTreeMap, BTreeSet};

use cluster::spec::Labels;
use serde::Deserialize;

use crate::error::ApiError;

/// Most values in one `filters` parameter.
pub const FILTER_VALUES_MAX: usize = 10_000;

/// The filters of a list. Keys are combined with "and", values of one key with "or", labels with
/// "and".
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Filters(BTreeMap<String, BTreeSet<String>>);

#[derive(Deserialize)]
#[serde(untagged)]
enum Values {
    /// `{"name":["x"]}`: docker-py and old clients.
    List(Vec<String>),
    /// `{"name":{"x":true}}`: the docker CLI.
    Set(BTreeMap<String, bool>),
}

impl Filters {
    /// Reads the parameter; empty text is no filter. A key outside `known` is refused.
    pub(crate) fn parse(text: &str, known: &[&str]) -> Result<Self, ApiError> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let raw: BTreeMap<String, Values> = serde_json::from_str(text)
            .map_err(|error| ApiError::bad_request(format!("invalid filters {text}: {error}")))?;
        let mut filters = BTreeMap::new();
        for (key, values) in raw {
            if !known.contains(&key.as_str()) {
                return Err(ApiError::bad_request(format!("Invalid filter '{key}'")));
            }
            let values: BTreeSet<String> = match values {
                Values::List(list) => list.into_iter().collect(),
                Values::Set(set) => set.into_keys().collect(),
            };
            filters.insert(key, values);
        }
        let count: usize = filters.values().map(BTreeSet::len).sum();
        if count > FILTER_VALUES_MAX {
            return Err(ApiError::bad_request(format!(
                "invalid filters: {count} values given, the limit is {FILTER_VALUES_MAX}"
            )));
        }
        Ok(Self(filters))
    }

    /// Values of a key; `None` if the key is absent or has no value, which both mean "all".
    pub(crate) fn values(&self, key: &str) -> Option<&BTreeSet<String>> {
        self.0.get(key).filter(|values| !values.is_empty())
    }

    /// Whether one value equals `candidate`.
    pub(crate) fn exact(&self, key: &str, candidate: &str) -> bool {
        self.values(key).is_none_or(|values| values.contains(candidate))
    }

    /// Whether one value is a prefix of `candidate`, swarmkit's rule for names and ids. A value
    /// may also be anchored (`^name$`), as scripts write it for Docker's local networks.
    pub(crate) fn prefix(&self, key: &str, candidate: &str) -> bool {
        self.values(key).is_none_or(|values| {
            values.iter().any(|value| {
                let value = value.strip_prefix('^').unwrap_or(value);
                value
                    .strip_suffix('$')
                    .map_or_else(|| candidate.starts_with(value), |whole| candidate == whole)
            })
        })
    }

    /// Whether all values (`key` or `key=value`) are among the labels.
    pub(crate) fn labels(&self, key: &str, labels: &Labels) -> bool {
        self.values(key).is_none_or(|values| values.iter().all(|wanted| is_among(wanted, labels)))
    }

    /// Whether none of the values (`key` or `key=value`) is among the labels.
    pub(crate) fn lacks_labels(&self, key: &str, labels: &Labels) -> bool {
        self.values(key).is_none_or(|values| !values.iter().any(|other| is_among(other, labels)))
    }

    /// Refuses a value outside `known`, with Docker's message.
    pub(crate) fn check_words(&self, key: &str, known: &[&str]) -> Result<(), ApiError> {
        let unknown = self
            .values(key)
            .and_then(|values| values.iter().find(|value| !known.contains(&value.as_str())));
        match unknown {
            Some(value) => Err(ApiError::bad_request(format!("Invalid {key} filter: '{value}'"))),
            None => Ok(()),
        }
    }

    /// A boolean filter, `None` if absent.
    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>, ApiError> {
        let Some(values) = self.values(key) else { return Ok(None) };
        let word = |value: &String| match value.as_str() {
            "1" | "true" | "True" => Some(true),
            "0" | "false" | "False" => Some(false),
            _ => None,
        };
        let mut words = values.iter().map(word);
        match (words.next().flatten(), words.next()) {
            (Some(flag), None) => Ok(Some(flag)),
            (_, _) => {
                Err(ApiError::bad_request(format!("Invalid {key} filter: give one of true, false")))
            }
        }
    }
}

/// Whether `key` or `key=value` is among the labels.
fn is_among(wanted: &str, labels: &Labels) -> bool {
    match wanted.split_once('=') {
        Some((name, value)) => labels.get(name).is_some_and(|found| found == value),
        None => labels.contains_key(wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&str] = &["name", "id", "label", "role", "dangling"];

    fn parse(text: &str) -> Filters {
        Filters::parse(text, KNOWN).unwrap()
    }

    #[test]
    fn both_json_forms_mean_the_same() {
        assert_eq!(parse(r#"{"name":{"a":true,"b":true}}"#), parse(r#"{"name":["a","b"]}"#));
        assert_eq!(parse(""), parse("{}"));
    }

    #[test]
    fn bad_filters_are_refused() {
        let message = |text: &str| Filters::parse(text, KNOWN).unwrap_err().message;
        assert_eq!(message(r#"{"colour":["red"]}"#), "Invalid filter 'colour'");
        assert!(message("[1]").starts_with("invalid filters [1]: "), "{}", message("[1]"));
        let role = parse(r#"{"role":["boss"]}"#).check_words("role", &["worker", "manager"]);
        assert_eq!(role.unwrap_err().message, "Invalid role filter: 'boss'");
        assert!(parse(r#"{"dangling":["maybe"]}"#).flag("dangling").is_err());
    }

    #[test]
    fn names_match_by_prefix_or_whole_when_anchored() {
        for (filter, candidate, expected) in [
            (r#"{"name":["we"]}"#, "web", true),
            (r#"{"name":["eb"]}"#, "web", false),
            (r#"{"name":["x","web"]}"#, "web", true),
            (r#"{"name":["^we$"]}"#, "web", false),
            (r#"{"name":["^web$"]}"#, "web", true),
            (r#"{"name":["^we"]}"#, "web", true),
            (r#"{"name":[]}"#, "web", true),
            ("", "web", true),
        ] {
            assert_eq!(parse(filter).prefix("name", candidate), expected, "{filter} {candidate}");
        }
    }

    #[test]
    fn all_labels_must_match() {
        let labels: Labels =
            [("tier", "db"), ("zone", "")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        for (filter, expected) in [
            (r#"{"label":["tier"]}"#, true),
            (r#"{"label":["tier=db"]}"#, true),
            (r#"{"label":["tier=web"]}"#, false),
            (r#"{"label":["zone="]}"#, true),
            (r#"{"label":["tier=db","zone"]}"#, true),
            (r#"{"label":["tier=db","rack"]}"#, false),
        ] {
            assert_eq!(parse(filter).labels("label", &labels), expected, "{filter}");
        }
    }
}
