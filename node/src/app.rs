//! Wiring of the daemon: settings, host, data directory, API sockets, signals.

use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, DaemonArgs};
use crate::control_plane::Plane;
use crate::daemon::{Daemon, Ending};
use crate::host::Host;
use crate::identity::DataDir;
use crate::telemetry;
use crate::{api_server, api_socket};

/// How long open API requests may take to end when the daemon stops.
const DRAIN_LIMIT: std::time::Duration = std::time::Duration::from_secs(2);

/// Tells a daemon that its machine stops: SIGPWR of signal(7), which systemd's own containers use
/// so. Sent by the unit's `ExecStop` and by `skein first`.
const POWER_SIGNAL: i32 = Signal::SIGPWR as i32;

/// Runs the daemon until SIGTERM or SIGINT, which mean a restart, or SIGPWR.
pub fn run(args: DaemonArgs) -> anyhow::Result<()> {
    let config = args.resolve()?;
    telemetry::start(config.log_format)?;
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(daemon(config));
    runtime.shutdown_timeout(DRAIN_LIMIT);
    result
}

async fn daemon(config: Config) -> anyhow::Result<()> {
    let host = tokio::task::spawn_blocking({
        let config = config.clone();
        move || Host::probe(&config)
    })
    .await??;
    let data = DataDir::open(&config.data_dir)?;
    std::fs::create_dir_all(&config.run_dir)
        .with_context(|| format!("make run directory {}", config.run_dir.display()))?;
    supervise::client::check_run_dir(&config.run_dir)?;
    let exe = std::env::current_exe().context("find the daemon's own binary")?;
    let daemon = Arc::new(Daemon::new(config, host, data, exe));
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut power = signal(SignalKind::from_raw(POWER_SIGNAL))?;
    let stop = CancellationToken::new();
    let router = api::router(Arc::new(Plane(daemon.clone())));
    // Sockets are bound before the member starts: a second daemon stops here, harming nothing.
    let listeners = api_socket::bind_all(&daemon.config).await?;
    daemon.resume().await?;
    let (mut servers, mut sockets) = (Vec::new(), Vec::new());
    for (socket, listener) in listeners {
        tracing::info!(path = %socket.path.display(), "API listens");
        sockets.push(socket);
        let served = api_server::serve(listener, router.clone(), stop.clone(), DRAIN_LIMIT);
        servers.push(tokio::spawn(served));
    }
    if let Some(address) = daemon.config.metrics_addr {
        servers.push(serve_metrics(address, daemon.clone(), &stop).await?);
    }
    // Without systemd there is nobody to tell.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let (ending, broken) = tokio::select! {
        // First: who sends it may send SIGTERM right after it.
        biased;
        _ = power.recv() => (Ending::MachineStops, None),
        _ = terminate.recv() => (Ending::Restart, None),
        _ = interrupt.recv() => (Ending::Restart, None),
        reason = daemon.broken() => (Ending::Restart, Some(reason)),
    };
    match ending {
        Ending::Restart => tracing::info!("stopping; tasks go on unless told otherwise"),
        Ending::MachineStops => tracing::info!("stopping with the machine; peers are told"),
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    daemon.shutdown(ending).await;
    stop.cancel();
    for server in servers {
        let _ = tokio::time::timeout(DRAIN_LIMIT, server).await;
    }
    sockets.iter().for_each(api_socket::ApiSocket::remove);
    match broken {
        Some(reason) => anyhow::bail!("Raft has stopped: {reason}"),
        None => Ok(()),
    }
}

async fn serve_metrics(
    address: std::net::SocketAddr,
    daemon: Arc<Daemon>,
    stop: &CancellationToken,
) -> anyhow::Result<tokio::task::JoinHandle<()>> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("listen on {address} for --metrics-addr"))?;
    let router = Router::new().route(
        "/metrics",
        axum::routing::get(move || async move {
            let member = daemon.member.read().await.clone();
            let kind = [(axum::http::header::CONTENT_TYPE, telemetry::METRICS_TYPE)];
            (kind, telemetry::metrics(member.as_deref()))
        }),
    );
    Ok(tokio::spawn(api_server::serve(listener, router, stop.clone(), DRAIN_LIMIT)))
}

/// Lets the daemon open as many files as it may: the soft limit of most machines is 1024, and every
/// peer, task and client takes some.
fn raise_file_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "raise the limit of open files");
    }
}
