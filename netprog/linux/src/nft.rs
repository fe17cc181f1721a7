//! nftables: changes as text through the `nft` program, one transaction for each run of
//! operations; reading by netfilter netlink, because `nft` cannot list a few sets of a table
//! without starting once for each.

mod element;
pub(crate) mod list;
pub(crate) mod read;
mod reference;
mod script;
pub(crate) mod wire;

use std::collections::BTreeSet;
use std::io;
use std::process::Stdio;
use std::time::Duration;

use netprog::op::{NftChange, NftOp};
use rtnetlink::sys::Socket;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::netlink::Refusal;

pub(crate) use read::Reader;

/// How long one transaction may take.
const TRANSACTION_WAIT_MAX: Duration = Duration::from_secs(30);
/// How often tables are loaded until no other program changed nftables meanwhile.
const LOADS_MAX: u32 = 3;
/// How nft begins the kernel's own refusals.
const KERNEL_REFUSES: &str = "Could not process rule";
/// ENOENT in words, which are asked for in English.
const NOTHING_THERE: &str = "No such file or directory";
/// Operations in one transaction: the whole of it goes to the kernel in one message.
pub(crate) const TRANSACTION_OPS_MAX: usize = 4096;

/// Static sets and maps of one table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Names {
    pub(crate) sets: BTreeSet<String>,
    pub(crate) maps: BTreeSet<String>,
}

/// Applies nft operations of the calling thread's namespace in order, as one transaction. If the
/// kernel refuses it, its halves are tried one after the other, down to single operations, so
/// that each failure is found and all else is done.
pub(crate) async fn apply(socket: &Socket, ops: &[NftOp]) -> Vec<(usize, Refusal)> {
    let mut failed = Vec::new();
    // A stack of ranges, the first on top: order is kept.
    let mut waiting: Vec<_> = (0..ops.len())
        .step_by(TRANSACTION_OPS_MAX)
        .map(|start| start..ops.len().min(start + TRANSACTION_OPS_MAX))
        .rev()
        .collect();
    while let Some(range) = waiting.pop() {
        let Some(part) = ops.get(range.clone()) else { continue };
        let Err(refusal) = together(socket, part).await else { continue };
        if let [op] = part {
            if let Err(refusal) = alone(op, refusal).await {
                failed.push((range.start, refusal));
            }
        } else {
            let middle = range.start + part.len() / 2;
            waiting.push(middle..range.end);
            waiting.push(range.start..middle);
        }
    }
    failed
}

/// Runs operations as one transaction, and notes what their tables are then. Where other programs
/// change nftables all the time, what is read back may hold a change of theirs: that is accepted
/// after some loads, as tables that are never done would hold up every task.
async fn together(socket: &Socket, ops: &[NftOp]) -> Result<(), Refusal> {
    let script = script::transaction(ops);
    let loaded = reference::loaded(ops);
    if loaded.is_empty() {
        return run(&script).await;
    }
    for load in 1..=LOADS_MAX {
        let before = wire::generation(socket)?;
        run(&script).await?;
        let references = reference::references(socket, &loaded)?;
        let is_quiet = wire::generation(socket)? == before.wrapping_add(1);
        if is_quiet || load == LOADS_MAX {
            if !is_quiet {
                tracing::warn!("other programs change nftables while tables are loaded");
            }
            return run(&script::elements(&references)).await;
        }
    }
    Ok(())
}

/// A single operation that was refused: what it should remove may be gone already.
async fn alone(op: &NftOp, refusal: Refusal) -> Result<(), Refusal> {
    let nothing_there = refusal.is(nix::errno::Errno::ENOENT);
    // The program itself refuses what names no table or set; the kernel, what names no element.
    let no_element = nothing_there && refusal.text.starts_with(KERNEL_REFUSES);
    match &op.change {
        NftChange::Delete if nothing_there => Ok(()),
        NftChange::DeleteElement(..) | NftChange::SetMapElement { old: Some(_), new: None, .. }
            if no_element =>
        {
            Ok(())
        }
        NftChange::SetMapElement { map, key, old: Some(_), new: Some(new) } if no_element => {
            let (map, key) = (map.clone(), key.clone());
            let change = NftChange::SetMapElement { map, key, old: None, new: Some(new.clone()) };
            let add = NftOp { table: op.table.clone(), change };
            run(&script::transaction(&[add])).await
        }
        NftChange::Load(_)
        | NftChange::Delete
        | NftChange::AddElement(..)
        | NftChange::DeleteElement(..)
        | NftChange::SetMapElement { .. } => Err(refusal),
    }
}

/// Runs one script; all of it is done or nothing.
async fn run(script: &str) -> Result<(), Refusal> {
    if script.is_empty() {
        return Ok(());
    }
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(not_started)?;
    let stdin = child.stdin.take();
    let feed = async move {
        if let Some(mut stdin) = stdin {
            // When nft gives up early its message says why, not the broken pipe.
            let _broken_pipe = stdin.write_all(script.as_bytes()).await;
        }
    };
    let both = async { tokio::join!(feed, child.wait_with_output()).1 };
    let output = tokio::time::timeout(TRANSACTION_WAIT_MAX, both).await.map_err(|_elapsed| {
        Refusal::other(format!("nft has not ended in {} s", TRANSACTION_WAIT_MAX.as_secs()))
    })??;
    if output.status.success() {
        Ok(())
    } else {
        Err(refusal(&String::from_utf8_lossy(&output.stderr)))
    }
}

fn not_started(error: io::Error) -> Refusal {
    if error.kind() == io::ErrorKind::NotFound {
        Refusal::other("the program nft is not there: install nftables")
    } else {
        error.into()
    }
}

/// The first complaint of nft, and the errno behind it where that matters here.
fn refusal(complaint: &str) -> Refusal {
    let first = complaint.lines().find(|line| !line.is_empty()).unwrap_or("nft failed silently");
    let text = first.split_once("Error: ").map_or(first, |(_, text)| text).to_owned();
    let errno = if text.contains(NOTHING_THERE) { nix::errno::Errno::ENOENT as i32 } else { 0 };
    Refusal { errno, text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_is_cut_to_what_matters() {
        let complaint = "/dev/stdin:1:1-9: Error: Could not process rule: \
                         No such file or directory\ndelete table ip x\n^^^^^^^^^\n";
        let refusal = refusal(complaint);
        assert_eq!(refusal.text, "Could not process rule: No such file or directory");
        assert!(refusal.is(nix::errno::Errno::ENOENT));
        assert_eq!(super::refusal("").text, "nft failed silently");
    }
}
