//! Generic resources: what a node offers in counts or by name and services reserve, like GPUs.
//! Docker's words and forms (swarmkit's `api/genericresource`).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// Resources that a node offers, and kinds that a service reserves.
pub const RESOURCES_MAX: usize = 64;
/// Bytes of a kind or a name.
const WORD_BYTES_MAX: usize = 64;
/// What the variables of a task begin with.
const VARIABLE: &str = "DOCKER_RESOURCE";

/// So many of a kind, or one of it by its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum GenericResource {
    /// One of a set.
    #[serde(rename = "NamedResourceSpec")]
    Named(Named),
    /// A count.
    #[serde(rename = "DiscreteResourceSpec")]
    Discrete(Discrete),
}

/// One of a set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Named {
    /// Which set.
    pub kind: String,
    /// Which of it.
    pub value: String,
}

/// A count.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Discrete {
    /// Of what.
    pub kind: String,
    /// How many; Docker's type, a negative number is refused.
    pub value: i64,
}

impl GenericResource {
    fn named(kind: &str, value: &str) -> Self {
        Self::Named(Named { kind: kind.to_owned(), value: value.to_owned() })
    }

    fn discrete(kind: &str, value: i64) -> Self {
        Self::Discrete(Discrete { kind: kind.to_owned(), value })
    }

    /// Of what it is.
    #[must_use]
    pub fn kind(&self) -> &str {
        match self {
            Self::Named(named) => &named.kind,
            Self::Discrete(discrete) => &discrete.kind,
        }
    }

    fn value(&self) -> String {
        match self {
            Self::Named(named) => named.value.clone(),
            Self::Discrete(discrete) => discrete.value.to_string(),
        }
    }
}

/// What a node offers, from `KIND=COUNT` and `KIND=NAME`, the latter any number of times.
///
/// # Errors
/// What cannot be meant, by its text.
pub fn parse(texts: &[String]) -> Result<Vec<GenericResource>, String> {
    let mut offered: Vec<GenericResource> = Vec::new();
    for text in texts {
        let wrong = || format!("{text:?}: give KIND=COUNT or KIND=NAME, like gpu=2 or gpu=UUID1");
        let (kind, value) = text.split_once('=').ok_or_else(wrong)?;
        let (kind, value) = (kind.trim(), value.trim());
        if !is_word(kind) || !is_word(value) {
            return Err(wrong());
        }
        let resource = match value.parse::<i64>() {
            Ok(count) if count < 0 => return Err(wrong()),
            Ok(count) => GenericResource::discrete(kind, count),
            Err(_a_name) => GenericResource::named(kind, value),
        };
        for other in offered.iter().filter(|other| other.kind() == kind) {
            match (other, &resource) {
                (GenericResource::Named(a), GenericResource::Named(b)) if a.value != b.value => {}
                (other, _) => {
                    return Err(format!(
                        "{text:?}: {kind}={} is given too: give one count, or names that differ",
                        other.value()
                    ));
                }
            }
        }
        offered.push(resource);
    }
    if offered.len() > RESOURCES_MAX {
        return Err(format!("{} resources: give {RESOURCES_MAX} at most", offered.len()));
    }
    Ok(offered)
}

/// Whether it can stand in a task's environment.
fn is_word(text: &str) -> bool {
    let allowed = |c: char| !c.is_whitespace() && !c.is_control() && c != '=' && c != ',';
    !text.is_empty() && text.len() <= WORD_BYTES_MAX && text.chars().all(allowed)
}

/// What a service reserves: counts, each kind once.
///
/// # Errors
/// What is no such thing, by its kind.
pub fn check_reserved(wanted: &[GenericResource]) -> Result<(), String> {
    if wanted.len() > RESOURCES_MAX {
        return Err(format!("{} generic resources: give {RESOURCES_MAX} at most", wanted.len()));
    }
    let mut kinds = BTreeSet::new();
    for resource in wanted {
        let kind = resource.kind();
        let GenericResource::Discrete(Discrete { value, .. }) = resource else {
            return Err(format!(
                "invalid argument for resource {kind}: give a count; the scheduler chooses which"
            ));
        };
        if !is_word(kind) {
            return Err(format!(
                "generic resource {kind:?}: give a kind without = and white space"
            ));
        }
        if *value < 0 {
            return Err(format!("generic resource {kind}={value}: a count is not negative"));
        }
        if !kinds.insert(kind) {
            return Err(format!("generic resource {kind} is given twice: leave one out"));
        }
    }
    Ok(())
}

/// A kind that is set aside for a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    kind: String,
    /// None if that is no count: no node has it.
    count: Option<u64>,
}

impl Wanted {
    pub(crate) fn of(resource: &GenericResource) -> Self {
        let count = match resource {
            GenericResource::Discrete(Discrete { value, .. }) => u64::try_from(*value).ok(),
            GenericResource::Named(_) => None,
        };
        Self { kind: resource.kind().to_owned(), count }
    }
}

/// A kind of which a node has too little.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Short<'a> {
    pub(crate) kind: &'a str,
    pub(crate) wanted: u64,
    pub(crate) free: u64,
}

/// What is in use on a node.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Held {
    counts: BTreeMap<String, u64>,
    names: BTreeMap<String, BTreeSet<String>>,
}

impl Held {
    /// Counts what a task has, or counts it no more.
    pub(crate) fn note(&mut self, resources: &[GenericResource], held: bool) {
        for resource in resources {
            match resource {
                GenericResource::Discrete(Discrete { kind, value }) => {
                    let value = u64::try_from(*value).unwrap_or(0);
                    let count = self.counts.entry(kind.clone()).or_default();
                    *count = if held {
                        count.saturating_add(value)
                    } else {
                        count.saturating_sub(value)
                    };
                }
                GenericResource::Named(Named { kind, value }) => {
                    let names = self.names.entry(kind.clone()).or_default();
                    if held {
                        names.insert(value.clone());
                    } else {
                        names.remove(value);
                    }
                }
            }
        }
        self.counts.retain(|_, count| *count > 0);
        self.names.retain(|_, names| !names.is_empty());
    }

    /// What a task gets where this is in use, or what there is too little of. A kind that was
    /// offered in the other form when it was taken counts as well.
    pub(crate) fn claim<'a>(
        &self,
        wanted: &'a [Wanted],
        offered: &[GenericResource],
    ) -> Result<Vec<GenericResource>, Short<'a>> {
        let mut claimed = Vec::new();
        for Wanted { kind, count } in wanted {
            let kind = kind.as_str();
            let wanted = count.ok_or(Short { kind, wanted: 1, free: 0 })?;
            if wanted == 0 {
                continue;
            }
            let counted = self.counts.get(kind).copied().unwrap_or(0);
            let names = self.names.get(kind);
            let (mut all, mut free) = (0_u64, Vec::new());
            for offer in offered.iter().filter(|offer| offer.kind() == kind) {
                match offer {
                    GenericResource::Discrete(offer) => {
                        all = all.saturating_add(u64::try_from(offer.value).unwrap_or(0));
                    }
                    GenericResource::Named(offer) => {
                        if names.is_none_or(|names| !names.contains(&offer.value)) {
                            free.push(offer);
                        }
                    }
                }
            }
            if free.is_empty() {
                let named = names.map_or(0, |names| names.len() as u64);
                let left = all.saturating_sub(counted.saturating_add(named));
                if wanted > left {
                    return Err(Short { kind, wanted, free: left });
                }
                claimed.push(GenericResource::discrete(
                    kind,
                    i64::try_from(wanted).unwrap_or(i64::MAX),
                ));
            } else {
                let left = (free.len() as u64).saturating_sub(counted);
                let count = usize::try_from(wanted).ok().filter(|_| wanted <= left);
                let count = count.ok_or(Short { kind, wanted, free: left })?;
                let taken = free[..count].iter().map(|offer| (*offer).clone());
                claimed.extend(taken.map(GenericResource::Named));
            }
        }
        Ok(claimed)
    }
}

/// Whether a node that offers this still has what a task on it was given.
pub(crate) fn is_offered(given: &[GenericResource], offered: &[GenericResource]) -> bool {
    given.iter().all(|given| {
        offered.iter().any(|offer| match (given, offer) {
            (GenericResource::Discrete(given), GenericResource::Discrete(offer)) => {
                given.kind == offer.kind && given.value <= offer.value
            }
            (given, offer) => given == offer,
        })
    })
}

/// `DOCKER_RESOURCE_<KIND>=…`: a count, or names with commas, as Docker's tasks have them.
pub(crate) fn variables(given: &[GenericResource]) -> Vec<String> {
    let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for resource in given {
        let name = format!("{VARIABLE}_{}", resource.kind()).to_uppercase();
        values.entry(name).or_default().push(resource.value());
    }
    values.into_iter().map(|(name, values)| format!("{name}={}", values.join(","))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(texts: &str) -> Result<Vec<GenericResource>, String> {
        parse(&texts.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    fn reserved(texts: &str) -> Vec<Wanted> {
        offered(texts).unwrap().iter().map(Wanted::of).collect()
    }

    #[test]
    fn a_node_offers_counts_or_names() {
        let resources = offered("gpu=UUID1 ssd=3 gpu=UUID2").unwrap();
        let json = serde_json::json!([
            { "NamedResourceSpec": { "Kind": "gpu", "Value": "UUID1" } },
            { "DiscreteResourceSpec": { "Kind": "ssd", "Value": 3 } },
            { "NamedResourceSpec": { "Kind": "gpu", "Value": "UUID2" } },
        ]);
        assert_eq!(serde_json::to_value(&resources).unwrap(), json);
        assert_eq!(serde_json::from_value::<Vec<GenericResource>>(json).unwrap(), resources);
        for wrong in
            ["gpu", "=1", "gpu=", "gpu=-1", "gpu=a gpu=1", "gpu=1 gpu=2", "gpu=a gpu=a", "g=a=b"]
        {
            let last = wrong.split(' ').next_back().unwrap();
            assert!(offered(wrong).unwrap_err().starts_with(&format!("{last:?}: ")), "{wrong}");
        }
    }

    #[test]
    fn a_service_reserves_counts() {
        let gpu = |count| GenericResource::discrete("gpu", count);
        assert_eq!(check_reserved(&[gpu(0), GenericResource::discrete("ssd", 2)]), Ok(()));
        for (wrong, named) in [
            (vec![GenericResource::named("gpu", "UUID1")], "invalid argument for resource gpu"),
            (vec![gpu(-1)], "gpu=-1"),
            (vec![gpu(1), gpu(2)], "gpu is given twice"),
            (vec![GenericResource::discrete("a=b", 1)], "\"a=b\""),
        ] {
            assert!(check_reserved(&wrong).unwrap_err().contains(named), "{wrong:?}");
        }
    }

    /// Kinds that are wanted, that a node has, and that are in use; what a task gets.
    #[test]
    fn claims() {
        for (wanted, has, used, expected) in [
            ("gpu=1", "gpu=a gpu=b", "ssd=1", Some("gpu=a")),
            ("gpu=1", "gpu=a gpu=b", "gpu=a", Some("gpu=b")),
            ("gpu=2", "gpu=a gpu=b", "gpu=a", None),
            ("gpu=1", "gpu=2", "gpu=1", Some("gpu=1")),
            ("gpu=2", "gpu=2", "gpu=1", None),
            ("gpu=1", "ssd=2", "ssd=1", None),
            ("gpu=1 ssd=2", "ssd=2 gpu=a", "gpu=b", Some("gpu=a ssd=2")),
            // The node used to offer the other form.
            ("gpu=1", "gpu=a gpu=b", "gpu=1", Some("gpu=a")),
            ("gpu=1", "gpu=a gpu=b", "gpu=2", None),
            ("gpu=1", "gpu=2", "gpu=a gpu=b", None),
        ] {
            let mut held = Held::default();
            held.note(&offered(used).unwrap(), true);
            let claimed = held.claim(&reserved(wanted), &offered(has).unwrap()).ok();
            let expected = expected.map(|texts| offered(texts).unwrap());
            assert_eq!(claimed, expected, "{wanted} of {has} with {used} in use");
        }
        let mut held = Held::default();
        held.note(&offered("gpu=a ssd=2").unwrap(), true);
        for (wanted, has, free) in [("ssd=3", "ssd=4", 2), ("gpu=2", "gpu=a gpu=b", 1)] {
            let wanted = reserved(wanted);
            let short = held.claim(&wanted, &offered(has).unwrap()).unwrap_err();
            assert_eq!((short.kind, short.free), (wanted[0].kind.as_str(), free));
        }
        let none = [Wanted::of(&GenericResource::discrete("gpu", 0))];
        assert_eq!(Held::default().claim(&none, &[]), Ok(vec![]));
    }

    #[test]
    fn what_a_task_was_given_is_offered_or_not() {
        for (given, has, expected) in [
            ("gpu=a", "gpu=b gpu=a", true),
            ("gpu=a", "gpu=b", false),
            ("gpu=a", "gpu=4", false),
            ("gpu=2", "gpu=2", true),
            ("gpu=2", "gpu=1", false),
        ] {
            let answer = is_offered(&offered(given).unwrap(), &offered(has).unwrap());
            assert_eq!(answer, expected, "{given} of {has}");
        }
    }

    #[test]
    fn tasks_are_told_in_docker_s_form() {
        let given = offered("nvidia-gpu=UUID1 ssd=3 nvidia-gpu=UUID2").unwrap();
        let told = ["DOCKER_RESOURCE_NVIDIA-GPU=UUID1,UUID2", "DOCKER_RESOURCE_SSD=3"];
        assert_eq!(variables(&given), told);
    }
}
