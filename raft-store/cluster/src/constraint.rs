//! What a service may ask of a node: constraints like `node.role==worker`, platforms, and labels
//! to spread over (swarmkit `manager/constraint`, `manager/scheduler`).

use std::borrow::Cow;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::object::Node;
use crate::spec::{Preference, TaskSpec};

/// A constraint of a spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Requirement {
    text: String,
    read: Result<Constraint, String>,
}

impl Requirement {
    pub(crate) fn of(text: &str) -> Self {
        Self { text: text.to_owned(), read: Constraint::parse(text) }
    }

    /// As it stands in the spec.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Why it cannot be read, in one line for the user.
    pub(crate) fn fault(&self) -> Option<&str> {
        self.read.as_ref().err().map(String::as_str)
    }

    /// What a node has of that which it is about; empty if nothing.
    pub(crate) fn actual<'a>(&self, node: &'a Node) -> Cow<'a, str> {
        self.read.as_ref().map(|read| read.actual(node)).unwrap_or_default()
    }

    fn is_met(&self, node: &Node) -> bool {
        self.read.as_ref().is_ok_and(|read| read.matches(node))
    }
}

/// The first constraint that a node does not meet. One that cannot be read is met by no node.
pub(crate) fn unmet<'a>(constraints: &'a [Requirement], node: &Node) -> Option<&'a Requirement> {
    constraints.iter().find(|constraint| !constraint.is_met(node))
}

/// One constraint, read.
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
    /// Of this prefix; one address is a prefix of its own.
    Address(IpNet),
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
        Ok(Self { key: Key::parse(key, value, text)?, equal, value: value.to_owned() })
    }

    /// Whether the node meets it. Values compare without regard to case, as in Docker; labels too.
    pub(crate) fn matches(&self, node: &Node) -> bool {
        let same = match &self.key {
            Key::Address(prefix) => prefix.contains(&address(node)),
            Key::Architecture => same_architecture(&node.description.architecture, &self.value),
            Key::Id | Key::Hostname | Key::Role | Key::Os | Key::Label(_) | Key::EngineLabel => {
                self.actual(node).eq_ignore_ascii_case(&self.value)
            }
        };
        self.equal == same
    }

    /// What the node has; empty if nothing.
    fn actual<'a>(&self, node: &'a Node) -> Cow<'a, str> {
        match &self.key {
            Key::Id => node.id.to_string().into(),
            Key::Hostname => Cow::from(&node.description.hostname),
            Key::Address(_) => address(node).to_string().into(),
            Key::Role => node.role().name().into(),
            Key::Os => Cow::from(&node.description.os),
            Key::Architecture => Cow::from(&node.description.architecture),
            Key::Label(name) => label(node, name).into(),
            Key::EngineLabel => "".into(),
        }
    }
}

impl Key {
    fn parse(key: &str, value: &str, text: &str) -> Result<Self, String> {
        if let Some(label) = Self::parse_label(key) {
            return Ok(label);
        }
        let lower = key.to_ascii_lowercase();
        Ok(match lower.as_str() {
            "node.id" => Self::Id,
            "node.hostname" => Self::Hostname,
            "node.ip" => {
                let address = value.parse::<IpAddr>().map(IpNet::from);
                let Ok(prefix) = address.or_else(|_no_address| value.parse::<IpNet>()) else {
                    return Err(format!(
                        "value '{value}' is invalid in constraint '{text}': give an address or a \
                         prefix, like 192.0.2.0/24"
                    ));
                };
                Self::Address(prefix)
            }
            "node.role" => Self::Role,
            "node.platform.os" => Self::Os,
            "node.platform.arch" => Self::Architecture,
            _ => {
                return Err(format!(
                    "key '{key}' is unknown in constraint '{text}': use node.id, node.hostname, \
                     node.ip, node.role, node.platform.os, node.platform.arch or node.labels.NAME"
                ));
            }
        })
    }

    /// `node.labels.NAME` or `engine.labels.NAME`.
    fn parse_label(key: &str) -> Option<Self> {
        let after = |prefix: &str| {
            let (start, name) = key.split_at_checked(prefix.len())?;
            (start.eq_ignore_ascii_case(prefix) && !name.is_empty()).then_some(name)
        };
        let of_node = after("node.labels.").map(|name| Self::Label(name.to_owned()));
        of_node.or_else(|| after("engine.labels.").map(|_| Self::EngineLabel))
    }
}

fn label<'a>(node: &'a Node, name: &str) -> &'a str {
    node.spec.labels.get(name).map_or("", String::as_str)
}

/// Where the node's session came from, else where gossip reaches it.
fn address(node: &Node) -> IpAddr {
    node.status.address.parse().unwrap_or(node.description.gossip.ip())
}

/// A label over whose values tasks are spread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SpreadLabel {
    OfNode(String),
    /// Nodes here have none.
    OfEngine,
}

impl SpreadLabel {
    /// Reads a preference; the error is one line for the user.
    pub(crate) fn of(preference: &Preference) -> Result<Self, String> {
        let descriptor = &preference.spread.spread_descriptor;
        match Key::parse_label(descriptor) {
            Some(Key::Label(name)) => Ok(Self::OfNode(name)),
            Some(_of_engine) => Ok(Self::OfEngine),
            None => Err(format!(
                "tasks cannot be spread over '{descriptor}': use node.labels.NAME or \
                 engine.labels.NAME"
            )),
        }
    }
}

/// Where the node stands in what tasks are spread over, the most important first. A node without
/// the label is with the others that have none.
pub(crate) fn place_in_spread<'a>(
    spread: &[Result<SpreadLabel, String>],
    node: &'a Node,
) -> Vec<&'a str> {
    let value = |over: &Result<SpreadLabel, String>| match over {
        Ok(SpreadLabel::OfNode(name)) => label(node, name),
        Ok(SpreadLabel::OfEngine) | Err(_) => "",
    };
    spread.iter().map(value).collect()
}

/// Whether the program of a task's spec runs on the node.
pub(crate) fn runs_on(spec: &TaskSpec, node: &Node) -> bool {
    let platforms = spec.placement.as_ref().map_or(&[][..], |placement| &placement.platforms);
    let about = &node.description;
    platforms.is_empty()
        || platforms.iter().any(|platform| {
            (platform.os.is_empty() || platform.os.eq_ignore_ascii_case(&about.os))
                && (platform.architecture.is_empty()
                    || same_architecture(&platform.architecture, &about.architecture))
        })
}

/// Docker takes `amd64` and `x86_64` for the same, and so for `arm64` and `aarch64`.
fn same_architecture(a: &str, b: &str) -> bool {
    fn canonical(name: &str) -> &str {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        if is("amd64") {
            "x86_64"
        } else if is("arm64") {
            "aarch64"
        } else {
            name
        }
    }
    canonical(a).eq_ignore_ascii_case(canonical(b))
}

fn is_part(c: char, marks: &str) -> bool {
    c.is_ascii_alphanumeric() || marks.contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::spec::{Placement, Platform};

    #[test]
    fn constraints_are_met_or_not() {
        let mut node = fixture::node(2, "Alpha", Some(7));
        node.spec.labels.insert("disk".to_owned(), "ssd".to_owned());
        node.status.address = "192.0.2.7".to_owned();
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
            ("Node.Labels.disk==ssd", true),
            ("node.ip==192.0.2.7", true),
            ("node.ip!=192.0.2.7", false),
            ("node.ip==192.0.2.8", false),
            ("NODE.IP==192.0.2.0/29", true),
            ("node.ip==192.0.2.5/29", true),
            ("node.ip!=192.0.2.8/29", true),
            ("node.ip==2001:db8::/32", false),
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
            ("node.labels.==y", "key 'node.labels.' is unknown"),
            ("node.ip==192.0.2", "value '192.0.2' is invalid"),
            ("node.ip==192.0.2.1/33", "value '192.0.2.1/33' is invalid"),
        ] {
            let error = Constraint::parse(text).unwrap_err();
            assert!(error.starts_with(fault), "{text}: {error}");
        }
    }

    #[test]
    fn a_program_runs_on_the_platforms_that_it_names() {
        let node = fixture::node(2, "alpha", None);
        let platform = |text: &str| {
            let (os, architecture) = text.split_once('/').unwrap();
            Platform {
                os: os.to_owned(),
                architecture: architecture.to_owned(),
                ..Platform::default()
            }
        };
        for (platforms, runs) in [
            ([].as_slice(), true),
            (["linux/amd64"].as_slice(), true),
            (["linux/x86_64"].as_slice(), true),
            (["linux/"].as_slice(), true),
            (["/AMD64"].as_slice(), true),
            (["linux/arm64"].as_slice(), false),
            (["windows/amd64"].as_slice(), false),
            (["linux/arm64", "linux/amd64"].as_slice(), true),
        ] {
            let platforms: Vec<Platform> = platforms.iter().map(|text| platform(text)).collect();
            let placement = Some(Placement { platforms, ..Placement::default() });
            let spec = TaskSpec { placement, ..TaskSpec::default() };
            assert_eq!(runs_on(&spec, &node), runs, "{:?}", spec.placement);
        }
    }
}
