//! The CA is rotated with the docker client while tasks run and their traffic continues.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use cluster::object::{CaDigest, Trust};
use lab::cluster::text;
use lab::command::run;
use lab::scenario::Check;
use lab::scenario::calls::wait_all_answer;
use lab::scenario::restart::Traffic;
use lab::scenario::services::{make_network, probe, processes, serve as serve_program, serve_echo};
use lab::{Lab, Node};
use serde_json::Value;
use skein::key_file::KeyFile;
use skein::pki::{self, Credentials, Tls};

use crate::adversary::{CLUSTER_PORT, post, wait_down};
use crate::stage::Stage;

const NODES: usize = 5;
const MANAGERS: usize = 3;
/// A worker that runs no tasks: it leaves, joins, and is off while the others move.
const AWAY: usize = 4;
const SOON: Duration = Duration::from_secs(40);
const OPENSSL_SECONDS: u32 = 10;

const CHECKS: &[Check] = &[
    ("services start", serve),
    ("another CA takes over, and no packet is lost", rotate),
    ("the old token and an old certificate open nothing", old_ones),
    ("all daemons restart under the new CA", restart),
    ("a node that is off is waited for, and moves when it is back", off_meanwhile),
    ("a CA of the user's takes over", own_ca),
    ("a CA that cannot take over changes nothing", bad_ones),
    ("its own CA again calls a rotation off", called_off),
];

/// Goal: a cluster keeps working while its CA is replaced, and then no longer knows the old one.
/// Method: docker's own client, while traffic flows, and the files on every node.
#[test]
fn the_ca_rotates_under_traffic() {
    let mut stage = Stage::cluster("ca", NODES, MANAGERS);
    stage.check(CHECKS);
}

fn serve(lab: &mut Lab) -> Result<()> {
    let last = lab.nodes[AWAY].name.clone();
    lab.nodes[0].docker(&["node", "update", "--availability", "drain", &last])?.ok()?;
    make_network(lab)?;
    let program = [&probe(lab)?, "serve", "9"];
    serve_program(lab, "client", &["--mode", "global"], &program, AWAY)?;
    serve_echo(lab, AWAY)?;
    wait_all_answer(lab, AWAY, AWAY)
}

pub(crate) fn credentials(node: &Node) -> Result<Credentials> {
    let file = node.data_dir().join("certs/node.json");
    KeyFile::at(file).load()?.context("no keys there")
}

pub(crate) fn trust(node: &Node) -> Result<Trust> {
    Ok(pki::trust_of(&credentials(node)?)?)
}

fn swarm(lab: &Lab) -> Result<Value> {
    lab.nodes[0].get("/swarm")
}

fn token(lab: &Lab) -> Result<String> {
    lab.nodes[0].docker(&["swarm", "join-token", "-q", "worker"])?.ok()
}

/// The CA as a manager reports it, once no rotation is in progress.
fn settled(lab: &Lab) -> Result<CaDigest> {
    let told = swarm(lab)?;
    ensure!(told["RootRotationInProgress"] == false, "a rotation runs: {told}");
    Ok(pki::ca_name(&text(&told["TLSInfo"]["TrustRoot"]))?)
}

/// Waits until the CA is another one than before, and every node has a certificate of it and trusts
/// no other; and managers tell so.
fn all_moved(lab: &Lab, before: CaDigest) -> Result<CaDigest> {
    lab.wait_for(SOON, "all nodes to have moved to the new CA", || {
        let ca = settled(lab)?;
        ensure!(ca != before, "it is the old one");
        let tls = swarm(lab)?["TLSInfo"].clone();
        for node in &lab.nodes {
            let trust = trust(node)?;
            ensure!(trust == Trust { issuer: ca, roots: vec![ca] }, "{}: {trust:?}", node.name);
            let listed = lab.nodes[1].get(&format!("/nodes/{}", node.cluster_id()?))?;
            ensure!(listed["Description"]["TLSInfo"] == tls, "{} is told as {listed}", node.name);
        }
        Ok(ca)
    })
}

fn rotate(lab: &mut Lab) -> Result<()> {
    let (before, old_token) = (settled(lab)?, token(lab)?);
    let keys: Result<Vec<_>> = lab.nodes.iter().map(credentials).collect();
    let (tasks, traffic) = (processes(lab)?, Traffic::start(lab)?);
    let said = lab.nodes[0].docker(&["swarm", "ca", "--rotate"])?.ok()?;
    // It waits for the end, and prints the CA then.
    let now = settled(lab)?;
    ensure!(now != before && said.contains("-----BEGIN CERTIFICATE-----"), "{said}");
    ensure!(token(lab)? != old_token, "the token is the old one");
    ensure!(processes(lab)? == tasks, "tasks were touched");
    ensure!(all_moved(lab, before)? == now, "another one");
    for (node, old) in lab.nodes.iter().zip(keys?) {
        ensure!(credentials(node)?.key == old.key, "{} has another key", node.name);
    }
    traffic.finish()?;
    fs::write(lab.folder().join("old-token"), old_token)?;
    Ok(())
}

/// A manager lets a node in as what it is now, and not by what it showed before a rotation, though
/// it trusts who answers.
pub(crate) fn opens_nothing(
    lab: &Lab,
    old: &Credentials,
    now: &Credentials,
    manager: SocketAddr,
) -> Result<()> {
    let call = |shown: &Credentials| {
        let tls = Tls::new(&Credentials { ca: now.ca.clone(), ..shown.clone() })?.client;
        post(lab, &tls, manager, "/session/watch", b"nothing")
    };
    let (status, _) = call(now)?;
    ensure!(status == 400, "the present certificate is answered {status}");
    let error = match call(old) {
        Ok((status, _)) => bail!("a certificate of the old CA is answered {status}"),
        Err(error) => format!("{error:#}"),
    };
    // The alert is lost where the call was sent before it came.
    let refused = ["received fatal alert", "connection closed", "Connection reset"];
    ensure!(refused.iter().any(|word| error.contains(word)), "it is not refused, but {error}");
    Ok(())
}

fn old_ones(lab: &mut Lab) -> Result<()> {
    let (before, old) = (settled(lab)?, credentials(&lab.nodes[AWAY])?);
    lab.nodes[0].docker(&["swarm", "ca", "--rotate", "--quiet"])?.ok()?;
    all_moved(lab, before)?;
    let manager = SocketAddr::new(lab.nodes[0].address.into(), CLUSTER_PORT);
    opens_nothing(lab, &old, &credentials(&lab.nodes[AWAY])?, manager)?;

    let id = lab.nodes[AWAY].cluster_id()?;
    lab.nodes[AWAY].docker(&["swarm", "leave"])?.ok()?;
    wait_down(lab, &id)?;
    lab.nodes[0].docker(&["node", "rm", "--force", &id])?.ok()?;
    let (away, manager) = (&lab.nodes[AWAY], manager.to_string());
    let external = "protocol=cfssl,url=https://ca.example/sign";
    let refused = away.docker(&["swarm", "init", "--external-ca", external])?.refused()?;
    ensure!(refused.contains("external CAs are not supported"), "{refused}");
    let old_token = fs::read_to_string(lab.folder().join("old-token"))?;
    let refused = away.docker(&["swarm", "join", "--token", &old_token, &manager])?.refused()?;
    ensure!(refused.contains("is not of the cluster that the join token is for"), "{refused}");
    away.docker(&["swarm", "join", "--token", &token(lab)?, &manager])?.ok()?;
    lab.wait_nodes_ready(NODES)?;
    let drained = away.cluster_id()?;
    lab.nodes[0].docker(&["node", "update", "--availability", "drain", &drained])?.ok()?;
    Ok(())
}

fn restart(lab: &mut Lab) -> Result<()> {
    for node in &mut lab.nodes {
        node.kill_daemon()?;
    }
    lab.start_all()?;
    lab.wait_nodes_ready(NODES)?;
    wait_all_answer(lab, AWAY, AWAY)
}

fn off_meanwhile(lab: &mut Lab) -> Result<()> {
    let (before, id, old_token) = (settled(lab)?, lab.nodes[AWAY].cluster_id()?, token(lab)?);
    lab.nodes[AWAY].kill_daemon()?;
    wait_down(lab, &id)?;
    let traffic = Traffic::start(lab)?;
    let mut targets = vec![before];
    // The second one replaces the first, which cannot be complete.
    for _ in 0..2 {
        lab.nodes[1].docker(&["swarm", "ca", "--rotate", "--detach"])?.ok()?;
        let target = lab.wait_for(SOON, "those that are on to have moved", || {
            let moved = trust(&lab.nodes[0])?;
            ensure!(!targets.contains(&moved.issuer), "{moved:?}");
            for node in &lab.nodes[..AWAY] {
                ensure!(trust(node)? == moved, "{} has not moved", node.name);
            }
            Ok(moved.issuer)
        })?;
        targets.push(target);
    }
    let told = swarm(lab)?;
    ensure!(told["RootRotationInProgress"] == true, "it is complete without one: {told}");
    ensure!(pki::ca_name(&text(&told["TLSInfo"]["TrustRoot"]))? == before, "{told}");
    ensure!(token(lab)? == old_token, "the token changed before the end");
    lab.nodes[AWAY].start()?;
    let now = all_moved(lab, before)?;
    ensure!(Some(&now) == targets.last(), "another one than was begun last");
    traffic.finish()?;
    lab.wait_nodes_ready(NODES)
}

/// A CA by openssl: where its certificate and key are.
fn made(lab: &Lab, name: &str, more: &[&str]) -> Result<[String; 2]> {
    let file = |end: &str| -> PathBuf { lab.folder().join(format!("{name}.{end}")) };
    let [certificate, key] = [file("crt"), file("key")].map(|path| path.display().to_string());
    let subject = format!("/C=DE/O=Example/OU=one/CN={name}");
    let line = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
    let files = ["-nodes", "-keyout", &key, "-out", &certificate, "-subj", &subject];
    let days: &[&str] = if more.contains(&"-days") { &[] } else { &["-days", "4000"] };
    run(OPENSSL_SECONDS, &[line.as_slice(), &files, days, more].concat())?.ok()?;
    Ok([certificate, key])
}

fn rotate_to(lab: &Lab, certificate: &str, key: &str) -> Result<lab::command::Output> {
    let words = ["swarm", "ca", "--rotate", "--quiet", "--ca-cert", certificate, "--ca-key", key];
    lab.nodes[2].docker(&words)
}

fn own_ca(lab: &mut Lab) -> Result<()> {
    let before = settled(lab)?;
    let [certificate, key] = made(lab, "own", &[])?;
    let traffic = Traffic::start(lab)?;
    rotate_to(lab, &certificate, &key)?.ok()?;
    let now = all_moved(lab, before)?;
    traffic.finish()?;
    ensure!(now == pki::ca_name(&fs::read_to_string(&certificate)?)?, "another one");
    let spec = swarm(lab)?["Spec"]["CAConfig"].to_string();
    ensure!(!spec.contains("Signing"), "it is kept in the spec: {spec}");
    // As anybody may verify it.
    for node in &lab.nodes {
        let leaf = lab.folder().join("leaf.crt");
        fs::write(&leaf, credentials(node)?.certificate)?;
        let leaf = leaf.display().to_string();
        let line = ["openssl", "verify", "-CAfile", &certificate, &leaf];
        run(OPENSSL_SECONDS, &line)?.ok().with_context(|| node.name.clone())?;
    }
    Ok(())
}

fn bad_ones(lab: &mut Lab) -> Result<()> {
    let (before, token_before) = (swarm(lab)?, token(lab)?);
    let [good, good_key] = made(lab, "good", &[])?;
    let [short, short_key] = made(lab, "short", &["-days", "30"])?;
    let no_ca = ["-addext", "basicConstraints=critical,CA:FALSE"];
    let [node, node_key] = made(lab, "node", &no_ca)?;
    for (certificate, key, reason) in [
        (&good, &short_key, "its key is not that of its certificate"),
        (&short, &short_key, "expires too soon"),
        (&node, &node_key, "not that of a CA"),
        (&good_key, &good_key, "0 certificates are given"),
        (&good, &good, "its key cannot be used"),
    ] {
        let refused = rotate_to(lab, certificate, key)?.refused()?;
        ensure!(refused.contains(reason) && refused.lines().count() == 1, "{refused}");
    }
    let external = "protocol=cfssl,url=https://ca.example/sign";
    for words in [
        ["swarm", "update", "--external-ca", external].as_slice(),
        &["swarm", "ca", "--rotate", "--ca-cert", &good, "--external-ca", external],
    ] {
        let refused = lab.nodes[0].docker(words)?.refused()?;
        ensure!(refused.contains("external CAs are not supported"), "{refused}");
    }
    let after = swarm(lab)?;
    for part in ["Spec", "TLSInfo", "RootRotationInProgress"] {
        ensure!(after[part] == before[part], "{part} has changed: {after}");
    }
    ensure!(token(lab)? == token_before, "the token has changed");
    Ok(())
}

fn called_off(lab: &mut Lab) -> Result<()> {
    let (before, id) = (settled(lab)?, lab.nodes[AWAY].cluster_id()?);
    lab.nodes[AWAY].kill_daemon()?;
    wait_down(lab, &id)?;
    lab.nodes[0].skein(&["swarm", "ca", "--rotate", "--detach"])?.ok()?;
    lab.wait_for(SOON, "a node to have moved", || {
        ensure!(trust(&lab.nodes[0])?.issuer != before, "it has not");
        Ok(())
    })?;
    let file = |end: &str| lab.folder().join(format!("own.{end}")).display().to_string();
    let words = ["swarm", "ca", "--rotate", "--detach", "--ca-cert", &file("crt")];
    lab.nodes[0].skein(&[words.as_slice(), &["--ca-key", &file("key")]].concat())?.ok()?;
    ensure!(settled(lab)? == before, "it is another one");
    let printed = lab.nodes[0].skein(&["swarm", "ca"])?.ok()?;
    ensure!(pki::ca_name(&printed)? == before, "{printed}");
    lab.nodes[AWAY].start()?;
    lab.wait_for(SOON, "all to be back", || {
        for node in &lab.nodes {
            let trust = trust(node)?;
            ensure!(trust.issuer == before && trust.roots == [before], "{trust:?}");
        }
        Ok(())
    })?;
    lab.wait_nodes_ready(NODES)?;
    wait_all_answer(lab, AWAY, AWAY)
}
