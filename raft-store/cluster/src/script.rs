//! Runs stories: a script is blocks of commands, `----`, and what they led to. The whole file is
//! rendered anew and compared, so `UPDATE_EXPECT=1` accepts a change and a diff shows it.
//!
//! After every command the invariants hold, and the planners have nothing left to do.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::draft::CHANGES_MAX;
use crate::fixture::{NOW, description};
use crate::id::{ClusterId, NodeId, TaskId};
use crate::invariant;
use crate::object::{ManagerInfo, NodeState, Slot, Task, TaskState, TaskStatus};
use crate::rejection::Rejection;
use crate::request::{Answer, InitCluster, JoinNode, Request, UpdateCluster};
use crate::spec::{
    Availability, ClusterSpec, GlobalMode, IpamPool, NetworkSpec, NetworkTarget, Placement,
    PortConfig, Protocol, PublishMode, Replicated, ResolutionMode, RestartCondition, RestartPolicy,
    Role, ServiceMode, ServiceSpec, UpdateConfig,
};
use crate::state::State;
use crate::time::{Revision, Timestamp};
use crate::{decide, next_due, plan};

const SEPARATOR: &str = "----";
/// Plans in a row that a story may need; more means that planners undo each other's work.
const PLANS_MAX: usize = 50;

/// A cluster in a story.
pub(crate) struct World {
    pub(crate) state: State,
    now: Timestamp,
    seed: u128,
    log_index: u64,
    /// Tasks by the order in which the story met them: t1, t2, …
    names: BTreeMap<TaskId, usize>,
}

/// Runs a script and gives its text with the outcomes that came about.
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
        Self { state: State::default(), now: NOW, seed: 1, log_index: 10, names: BTreeMap::new() }
    }

    fn command(&mut self, line: &str, out: &mut String) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (verb, args) = (words[0], &words[1..]);
        if verb == "show" {
            return self.show(args, out);
        }
        if verb == "obey" {
            return self.obey();
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
    pub(crate) fn ask(&mut self, request: &Request) -> Result<Answer, Rejection> {
        self.seed += 1;
        let decision = decide(&self.state, request, self.seed, self.now)?;
        let full = decision.transaction.changes.len() >= CHANGES_MAX;
        self.apply(&decision.transaction);
        let rounds = self.settle();
        assert!(full || rounds == 0, "one request, one commit: {request:?}");
        Ok(decision.answer)
    }

    fn apply(&mut self, transaction: &crate::transaction::Transaction) {
        self.log_index += 1;
        let outcome = self.state.apply(Revision(self.log_index), transaction);
        assert_eq!(outcome, crate::apply::Outcome::Applied, "decided on this very state");
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
            let transaction = plan(&self.state, self.now);
            if transaction.is_empty() {
                return round;
            }
            self.apply(&transaction);
        }
        panic!("the planners do not come to rest");
    }

    /// Lets time pass and does what falls due.
    fn wait(&mut self, ms: u64) {
        let end = self.now.plus_ms(ms);
        while let Some(due) = next_due(&self.state, self.now).filter(|due| *due <= end) {
            assert!(due > self.now, "after settling nothing is due at once");
            self.now = due;
            self.settle();
        }
        self.now = end;
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
                node: join(1, args[0], Role::Manager, args),
            })),
            "join" => {
                let role = if args.contains(&"manager") { Role::Manager } else { Role::Worker };
                let number = self.state.nodes.len() as u64 + 1;
                Request::JoinNode(Box::new(join(number, args[0], role, args)))
            }
            "history" => Request::UpdateCluster(Box::new(UpdateCluster {
                version: self.state.cluster.as_ref().map_or(Revision(0), |c| c.meta.version),
                spec: {
                    let mut spec = ClusterSpec::default();
                    spec.orchestration.task_history_retention_limit = args[0].parse().ok();
                    spec
                },
                worker_token: None,
                manager_token: None,
            })),
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
                let mut spec = self.state.services[&id].spec.clone();
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
            "demoted" => Request::DemotedManager { id },
            "active" | "pause" | "drain" | "label" | "role" => {
                match verb {
                    "active" => spec.availability = Availability::Active,
                    "pause" => spec.availability = Availability::Pause,
                    "drain" => spec.availability = Availability::Drain,
                    "role" if args[1] == "worker" => spec.role = Role::Worker,
                    "role" => spec.role = Role::Manager,
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

    /// `report t3 failed`: its node says so.
    fn report(&self, args: &[&str]) -> Request {
        let named = |task: &&std::sync::Arc<Task>| format!("t{}", self.names[&task.id]) == args[0];
        let task = self.state.tasks.values().find(named);
        let statuses = task.map(|task| (task.id, status(state_named(args[1]))));
        // A task that does not exist or has no node is a report from nowhere.
        let node = task.and_then(|task| task.node).unwrap_or(NodeId(0));
        Request::ReportTasks { node, statuses: statuses.into_iter().collect() }
    }

    /// All nodes that are up report what they were told: wanted tasks run, stopping ones stopped.
    pub(crate) fn obey(&mut self) {
        let mut reports: BTreeMap<NodeId, Vec<(TaskId, TaskStatus)>> = BTreeMap::new();
        for task in self.state.tasks.values() {
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

/// The values of `key=…` words.
fn words<'a>(args: &'a [&str], key: &'a str) -> impl Iterator<Item = &'a str> {
    args.iter().filter_map(move |arg| arg.strip_prefix(key)?.strip_prefix('='))
}

fn word<'a>(args: &'a [&str], key: &'a str) -> Option<&'a str> {
    words(args, key).next()
}

fn join(number: u64, hostname: &str, role: Role, args: &[&str]) -> JoinNode {
    let mut description = description(hostname);
    description.routes = words(args, "route").map(|route| route.parse().unwrap()).collect();
    let address = std::net::SocketAddr::from(([192, 0, 2, 1], 2377));
    JoinNode {
        id: NodeId(u128::from(number)),
        role,
        description,
        manager: (role == Role::Manager).then_some(ManagerInfo { raft_id: number, address }),
    }
}

fn network_spec(args: &[&str]) -> NetworkSpec {
    let mut spec = NetworkSpec { name: args[0].to_owned(), ..NetworkSpec::default() };
    spec.driver = word(args, "driver").unwrap_or("overlay").to_owned();
    spec.ingress = args.contains(&"ingress");
    spec.enable_ipv6 = args.contains(&"ipv6");
    for option in words(args, "opt") {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        spec.options.insert(key.to_owned(), value.to_owned());
    }
    let text = |key| word(args, key).unwrap_or("").to_owned();
    if ["subnet", "range", "gateway"].iter().any(|key| word(args, key).is_some()) {
        spec.ipam.config.push(IpamPool {
            subnet: text("subnet"),
            ip_range: text("range"),
            gateway: text("gateway"),
            ..IpamPool::default()
        });
    }
    spec
}

fn new_service(name: &str) -> ServiceSpec {
    let mut spec = ServiceSpec { name: name.to_owned(), ..ServiceSpec::default() };
    spec.task_template.container_spec.image = "host".to_owned();
    spec
}

fn edit_service(spec: &mut ServiceSpec, args: &[&str]) {
    for arg in args {
        let (key, value) = arg.split_once('=').unwrap_or((arg, ""));
        let restart = || spec.task_template.restart_policy.clone().unwrap_or_default();
        let update = || spec.update_config.clone().unwrap_or_default();
        let ms = || Some(value.parse::<u64>().unwrap() * 1_000_000);
        match key {
            "name" => spec.name = value.to_owned(),
            "image" => spec.task_template.container_spec.image = value.to_owned(),
            "global" => spec.mode = ServiceMode::Global(GlobalMode {}),
            "replicas" => {
                let replicas = value.parse().ok();
                spec.mode = ServiceMode::Replicated(Replicated { replicas });
            }
            "network" => spec
                .task_template
                .networks
                .push(NetworkTarget { target: value.to_owned(), ..NetworkTarget::default() }),
            "publish" => spec.endpoint_spec.ports.push(port(value)),
            "dnsrr" => spec.endpoint_spec.mode = ResolutionMode::Dnsrr,
            "constraint" => spec
                .task_template
                .placement
                .get_or_insert_with(Placement::default)
                .constraints
                .push(value.to_owned()),
            "max" => {
                let placement = spec.task_template.placement.get_or_insert_default();
                placement.max_replicas = value.parse().unwrap();
            }
            "restart" => {
                let condition: RestartCondition =
                    serde_json::from_value(serde_json::Value::String(value.to_owned())).unwrap();
                let policy = RestartPolicy { condition: Some(condition), ..restart() };
                spec.task_template.restart_policy = Some(policy);
            }
            "delay" => {
                spec.task_template.restart_policy =
                    Some(RestartPolicy { delay: ms(), ..restart() });
            }
            "attempts" => {
                let policy = RestartPolicy { max_attempts: value.parse().ok(), ..restart() };
                spec.task_template.restart_policy = Some(policy);
            }
            "parallelism" => {
                let parallelism = value.parse().unwrap();
                spec.update_config = Some(UpdateConfig { parallelism, ..update() });
            }
            "update-delay" => {
                let delay = ms().unwrap();
                spec.update_config = Some(UpdateConfig { delay, ..update() });
            }
            "order" => {
                spec.update_config = Some(UpdateConfig { order: value.to_owned(), ..update() });
            }
            "on-failure" => {
                let failure_action = value.to_owned();
                spec.update_config = Some(UpdateConfig { failure_action, ..update() });
            }
            _ => panic!("unknown word {arg}"),
        }
    }
}

/// `80`, `3000:80`, `host:3000:80`, `3000:80/udp`.
fn port(text: &str) -> PortConfig {
    let (text, publish_mode) = match text.strip_prefix("host:") {
        Some(rest) => (rest, PublishMode::Host),
        None => (text, PublishMode::Ingress),
    };
    let (text, protocol) = match text.split_once('/') {
        Some((rest, "udp")) => (rest, Protocol::Udp),
        Some((rest, "sctp")) => (rest, Protocol::Sctp),
        _ => (text, Protocol::Tcp),
    };
    let (published, target) = text.split_once(':').unwrap_or(("0", text));
    PortConfig {
        name: String::new(),
        protocol,
        target_port: target.parse().unwrap(),
        published_port: published.parse().unwrap(),
        publish_mode,
    }
}

impl World {
    fn show(&mut self, args: &[&str], out: &mut String) {
        match args[0] {
            "tasks" => self.show_tasks(args.get(1).copied(), out),
            "networks" => self.show_networks(out),
            "services" => self.show_services(out),
            "nodes" => self.show_nodes(out),
            other => panic!("show {other}"),
        }
    }

    fn node_name(&self, id: NodeId) -> String {
        let node = self.state.nodes.get(&id);
        node.map_or_else(|| "gone".to_owned(), |node| node.name().to_owned())
    }

    fn show_tasks(&self, service: Option<&str>, out: &mut String) {
        let mut tasks: Vec<&Task> = self.state.tasks.values().map(|task| &**task).collect();
        tasks.retain(|task| service.is_none_or(|name| task.service_name == name));
        tasks.sort_by_key(|task| (&task.service_name, task.slot, self.names[&task.id]));
        for task in tasks {
            let slot = match task.slot {
                Slot::Replica(number) => number.to_string(),
                Slot::Node(node) => self.node_name(node),
            };
            let node = task.node.map_or("-".to_owned(), |node| self.node_name(node));
            let held: Vec<String> =
                task.attachments.iter().map(|held| held.address.to_string()).collect();
            let _ = write!(
                out,
                "t{} {}.{slot} on {node} {}/{} [{}]",
                self.names[&task.id],
                task.service_name,
                task.status.state,
                task.desired,
                held.join(" ")
            );
            let image = &task.spec.container_spec.image;
            if image != "host" {
                let _ = write!(out, " {image}");
            }
            if let Some(at) = task.start_after {
                let _ = write!(out, " start+{}ms", at.since_ms(task.meta.created_at));
            }
            if !task.status.error.is_empty() && !task.is_over() {
                let _ = write!(out, " ({})", task.status.error);
            }
            out.push_str(if task.released { " released\n" } else { "\n" });
        }
    }

    fn show_networks(&self, out: &mut String) {
        let mut networks: Vec<_> = self.state.networks.values().collect();
        networks.sort_by_key(|network| network.vni);
        for network in networks {
            let removed = if network.removed { " removed" } else { "" };
            let _ = writeln!(
                out,
                "{} {} vni {} gateway {}{removed}",
                network.spec.name, network.subnet, network.vni, network.gateway
            );
        }
    }

    fn show_services(&self, out: &mut String) {
        let mut services: Vec<_> = self.state.services.values().collect();
        services.sort_by_key(|service| &service.spec.name);
        for service in services {
            let _ = write!(out, "{}", service.spec.name);
            let mut vips: Vec<String> = service
                .vips
                .iter()
                .map(|(id, vip)| format!("{}={vip}", self.state.networks[id].spec.name))
                .collect();
            vips.sort();
            let _ = write!(out, " [{}]", vips.join(" "));
            for port in &service.ports {
                let via: Vec<String> = port
                    .ingress_ports
                    .iter()
                    .map(|(node, number)| format!("{}={number}", self.node_name(*node)))
                    .collect();
                let protocol = port.protocol.name();
                let _ = write!(
                    out,
                    " {}:{}/{protocol}({})",
                    port.published,
                    port.target,
                    via.join(" ")
                );
            }
            if let Some(status) = &service.update_status {
                let mut message = status.message.clone();
                for (id, number) in &self.names {
                    message = message.replace(&id.to_string(), &format!("t{number}"));
                }
                let _ = write!(out, " {message}");
            }
            out.push_str(if service.removed { " removed\n" } else { "\n" });
        }
    }

    fn show_nodes(&self, out: &mut String) {
        for node in self.state.nodes.values() {
            let ingress = node.ingress.as_ref().map(|held| held.address.to_string());
            let _ = writeln!(
                out,
                "{} {} {:?} {:?} ingress {}",
                node.name(),
                node.role().name(),
                node.status.state,
                node.spec.availability,
                ingress.as_deref().unwrap_or("-")
            );
        }
    }
}
