//! What users ask for: networks and services come, change and go, nodes are drained.

use std::time::Duration;

use cluster::id::NodeId;
use cluster::object::Service;
use cluster::request::Request;
use cluster::spec::{
    Availability, ContainerSpec, EndpointSpec, GlobalMode, NetworkSpec, NetworkTarget, PortConfig,
    Replicated, ResolutionMode, RestartPolicy, ServiceMode, ServiceSpec, TaskSpec, UpdateConfig,
};
use rand::RngExt as _;

use super::STORM;
use super::world::{Event, World};

/// Live networks of users at once.
const NETWORKS_MAX: usize = 3;
/// Live services at once.
const SERVICES_MAX: usize = 4;
/// Replicas of a service.
const REPLICAS_MAX: u64 = 5;
/// First published port.
const PORT_FIRST: u16 = 3_000;

impl World {
    /// A small cluster at the start, then requests until the storm is over.
    pub(super) fn schedule_requests(&mut self) {
        self.wish_network();
        self.wish_service();
        self.wish_service();
        let end = STORM.saturating_sub(Duration::from_secs(1));
        let mut at = Duration::from_millis(500);
        while at < end {
            self.after(at, Event::Request);
            let pause = self.wishes.random_range(50..=self.swarm.request_ms);
            at += Duration::from_millis(pause);
        }
    }

    /// So that there is something to compare at the end, and room for all of it.
    pub(super) fn last_wishes(&mut self) {
        let nodes: Vec<NodeId> = self.hosts.keys().copied().collect();
        for node in nodes {
            self.wish_availability(node, Availability::Active);
        }
        if let Some(id) = self.swarm.lost
            && self.wishes.random_bool(0.5)
        {
            self.ask(&Request::RemoveNode { id, force: true });
        }
        if self.leader.state.live_networks().all(|network| network.spec.ingress) {
            self.wish_network();
        }
        if self.leader.state.live_services().next().is_none() {
            self.wish_service();
        }
    }

    pub(super) fn request(&mut self) {
        let networks = self.leader.state.live_networks().count();
        let services = self.leader.state.live_services().count();
        match self.wishes.random_range(0..20) {
            0..2 if networks <= NETWORKS_MAX => self.wish_network(),
            2..4 => self.wish_no_network(),
            4..8 if services < SERVICES_MAX => self.wish_service(),
            8..10 if services > 1 => {
                if let Some(id) = self.some_service().map(|service| service.id) {
                    self.ask(&Request::RemoveService { id });
                }
            }
            10..14 => self.wish_scale(),
            14..17 => self.wish_update(),
            17 => self.wish_rollback(),
            18 => {
                let node = NodeId(self.wishes.random_range(1..=super::NODES).into());
                let choices = [Availability::Drain, Availability::Pause, Availability::Active];
                let chosen = choices[self.wishes.random_range(0..choices.len())];
                self.wish_availability(node, chosen);
            }
            _ => self.wish_scale(),
        }
    }

    pub(super) fn ask(&mut self, request: &Request) {
        let line = match request {
            Request::CreateNetwork { spec } => format!("create network {}", spec.name),
            Request::CreateService { spec } => format!("create service {}", wanted(spec)),
            Request::UpdateService { id, spec, .. } => format!("update {id} to {}", wanted(spec)),
            other => format!("{other:?}"),
        };
        let outcome = self.decide(request).err().map(|why| format!(": {why}")).unwrap_or_default();
        self.tell(format!("{line}{outcome}"));
    }

    fn some_service(&mut self) -> Option<Service> {
        let services: Vec<_> = self.leader.state.live_services().collect();
        let chosen = self.wishes.random_range(0..services.len().max(1));
        services.get(chosen).map(|service| Service::clone(service))
    }

    fn wish_network(&mut self) {
        let number: u32 = self.wishes.random_range(0..1_000_000);
        let internal = self.wishes.random_bool(0.2);
        let (name, driver) = (format!("net{number}"), "overlay".to_owned());
        let spec = Box::new(NetworkSpec { name, driver, internal, ..NetworkSpec::default() });
        self.ask(&Request::CreateNetwork { spec });
    }

    fn wish_no_network(&mut self) {
        let networks = self.leader.state.live_networks().filter(|network| !network.spec.ingress);
        let networks: Vec<_> = networks.map(|network| network.id).collect();
        let chosen = self.wishes.random_range(0..networks.len().max(1));
        if let Some(id) = networks.get(chosen).copied() {
            self.ask(&Request::RemoveNetwork { id });
        }
    }

    fn wish_service(&mut self) {
        let number: u32 = self.wishes.random_range(0..1_000_000);
        let networks = self.some_networks();
        let vip = networks.is_empty() || self.wishes.random_bool(0.8);
        let ports = (vip && self.wishes.random_bool(0.5)).then(|| self.some_port());
        let mode = if self.wishes.random_bool(0.2) {
            ServiceMode::Global(GlobalMode {})
        } else {
            let replicas = Some(self.wishes.random_range(1..=REPLICAS_MAX));
            ServiceMode::Replicated(Replicated { replicas, ..Replicated::default() })
        };
        let delay = Some(self.wishes.random_range(0..2_000) * 1_000_000);
        let spec = ServiceSpec {
            name: format!("service{number}"),
            mode,
            task_template: TaskSpec {
                container_spec: ContainerSpec {
                    image: "host".to_owned(),
                    ..ContainerSpec::default()
                },
                restart_policy: Some(RestartPolicy { delay, ..RestartPolicy::default() }),
                networks,
                ..TaskSpec::default()
            },
            update_config: Some(self.some_update_config()),
            endpoint_spec: EndpointSpec {
                mode: if vip { ResolutionMode::Vip } else { ResolutionMode::Dnsrr },
                ports: ports.into_iter().collect(),
                ..EndpointSpec::default()
            },
            ..ServiceSpec::default()
        };
        self.ask(&Request::CreateService { spec: Box::new(spec) });
    }

    fn some_networks(&mut self) -> Vec<NetworkTarget> {
        let networks = self.leader.state.live_networks().filter(|network| !network.spec.ingress);
        let ids: Vec<String> = networks.map(|network| network.id.to_string()).collect();
        let chosen = ids.into_iter().filter(|_| self.wishes.random_bool(0.7));
        chosen.map(|target| NetworkTarget { target, ..NetworkTarget::default() }).collect()
    }

    fn some_port(&mut self) -> PortConfig {
        let published_port = PORT_FIRST + self.wishes.random_range(0..6);
        PortConfig { target_port: 80, published_port, ..PortConfig::default() }
    }

    fn some_update_config(&mut self) -> UpdateConfig {
        let start_first = self.wishes.random_bool(0.3);
        UpdateConfig {
            parallelism: self.wishes.random_range(0..=2),
            delay: self.wishes.random_range(0..1_000) * 1_000_000,
            order: if start_first { "start-first" } else { "stop-first" }.to_owned(),
            ..UpdateConfig::default()
        }
    }

    fn wish_scale(&mut self) {
        let Some(service) = self.some_service() else { return };
        let mut spec = ServiceSpec::clone(&service.spec);
        let ServiceMode::Replicated(Replicated { replicas, .. }) = &mut spec.mode else {
            return;
        };
        *replicas = Some(self.wishes.random_range(0..=REPLICAS_MAX));
        self.update(&service, spec);
    }

    /// New tasks, another port, or other networks.
    fn wish_update(&mut self) {
        let Some(service) = self.some_service() else { return };
        let mut spec = ServiceSpec::clone(&service.spec);
        match self.wishes.random_range(0..3) {
            0 => spec.task_template.force_update += 1,
            1 => {
                let vip = spec.endpoint_spec.mode == ResolutionMode::Vip;
                let ports = (vip && self.wishes.random_bool(0.7)).then(|| self.some_port());
                spec.endpoint_spec.ports = ports.into_iter().collect();
            }
            _ => spec.task_template.networks = self.some_networks(),
        }
        self.update(&service, spec);
    }

    fn update(&mut self, service: &Service, spec: ServiceSpec) {
        let (id, version, spec) = (service.id, service.meta.version, Box::new(spec));
        self.ask(&Request::UpdateService { id, version, spec });
    }

    fn wish_rollback(&mut self) {
        if let Some(service) = self.some_service() {
            let (id, version) = (service.id, service.meta.version);
            self.ask(&Request::RollbackService { id, version });
        }
    }

    fn wish_availability(&mut self, id: NodeId, availability: Availability) {
        let Some(node) = self.leader.state.nodes.get(&id) else { return };
        let (version, mut spec) = (node.meta.version, node.spec.clone());
        if spec.availability != availability {
            spec.availability = availability;
            self.ask(&Request::UpdateNode { id, version, spec: Box::new(spec) });
        }
    }
}

fn wanted(spec: &ServiceSpec) -> String {
    let targets = &spec.task_template.networks;
    let networks: Vec<&str> = targets.iter().map(|network| network.target.as_str()).collect();
    let ports = spec.endpoint_spec.ports.iter().map(|port| port.published_port);
    let ports: Vec<u16> = ports.collect();
    format!(
        "{} {:?} on {networks:?} ports {ports:?} force {}",
        spec.name, spec.mode, spec.task_template.force_update
    )
}
