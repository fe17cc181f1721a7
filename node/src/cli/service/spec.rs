//! Flags of a service, as Docker's spec.

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Value, json};

use crate::cli::network::pairs;

/// Flags of `service create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Do not wait until the tasks run
    #[arg(short, long)]
    pub detach: bool,
    /// Name of the service
    #[arg(long, default_value = "")]
    name: String,
    /// Number of tasks
    #[arg(long)]
    replicas: Option<u64>,
    /// replicated or global
    #[arg(long, default_value = "replicated")]
    mode: String,
    /// Networks to attach to
    #[arg(long)]
    network: Vec<String>,
    /// PUBLISHED:TARGET[/PROTOCOL]
    #[arg(short, long)]
    publish: Vec<String>,
    /// node.role==worker and the like
    #[arg(long)]
    constraint: Vec<String>,
    /// NAME=VALUE
    #[arg(short, long)]
    env: Vec<String>,
    /// NAME=VALUE
    #[arg(short, long)]
    label: Vec<String>,
    /// type=bind|volume|tmpfs,source=…,target=…[,readonly]
    #[arg(long)]
    mount: Vec<String>,
    /// NAME or UID[:GID]
    #[arg(short, long, default_value = "")]
    user: String,
    /// Working directory
    #[arg(short, long, default_value = "")]
    workdir: String,
    /// vip or dnsrr
    #[arg(long, default_value = "vip")]
    endpoint_mode: String,
    /// none, on-failure or any
    #[arg(long)]
    restart_condition: Option<String>,
    /// Before a task is replaced, like 5s
    #[arg(long)]
    restart_delay: Option<String>,
    /// From the stop signal to SIGKILL, like 10s
    #[arg(long)]
    stop_grace_period: Option<String>,
    /// Shell line; status 0 is healthy
    #[arg(long)]
    health_cmd: Option<String>,
    /// Between health checks, like 5s
    #[arg(long)]
    health_interval: Option<String>,
    /// No small reaper as pid 1
    #[arg(long)]
    no_init: bool,
    /// host or dir:/path
    image: String,
    /// Program and arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl CreateArgs {
    /// Docker's spec.
    pub fn to_spec(&self) -> anyhow::Result<Value> {
        let mode = match self.mode.as_str() {
            "replicated" => json!({ "Replicated": { "Replicas": self.replicas.unwrap_or(1) } }),
            "global" if self.replicas.is_some() => {
                bail!("--replicas can only be used with replicated mode")
            }
            "global" => json!({ "Global": {} }),
            other => bail!("--mode {other:?}: give replicated or global"),
        };
        let mut container = json!({
            "Image": self.image,
            "Args": self.command,
            "Env": self.env,
            "User": self.user,
            "Dir": self.workdir,
            "Init": !self.no_init,
            "Mounts": self.mount.iter().map(|text| mount(text)).collect::<Result<Vec<_>, _>>()?,
        });
        if let Some(grace) = &self.stop_grace_period {
            container["StopGracePeriod"] = json!(nanoseconds(grace)?);
        }
        if let Some(line) = &self.health_cmd {
            let interval = self.health_interval.as_deref().map(nanoseconds).transpose()?;
            container["Healthcheck"] =
                json!({ "Test": ["CMD-SHELL", line], "Interval": interval.unwrap_or(0) });
        }
        let networks: Vec<Value> =
            self.network.iter().map(|name| json!({ "Target": name })).collect();
        let mut template = json!({
            "ContainerSpec": container,
            "Placement": { "Constraints": self.constraint },
            "Networks": networks,
        });
        let mut restart = json!({});
        if let Some(condition) = &self.restart_condition {
            restart["Condition"] = json!(condition);
        }
        if let Some(delay) = &self.restart_delay {
            restart["Delay"] = json!(nanoseconds(delay)?);
        }
        template["RestartPolicy"] = restart;
        let ports: Vec<Value> =
            self.publish.iter().map(|text| port(text)).collect::<Result<_, _>>()?;
        Ok(json!({
            "Name": self.name,
            "Labels": pairs(&self.label),
            "TaskTemplate": template,
            "Mode": mode,
            "EndpointSpec": { "Mode": self.endpoint_mode, "Ports": ports },
        }))
    }
}

/// Flags of `service update`.
#[derive(Debug, Args)]
pub struct UpdateArgs {
    /// Do not wait until the tasks run
    #[arg(short, long)]
    pub detach: bool,
    /// Replace every task although nothing else changes
    #[arg(long)]
    force: bool,
    /// Number of tasks
    #[arg(long)]
    replicas: Option<u64>,
    /// host or dir:/path
    #[arg(long)]
    image: Option<String>,
    /// Arguments, split at spaces
    #[arg(long, allow_hyphen_values = true)]
    args: Option<String>,
    /// NAME=VALUE
    #[arg(long)]
    env_add: Vec<String>,
    /// NAME
    #[arg(long)]
    env_rm: Vec<String>,
    /// PUBLISHED:TARGET[/PROTOCOL]
    #[arg(long)]
    publish_add: Vec<String>,
    /// Published port
    #[arg(long)]
    publish_rm: Vec<u16>,
    /// node.role==worker and the like
    #[arg(long)]
    constraint_add: Vec<String>,
    /// As it was given
    #[arg(long)]
    constraint_rm: Vec<String>,
    /// Id or name
    pub service: String,
}

impl UpdateArgs {
    /// The spec with the flags' changes.
    pub fn apply(&self, mut spec: Value) -> anyhow::Result<Value> {
        if let Some(replicas) = self.replicas {
            if spec.pointer("/Mode/Replicated").is_none() {
                bail!("replicas can only be used with replicated mode");
            }
            spec["Mode"]["Replicated"]["Replicas"] = json!(replicas);
        }
        let template = &mut spec["TaskTemplate"];
        if self.force {
            let count = template["ForceUpdate"].as_u64().unwrap_or(0);
            template["ForceUpdate"] = json!(count + 1);
        }
        if let Some(image) = &self.image {
            template["ContainerSpec"]["Image"] = json!(image);
        }
        if let Some(args) = &self.args {
            template["ContainerSpec"]["Args"] = json!(args.split_whitespace().collect::<Vec<_>>());
        }
        let name_of = |entry: &Value| {
            entry.as_str().and_then(|e| e.split('=').next()).unwrap_or_default().to_owned()
        };
        change(&mut template["ContainerSpec"]["Env"], |env| {
            let added = |name: &String| {
                self.env_add.iter().any(|entry| entry.split('=').next() == Some(name))
            };
            env.retain(|e| !self.env_rm.contains(&name_of(e)) && !added(&name_of(e)));
            env.extend(self.env_add.iter().map(|entry| json!(entry)));
        });
        change(&mut template["Placement"]["Constraints"], |constraints| {
            let kept = |c: &Value| !self.constraint_rm.iter().any(|gone| c == gone);
            constraints.retain(kept);
            constraints.extend(self.constraint_add.iter().map(|c| json!(c)));
        });
        let added: Vec<Value> =
            self.publish_add.iter().map(|text| port(text)).collect::<Result<_, _>>()?;
        change(&mut spec["EndpointSpec"]["Ports"], |ports| {
            ports.retain(|p| !self.publish_rm.iter().any(|gone| p["PublishedPort"] == *gone));
            ports.extend(added);
        });
        Ok(spec)
    }
}

/// Changes a list that may be absent.
fn change(list: &mut Value, f: impl FnOnce(&mut Vec<Value>)) {
    let mut items = list.as_array().cloned().unwrap_or_default();
    f(&mut items);
    *list = Value::Array(items);
}

/// `3000:80/udp`, or `published=3000,target=80,protocol=udp,mode=host`.
fn port(text: &str) -> anyhow::Result<Value> {
    let wrong = || {
        format!("--publish {text:?}: give PUBLISHED:TARGET[/PROTOCOL], like 3000:80 or 53:53/udp")
    };
    if text.contains('=') {
        let fields: Vec<String> = text.split(',').map(str::to_owned).collect();
        let fields = pairs(&fields);
        let number = |name: &str| fields.get(name).copied().unwrap_or("0").parse::<u16>();
        return Ok(json!({
            "PublishedPort": number("published").with_context(wrong)?,
            "TargetPort": number("target").with_context(wrong)?,
            "Protocol": fields.get("protocol").copied().unwrap_or("tcp"),
            "PublishMode": fields.get("mode").copied().unwrap_or("ingress"),
        }));
    }
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (published, target) = ports.split_once(':').unwrap_or(("0", ports));
    Ok(json!({
        "PublishedPort": published.parse::<u16>().with_context(wrong)?,
        "TargetPort": target.parse::<u16>().with_context(wrong)?,
        "Protocol": protocol,
        "PublishMode": "ingress",
    }))
}

/// docker's `--mount` words.
fn mount(text: &str) -> anyhow::Result<Value> {
    let fields: Vec<String> = text.split(',').map(str::to_owned).collect();
    let fields = pairs(&fields);
    let either = |a: &str, b: &str| fields.get(a).or(fields.get(b)).copied().unwrap_or_default();
    let target = either("target", "dst");
    if target.is_empty() {
        bail!("--mount {text:?}: target is missing, like type=bind,source=/srv,target=/srv");
    }
    Ok(json!({
        "Type": fields.get("type").copied().unwrap_or("volume"),
        "Source": either("source", "src"),
        "Target": target,
        "ReadOnly": fields.contains_key("readonly") || fields.contains_key("ro"),
    }))
}

/// `10s`, `1m30s`, `500ms`: Go's durations.
pub(in crate::cli) fn nanoseconds(text: &str) -> anyhow::Result<u64> {
    api::duration_ns(text)
        .with_context(|| format!("{text:?} is no duration: give one like 10s, 1m30s or 500ms"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_forms_are_docker_s() {
        assert_eq!(port("3000:80/udp").unwrap()["Protocol"], "udp");
        assert_eq!(port("80").unwrap()["PublishedPort"], 0);
        assert_eq!(port("published=1,target=2,mode=host").unwrap()["PublishMode"], "host");
        assert!(port("x:y").unwrap_err().to_string().contains("like 3000:80"));
        assert_eq!(nanoseconds("1m30s").unwrap(), 90_000_000_000);
        assert!(nanoseconds("5 parsecs").is_err());
        assert_eq!(mount("type=bind,src=/a,dst=/b,ro").unwrap()["ReadOnly"], true);
    }

    #[test]
    fn an_update_keeps_what_it_does_not_name() {
        let args = UpdateArgs {
            detach: true,
            force: true,
            replicas: Some(3),
            image: None,
            args: None,
            env_add: vec!["A=2".into()],
            env_rm: vec!["B".into()],
            publish_add: vec![],
            publish_rm: vec![80],
            constraint_add: vec![],
            constraint_rm: vec![],
            service: "s".into(),
        };
        let spec = json!({
            "Mode": {"Replicated": {"Replicas": 1}}, "Other": 7,
            "TaskTemplate": {"ContainerSpec": {"Env": ["A=1", "B=1", "C=1"]}},
            "EndpointSpec": {"Ports": [{"PublishedPort": 80}, {"PublishedPort": 81}]},
        });
        let changed = args.apply(spec).unwrap();
        assert_eq!(changed["Other"], 7);
        assert_eq!(changed["TaskTemplate"]["ContainerSpec"]["Env"], json!(["C=1", "A=2"]));
        assert_eq!(changed["EndpointSpec"]["Ports"], json!([{"PublishedPort": 81}]));
        assert_eq!(changed["TaskTemplate"]["ForceUpdate"], 1);
    }
}
