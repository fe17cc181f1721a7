//! Skein's own commands.

use clap::Args;
use serde_json::{Value, json};

use super::http::{Client, escape};
use super::output::{Out, items, text};

/// Flags of `explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Id or name of the asking task
    from: String,
    /// Name that it calls
    to: String,
    /// Port that it calls
    port: Option<u16>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Flags of `why`.
#[derive(Debug, Args)]
pub struct WhyArgs {
    /// Id or name of a service or a task; of a network that is being removed
    service: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Flags of commands about one node.
#[derive(Debug, Args)]
pub struct NodeArgs {
    /// Id or name; this node unless given
    #[arg(long)]
    node: Option<String>,
}

impl NodeArgs {
    fn query(&self) -> String {
        self.node.as_ref().map_or_else(String::new, |node| format!("?node={}", escape(node)))
    }
}

/// `skein explain`.
pub async fn explain(client: &Client, args: &ExplainArgs, out: &mut Out<'_>) -> anyhow::Result<()> {
    let port = args.port.map_or_else(String::new, |port| format!("&port={port}"));
    let path =
        format!("/skein/v1/explain?from={}&to={}{port}", escape(&args.from), escape(&args.to));
    let hops = client.get(&path).await?;
    if args.json {
        return out.json(&hops);
    }
    for hop in items(&hops) {
        let mark = if hop["ok"] == json!(true) { "ok " } else { "BAD" };
        out.line(format!("{mark}  {:<10} {}", text(hop, "/stage"), text(hop, "/summary")))?;
        for entry in items(&hop["entries"]) {
            let mark = if entry["present"] == json!(true) { "present" } else { "MISSING" };
            let place = text(entry, "/place");
            out.line(format!("       {mark:<8} {place}: {}", text(entry, "/entry")))?;
        }
    }
    Ok(())
}

/// `skein why`.
pub async fn why(client: &Client, args: &WhyArgs, out: &mut Out<'_>) -> anyhow::Result<()> {
    let why = client.get(&format!("/skein/v1/why?service={}", escape(&args.service))).await?;
    if args.json {
        return out.json(&why);
    }
    told(&why).iter().try_for_each(|line| out.line(line))
}

/// What `why` prints.
fn told(why: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    let (name, running) = (text(why, "/name"), text(why, "/running"));
    let waiting = items(&why["waiting"]);
    let verdict = if waiting.is_empty() { ", and nothing waits" } else { "" };
    lines.push(format!("{name}: {running} tasks run{verdict}"));
    for waiting in waiting {
        let state = waiting["state"].as_str().map_or_else(String::new, |state| format!(" {state}"));
        for reason in items(&waiting["reasons"]) {
            lines.push(format!("{}{state}: {}", text(waiting, "/name"), text(reason, "/text")));
        }
    }
    let left_out = why["left_out"].as_u64().unwrap_or_default();
    lines.extend((left_out > 0).then(|| format!("and {left_out} more")));
    for refused in items(&why["passed_over"]) {
        let (reason, count) = (text(refused, "/reason"), text(refused, "/nodes"));
        let example = text(refused, "/example");
        lines.push(format!("no task is to run on {count} nodes, such as {example}: {reason}"));
    }
    if let (Some(at), Some(due)) = (why["at"].as_u64(), why["next_due"].as_u64()) {
        let seconds = due.saturating_sub(at).div_ceil(1000);
        lines.push(format!("by time alone, something follows in {seconds} s"));
    }
    lines
}

/// `skein plan`.
pub async fn plan(client: &Client, args: &NodeArgs, out: &mut Out<'_>) -> anyhow::Result<()> {
    let plan = client.get(&format!("/skein/v1/plan{}", args.query())).await?;
    for operation in items(&plan["operations"]) {
        out.line(operation.to_string())?;
    }
    out.line(format!("{} operations would run", text(&plan, "/count")))
}

/// `skein gossip`.
pub async fn gossip(client: &Client, args: &NodeArgs, out: &mut Out<'_>) -> anyhow::Result<()> {
    out.json(&client.get(&format!("/skein/v1/gossip{}", args.query())).await?)
}

/// `skein top`.
pub async fn top(client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    let topology = client.get("/skein/v1/topology").await?;
    let rows: Vec<Vec<String>> = items(&topology["nodes"])
        .iter()
        .map(|node| {
            let tasks: Vec<&str> = items(&node["tasks"])
                .iter()
                .filter_map(Value::as_str)
                .filter_map(|name| name.rsplit_once('.').map(|(name, _id)| name))
                .collect();
            let up = if node["up"] == json!(true) { "up" } else { "down" };
            vec![
                text(node, "/name"),
                text(node, "/vtep"),
                up.to_owned(),
                text(node, "/liveness"),
                tasks.join(" "),
            ]
        })
        .collect();
    out.table(&["NODE", "VTEP", "LEASE", "GOSSIP", "TASKS"], &rows)
}

const DAY_SECONDS: u64 = 24 * 60 * 60;

/// `skein doctor`: status 1 if something is wrong.
pub async fn doctor(client: &Client, out: &mut Out<'_>) -> anyhow::Result<u8> {
    let mut bad = 0_u8;
    let mut check = |out: &mut Out<'_>, ok: bool, what: String| {
        bad |= u8::from(!ok);
        out.line(format!("{}  {what}", if ok { "ok " } else { "BAD" }))
    };
    let info = client.get("/info").await?;
    check(out, true, format!("daemon {} answers", text(&info, "/ServerVersion")))?;
    let state = text(&info, "/Swarm/LocalNodeState");
    check(out, state == "active", format!("node is {state}"))?;
    if state != "active" {
        return Ok(bad);
    }
    for warning in items(&info["Warnings"]).iter().filter_map(Value::as_str) {
        let warning = warning.strip_prefix("WARNING: ").unwrap_or(warning);
        check(out, true, format!("note: {warning}"))?;
    }
    let topology = client.get("/skein/v1/topology").await?;
    for node in items(&topology["nodes"]) {
        let (name, liveness) = (text(node, "/name"), text(node, "/liveness"));
        check(out, liveness == "alive", format!("gossip holds {name} for {liveness}"))?;
        check(out, node["up"] == json!(true), format!("{name} holds its lease"))?;
    }
    let left = topology["certificate_seconds_left"].as_u64().unwrap_or_default();
    let (days, hours) = (left / DAY_SECONDS, left % DAY_SECONDS / 3600);
    check(out, left > 0, format!("the node's certificate is good for {days} d {hours} h"))?;
    let (schema, reads) = (text(&topology, "/schema"), text(&topology, "/reads_schema"));
    let schemas = format!("the cluster has schema {schema}, this version reads up to {reads}");
    let refused = topology["too_old"].as_str();
    check(out, refused.is_none(), refused.map_or(schemas, str::to_owned))?;
    if let Some(reason) = topology["without_room"].as_str() {
        let line = "this manager has no vote until its disk has room";
        check(out, false, format!("{line}: {reason}"))?;
    }
    for manager in items(&topology["differing"]) {
        let (name, revision) = (text(manager, "/name"), text(manager, "/revision"));
        check(out, false, format!("manager {name} held another state at revision {revision}"))?;
    }
    let plane = client.get("/skein/v1/dataplane").await?;
    check(
        out,
        true,
        format!(
            "{} passes over the kernel, {} operations, {} refused so far",
            text(&plane, "/passes"),
            text(&plane, "/operations"),
            text(&plane, "/failures")
        ),
    )?;
    let late = plane["late"].as_str().unwrap_or("changes reach the kernel in time");
    check(out, plane["late"].is_null(), late.to_owned())?;
    let trouble = plane["disk"].as_str();
    check(out, trouble.is_none(), trouble.unwrap_or("the data directory takes writes").to_owned())?;
    for finding in items(&plane["findings"]).iter().filter_map(Value::as_str) {
        check(out, false, finding.to_owned())?;
    }
    let plan = client.get("/skein/v1/plan").await?;
    let count = text(&plan, "/count");
    check(
        out,
        count == "0",
        format!("{count} operations would run: the kernel is as it should be"),
    )?;
    Ok(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_is_told_line_by_line() {
        let reason = |text: &str| json!({ "cause": "no-node", "text": text });
        let mut why = json!({
            "name": "web", "running": 2, "left_out": 7, "at": 1_000, "next_due": 3_500,
            "waiting": [
                { "name": "web", "reasons": [reason("a")] },
                { "name": "web.3.x", "state": "pending", "reasons": [reason("b"), reason("c")] },
            ],
            "passed_over": [{ "reason": "node is paused", "nodes": 2, "example": "n" }],
        });
        let expected = [
            "web: 2 tasks run",
            "web: a",
            "web.3.x pending: b",
            "web.3.x pending: c",
            "and 7 more",
            "no task is to run on 2 nodes, such as n: node is paused",
            "by time alone, something follows in 3 s",
        ];
        assert_eq!(told(&why), expected);
        why = json!({ "name": "web", "running": 2, "waiting": [], "next_due": null, "at": 1 });
        assert_eq!(told(&why), ["web: 2 tasks run, and nothing waits"]);
    }
}
