//! The Docker Engine that the containers run on: the user's where one answers, else a private one
//! that we start by hand and end again.
//!
//! The private engine lives in a network namespace and a folder of its own, with its own
//! containerd: bridges, packet filters, images and sockets of the machine and of other engines stay
//! as they are.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::command::{Output, ip, run, run_with_input};
use crate::process::names;
use crate::wait::wait_for;

/// Everything of the private engine. Short: the path of an API socket in a volume below it must
/// fit in the 107 bytes of a Unix socket's address (unix(7)).
const FOLDER: &str = "/var/lib/skein-engine";
/// The private engine's network namespace.
const NAMESPACE: &str = "skein-engine";
/// Its settings, in its folder: none.
const CONFIG: &str = "daemon.json";
/// Docker's own client.
const CLIENT: &str = "docker";
/// Where Docker's own client looks without DOCKER_HOST.
const DEFAULT_SOCKET: &str = "/var/run/docker.sock";
/// How long a private engine may take to answer, and to end.
const ENGINE_MAX: Duration = Duration::from_secs(60);
/// Limit for one call of Docker's client.
const DOCKER_SECONDS: u32 = 120;
/// What installs what is missing.
const INSTALL: &str = "make setup-compose installs it (Debian's docker.io and docker-compose, \
    without starting a service)";

/// An engine that answers.
#[derive(Debug, Clone)]
pub struct Engine {
    url: String,
    private: bool,
}

impl Engine {
    /// The engine that DOCKER_HOST names, else the one at Docker's default socket, else the private
    /// one, which is started unless it runs.
    ///
    /// # Errors
    /// With what is missing and how to get it.
    pub fn find_or_start() -> Result<Self> {
        if let Some(engine) = Self::of_user(std::env::var_os("DOCKER_HOST"))? {
            return Ok(engine);
        }
        Self::start_private()
    }

    /// As [`Engine::find_or_start`], but a private engine of which nothing is left is not made.
    /// None also if Docker is not installed: then no engine has objects of a lab.
    ///
    /// # Errors
    /// When an engine is there and does not answer.
    pub fn find() -> Result<Option<Self>> {
        if find_program(CLIENT).is_none() {
            return Ok(None);
        }
        let user = Self::of_user(std::env::var_os("DOCKER_HOST"))?;
        if user.is_some() || !Path::new(FOLDER).exists() {
            return Ok(user);
        }
        // One that was killed has left containers running: it takes them over when it starts.
        Self::start_private().map(Some)
    }

    fn of_user(docker_host: Option<OsString>) -> Result<Option<Self>> {
        need_program(CLIENT)?;
        let named = docker_host.map(|host| host.to_string_lossy().into_owned());
        let url = match named.filter(|host| !host.is_empty()) {
            Some(host) => host,
            None if Path::new(DEFAULT_SOCKET).exists() => format!("unix://{DEFAULT_SOCKET}"),
            None => return Ok(None),
        };
        let engine = Self { url, private: false };
        engine.ping()?;
        Ok(Some(engine))
    }

    fn ping(&self) -> Result<()> {
        let output = self.docker(&["version", "--format", "{{.Server.Version}}"])?;
        output.ok().map_err(|error| {
            let remedy = "start it (systemctl start docker), or unset DOCKER_HOST and remove the \
                 dead socket: then a private engine is used";
            anyhow::anyhow!("the Docker Engine at {} does not answer: {remedy}\n{error}", self.url)
        })?;
        Ok(())
    }

    fn start_private() -> Result<Self> {
        let dockerd = need_program("dockerd")?;
        let folder = Path::new(FOLDER);
        let socket = folder.join("docker.sock");
        let engine = Self { url: format!("unix://{}", socket.display()), private: true };
        if private_pid().is_some() {
            wait_for(ENGINE_MAX, "the private engine to answer", || engine.ping())?;
            return Ok(engine);
        }
        fs::create_dir_all(folder).with_context(|| format!("making {FOLDER}"))?;
        fs::write(folder.join(CONFIG), "{}").context("writing the engine's settings")?;
        if !Path::new("/run/netns").join(NAMESPACE).exists() {
            ip(&format!("netns add {NAMESPACE}"))?;
            ip(&format!("-n {NAMESPACE} link set lo up"))?;
        }
        let log_path = folder.join("dockerd.log");
        let log = File::create(&log_path).context("making the engine's log")?;
        let mut child = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{NAMESPACE}"))
            .arg(dockerd)
            .args(private_words(folder))
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("sharing the engine's log")?)
            .stderr(log)
            // A signal from the terminal that this program runs at is not for the engine.
            .process_group(0)
            .spawn()
            .context("starting dockerd")?;
        let answers = wait_for(ENGINE_MAX, "the private engine to answer", || {
            match child.try_wait().context("asking for the engine's state")? {
                Some(status) => Ok(Err(status)),
                None => engine.ping().map(Ok),
            }
        });
        let why = match answers {
            Ok(Ok(())) => return Ok(engine),
            Ok(Err(status)) => format!("it ended with {status}"),
            Err(error) => format!("{error:#}"),
        };
        let text = fs::read_to_string(&log_path).unwrap_or_default();
        let tail: Vec<_> = text.lines().rev().take(5).collect();
        engine.stop()?;
        bail!("a private Docker Engine does not run here: {why}\n{}", tail.join("\n"))
    }

    /// Where the engine answers, as `docker -H` takes it.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// `docker -H <engine>` with these words.
    ///
    /// # Errors
    /// When docker cannot be started.
    pub fn docker(&self, words: &[&str]) -> Result<Output> {
        run(DOCKER_SECONDS, &self.docker_line(words))
    }

    /// The command line of `docker -H <engine>` with these words.
    #[must_use]
    pub fn docker_line(&self, words: &[&str]) -> Vec<String> {
        ["docker", "-H", &self.url].iter().chain(words).map(|word| (*word).to_owned()).collect()
    }

    /// The command line of docker-compose, v1 or the v2 plugin, on this engine.
    ///
    /// # Errors
    /// When neither is installed.
    pub fn compose_line(&self) -> Result<Vec<String>> {
        if find_program("docker-compose").is_some() {
            Ok(["docker-compose", "-H", &self.url].map(str::to_owned).to_vec())
        } else if self.docker(&["compose", "version"])?.status == 0 {
            Ok(self.docker_line(&["compose"]))
        } else {
            bail!("neither docker-compose nor docker's compose plugin is installed: {INSTALL}");
        }
    }

    /// docker-compose with these variables and words.
    ///
    /// # Errors
    /// When it is not installed.
    pub fn compose(&self, variables: &[String], words: &[&str]) -> Result<Output> {
        let mut line = vec!["env".to_owned()];
        line.extend(variables.iter().cloned());
        line.extend(self.compose_line()?);
        line.extend(words.iter().map(|word| (*word).to_owned()));
        run(DOCKER_SECONDS, &line)
    }

    /// Runs a program, with input, in the network namespace that holds the engine's bridges.
    ///
    /// # Errors
    /// When the engine is on another machine, or the program cannot be started.
    pub fn run_at_engine(&self, words: &[&str], input: &str) -> Result<Output> {
        ensure!(self.url.starts_with("unix://"), "{} is on another machine", self.url);
        let net = format!("--net=/run/netns/{NAMESPACE}");
        let mut line = if self.private { vec!["nsenter", net.as_str()] } else { Vec::new() };
        line.extend(words);
        run_with_input(DOCKER_SECONDS, &line, input)
    }

    /// Ends a private engine that has no container left, with all its files. A user's engine is
    /// left alone.
    ///
    /// # Errors
    /// When it does not end, or something of it stays.
    pub fn stop_if_unused(&self) -> Result<()> {
        if self.private && self.docker(&["ps", "-aq"])?.ok()?.is_empty() {
            self.stop()?;
        }
        Ok(())
    }

    fn stop(&self) -> Result<()> {
        if let Some(pid) = private_pid() {
            match kill(pid, Signal::SIGTERM) {
                Err(error) if error != Errno::ESRCH => bail!("ending dockerd {pid}: {error}"),
                Ok(()) | Err(_) => {}
            }
            wait_for(ENGINE_MAX, "the private engine to end", || {
                ensure!(private_pid().is_none(), "process {pid} runs");
                Ok(())
            })?;
        }
        if Path::new("/run/netns").join(NAMESPACE).exists() {
            ip(&format!("netns del {NAMESPACE}"))?;
        }
        unmount_below(FOLDER)?;
        fs::remove_dir_all(FOLDER).with_context(|| format!("removing {FOLDER}"))
    }
}

/// The private engine's words. Without a default bridge; compose creates the networks; packet
/// filters in its own namespace only.
fn private_words(folder: &Path) -> Vec<String> {
    let path = |name: &str| folder.join(name).display().to_string();
    let mut words = vec![format!("--host=unix://{}", path("docker.sock"))];
    words.extend(["--bridge=none", "--log-level=warn"].map(str::to_owned));
    // Settings of its own: those in /etc/docker are the user's engine's.
    let config = path(CONFIG);
    words.extend([format!("--data-root={}", path("data")), format!("--pidfile={}", path("pid"))]);
    words.extend([format!("--exec-root={}", path("exec")), format!("--config-file={config}")]);
    words
}

/// The private engine's process, if it runs: its pid file is believed only where the process
/// carries our folder in its command line.
fn private_pid() -> Option<Pid> {
    let text = fs::read_to_string(Path::new(FOLDER).join("pid")).ok()?;
    let pid: i32 = text.trim().parse().ok()?;
    names(pid, Path::new(FOLDER)).then(|| Pid::from_raw(pid))
}

/// An engine that was killed leaves file systems of containers mounted.
fn unmount_below(folder: &str) -> Result<()> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("reading the mounts")?;
    let targets = table.lines().filter_map(|line| line.split(' ').nth(4));
    let below = format!("{folder}/");
    let mut targets: Vec<_> = targets.filter(|target| target.starts_with(&below)).collect();
    targets.sort_unstable();
    for target in targets.into_iter().rev() {
        umount2(target, MntFlags::MNT_DETACH).with_context(|| format!("unmounting {target}"))?;
    }
    Ok(())
}

fn need_program(name: &str) -> Result<PathBuf> {
    find_program(name).with_context(|| format!("{name} is not installed: {INSTALL}"))
}

/// A program of the PATH or of the folders of system programs, which a user's PATH may lack.
fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    folders.map(|folder| folder.join(name)).find(|path| path.is_file())
}
