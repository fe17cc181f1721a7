//! Mistakes of a user: each gets one clear line that names the value, and changes nothing.

use std::net::TcpListener;

use anyhow::{Context as _, Result, ensure};
use lab::Lab;
use lab::cluster::{CONVERGE_MAX, list};
use serde_json::{Value, json};

use lab::scenario::services::{NETWORK, make_network, probe};

use crate::stage::Stage;

/// Goal: every mistake of the list is answered well. Method: raw requests, whose status
/// and message are read, and daemons that must refuse to start.
#[test]
fn mistakes_are_named_and_change_nothing() {
    let mut stage = Stage::cluster("bad", 2, 1);
    stage.check(&[
        ("a network is made", make_network),
        ("requests that must be refused are, and change nothing", refused_requests),
        ("a stale version is refused", stale_version),
        ("a subnet over a route of a node is refused", subnet_over_route),
        ("a full subnet says so", full_subnet),
        ("a port that is published is refused", published_port),
        ("an image that nobody can run is rejected with the reason", unknown_image),
        ("a program that does not exist is named", missing_program),
        ("a data directory in use is refused", data_directory_in_use),
        ("a port that is taken is named", taken_port),
        ("a daemon without privileges says so", no_privileges),
        ("an unknown key of the configuration is named", unknown_key),
        ("a balancer that the kernel lacks is refused by name", missing_balancer),
        ("malformed JSON and unknown paths are told", malformed),
    ]);
}

/// One request that must be refused.
struct Refused {
    path: &'static str,
    body: Value,
    status: u16,
    words: &'static [&'static str],
}

fn network(name: &str, subnet: &str) -> Value {
    json!({"Name": name, "Driver": "overlay", "IPAM": {"Config": [{"Subnet": subnet}]}})
}

fn service(name: &str, extra: &Value) -> Value {
    let mut body = json!({
        "Name": name,
        "TaskTemplate": {"ContainerSpec": {"Image": "host", "Command": ["sleep", "1000"]}},
    });
    for (key, value) in extra.as_object().into_iter().flatten() {
        body[key] = value.clone();
    }
    body
}

fn refusals() -> Vec<Refused> {
    let networks = "/networks/create";
    let services = "/services/create";
    let refused = |path, body, status, words| Refused { path, body, status, words };
    vec![
        refused(networks, network(NETWORK, "10.50.0.0/24"), 409, &["vote", "already exists"]),
        refused(networks, network("a", "10.9.0.0/99"), 400, &["10.9.0.0/99"]),
        refused(networks, network("a", "10.9.0.7/24"), 400, &["10.9.0.7/24", "10.9.0.0/24"]),
        refused(networks, network("a", "nonsense"), 400, &["nonsense"]),
        refused(networks, json!({"Name": "a", "Driver": "macvlan"}), 501, &["macvlan"]),
        refused(networks, json!({"Name": "", "Driver": "overlay"}), 400, &["name"]),
        refused(services, service("a b", &json!({})), 400, &["name"]),
        refused(
            services,
            service("a", &json!({"TaskTemplate": {"ContainerSpec": {"Image": ""}}})),
            400,
            &["image"],
        ),
        refused(
            services,
            service("a", &json!({"Networks": [{"Target": "nowhere"}]})),
            // Docker says 500 here; a mistake of the user is a 4xx with its words.
            400,
            &["network nowhere not found"],
        ),
        refused(
            services,
            service("a", &json!({"Mode": {"Replicated": {"Replicas": 1}, "Global": {}}})),
            400,
            &["mode"],
        ),
        refused(
            services,
            service(
                "a",
                &json!({"EndpointSpec": {"Mode": "dnsrr", "Ports": [
                    {"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 81}]}}),
            ),
            400,
            &["dnsrr"],
        ),
    ]
}

/// Everything that a refused request must leave as it was.
fn everything(lab: &Lab) -> Result<Value> {
    let node = &lab.nodes[0];
    Ok(json!([node.get("/networks")?, node.get("/services")?, node.get("/tasks")?]))
}

/// The same once nothing that went before is still under way.
fn settled(lab: &Lab) -> Result<Value> {
    const QUIET_LOOKS: usize = 5;
    let (mut last, mut quiet) = (Value::Null, 0);
    lab.wait_for(CONVERGE_MAX, "what went before to be done", || {
        let now = everything(lab)?;
        quiet = if now == last { quiet + 1 } else { 0 };
        last = now;
        ensure!(quiet >= QUIET_LOOKS, "something still changes");
        Ok(())
    })?;
    Ok(last)
}

fn refused_requests(lab: &mut Lab) -> Result<()> {
    let before = settled(lab)?;
    let mut complaints = Vec::new();
    for refused in refusals() {
        let answer = lab.nodes[0].request("POST", refused.path, &refused.body)?;
        let message = answer.message();
        let named = refused.words.iter().all(|word| message.contains(word));
        if answer.status != refused.status || !named || message.lines().count() != 1 {
            let (path, body, status) = (refused.path, &refused.body, answer.status);
            let expected = (refused.status, refused.words);
            complaints.push(format!("{path} {body}: {status} {message:?}, not {expected:?}"));
        }
    }
    ensure!(complaints.is_empty(), "{}", complaints.join("\n"));
    ensure!(everything(lab)? == before, "a refused request changed something");
    Ok(())
}

/// Sends a request that must be refused, and gives the message.
fn refuse(lab: &Lab, path: &str, body: &Value, status: u16) -> Result<String> {
    let before = settled(lab)?;
    let answer = lab.nodes[0].request("POST", path, body)?;
    ensure!(answer.status == status, "{} {}, not {status}", answer.status, answer.message());
    ensure!(everything(lab)? == before, "a refused request changed something");
    Ok(answer.message())
}

fn stale_version(lab: &mut Lab) -> Result<()> {
    lab.create_service(0, &["--name", "still", "--replicas", "0", "host", "true"])?;
    let inspected = lab.nodes[0].get("/services/still")?;
    let version = inspected["Version"]["Index"].as_u64().context("a version")?;
    let mut spec = inspected["Spec"].clone();
    let stale = format!("/services/still/update?version={}", version - 1);
    let message = refuse(lab, &stale, &spec, 409)?;
    ensure!(message.contains("update out of sequence"), "{message}");
    refuse(lab, "/services/still/update", &spec, 400)?;
    spec["Name"] = json!("renamed");
    let renamed = format!("/services/still/update?version={version}");
    let message = refuse(lab, &renamed, &spec, 501)?;
    ensure!(message.contains("renaming services is not supported"), "{message}");
    Ok(())
}

fn subnet_over_route(lab: &mut Lab) -> Result<()> {
    // The underlay of every node.
    let body = network("clash", "192.168.50.0/24");
    let message = refuse(lab, "/networks/create", &body, 409)?;
    ensure!(message.contains("192.168.50.0/24") && message.contains("route"), "{message}");
    let taken = lab.nodes[0].get(&format!("/networks/{NETWORK}"))?;
    let subnet = taken["IPAM"]["Config"][0]["Subnet"].as_str().context("a subnet")?.to_owned();
    let message = refuse(lab, "/networks/create", &network("twin", &subnet), 409)?;
    ensure!(message.contains(&subnet) && message.contains(NETWORK), "{message}");
    Ok(())
}

fn full_subnet(lab: &mut Lab) -> Result<()> {
    let words = ["network", "create", "-d", "overlay", "--subnet", "10.88.0.0/29", "tiny"];
    lab.nodes[0].docker(&words)?.ok()?;
    let probe = probe(lab)?;
    // Eight addresses: network, broadcast, gateway and VIP leave four for tasks.
    let words = ["--name", "crowd", "--network", "tiny", "--replicas", "6", "host", &probe];
    lab.create_service(0, &[words.as_slice(), &["serve", "80"]].concat())?;
    lab.wait_running(0, "crowd", 4)?;
    lab.wait_for(CONVERGE_MAX, "two tasks to tell why they wait", || {
        let tasks = lab.all_tasks(0, "crowd")?;
        let told = |message: &str| message.contains("10.88.0.0/29") || message.contains("tiny");
        let waiting = tasks.iter().filter(|task| task.state != "running" && told(&task.message));
        ensure!(waiting.count() == 2, "{tasks:?}");
        Ok(())
    })?;
    lab.nodes[0].docker(&["service", "rm", "crowd"])?.ok()?;
    Ok(())
}

fn published_port(lab: &mut Lab) -> Result<()> {
    let port = json!({"EndpointSpec": {"Ports": [
        {"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8088}]}});
    lab.nodes[0].post("/services/create", &service("first", &port))?;
    let message = refuse(lab, "/services/create", &service("second", &port), 400)?;
    ensure!(message.contains("8088") && message.contains("first"), "{message}");
    let message = refuse(lab, "/services/create", &service("first", &json!({})), 409)?;
    ensure!(message.contains("first"), "{message}");
    lab.nodes[0].docker(&["service", "rm", "first"])?.ok()?;
    Ok(())
}

/// Creates a service whose task must fail, and expects all these words in its message.
fn task_tells(lab: &Lab, name: &str, words: &[&str], state: &str, told: &[&str]) -> Result<()> {
    let line = [["--name", name, "--restart-condition", "none"].as_slice(), words].concat();
    lab.create_service(0, &line)?;
    lab.wait_for(CONVERGE_MAX, "the task to tell what is wrong", || {
        let tasks = lab.all_tasks(0, name)?;
        let task = tasks.first().context("no task")?;
        ensure!(task.state == state, "{} {}", task.state, task.message);
        let named = told.iter().all(|word| task.message.contains(word));
        ensure!(named && task.message.lines().count() == 1, "{:?}", task.message);
        Ok(())
    })?;
    lab.nodes[0].docker(&["service", "rm", name])?.ok()?;
    Ok(())
}

fn unknown_image(lab: &mut Lab) -> Result<()> {
    task_tells(lab, "image", &["nginx:1.27"], "rejected", &["nginx:1.27", "host"])?;
    let missing = "dir:/srv/not-there";
    task_tells(lab, "folder", &[missing, "true"], "rejected", &["/srv/not-there"])
}

fn missing_program(lab: &mut Lab) -> Result<()> {
    let words = ["host", "/usr/bin/no-such-program"];
    task_tells(lab, "program", &words, "failed", &["/usr/bin/no-such-program", "no such file"])
}

/// Starts a second daemon with these words, which must refuse with status 1 and one clear line.
fn daemon_refuses(lab: &Lab, words: &[&str], told: &[&str]) -> Result<()> {
    let binary = lab.nodes[1].program("skein")?;
    let line = [[binary.as_str(), "daemon"].as_slice(), words].concat();
    let output = lab.nodes[1].run(20, &line)?;
    ensure!(output.status == 1 || output.status == 2, "it should refuse: {output}");
    let last = output.stderr.lines().last().unwrap_or_default();
    let named = told.iter().all(|word| output.stderr.contains(word));
    ensure!(named, "{words:?}: {last:?} does not name {told:?}: {output}");
    Ok(())
}

fn data_directory_in_use(lab: &mut Lab) -> Result<()> {
    let data = lab.nodes[1].data_dir().to_string_lossy().into_owned();
    let other = lab.nodes[1].folder()?.join("other");
    let run = other.to_string_lossy().into_owned();
    let socket = format!("unix://{run}/skein.sock");
    let words = ["--data-dir", &data, "--run-dir", &run, "-H", &socket];
    daemon_refuses(lab, &words, &[&data, "in use"])
}

fn taken_port(lab: &mut Lab) -> Result<()> {
    // Binding a TCP port in a namespace takes a process there: the probe holds it.
    let folder = lab.nodes[0].folder()?.join("taken");
    let (data, run) = (folder.join("data"), folder.join("run"));
    let (data, run) = (data.to_string_lossy(), run.to_string_lossy());
    let socket = format!("unix://{run}/skein.sock");
    let address = lab.nodes[1].address.to_string();
    // The node's own daemon listens on 7946 already, in the same namespace.
    let words =
        ["--data-dir", &data, "--run-dir", &run, "-H", &socket, "--advertise-addr", &address];
    let binary = lab.nodes[1].program("skein")?;
    let line = [["timeout", "20", &binary, "daemon"].as_slice(), &words].concat();
    let line = lab.nodes[1].line(&line);
    let mut child = std::process::Command::new(&line[0]);
    child.args(&line[1..]);
    let log = lab.nodes[0].folder()?.join("taken.log");
    let mut child =
        child.stderr(std::fs::File::create(&log)?).stdout(std::process::Stdio::null()).spawn()?;
    let path = std::path::PathBuf::from(format!("{run}/skein.sock"));
    let told = lab.wait_for(CONVERGE_MAX, "the taken port to be named", || {
        let text = std::fs::read_to_string(&log)?;
        let body = json!({"ListenAddr": format!("{address}:2377"), "AdvertiseAddr": address});
        let answer = lab::http::over_unix(&path, "POST", "/swarm/init", &body);
        let message = answer.map(|answer| answer.message()).unwrap_or_default();
        let told = format!("{text}{message}");
        ensure!(told.contains("2377") || told.contains("7946"), "{told}");
        Ok(told)
    });
    // The daemon may have refused already.
    let _ = child.kill();
    child.wait()?;
    lab::process::kill_all(&folder)?;
    let told = told?;
    ensure!(told.contains("taken"), "{told}");
    Ok(())
}

fn no_privileges(lab: &mut Lab) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().to_string_lossy().into_owned();
    let binary = lab::program("skein")?;
    let binary = binary.to_string_lossy();
    let socket = format!("unix://{path}/skein.sock");
    let words = [
        "setpriv",
        "--bounding-set=-all",
        "--inh-caps=-all",
        "--",
        &binary,
        "daemon",
        "--data-dir",
        &path,
        "--run-dir",
        &path,
        "-H",
        &socket,
    ];
    let output = lab.nodes[1].run(20, &words)?;
    ensure!(output.status == 1, "it should refuse: {output}");
    ensure!(output.stderr.contains("root") || output.stderr.contains("CAP_"), "{output}");
    Ok(())
}

fn unknown_key(lab: &mut Lab) -> Result<()> {
    let file = lab.nodes[1].folder()?.join("bad.toml");
    std::fs::write(&file, "log_format = \"text\"\nlisten_adr = \"10.0.0.1\"\n")?;
    let path = file.to_string_lossy().into_owned();
    daemon_refuses(lab, &["--config", &path], &["listen_adr", "2"])
}

fn missing_balancer(lab: &mut Lab) -> Result<()> {
    if std::path::Path::new("/proc/net/ip_vs").exists() {
        // This kernel has IPVS: that the daemon takes it is shown where it may be used.
        return Ok(());
    }
    let other = lab.nodes[1].folder()?.join("ipvs").to_string_lossy().into_owned();
    let socket = format!("unix://{other}/skein.sock");
    let words =
        ["--data-dir", &other, "--run-dir", &other, "-H", &socket, "--load-balancer", "ipvs"];
    daemon_refuses(lab, &words, &["ipvs", "ip_vs"])
}

fn malformed(lab: &mut Lab) -> Result<()> {
    let node = &lab.nodes[0];
    let answer = node.request("POST", "/services/create", &json!("text"))?;
    ensure!(answer.status == 400 && !answer.message().is_empty(), "{answer:?}");
    let answer = node.request("GET", "/no/such/path", &Value::Null)?;
    ensure!(answer.status == 404 && answer.message() == "page not found", "{answer:?}");
    let answer = node.request("GET", "/v1.45/services", &Value::Null)?;
    ensure!(answer.status == 400 && answer.message().contains("too new"), "{answer:?}");
    let answer = node.request("GET", "/services/nothing", &Value::Null)?;
    ensure!(answer.status == 404 && answer.message().contains("nothing"), "{answer:?}");
    let filters = "/nodes?filters=%7B%22colour%22%3A%7B%22red%22%3Atrue%7D%7D";
    let answer = node.request("GET", filters, &Value::Null)?;
    ensure!(answer.status == 400 && answer.message().contains("colour"), "{answer:?}");
    ensure!(list(&node.get("/nodes")?).count() == 2, "both nodes are listed");
    // The harness itself can bind: the refusals above are the daemon's.
    ensure!(TcpListener::bind("127.0.0.1:0").is_ok(), "this process may bind");
    Ok(())
}
