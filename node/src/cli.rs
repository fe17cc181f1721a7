//! The command line: the daemon, the processes that it starts, and the client.

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::config::DaemonArgs;

pub mod client;
pub mod cluster;
pub mod exec;
pub mod http;
pub mod network;
pub mod node;
pub mod output;
pub mod own;
pub mod service;
pub mod swarm;
pub mod task;

/// Exit status of a refused or failed command.
const FAILED: u8 = 1;

/// A cluster network control plane that speaks Docker's API
#[derive(Debug, Parser)]
#[command(name = "skein", version, about, propagate_version = true)]
pub struct Cli {
    /// Which daemon.
    #[command(flatten)]
    pub host: client::HostArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon
    Daemon(Box<DaemonArgs>),
    /// Print completions for a shell
    Completion {
        /// bash, zsh or fish
        shell: clap_complete::Shell,
    },
    /// Client commands.
    #[command(flatten)]
    Client(client::ClientCommand),
}

/// Runs a command to its end.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    match cli.command {
        Command::Daemon(mut args) => {
            args.hosts = cli.host.hosts;
            finish(crate::app::run(*args).map(|()| 0))
        }
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "skein", &mut std::io::stdout());
            ExitCode::SUCCESS
        }
        Command::Client(command) => finish(run_client(&cli.host, command)),
    }
}

fn run_client(host: &client::HostArgs, command: client::ClientCommand) -> anyhow::Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let status = runtime.block_on(client::run(host, command, &mut std::io::stdout()));
    // A read of standard input, which has no end of its own, is not waited for.
    runtime.shutdown_background();
    status
}

/// Prints an error with its causes.
fn finish(result: anyhow::Result<u8>) -> ExitCode {
    match result {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "skein: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: no command has two flags of one name. Clap checks a command only when it is used.
    #[test]
    fn commands_and_flags_fit_together() {
        Cli::command().debug_assert();
    }
}
