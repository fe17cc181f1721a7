//! The real docker CLI against a served router.
//!
//! Goal: what a person types works and prints what Docker prints. Method: the router over a unix
//! socket, each command as its own process, its output compared.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use api::ControlPlane;
use expect_test::{ExpectFile, expect_file};
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::process::Command;

use crate::fake::Fake;
use crate::without_ids;

/// A command that hangs is a failure, not a wait: the slowest one polls for some seconds.
const COMMAND_SECONDS_MAX: u64 = 60;

struct Docker {
    dir: TempDir,
}

impl Docker {
    fn serve(fake: Arc<Fake>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let docker = Self { dir };
        let listener = UnixListener::bind(docker.socket()).unwrap();
        let router = api::router(fake as Arc<dyn ControlPlane>);
        tokio::spawn(async move { axum::serve(listener, router).await });
        docker
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("skein.sock")
    }

    /// Exit status, standard output and standard error of `docker <line>`.
    async fn run(&self, line: &str) -> (i32, String, String) {
        let mut command = Command::new("docker");
        command
            .arg("-H")
            .arg(format!("unix://{}", self.socket().display()))
            .args(line.split_whitespace())
            .env("DOCKER_CONFIG", self.dir.path())
            .env_remove("DOCKER_HOST")
            .env_remove("DOCKER_CONTEXT")
            .env_remove("DOCKER_API_VERSION")
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output =
            tokio::time::timeout(Duration::from_secs(COMMAND_SECONDS_MAX), command.output())
                .await
                .unwrap_or_else(|_elapsed| {
                    panic!("docker {line}: no answer in {COMMAND_SECONDS_MAX} s")
                })
                .unwrap_or_else(|error| {
                    panic!(
                        "cannot run the docker CLI: {error}; install it: apt-get install docker.io"
                    )
                });
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
    }

    /// A command that must succeed and say nothing on standard error.
    async fn ok(&self, line: &str) -> String {
        let (status, stdout, stderr) = self.run(line).await;
        assert_eq!((status, stderr.as_str()), (0, ""), "docker {line}\n{stdout}");
        stdout
    }

    /// What a terminal would show of these commands: `!` marks standard error.
    async fn transcript(&self, lines: &[&str]) -> String {
        let mut text = String::new();
        for line in lines {
            let (status, stdout, stderr) = self.run(line).await;
            text.push_str(&format!("$ docker {line}\n"));
            let shown = stdout.lines().filter(|line| !line.is_empty());
            text.extend(shown.map(|line| format!("{}\n", line.trim_end())));
            let shown = stderr.lines().filter(|line| !is_clients_own(line));
            text.extend(shown.map(|line| format!("! {}\n", daemons_words(line))));
            if status != 0 {
                text.push_str("failed\n");
            }
            text.push('\n');
        }
        text
    }

    async fn check(&self, lines: &[&str], expected: ExpectFile) {
        expected.assert_eq(&without_ids(&self.transcript(lines).await));
    }
}

/// Lines that differ between versions of the CLI, whatever the daemon says.
fn is_clients_own(line: &str) -> bool {
    let about_absence = line.contains("Error: No such ") || line.ends_with(" not found");
    let about_waiting = line.contains("--detach=false");
    line.is_empty() || line.starts_with("exit status ") || about_absence || about_waiting
}

/// The message of the daemon, without what the CLI puts before it.
fn daemons_words(line: &str) -> &str {
    let line = line.trim_end();
    line.split_once("Error response from daemon: ").map_or(line, |(_, words)| words)
}

async fn manager() -> Docker {
    Docker::serve(Fake::manager().await)
}

#[tokio::test]
async fn outside_a_cluster() {
    let docker = Docker::serve(Fake::outside());
    let lines = [
        "version --format {{.Server.Version}}|{{.Server.APIVersion}}|{{.Server.Os}}",
        "info --format {{.Name}}|{{.NCPU}}|{{.MemTotal}}|{{.Swarm.LocalNodeState}}",
        "node ls",
        "network ls",
        "service ls",
        "swarm leave",
        "ps",
    ];
    docker.check(&lines, expect_file!["golden/outside.txt"]).await;
}

const SWARM_INFO: &str = "info --format {{.Swarm.NodeAddr}}|{{.Swarm.Nodes}}|\
     {{.Swarm.Managers}}|{{.Swarm.RemoteManagers}}|{{.Swarm.Cluster.DataPathPort}}|\
     {{.Swarm.Cluster.DefaultAddrPool}}|{{.Swarm.Cluster.SubnetSize}}";

#[tokio::test]
async fn swarm_from_init_to_leave() {
    let docker = Docker::serve(Fake::outside());
    let lines = [
        "swarm init",
        SWARM_INFO,
        "swarm init",
        "swarm join-token worker",
        "swarm join-token -q --rotate manager",
        "swarm update --task-history-limit 0",
        "info --format {{.Swarm.Cluster.Spec.Orchestration.TaskHistoryRetentionLimit}}",
        "swarm ca",
        "swarm ca --rotate -d",
        "swarm update --autolock=true",
        "swarm unlock-key",
        "swarm join --token SWMTKN-1-a-b 192.0.2.9:2377",
        "swarm leave",
        "swarm leave --force",
        "swarm join --token SWMTKN-1-a-b 192.0.2.9:2377",
    ];
    docker.check(&lines, expect_file!["golden/swarm.txt"]).await;
}

#[tokio::test]
async fn nodes() {
    let lines = [
        "node ls",
        "node ls -q",
        "node update --availability drain --label-add rack=1 alpha",
        "node inspect --format {{.Spec.Availability}}|{{.Spec.Labels}}|{{.Status.State}} self",
        "node inspect --pretty alpha",
        "node demote alpha",
        "node rm alpha",
        "node inspect beta",
    ];
    manager().await.check(&lines, expect_file!["golden/nodes.txt"]).await;
}

const INSPECT_NETWORK: &str = "network inspect front --format {{.ID}}|{{.Scope}}|{{.Driver}}|\
     {{.IPAM.Config}}|{{.Options}}|{{.Labels}}|{{.Ingress}}|{{.Created}}";

#[tokio::test]
async fn networks() {
    let lines = [
        "network create -d overlay --subnet 10.9.0.0/24 --label a=b front",
        "network ls --format {{.Name}}|{{.Driver}}|{{.Scope}}",
        "network ls --filter name=fr",
        INSPECT_NETWORK,
        "network create -d overlay front",
        "network create back",
        "network create -d weave back",
        "network create -d overlay --subnet 10.9.0.0/99 back",
        "network create -d overlay --subnet 10.9.0.128/25 back",
        "network create -d overlay --subnet fd00::/64 back",
        "network create -d overlay --ipv6 back",
        "network create -d overlay --ipv6 --subnet 10.11.0.0/24 --subnet fd00::/64 back",
        "network create -d overlay --subnet 10.11.0.0/24 --subnet fd00::/64 back",
        "network create -d overlay --subnet 10.10.0.0/24 --gateway 10.10.0.254 back",
        "network inspect back --format {{.IPAM.Config}}",
        "network rm front",
        "network inspect front",
        "network prune -f",
    ];
    manager().await.check(&lines, expect_file!["golden/networks.txt"]).await;
}

#[tokio::test]
async fn services() {
    let docker = manager().await;
    let ps = "service ps --format {{.Name}}|{{.Image}}|{{.Node}}|{{.DesiredState}}|{{.Error}} web";
    let lines = [
        "network create -d overlay front",
        "service create -d --name web --replicas 2 --network front --publish 3000:80 --env A=b \
         --constraint node.role==manager host /bin/server --flag",
        "service ls",
        ps,
        "service inspect --pretty web",
        "service scale -d web=3",
        "service update -d --env-add C=d --publish-add 3001:81 web",
        "service ls",
        "service inspect --format {{.Endpoint.Ports}} web",
        "service rollback -d web",
        "service ls",
        "service ls --filter name=we -q",
        "service create -d --name web host",
        "service create -d --name other --publish 3000:80 host",
        "service create -d --name other --network nowhere host",
        "service create -d --name other --mode replicated-job host",
        "network rm front",
        "service rm web",
        "network rm front",
        "service ls",
    ];
    docker.check(&lines, expect_file!["golden/services.txt"]).await;
}

#[tokio::test]
async fn logs() {
    let docker = manager().await;
    docker.ok("service create -d --name web host /bin/server").await;
    let (status, stdout, stderr) = docker.run("service logs --raw web").await;
    let line = "hello from slot Replica(1)\n";
    assert_eq!((status, stdout.as_str(), stderr.as_str()), (0, line, line));
    let (_, stdout, _) = docker.run("service logs --timestamps web").await;
    assert!(stdout.starts_with("2025-11-23T20:22:29.000000000Z web.1."), "{stdout}");
    assert!(stdout.ends_with("@alpha    | hello from slot Replica(1)\n"), "{stdout}");
}

#[tokio::test]
async fn a_waiting_create_converges() {
    let docker = manager().await;
    let create = "service create --name web --update-monitor 100ms host /bin/server";
    let created = docker.ok(create).await;
    assert!(created.contains("verify: Service "), "{created}");
    assert!(created.contains(" converged"), "{created}");
}

const STACK: &str = "
version: '3.8'
services:
  web:
    image: host
    command: /bin/server
    ports: ['3000:80']
    deploy: {replicas: 2}
";

#[tokio::test]
async fn stacks() {
    let docker = manager().await;
    std::fs::write(docker.dir.path().join("stack.yml"), STACK).unwrap();
    let lines = [
        "stack deploy -c stack.yml vote",
        "stack ls --format {{.Name}}|{{.Services}}",
        "stack services vote",
        "stack ps --format {{.Name}}|{{.DesiredState}} vote",
        "stack deploy -c stack.yml vote",
        "stack rm vote",
        "network ls --format {{.Name}}",
    ];
    docker.check(&lines, expect_file!["golden/stacks.txt"]).await;
}

#[tokio::test]
async fn events() {
    let docker = manager().await;
    docker.ok("network create -d overlay front").await;
    let past = "events --since 0 --until 1763929349 --filter type=network --format";
    let line = format!("{past} {{{{.Type}}}}|{{{{.Action}}}}|{{{{.Actor.Attributes.name}}}}");
    assert_eq!(docker.ok(&line).await, "network|create|ingress\nnetwork|create|front\n");
    assert_eq!(docker.ok("events --since 0 --until 1").await, "");
}
