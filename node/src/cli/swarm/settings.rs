//! `skein swarm update|ca|unlock|unlock-key`: settings of the cluster, its CA and its lock.

use std::io::{BufRead as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Args;
use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
use serde_json::{Value, json};

use crate::cli::http::Client;
use crate::cli::output::{Out, text};
use crate::cli::service::spec::nanoseconds;

/// Pause between two looks at a rotation.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Flags of `swarm update`.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct UpdateArgs {
    /// Ended tasks that are kept for each slot
    #[arg(long)]
    task_history_limit: Option<u64>,
    /// Validity of the nodes' certificates, like 2160h
    #[arg(long)]
    cert_expiry: Option<String>,
    /// Whether a manager that starts needs the unlock key
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    autolock: Option<bool>,
}

/// Flags of `swarm ca`.
#[derive(Debug, Args)]
pub struct CaArgs {
    /// Put another CA in the place of this one, and wait until all nodes have moved
    #[arg(long)]
    rotate: bool,
    /// Do not wait
    #[arg(short, long, requires = "rotate")]
    detach: bool,
    /// The certificate of the other CA, PEM; without it, one is made
    #[arg(long, requires_all = ["rotate", "ca_key"])]
    ca_cert: Option<PathBuf>,
    /// Its key, PEM
    #[arg(long, requires_all = ["rotate", "ca_cert"])]
    ca_key: Option<PathBuf>,
}

/// Flags of `swarm unlock-key`.
#[derive(Debug, Args)]
pub struct UnlockKeyArgs {
    /// Print the key only
    #[arg(short, long)]
    quiet: bool,
    /// Make a new one; the old one opens nothing any more
    #[arg(long)]
    rotate: bool,
}

/// Changes the spec at the version that was read.
async fn change(client: &Client, flags: &str, edit: impl FnOnce(&mut Value)) -> anyhow::Result<()> {
    let swarm = client.get("/swarm").await?;
    let mut spec = swarm["Spec"].clone();
    edit(&mut spec);
    let version = text(&swarm, "/Version/Index");
    client.post(&format!("/swarm/update?version={version}{flags}"), &spec).await?;
    Ok(())
}

pub(super) async fn update(
    client: &Client,
    args: UpdateArgs,
    out: &mut Out<'_>,
) -> anyhow::Result<()> {
    let life = args.cert_expiry.as_deref().map(nanoseconds).transpose()?;
    change(client, "", |spec| {
        if let Some(limit) = args.task_history_limit {
            spec["Orchestration"]["TaskHistoryRetentionLimit"] = json!(limit);
        }
        if let Some(life) = life {
            spec["CAConfig"]["NodeCertExpiry"] = json!(life);
        }
        if let Some(locked) = args.autolock {
            spec["EncryptionConfig"]["AutoLockManagers"] = json!(locked);
        }
    })
    .await?;
    out.line("Swarm updated.")?;
    match args.autolock {
        Some(true) => print_key(client, out).await,
        _open => Ok(()),
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

pub(super) async fn ca(client: &Client, args: CaArgs, out: &mut Out<'_>) -> anyhow::Result<()> {
    if args.rotate {
        let certificate = args.ca_cert.as_deref().map(read).transpose()?;
        let key = args.ca_key.as_deref().map(read).transpose()?;
        change(client, "", |spec| {
            let force = spec["CAConfig"]["ForceRotate"].as_u64().unwrap_or(0) + 1;
            spec["CAConfig"]["ForceRotate"] = json!(force);
            if let (Some(certificate), Some(key)) = (certificate, key) {
                spec["CAConfig"]["SigningCACert"] = json!(certificate);
                spec["CAConfig"]["SigningCAKey"] = json!(key);
            }
        })
        .await?;
        if args.detach {
            return out.line("The rotation has begun.");
        }
        rotated(client).await?;
    }
    let swarm = client.get("/swarm").await?;
    out.line(text(&swarm, "/TLSInfo/TrustRoot").trim_end())
}

/// Waits until every node has moved; a node that is off is waited for until the user interrupts.
async fn rotated(client: &Client) -> anyhow::Result<()> {
    while client.get("/swarm").await?["RootRotationInProgress"] == true {
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    Ok(())
}

/// Asks for the key on a terminal, or reads it from what is piped in: never from the command line,
/// which every user of the machine can read.
pub(super) async fn unlock(client: &Client) -> anyhow::Result<()> {
    let mut prompt = std::io::stderr();
    write!(prompt, "Enter unlock key: ")?;
    prompt.flush()?;
    let mut key = String::new();
    unseen(|| std::io::stdin().lock().read_line(&mut key)).context("read the unlock key")?;
    writeln!(prompt)?;
    ensure!(!key.trim().is_empty(), "no unlock key was given");
    client.post("/swarm/unlock", &json!({ "UnlockKey": key.trim() })).await?;
    Ok(())
}

/// Reads what is typed on a terminal without showing it.
fn unseen<T>(read: impl FnOnce() -> std::io::Result<T>) -> std::io::Result<T> {
    let terminal = std::io::stdin();
    let Ok(shown) = tcgetattr(&terminal) else { return read() };
    let mut hidden = shown.clone();
    hidden.local_flags.remove(LocalFlags::ECHO);
    tcsetattr(&terminal, SetArg::TCSANOW, &hidden)?;
    let typed = read();
    tcsetattr(&terminal, SetArg::TCSANOW, &shown)?;
    typed
}

pub(super) async fn unlock_key(
    client: &Client,
    args: UnlockKeyArgs,
    out: &mut Out<'_>,
) -> anyhow::Result<()> {
    if args.rotate {
        key(client).await?;
        change(client, "&rotateManagerUnlockKey=1", |_spec| ()).await?;
        if !args.quiet {
            out.line("Successfully rotated manager unlock key.\n")?;
        }
    }
    if args.quiet {
        return out.line(key(client).await?);
    }
    print_key(client, out).await
}

async fn key(client: &Client) -> anyhow::Result<String> {
    let key = text(&client.get("/swarm/unlockkey").await?, "/UnlockKey");
    ensure!(!key.is_empty(), "no unlock key is set: `skein swarm update --autolock` sets one");
    Ok(key)
}

async fn print_key(client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    let key = key(client).await?;
    out.line(
        "To unlock a manager after it restarts, run `skein swarm unlock` on it and give it this \
         key:\n",
    )?;
    out.line(format!("    {key}\n"))?;
    out.line("Keep it in a password manager: without it a manager cannot be restarted.")
}
