//! A spec and its terms: what its texts and numbers mean, read once.
//!
//! Docker's form is what is stored, sent and given back; planners read the terms. Both are made
//! here from the spec alone and are not changed afterwards, so they cannot disagree. To read a spec
//! never fails: a text that means nothing is a fault in its term. `decide` refuses a spec with one;
//! where a state has one all the same, each term says what holds.

use std::net::IpAddr;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{
    PortConfig, ResourceAmounts, RestartCondition, RestartPolicy, ServiceSpec, TaskSpec,
    UpdateConfig,
};
use crate::constraint::{Requirement, SpreadLabel};
use crate::generic::Wanted;
use crate::id::NetworkId;
use crate::log_driver::{self, LogDriver};
use crate::rejection::{Code, Rejection};

/// Docker's default of `Monitor`.
const MONITOR: Duration = Duration::from_secs(5);

/// A service's spec with its terms. Copies share both.
#[derive(Debug, Clone)]
pub struct CheckedSpec {
    spec: Arc<ServiceSpec>,
    terms: Arc<ServiceTerms>,
}

/// A task's spec with its terms. Copies share both.
#[derive(Debug, Clone)]
pub struct CheckedTask {
    spec: Arc<TaskSpec>,
    terms: Arc<TaskTerms>,
}

/// What a service's spec means.
#[derive(Debug)]
pub(crate) struct ServiceTerms {
    pub(crate) task: Arc<TaskTerms>,
    /// The template on its own, once a task was made from it: tasks share it.
    template: OnceLock<Arc<TaskSpec>>,
    pub(crate) update: UpdateTerms,
    pub(crate) rollback: UpdateTerms,
    /// Those that tasks attach to. What is no id is left out.
    pub(crate) networks: Vec<NetworkId>,
    /// Of each published port, the address of a node that alone takes calls; none for all of them.
    pub(crate) addresses: Vec<Result<Option<IpAddr>, Rejection>>,
}

/// What a task's spec means.
#[derive(Debug)]
pub(crate) struct TaskTerms {
    /// One that cannot be read is met by no node.
    pub(crate) constraints: Vec<Requirement>,
    /// What tasks are spread over. What cannot be read is a label that no node has.
    pub(crate) spread: Vec<Result<SpreadLabel, String>>,
    /// CPUs times 10^9, and bytes, that are set aside.
    pub(crate) nano_cpus: u64,
    pub(crate) memory_bytes: u64,
    /// No node has enough of what cannot be read.
    pub(crate) generic: Vec<Wanted>,
    pub(crate) restart: RestartTerms,
    /// By their places in the spec. What is no id is left out.
    networks: Vec<(NetworkId, usize)>,
    /// None if the spec names none.
    pub(crate) log_driver: Option<Box<Result<log_driver::Checked, Rejection>>>,
}

/// Whether and when a task that ended is replaced. Durations are whole milliseconds, as clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RestartTerms {
    pub(crate) condition: RestartCondition,
    /// None if the spec does not say.
    pub(crate) delay: Option<Duration>,
    /// None: no limit.
    pub(crate) attempts_max: Option<u64>,
    /// None: for ever.
    pub(crate) window: Option<Duration>,
}

/// How tasks are replaced when the spec changes. Durations are whole milliseconds, as clocks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct UpdateTerms {
    /// Tasks at a time.
    pub(crate) parallelism: u64,
    pub(crate) delay: Duration,
    /// How long a new task is watched.
    pub(crate) monitor: Duration,
    /// None if the text names none: the update pauses.
    pub(crate) failure_action: Option<FailureAction>,
    pub(crate) max_failure_ratio: f64,
    /// None if the text names none: stop-first.
    pub(crate) order: Option<UpdateOrder>,
}

/// What follows when more tasks fail than an update tolerates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailureAction {
    Pause,
    Continue,
    Rollback,
}

/// Whether the old task of a slot goes first or the new one comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UpdateOrder {
    StopFirst,
    StartFirst,
}

impl CheckedSpec {
    /// Reads a spec.
    #[must_use]
    pub fn of(spec: ServiceSpec) -> Self {
        let targets = spec.network_targets().iter();
        let terms = ServiceTerms {
            task: Arc::new(TaskTerms::of(&spec.task_template)),
            template: OnceLock::new(),
            update: UpdateTerms::of(spec.update_config.as_ref()),
            rollback: UpdateTerms::of(spec.rollback_config.as_ref()),
            networks: targets.filter_map(|target| target.target.parse().ok()).collect(),
            addresses: spec.endpoint_spec.ports.iter().map(address).collect(),
        };
        Self { spec: Arc::new(spec), terms: Arc::new(terms) }
    }

    /// What it means.
    pub(crate) fn terms(&self) -> &ServiceTerms {
        &self.terms
    }

    /// The spec of a task made from it, the same one for all of them.
    #[must_use]
    pub fn task(&self) -> CheckedTask {
        let copy = || Arc::new(self.spec.task_template.clone());
        let spec = Arc::clone(self.terms.template.get_or_init(copy));
        CheckedTask { spec, terms: Arc::clone(&self.terms.task) }
    }

    /// What to keep in the place of the spec of a task that was made from this one; none if that is
    /// another, or shared already.
    pub(crate) fn shared(&self, task: &CheckedTask) -> Option<CheckedTask> {
        let known = self.terms.template.get();
        let is_new = known.is_none_or(|known| !Arc::ptr_eq(known, &task.spec));
        (is_new && self.spec.task_template == *task.spec).then(|| self.task())
    }
}

impl CheckedTask {
    /// Reads a spec.
    #[must_use]
    pub fn of(spec: TaskSpec) -> Self {
        Self { terms: Arc::new(TaskTerms::of(&spec)), spec: Arc::new(spec) }
    }

    /// What it means.
    pub(crate) fn terms(&self) -> &TaskTerms {
        &self.terms
    }

    /// The networks that it attaches to, in order, with its further names there.
    pub(crate) fn attached(&self) -> impl Iterator<Item = (NetworkId, &[String])> {
        let places = self.terms.networks.iter();
        places.map(|(id, at)| (*id, self.spec.networks[*at].aliases.as_slice()))
    }

    /// What becomes of the task's output.
    #[must_use]
    pub fn log_driver(&self) -> LogDriver {
        let read = self.terms.log_driver.as_deref();
        let driver = read.and_then(|read| read.as_ref().ok()).map(|checked| checked.driver.clone());
        driver.unwrap_or_default()
    }
}

impl TaskTerms {
    fn of(spec: &TaskSpec) -> Self {
        let placement = spec.placement.as_ref();
        let constraints = placement.map_or(&[][..], |placement| &placement.constraints);
        let preferences = placement.map_or(&[][..], |placement| &placement.preferences);
        let amounts = spec.resources.as_ref().and_then(|all| all.reservations.as_ref());
        let nothing = ResourceAmounts::default();
        let reserved = amounts.unwrap_or(&nothing);
        let networks = spec.networks.iter().enumerate();
        Self {
            constraints: constraints.iter().map(|text| Requirement::of(text)).collect(),
            spread: preferences.iter().map(SpreadLabel::of).collect(),
            nano_cpus: reserved.nano_cpus,
            memory_bytes: reserved.memory_bytes,
            generic: reserved.generic_resources.iter().map(Wanted::of).collect(),
            restart: RestartTerms::of(spec.restart_policy.as_ref()),
            networks: networks
                .filter_map(|(at, target)| Some((target.target.parse().ok()?, at)))
                .collect(),
            log_driver: spec.log_driver.as_ref().map(|driver| Box::new(LogDriver::check(driver))),
        }
    }
}

impl RestartTerms {
    fn of(policy: Option<&RestartPolicy>) -> Self {
        let given = |number: Option<u64>| number.filter(|number| *number > 0);
        Self {
            condition: policy.and_then(|policy| policy.condition).unwrap_or_default(),
            delay: policy.and_then(|policy| policy.delay).map(whole_ms),
            attempts_max: given(policy.and_then(|policy| policy.max_attempts)),
            window: policy.and_then(|policy| policy.window).map(whole_ms).filter(|w| !w.is_zero()),
        }
    }
}

impl UpdateTerms {
    fn of(config: Option<&UpdateConfig>) -> Self {
        let default = UpdateConfig::default();
        let config = config.unwrap_or(&default);
        let failure_action = match config.failure_action.as_str() {
            "" | "pause" => Some(FailureAction::Pause),
            "continue" => Some(FailureAction::Continue),
            "rollback" => Some(FailureAction::Rollback),
            _ => None,
        };
        let order = match config.order.as_str() {
            "" | "stop-first" => Some(UpdateOrder::StopFirst),
            "start-first" => Some(UpdateOrder::StartFirst),
            _ => None,
        };
        Self {
            parallelism: if config.parallelism == 0 { u64::MAX } else { config.parallelism },
            delay: whole_ms(config.delay),
            monitor: if config.monitor == 0 { MONITOR } else { whole_ms(config.monitor) },
            failure_action,
            max_failure_ratio: config.max_failure_ratio,
            order,
        }
    }
}

/// Nanoseconds without the part of a millisecond.
fn whole_ms(ns: u64) -> Duration {
    Duration::from_millis(ns / 1_000_000)
}

/// The address of a node that alone takes calls to the port; none for all of them.
fn address(port: &PortConfig) -> Result<Option<IpAddr>, Rejection> {
    let given = &port.host_ip;
    if given.is_empty() {
        return Ok(None);
    }
    let refuse = |why: &str| {
        let target = port.target_port;
        Rejection::invalid(format!(
            "HostIP {given:?} of target port {target} {why}: give an IPv4 address of a node, or \
             none for all of them"
        ))
    };
    match given.parse() {
        Ok(IpAddr::V4(address)) if address.is_unspecified() => Ok(None),
        Ok(IpAddr::V4(address)) if address.is_multicast() || address.is_broadcast() => {
            Err(refuse("is no address of one machine"))
        }
        Ok(address @ IpAddr::V4(_)) => Ok(Some(address)),
        Ok(IpAddr::V6(_)) => Err(Rejection {
            code: Code::Unimplemented,
            ..refuse("is of IPv6, which published ports do not have yet")
        }),
        Err(_) => Err(refuse("is no IP address")),
    }
}

impl From<ServiceSpec> for CheckedSpec {
    fn from(spec: ServiceSpec) -> Self {
        Self::of(spec)
    }
}

impl From<TaskSpec> for CheckedTask {
    fn from(spec: TaskSpec) -> Self {
        Self::of(spec)
    }
}

impl Deref for CheckedSpec {
    type Target = ServiceSpec;
    fn deref(&self) -> &ServiceSpec {
        &self.spec
    }
}

impl Deref for CheckedTask {
    type Target = TaskSpec;
    fn deref(&self) -> &TaskSpec {
        &self.spec
    }
}

impl PartialEq for CheckedSpec {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.spec, &other.spec) || self.spec == other.spec
    }
}

impl PartialEq for CheckedTask {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.spec, &other.spec) || self.spec == other.spec
    }
}

impl Serialize for CheckedSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.spec.serialize(serializer)
    }
}

impl Serialize for CheckedTask {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.spec.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for CheckedSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        ServiceSpec::deserialize(deserializer).map(Self::of)
    }
}

impl<'de> Deserialize<'de> for CheckedTask {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        TaskSpec::deserialize(deserializer).map(Self::of)
    }
}

#[cfg(test)]
mod tests;
