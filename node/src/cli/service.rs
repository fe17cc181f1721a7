//! `skein service …`.

use std::collections::{BTreeMap, BTreeSet};

use bytes::BytesMut;
use clap::{Args, Subcommand};
use http_body_util::BodyExt;
use hyper::Method;
use serde_json::{Value, json};

use super::http::{Client, escape};
use super::output::{ListArgs, Out, items, text};
use super::task;

pub use spec::{CreateArgs, UpdateArgs};

mod converge;
pub(super) mod spec;

/// Bytes of a log frame's header: stream, three zeros, length (Docker's stdcopy).
const FRAME_HEADER: usize = 8;

/// `skein service …`.
#[derive(Debug, Subcommand)]
pub enum ServiceCommand {
    /// Create a service
    Create(Box<CreateArgs>),
    /// List services
    Ls(ListArgs),
    /// List tasks of services
    Ps {
        #[command(flatten)]
        list: ListArgs,
        /// Ids or names
        #[arg(required = true)]
        services: Vec<String>,
    },
    /// Print services whole
    Inspect {
        /// Ids or names
        #[arg(required = true)]
        services: Vec<String>,
    },
    /// Change the number of replicas
    Scale {
        /// Do not wait until the tasks run
        #[arg(short, long)]
        detach: bool,
        /// SERVICE=REPLICAS
        #[arg(required = true)]
        scales: Vec<String>,
    },
    /// Change a service
    Update(Box<UpdateArgs>),
    /// Go back to the spec before the last update
    Rollback {
        /// Do not wait until the tasks run
        #[arg(short, long)]
        detach: bool,
        /// Id or name
        service: String,
    },
    /// Print what tasks wrote
    Logs(LogArgs),
    /// Remove services
    Rm {
        /// Ids or names
        #[arg(required = true)]
        services: Vec<String>,
    },
}

/// Flags of `service logs`.
#[derive(Debug, Args)]
pub struct LogArgs {
    /// Keep going
    #[arg(short, long)]
    follow: bool,
    /// So many lines from the end of each task
    #[arg(short = 'n', long, default_value = "all")]
    tail: String,
    /// Show when a line was written
    #[arg(short, long)]
    timestamps: bool,
    /// Id or name of a service, or id of a task
    service: String,
}

/// Runs it; returns the exit status.
pub async fn run(
    client: &Client,
    command: ServiceCommand,
    out: &mut Out<'_>,
) -> anyhow::Result<u8> {
    match command {
        ServiceCommand::Create(args) => return create(client, *args, out).await,
        ServiceCommand::Ls(list) => ls(client, &list, out).await?,
        ServiceCommand::Ps { list, services } => {
            let mut ids = BTreeSet::new();
            for service in &services {
                ids.insert(text(&get(client, service).await?, "/ID"));
            }
            task::list(client, &json!({ "service": ids }), &list, out).await?;
        }
        ServiceCommand::Inspect { services } => {
            let mut found = Vec::new();
            for service in &services {
                found.push(get(client, service).await?);
            }
            out.json(&Value::Array(found))?;
        }
        ServiceCommand::Scale { detach, scales } => {
            return scale(client, &scales, detach, out).await;
        }
        ServiceCommand::Update(args) => return update(client, *args, out).await,
        ServiceCommand::Rollback { detach, service } => {
            let found = get(client, &service).await?;
            let (id, version) = (text(&found, "/ID"), text(&found, "/Version/Index"));
            let path = format!("/services/{id}/update?version={version}&rollback=previous");
            client.post(&path, &found["Spec"]).await?;
            out.line(&service)?;
            return converge::wait(client, &id, detach, out).await;
        }
        ServiceCommand::Logs(args) => logs(client, args, out).await?,
        ServiceCommand::Rm { services } => {
            for service in services {
                client.delete(&format!("/services/{}", escape(&service))).await?;
                out.line(service)?;
            }
        }
    }
    Ok(0)
}

async fn get(client: &Client, service: &str) -> anyhow::Result<Value> {
    client.get(&format!("/services/{}", escape(service))).await
}

async fn create(client: &Client, args: CreateArgs, out: &mut Out<'_>) -> anyhow::Result<u8> {
    let body = args.to_spec()?;
    let created = client.post("/services/create", &body).await?;
    let id = text(&created, "/ID");
    out.line(&id)?;
    warn(&created, out)?;
    converge::wait(client, &id, args.detach, out).await
}

async fn update(client: &Client, args: UpdateArgs, out: &mut Out<'_>) -> anyhow::Result<u8> {
    let found = get(client, &args.service).await?;
    let (id, version) = (text(&found, "/ID"), text(&found, "/Version/Index"));
    let mut ids = BTreeMap::new();
    for name in args.networks()? {
        let network = client.get(&format!("/networks/{}", escape(&name))).await?;
        ids.insert(name, text(&network, "/Id"));
    }
    let spec = args.apply(found["Spec"].clone(), &ids)?;
    let path = format!("/services/{id}/update?version={version}");
    let updated = client.post(&path, &spec).await?;
    out.line(&args.service)?;
    warn(&updated, out)?;
    converge::wait(client, &id, args.detach, out).await
}

fn warn(answer: &Value, out: &mut Out<'_>) -> anyhow::Result<()> {
    for warning in items(&answer["Warnings"]) {
        out.line(format!("warning: {}", warning.as_str().unwrap_or_default()))?;
    }
    Ok(())
}

async fn scale(
    client: &Client,
    scales: &[String],
    detach: bool,
    out: &mut Out<'_>,
) -> anyhow::Result<u8> {
    let mut status = 0;
    for scale in scales {
        let parsed = scale.split_once('=').and_then(|(name, n)| Some((name, n.parse().ok()?)));
        let Some((name, replicas)) = parsed else {
            anyhow::bail!("{scale:?}: give SERVICE=REPLICAS, like web=3");
        };
        let replicas: u64 = replicas;
        let found = get(client, name).await?;
        let (id, version) = (text(&found, "/ID"), text(&found, "/Version/Index"));
        let mut spec = found["Spec"].clone();
        if spec.pointer("/Mode/Replicated").is_none() {
            anyhow::bail!("{name}: scale can only be used with replicated mode");
        }
        spec["Mode"]["Replicated"]["Replicas"] = json!(replicas);
        client.post(&format!("/services/{id}/update?version={version}"), &spec).await?;
        out.line(format!("{name} scaled to {replicas}"))?;
        status = status.max(converge::wait(client, &id, detach, out).await?);
    }
    Ok(status)
}

async fn ls(client: &Client, list: &ListArgs, out: &mut Out<'_>) -> anyhow::Result<()> {
    let services = client.get("/services?status=true").await?;
    let header = ["ID", "NAME", "MODE", "REPLICAS", "IMAGE", "PORTS"];
    out.list(list, items(&services), &header, |service| {
        let mode =
            if service.pointer("/Spec/Mode/Global").is_some() { "global" } else { "replicated" };
        let ports: Vec<String> = items(&service["Endpoint"]["Ports"])
            .iter()
            .map(|port| {
                let address = port["HostIP"].as_str().unwrap_or("*");
                format!(
                    "{address}:{}->{}/{}",
                    text(port, "/PublishedPort"),
                    text(port, "/TargetPort"),
                    text(port, "/Protocol")
                )
            })
            .collect();
        let status = "/ServiceStatus";
        vec![
            text(service, "/ID").chars().take(12).collect(),
            text(service, "/Spec/Name"),
            mode.to_owned(),
            format!(
                "{}/{}",
                text(service, &format!("{status}/RunningTasks")),
                text(service, &format!("{status}/DesiredTasks"))
            ),
            text(service, "/Spec/TaskTemplate/ContainerSpec/Image"),
            ports.join(", "),
        ]
    })
}

async fn logs(client: &Client, args: LogArgs, out: &mut Out<'_>) -> anyhow::Result<()> {
    let query = format!(
        "stdout=1&stderr=1&details=1&tail={}&follow={}&timestamps={}",
        escape(&args.tail),
        args.follow,
        args.timestamps
    );
    let path = format!("/services/{}/logs?{query}", escape(&args.service));
    let mut body = client.send(Method::GET, &path, None).await?.into_body();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            rest.extend_from_slice(&data);
        }
        while let Some(line) = take_frame(&mut rest) {
            out.line(present(&line))?;
        }
    }
    Ok(())
}

fn take_frame(rest: &mut BytesMut) -> Option<String> {
    let length = rest.get(4..FRAME_HEADER)?;
    let length = u32::from_be_bytes(length.try_into().ok()?) as usize;
    if rest.len() < FRAME_HEADER + length {
        return None;
    }
    let frame = rest.split_to(FRAME_HEADER + length);
    Some(String::from_utf8_lossy(&frame[FRAME_HEADER..]).trim_end().to_owned())
}

/// `[time ]details text` becomes `[time ]task | text`.
fn present(line: &str) -> String {
    let is_details = |word: &&str| word.starts_with("com.docker.swarm.");
    let mut words = line.splitn(3, ' ');
    let (first, second) = (words.next().unwrap_or_default(), words.next());
    let (time, details) = match second.filter(is_details) {
        Some(details) => (format!("{first} "), details),
        None => (String::new(), first),
    };
    let task = details.split(',').find_map(|pair| pair.strip_prefix("com.docker.swarm.task.id="));
    let task: String = task.unwrap_or_default().chars().take(12).collect();
    let body = line.split_once(details).map_or("", |(_, body)| body.trim_start_matches(' '));
    format!("{time}{task} | {body}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_cut_and_shown_with_their_task() {
        let text = b"com.docker.swarm.node.id=n,com.docker.swarm.task.id=abcdefghijklmn hello  you";
        let mut bytes = BytesMut::from(&[1, 0, 0, 0, 0, 0, 0, text.len() as u8][..]);
        bytes.extend_from_slice(text);
        bytes.extend_from_slice(&[2, 0, 0]);
        let line = take_frame(&mut bytes).unwrap();
        assert_eq!(present(&line), "abcdefghijkl | hello  you");
        assert_eq!(take_frame(&mut bytes), None);
    }
}
