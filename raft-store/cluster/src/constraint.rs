//! Placement constraints: `node.role==worker` and the like (swarmkit `manager/constraint`).

use crate::object::Node;
use crate::spec::TaskSpec;

/// One constraint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Constraint {
    key: Key,
    equal: bool,
    value: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Key {
    Id,
    Hostname,
    Role,
    Os,
    Architecture,
    Label(String),
    /// Labels of the engine: nodes here have none.
    EngineLabel,
}

/// The parts that a key and a value may be made of, as in Docker.
const KEY_MARKS: &str = "-_./:";
const VALUE_MARKS: &str = ".:-_/*()?+[]\\^$| ";

impl Constraint {
    /// Reads one constraint; the error is one line for the user.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        // The first operator counts: `a==b!=c` has the value `b!=c`, which is then refused.
        let operator = [text.find("=="), text.find("!=")].into_iter().flatten().min();
        let Some(at) = operator else {
            return Err(format!("constraint expected one operator from ==, != in '{text}'"));
        };
        let (key, value) = (text[..at].trim(), text[at + 2..].trim());
        if key.is_empty() || !key.chars().all(|c| is_part(c, KEY_MARKS)) {
            return Err(format!("key '{key}' is invalid in constraint '{text}'"));
        }
        if value.is_empty() || !value.chars().all(|c| is_part(c, VALUE_MARKS)) {
            return Err(format!("value '{value}' is invalid in constraint '{text}'"));
        }
        let equal = text[at..].starts_with("==");
        Ok(Self { key: Key::parse(key, text)?, equal, value: value.to_owned() })
    }

    /// Whether the node meets it. Values compare without regard to case, as in Docker; labels too.
    pub(crate) fn matches(&self, node: &Node) -> bool {
        let id;
        let actual = match &self.key {
            Key::Id => {
                id = node.id.to_string();
                id.as_str()
            }
            Key::Hostname => &node.description.hostname,
            Key::Role => node.role().name(),
            Key::Os => &node.description.os,
            Key::Architecture => {
                return self.equal
                    == same_architecture(&node.description.architecture, &self.value);
            }
            Key::Label(name) => node.spec.labels.get(name).map_or("", String::as_str),
            Key::EngineLabel => "",
        };
        self.equal == actual.eq_ignore_ascii_case(&self.value)
    }
}

impl Key {
    fn parse(key: &str, text: &str) -> Result<Self, String> {
        let lower = key.to_ascii_lowercase();
        Ok(match lower.as_str() {
            "node.id" => Self::Id,
            "node.hostname" => Self::Hostname,
            "node.role" => Self::Role,
            "node.platform.os" => Self::Os,
            "node.platform.arch" => Self::Architecture,
            _ if lower.starts_with("node.labels.") => {
                Self::Label(key["node.labels.".len()..].to_owned())
            }
            _ if lower.starts_with("engine.labels.") => Self::EngineLabel,
            _ => {
                return Err(format!(
                    "key '{key}' is unknown in constraint '{text}': use node.id, node.hostname, \
                     node.role, node.platform.os, node.platform.arch or node.labels.NAME"
                ));
            }
        })
    }
}

/// Docker takes `amd64` and `x86_64` for the same, and so for `arm64` and `aarch64`.
fn same_architecture(a: &str, b: &str) -> bool {
    fn canonical(name: &str) -> String {
        match name.to_ascii_lowercase().as_str() {
            "amd64" => "x86_64".to_owned(),
            "arm64" => "aarch64".to_owned(),
            other => other.to_owned(),
        }
    }
    canonical(a) == canonical(b)
}

fn is_part(c: char, marks: &str) -> bool {
    c.is_ascii_alphanumeric() || marks.contains(c)
}

/// Whether a node meets all constraints of a task's spec. A constraint that cannot be read is met
/// by no node; specs are checked when they are stored.
pub(crate) fn all_match(spec: &TaskSpec, node: &Node) -> bool {
    let constraints = spec.placement.iter().flat_map(|placement| &placement.constraints);
    constraints.map(|text| Constraint::parse(text)).all(|c| c.is_ok_and(|c| c.matches(node)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn constraints_are_met_or_not() {
        let mut node = fixture::node(2, "Alpha", Some(7));
        node.spec.labels.insert("disk".to_owned(), "ssd".to_owned());
        for (text, met) in [
            ("node.hostname==alpha", true),
            ("node.hostname != alpha", false),
            ("node.role==manager", true),
            ("node.role==worker", false),
            ("node.labels.disk==SSD", true),
            ("node.labels.zone==a", false),
            ("node.labels.zone!=a", true),
            ("node.platform.arch==amd64", true),
            ("node.platform.os==linux", true),
            ("node.id==0000000000000000000000002", true),
            ("engine.labels.x==y", false),
        ] {
            assert_eq!(Constraint::parse(text).unwrap().matches(&node), met, "{text}");
        }
    }

    #[test]
    fn bad_constraints_name_the_fault() {
        for (text, fault) in [
            ("node.role", "constraint expected one operator from ==, !="),
            ("node.role=worker", "constraint expected one operator from ==, !="),
            ("==worker", "key '' is invalid"),
            ("node.role==", "value '' is invalid"),
            ("node.label.x==y", "key 'node.label.x' is unknown"),
        ] {
            let error = Constraint::parse(text).unwrap_err();
            assert!(error.starts_with(fault), "{text}: {error}");
        }
    }
}
