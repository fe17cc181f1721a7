//! Runs stories: a script is blocks of commands, `----`, and what they led to. The whole file is
//! rendered again and compared, so `UPDATE_EXPECT=1` accepts a change and a diff shows it.
//!
//! After every command the invariants hold, and the planners have nothing left to do.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::draft::CHANGES_MAX;
use crate::fixture::NOW;
use crate::id::{ClusterId, NodeId, TaskId};
use crate::invariant;
use crate::object::{
    CaDigest, CaRotation, ManagerInfo, NodeState, Slot, Task, TaskState, TaskStatus, Trust,
    UnlockKey,
};
use crate::rejection::Rejection;
use crate::request::{Answer, CaChange, InitCluster, Request, UpdateCluster};
use crate::script::words::{
    edit_service, join, labels, network_spec, new_service, offered, word, words,
};
use crate::spec::{Availability, ClusterSpec, Role, ServiceSpec};
use crate::state::{Agenda, State};
use crate::time::{Revision, Timestamp};
use crate::{decide, plan};

mod show;
mod words;

const SEPARATOR: &str = "----";
/// Plans in a row that a story may need; more means that planners undo each other's work.
const PLANS_MAX: usize = 50;

/// A cluster in a story.
pub(crate) struct World {
    pub(crate) state: State,
    /// Every transaction that was applied.
    pub(crate) log: Vec<(Revision, crate::transaction::Transaction)>,
    /// Every request that was decided.
    pub(crate) requests: Vec<Request>,
    pub(crate) now: Timestamp,
    seed: u128,
    log_index: u64,
    /// Tasks by the order in which the story met them: t1, t2, …
    names: BTreeMap<TaskId, usize>,
}

/// Runs a script and gives its text with its outcomes.
pub(crate) fn run(script: &str) -> String {
    let mut world = World::new();
    let mut output = String::new();
    for block in script.split("\n\n").filter(|block| !block.trim().is_empty()) {
        let commands = block.split(SEPARATOR).next().unwrap_or("");
        let mut outcome = String::new();
        for line in commands.trim().lines() {
            let line = line.split('#').next().unwrap_or("").trim();
            if !line.is_empty() {
                world.command(line, &mut outcome);
            }
        }
        let _ = write!(output, "{}\n{SEPARATOR}\n{outcome}\n", commands.trim());
    }
    output.truncate(output.trim_end().len());
    output.push('\n');
    output
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            state: State::default(),
            log: Vec::new(),
            requests: Vec::new(),
            now: NOW,
            seed: 1,
            log_index: 10,
            names: BTreeMap::new(),
        }
    }

    pub(crate) fn command(&mut self, line: &str, out: &mut String) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (verb, args) = (words[0], &words[1..]);
        if verb == "show" {
            return self.show(args, out);
        }
        if verb == "why" {
            return self.show_why(args, out);
        }
        if verb == "obey" {
            return self.obey(args.first().copied());
        }
        if verb == "wait" {
            return self.wait(args[0].parse().unwrap());
        }
        let answer = self.request(verb, args).and_then(|request| self.ask(&request));
        if let Err(rejection) = answer {
            let _ = writeln!(out, "{:?}: {rejection}", rejection.code);
        }
    }

    /// Decides and applies a request, then checks what must hold after it.
    fn ask(&mut self, request: &Request) -> Result<Answer, Rejection> {
        self.seed += 1;
        self.requests.push(request.clone());
        let decided = decide(&self.state, request, self.seed, self.now);
        let again = decide(&self.with_everything(), request, self.seed, self.now);
        assert_eq!(decided, again, "deciding is pure, and the agenda names all that matters");
        let decision = decided?;
        let full = decision.transaction.changes.len() >= CHANGES_MAX;
        self.apply(&decision.transaction);
        let rest = plan(&self.state, self.now).transaction;
        assert!(full || rest.is_empty(), "one request, one commit: {request:?} left {rest:?}");
        self.settle();
        Ok(decision.answer)
    }

    /// The state with every object on the agenda of planners.
    fn with_everything(&self) -> State {
        State { agenda: Agenda::of_everything(&self.state), ..self.state.clone() }
    }

    fn apply(&mut self, transaction: &crate::transaction::Transaction) {
        self.log_index += 1;
        let outcome = self.state.apply(Revision(self.log_index), transaction);
        assert_eq!(outcome, crate::apply::Outcome::Applied, "decided on this very state");
        if !transaction.is_empty() {
            self.log.push((Revision(self.log_index), transaction.clone()));
        }
        assert_eq!(invariant::check(&self.state), []);
        let mut met: Vec<&Task> = self.state.tasks.values().map(|task| &**task).collect();
        met.retain(|task| !self.names.contains_key(&task.id));
        met.sort_by_key(|task| (&task.service_name, task.slot, task.id));
        for task in met {
            let number = self.names.len() + 1;
            self.names.insert(task.id, number);
        }
    }

    /// Runs the planners until they have nothing more to do. A request that fits one transaction
    /// leaves them nothing.
    fn settle(&mut self) -> usize {
        for round in 0..PLANS_MAX {
            let planned = plan(&self.state, self.now);
            let of_all = plan(&self.with_everything(), self.now);
            assert_eq!(planned, of_all, "the agenda names all that matters");
            if planned.transaction.is_empty() {
                return round;
            }
            self.apply(&planned.transaction);
        }
        panic!("the planners do not come to rest");
    }

    /// Lets time pass and does what falls due.
    fn wait(&mut self, ms: u64) {
        let end = self.now.plus_ms(ms);
        let next_due = |world: &Self| plan(&world.state, world.now).next_due;
        while let Some(due) = next_due(self).filter(|due| *due <= end) {
            assert!(due > self.now, "after settling nothing is due at once");
            self.now = due;
            self.settle();
        }
        self.now = end;
    }

    /// The request that a line asks for, if it asks for one and names what there is.
    pub(crate) fn request_of(&self, line: &str) -> Option<Request> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (verb, args) = (words[0], &words[1..]);
        let by_itself = ["show", "why", "obey", "wait"].contains(&verb);
        if by_itself { None } else { self.request(verb, args).ok() }
    }

    fn request(&self, verb: &str, args: &[&str]) -> Result<Request, Rejection> {
        let service = || self.state.find_service(args[0]).map(|s| (s.id, s.meta.version));
        Ok(match verb {
            "init" => Request::InitCluster(Box::new(InitCluster {
                id: ClusterId(0xC1),
                spec: ClusterSpec::default(),
                ca_certificate: String::new(),
                ca_key: String::new(),
                worker_token: "SWMTKN-1-x-w".to_owned(),
                manager_token: "SWMTKN-1-x-m".to_owned(),
                gossip_keys: Vec::new(),
                address_pools: words(args, "pool").map(|pool| pool.parse().unwrap()).collect(),
                subnet_size: word(args, "size").map_or(0, |size| size.parse().unwrap()),
                data_path_port: 0,
                unlock_key: None,
                node: join(1, args[0], Role::Manager, args),
            })),
            "join" => {
                let role = if args.contains(&"manager") { Role::Manager } else { Role::Worker };
                // One that no node has or had.
                let removed = self.state.cluster.iter().flat_map(|c| c.removed.keys());
                let ids = self.state.nodes.keys().chain(removed).map(|id| id.0);
                let number = u64::try_from(ids.max().unwrap_or_default()).unwrap_or_default() + 1;
                Request::JoinNode(Box::new(join(number, args[0], role, args)))
            }
            "take-over" | "autolock" => self.recovery_request(verb, args),
            "history" => Request::UpdateCluster(Box::new(UpdateCluster {
                version: self.state.cluster.as_ref().map_or(Revision(0), |c| c.meta.version),
                spec: {
                    let mut spec = ClusterSpec::default();
                    spec.orchestration.task_history_retention_limit = args[0].parse().ok();
                    spec.labels = labels(args);
                    if let Some(name) = word(args, "log") {
                        let defaults = serde_json::json!({ "LogDriver": { "Name": name } });
                        spec.extra.insert("TaskDefaults".to_owned(), defaults);
                    }
                    spec
                },
                worker_token: None,
                manager_token: None,
                unlock_key: None,
                rotate_unlock_key: false,
                ca: None,
            })),
            "external-ca" => self.external_ca(args[0]),
            "rotate-ca" | "keep-ca" => self.change_ca(verb, args),
            "network" => Request::CreateNetwork { spec: Box::new(network_spec(args)) },
            "rm-network" => {
                let id = self.state.find_network(args[0])?.id;
                Request::RemoveNetwork { id }
            }
            "service" => {
                let mut spec = new_service(args[0]);
                edit_service(&mut spec, &args[1..]);
                Request::CreateService { spec: Box::new(spec) }
            }
            "update" => {
                let (id, version) = service()?;
                let mut spec = ServiceSpec::clone(&self.state.services[&id].spec);
                edit_service(&mut spec, &args[1..]);
                Request::UpdateService { id, version, spec: Box::new(spec) }
            }
            "rollback" => {
                let (id, version) = service()?;
                Request::RollbackService { id, version }
            }
            "rm-service" => Request::RemoveService { id: service()?.0 },
            "report" => self.report(args),
            _ => return self.node_request(verb, args),
        })
    }

    fn recovery_request(&self, verb: &str, args: &[&str]) -> Request {
        if verb == "take-over" {
            let node = self.state.find_node(args[0]).map(|node| node.id);
            let raft_id = word(args, "raft").map_or(99, |id| id.parse().unwrap());
            let mut join = join(99, args[0], Role::Manager, args);
            join.id = node.unwrap_or(join.id);
            join.manager = join.manager.map(|manager| ManagerInfo { raft_id, ..manager });
            return Request::TakeOver(Box::new(join));
        }
        let mut spec = ClusterSpec::default();
        if args[0] != "off" {
            spec.lock_managers();
        }
        Request::UpdateCluster(Box::new(UpdateCluster {
            version: self.state.cluster.as_ref().map_or(Revision(0), |c| c.meta.version),
            spec,
            worker_token: None,
            manager_token: None,
            unlock_key: args[0].parse().ok().map(|byte| UnlockKey([byte; 32])),
            rotate_unlock_key: args.contains(&"rotate"),
            ca: None,
        }))
    }

    fn node_request(&self, verb: &str, args: &[&str]) -> Result<Request, Rejection> {
        let node = self.state.find_node(args[0])?;
        let id = node.id;
        let state = |state| Request::SetNodeState {
            id,
            state,
            message: String::new(),
            address: String::new(),
        };
        let mut spec = Box::new(node.spec.clone());
        Ok(match verb {
            "ready" => state(NodeState::Ready),
            "down" => state(NodeState::Down),
            "leave" => Request::LeaveNode { id },
            "rm-node" => Request::RemoveNode { id, force: args.contains(&"force") },
            "describe" => {
                let description = Box::new(join(0, args[0], Role::Worker, args).description);
                Request::DescribeNode { id, description }
            }
            "offer" => {
                let mut description = Box::new(node.description.clone());
                description.generic_resources = offered(args);
                Request::DescribeNode { id, description }
            }
            "promoted" => {
                let place = node.raft().or(self.state.nodes.values().find_map(|n| n.raft()));
                let manager = place.cloned().ok_or_else(|| Rejection::invalid("no manager"))?;
                Request::PromotedManager { id, manager }
            }
            "reseat" => Request::ReseatManager { id, lost: args[1].parse().unwrap_or_default() },
            "demoted" => Request::DemotedManager { id },
            "certified" => {
                let mut description = Box::new(node.description.clone());
                let issuer = CaDigest([args[1].parse().unwrap_or_default(); 32]);
                description.trust = Some(Trust { issuer, roots: vec![issuer] });
                Request::DescribeNode { id, description }
            }
            "moved" => {
                let mut description = Box::new(node.description.clone());
                description.manager_address = args[1].parse().ok();
                Request::DescribeNode { id, description }
            }
            "active" | "pause" | "drain" | "label" | "role" => {
                match verb {
                    "active" => spec.availability = Availability::Active,
                    "pause" => spec.availability = Availability::Pause,
                    "drain" => spec.availability = Availability::Drain,
                    "role" if args[1] == "worker" => spec.role = Role::Worker,
                    "role" => spec.role = Role::Manager,
                    _ if args[1].starts_with("bytes=") => spec.labels = labels(args),
                    _ => {
                        let (key, value) = args[1].split_once('=').unwrap_or((args[1], ""));
                        spec.labels.insert(key.to_owned(), value.to_owned());
                    }
                }
                Request::UpdateNode { id, version: node.meta.version, spec }
            }
            _ => return Err(Rejection::invalid(format!("unknown command {verb}"))),
        })
    }

    fn external_ca(&self, url: &str) -> Request {
        let cluster = self.state.cluster.as_ref().unwrap();
        let mut spec = cluster.spec.clone();
        let external = serde_json::json!({ "ExternalCAs": [{ "Protocol": "cfssl", "URL": url }] });
        spec.extra.insert("CAConfig".to_owned(), external);
        Request::UpdateCluster(Box::new(UpdateCluster {
            version: cluster.meta.version,
            spec,
            worker_token: None,
            manager_token: None,
            ca: None,
            unlock_key: None,
            rotate_unlock_key: false,
        }))
    }

    /// `rotate-ca 1 2`: CA 2 is to take the place of CA 1. `keep-ca 1`: it stays.
    fn change_ca(&self, verb: &str, args: &[&str]) -> Request {
        let ca = |at: usize| CaDigest([args[at].parse().unwrap(); 32]);
        let cluster = self.state.cluster.as_ref().unwrap();
        let change = if verb == "keep-ca" {
            CaChange::Keep { ca: ca(0) }
        } else {
            CaChange::Rotate(Box::new(CaRotation {
                certificate: format!("ca{}", args[1]),
                key: format!("key{}", args[1]),
                cross_signed: format!("ca{} by ca{}", args[1], args[0]),
                from: ca(0),
                to: ca(1),
                worker_token: format!("SWMTKN-1-{}-w", args[1]),
                manager_token: format!("SWMTKN-1-{}-m", args[1]),
                begun_at: Timestamp(0),
            }))
        };
        Request::UpdateCluster(Box::new(UpdateCluster {
            version: cluster.meta.version,
            spec: cluster.spec.clone(),
            worker_token: None,
            manager_token: None,
            ca: Some(change),
            unlock_key: None,
            rotate_unlock_key: false,
        }))
    }

    /// `report t3 failed`: its node says so. In place of a task, its image, and perhaps its slot,
    /// names the wanted tasks of one node.
    fn report(&self, args: &[&str]) -> Request {
        let slot = word(args, "slot").map(|slot| Slot::Replica(slot.parse().unwrap()));
        let named = |task: &&std::sync::Arc<Task>| {
            let of_slot = slot.is_none_or(|slot| slot == task.slot);
            let meant = task.spec.container_spec.image == args[0] && task.is_wanted() && of_slot;
            meant || format!("t{}", self.names[&task.id]) == args[0]
        };
        let tasks: Vec<_> = self.state.tasks.values().filter(named).collect();
        let statuses = tasks.iter().map(|task| (task.id, status(state_named(args[1]))));
        // A task that does not exist or has no node is a report from nowhere.
        let node = tasks.iter().find_map(|task| task.node).unwrap_or(NodeId(0));
        Request::ReportTasks { node, statuses: statuses.collect() }
    }

    /// All nodes that are up report what they were told: wanted tasks run, stopping ones stopped.
    /// Of the wanted tasks with the image `except` nothing is heard.
    fn obey(&mut self, except: Option<&str>) {
        let mut reports: BTreeMap<NodeId, Vec<(TaskId, TaskStatus)>> = BTreeMap::new();
        let silent = |task: &Task| {
            except == Some(&task.spec.container_spec.image) && task.desired <= TaskState::Running
        };
        for task in self.state.tasks.values().filter(|task| !silent(task)) {
            let Some(node) = task.node else { continue };
            let up = self.state.nodes.get(&node);
            let waits = task.start_after.is_some_and(|at| at > self.now);
            if up.is_none_or(|node| node.status.state != NodeState::Ready) || waits {
                continue;
            }
            let state = if task.desired > TaskState::Running {
                TaskState::Shutdown
            } else {
                TaskState::Running
            };
            reports.entry(node).or_default().push((task.id, status(state)));
        }
        for (node, statuses) in reports {
            self.ask(&Request::ReportTasks { node, statuses }).unwrap();
        }
    }
}

fn status(state: TaskState) -> TaskStatus {
    TaskStatus {
        state,
        at: Timestamp(0),
        message: String::new(),
        error: if state == TaskState::Failed { "exit status 1".to_owned() } else { String::new() },
        pid: None,
        exit_code: (state == TaskState::Failed).then_some(1),
        healthy: state == TaskState::Running,
    }
}

fn state_named(name: &str) -> TaskState {
    serde_json::from_value(serde_json::Value::String(name.to_owned())).unwrap()
}
