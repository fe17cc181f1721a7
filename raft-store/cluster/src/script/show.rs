//! Tables of the state, in the names of the story.

use std::fmt::Write as _;

use super::World;
use crate::id::{NodeId, TaskId};
use crate::object::{Slot, Task, TaskState, Trust};
use crate::plan::why;
use crate::script::words::words;
use crate::time::Timestamp;

impl World {
    pub(super) fn show(&self, args: &[&str], out: &mut String) {
        match args[0] {
            "tasks" => self.show_tasks(args.get(1).copied(), out),
            "networks" => self.show_networks(out),
            "services" => self.show_services(out),
            "nodes" => self.show_nodes(out),
            "managers" => self.show_managers(out),
            "ca" => self.show_ca(out),
            "assignment" => self.show_assignment(args[1], out),
            other => panic!("show {other}"),
        }
    }

    /// `why web behind=b`: the nodes that have not taken stopping tasks out of their balancers.
    pub(super) fn show_why(&self, args: &[&str], out: &mut String) {
        let behind: Vec<NodeId> =
            words(args, "behind").map(|name| self.state.find_node(name).unwrap().id).collect();
        let why = match why(&self.state, args[0], self.now, &|_task| behind.clone()) {
            Ok(why) => why,
            Err(rejection) => {
                let _ = writeln!(out, "{:?}: {rejection}", rejection.code);
                return;
            }
        };
        let in_ms = |at: Option<Timestamp>| {
            at.map_or_else(String::new, |at| format!(", in {} ms", at.since_ms(self.now)))
        };
        let _ = writeln!(out, "{}: {} running{}", why.name, why.running, in_ms(why.next_due));
        for waiting in &why.waiting {
            for reason in &waiting.reasons {
                let state = waiting.state.map_or("-", TaskState::name);
                let (name, text) = (self.renamed(&waiting.name), self.renamed(&reason.text));
                let _ = writeln!(
                    out,
                    "  {name} {state} {:?}: {text}{}",
                    reason.cause,
                    in_ms(reason.until)
                );
            }
        }
        if why.left_out > 0 {
            let _ = writeln!(out, "  and {} more", why.left_out);
        }
        for refused in &why.passed_over {
            let _ = writeln!(out, "  none on {}", self.renamed(&refused.to_string()));
        }
    }

    /// With the story's names in place of the ids of tasks.
    fn renamed(&self, text: &str) -> String {
        let rename = |text: String, (id, number): (&TaskId, &usize)| {
            text.replace(&id.to_string(), &format!("t{number}"))
        };
        self.names.iter().fold(text.to_owned(), rename)
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
                task.attachments.iter().map(|held| held.addresses.to_string()).collect();
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
            if let Some(driver) = &task.spec.log_driver {
                let _ = write!(out, " log {}", driver.name);
            }
            for variable in crate::generic::variables(&task.generic_resources) {
                let _ = write!(out, " {variable}");
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
                network.spec.name,
                network.subnets,
                network.vni,
                network.subnets.gateways()
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
                let at = port.address.map_or_else(String::new, |address| format!("{address}:"));
                let _ = write!(
                    out,
                    " {at}{}:{}/{protocol}({})",
                    port.published,
                    port.target,
                    via.join(" ")
                );
            }
            if let Some(status) = &service.update_status {
                let _ = write!(out, " {}", self.renamed(&status.message));
            }
            out.push_str(if service.removed { " removed\n" } else { "\n" });
        }
    }

    fn show_nodes(&self, out: &mut String) {
        for node in self.state.nodes.values() {
            let ingress = node.ingress.as_ref().map(|held| held.addresses.to_string());
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

    /// Who votes in Raft or is to, where, and under which id.
    fn show_managers(&self, out: &mut String) {
        for node in self.state.nodes.values() {
            let Some(place) = node.raft() else { continue };
            let (is, wanted) = (node.role().name(), node.spec.role.name());
            let (name, raft_id, address) = (node.name(), place.raft_id, place.address);
            let _ = writeln!(out, "{name} is {is}, is to be {wanted}: Raft {raft_id} at {address}");
        }
    }

    /// The CA, the one that is to take its place, and what nodes are told.
    fn show_ca(&self, out: &mut String) {
        let cluster = self.state.cluster.as_ref().unwrap();
        let _ = write!(out, "{:?} {}", cluster.ca_certificate, cluster.worker_token);
        if let Some(rotation) = &cluster.ca_rotation {
            let _ = write!(out, ", to be {:?}", rotation.certificate);
        }
        match cluster.trust() {
            Some(Trust { issuer, roots }) => {
                let roots: Vec<u8> = roots.iter().map(|root| root.0[0]).collect();
                let _ = writeln!(out, ", issuer {} roots {roots:?}", issuer.0[0]);
            }
            None => out.push('\n'),
        }
    }

    /// What a node is told, without what every node is told.
    fn show_assignment(&self, node: &str, out: &mut String) {
        let node = self.state.find_node(node).unwrap().id;
        let assignment = crate::assignment_for(&self.state, node).unwrap();
        for network in assignment.networks.values() {
            let _ = writeln!(out, "network {} {}", network.name, network.vni);
        }
        for service in assignment.services.values() {
            let vips: Vec<String> = service.vips.values().map(ToString::to_string).collect();
            let ports: Vec<String> =
                service.ports.iter().map(|port| port.published.to_string()).collect();
            let _ = writeln!(out, "service {:?} {vips:?} ports {ports:?}", service.name);
        }
        for (id, task) in &assignment.tasks {
            let held: Vec<String> =
                task.attachments.iter().map(|held| held.addresses.to_string()).collect();
            let own = assignment.own.get(id).map_or(String::new(), |own| {
                let container = &own.spec.container_spec;
                let texts = container.env.iter().chain([&container.hostname]);
                texts
                    .filter(|text| !text.is_empty())
                    .fold(" own".to_owned(), |own, text| own + " " + text)
            });
            let draining = if task.draining { " draining" } else { "" };
            let number = self.names[id];
            let node = self.node_name(task.node);
            let _ = writeln!(out, "task t{number} on {node} {held:?}{own}{draining}");
        }
        for (id, own) in assignment.own.iter().filter(|(id, _)| !assignment.tasks.contains_key(id))
        {
            let _ = writeln!(out, "only to stop t{} {}", self.names[id], own.desired);
        }
    }
}
