//! The supervisor's loop: one thread, one poll(2), everything that the lifecycle asks for.

use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::failure::Failure;
use crate::forward::Forwarder;
use crate::health::ProbeResult;
use crate::layout::{LAUNCH, SOCKET, SPEC, STATUS};
use crate::lifecycle::{Input, Lifecycle, Now, Output};
use crate::netns::{self, Sandbox};
use crate::notes::note;
use crate::probe::RunningProbe;
use crate::protocol::{Message, Phase, Request};
use crate::server::{ClientId, Server};
use crate::spec::{LaunchSpec, StartSpec};
use crate::status::{self, Launch, Status};
use crate::streams::Streams;
use crate::sys::{self, Ended};
use crate::{cgroup, clock, logs, remains};

mod start;

/// The most that a failing first process says.
const FAILURE_BYTES_MAX: u64 = 64 << 10;

/// One task's supervisor.
pub(crate) struct Supervisor {
    launch: Launch,
    task_dir: PathBuf,
    sandbox: Sandbox,
    lifecycle: Lifecycle,
    server: Server,
    streams: Streams,
    signals: SignalFd,
    /// Ends, or says why not, when pid 1 has executed the command.
    failure: Option<OwnedFd>,
    /// Held so that what the task reads from its standard input does not end.
    input: Option<OwnedFd>,
    /// Held so that the task's first process can see that its supervisor lives.
    lifeline: Option<OwnedFd>,
    probe: Option<RunningProbe>,
    /// Whether the running probe can say more.
    probe_talks: bool,
    recorded: Option<Phase>,
    pid_ticks: Option<u64>,
    released: bool,
    /// It was asked to end by a signal: it does so as soon as its task has.
    leaving: bool,
}

enum Source {
    Signals,
    Listener,
    Client(ClientId),
    Stream(usize),
    LogServer,
    Failure,
    Probe,
}

fn now() -> Now {
    Now { monotonic: clock::monotonic(), wall: clock::wall() }
}

fn doing(activity: &'static str) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{activity}: {error}"))
}

impl Supervisor {
    /// Makes the sandbox and the socket, and records that the task is prepared.
    pub(crate) fn prepare(launch: Launch, task_dir: &Path) -> io::Result<Self> {
        let mut watched = SigSet::empty();
        for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            watched.add(signal);
        }
        watched.thread_block()?;
        let signals =
            SignalFd::with_flags(&watched, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        let sandbox = netns::create_sandbox().map_err(doing("make a sandbox"))?;
        netns::publish(&sandbox.namespace, &launch.namespace_file())
            .map_err(doing("name the sandbox"))?;
        let mut supervisor = Supervisor {
            lifecycle: Lifecycle::new(sandbox.dns_port),
            server: Server::open(&task_dir.join(SOCKET)).map_err(doing("open the socket"))?,
            task_dir: task_dir.to_owned(),
            launch,
            sandbox,
            streams: Streams::default(),
            signals,
            failure: None,
            input: None,
            lifeline: None,
            probe: None,
            probe_talks: false,
            recorded: None,
            pid_ticks: None,
            released: false,
            leaving: false,
        };
        // A daemon of an older version starts sandbox and task in one.
        if supervisor.launch.has_task() {
            let streams = supervisor.open_log(&supervisor.launch.spec)?;
            supervisor.take_up(streams);
        }
        supervisor.report().map_err(doing("record the task's state"))?;
        Ok(supervisor)
    }

    fn open_log(&self, spec: &LaunchSpec) -> io::Result<Streams> {
        let directory = logs::directory(&self.launch.data_dir, &spec.task);
        let streams = Streams::open(&directory, spec.log, spec.output, spec.sink.clone());
        streams.map_err(doing("open the log"))
    }

    /// Gets ready for the task of the launch.
    fn take_up(&mut self, streams: Streams) {
        self.streams = streams;
        let (stop, check) = (self.launch.spec.stop, self.launch.spec.health.clone());
        self.step(Input::Launch { stop, check });
    }

    /// Runs until the task has been released; after a signal, until it has ended. How it ended is
    /// on record then: a daemon that comes later finds it, and one that does not come, because the
    /// machine stops, is not waited for (systemd-shutdown(8) would wait 90 s for this process).
    pub(crate) fn run(&mut self) -> io::Result<()> {
        while !self.is_done() {
            let ready = self.wait()?;
            for source in ready {
                self.serve(source);
            }
            let now = now();
            if self.lifecycle.deadline().is_some_and(|deadline| deadline <= now.monotonic) {
                self.step(Input::Tick);
            }
            if let Some(forwarder) = self.streams.forwarder_mut()
                && forwarder.deadline().is_some_and(|deadline| deadline <= now.monotonic)
            {
                forwarder.go_on(now.monotonic);
            }
        }
        if let Some(forwarder) = self.streams.forwarder_mut() {
            forwarder.flush();
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.released || self.leaving && self.lifecycle.release_refusal().is_none()
    }

    fn wait(&self) -> io::Result<Vec<Source>> {
        let mut sources = Vec::new();
        let mut polled = Vec::new();
        for (source, descriptor, flags) in self.watched() {
            sources.push(source);
            polled.push(PollFd::new(descriptor, flags));
        }
        let log_server = self.streams.forwarder().and_then(Forwarder::deadline);
        let deadline = self.lifecycle.deadline().into_iter().chain(log_server).min();
        let timeout = deadline.map_or(PollTimeout::NONE, |deadline| {
            // Rounded up, so that the deadline has come when the wait ends.
            let left = deadline.saturating_sub(clock::monotonic()) + Duration::from_millis(1);
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut polled, timeout) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
        let ready = sources.into_iter().zip(polled);
        Ok(ready.filter(|(_, poll)| poll.any() == Some(true)).map(|(source, _)| source).collect())
    }

    fn watched(&self) -> Vec<(Source, BorrowedFd<'_>, PollFlags)> {
        let readable = PollFlags::POLLIN;
        let mut watched = vec![
            (Source::Signals, self.signals.as_fd(), readable),
            (Source::Listener, self.server.listener(), readable),
        ];
        for (id, descriptor, flags) in self.server.clients() {
            watched.push((Source::Client(id), descriptor, flags));
        }
        for (index, descriptor) in self.streams.pipes() {
            watched.push((Source::Stream(index), descriptor, readable));
        }
        let log_server = self.streams.forwarder().and_then(Forwarder::watched);
        watched.extend(log_server.map(|(fd, flags)| (Source::LogServer, fd, flags)));
        if let Some(failure) = &self.failure {
            watched.push((Source::Failure, failure.as_fd(), readable));
        }
        if let Some(probe) = self.probe.as_ref().filter(|_| self.probe_talks) {
            watched.push((Source::Probe, probe.output().as_fd(), readable));
        }
        watched
    }

    fn serve(&mut self, source: Source) {
        match source {
            Source::Signals => self.take_signals(),
            Source::Listener => self.server.accept(),
            Source::Client(id) => {
                for request in self.server.exchange(id) {
                    self.answer(id, request);
                }
            }
            Source::Stream(index) => drop(self.streams.pump(index, clock::wall())),
            Source::LogServer => {
                if let Some(forwarder) = self.streams.forwarder_mut() {
                    forwarder.go_on(clock::monotonic());
                }
            }
            Source::Failure => self.read_failure(),
            Source::Probe => {
                self.probe_talks = self.probe.as_mut().is_some_and(RunningProbe::read);
            }
        }
    }

    fn take_signals(&mut self) {
        while let Ok(Some(information)) = self.signals.read_signal() {
            if information.ssi_signo != Signal::SIGCHLD as u32 {
                // The node is going down, or someone ends supervisors by hand.
                self.leaving = true;
                self.step(Input::Stop { signal: None, grace: None });
            }
        }
        while let Some((pid, ended)) = sys::reap(-1) {
            if self.lifecycle.pid() == Some(pid) {
                self.first_ended(ended);
            } else if self.probe.as_ref().is_some_and(|probe| probe.pid() == pid)
                && let Some(probe) = self.probe.take()
            {
                self.step(Input::Probed(probe.finish(ended)));
            }
        }
    }

    /// Pid 1 is reaped only when every process of its namespace is gone, so nobody writes now.
    fn first_ended(&mut self, ended: Ended) {
        self.read_failure();
        self.streams.close(clock::wall());
        let spec = &self.launch.spec;
        let out_of_memory = cgroup::out_of_memory(&spec.task, &spec.limits);
        self.step(Input::Ended { ended, out_of_memory });
    }

    fn read_failure(&mut self) {
        let Some(pipe) = self.failure.take() else { return };
        let mut text = Vec::new();
        // Blocks at most until the first process has executed the command or ended: this is only
        // called when it has done one of them or has begun to say why it cannot.
        let read = fs::File::from(pipe).take(FAILURE_BYTES_MAX).read_to_end(&mut text);
        if let Err(error) = read {
            note(&format!("read why the task failed: {error}"));
        }
        // With a reaper both processes may fail; the first word counts.
        let mut failures = serde_json::Deserializer::from_slice(&text).into_iter::<Failure>();
        match failures.next() {
            Some(Ok(failure)) => self.step(Input::ExecFailed(failure)),
            Some(Err(_)) | None => self.step(Input::Executed),
        }
    }

    fn answer(&mut self, id: ClientId, request: Request) {
        let result = match request {
            Request::Subscribe => {
                self.server.subscribe(id);
                return self.send_report(id);
            }
            Request::Report => return self.send_report(id),
            Request::Descriptors => {
                let descriptors = [
                    self.sandbox.namespace.as_fd(),
                    self.sandbox.dns_udp.as_fd(),
                    self.sandbox.dns_tcp.as_fd(),
                ];
                return self.server.send_with(id, &Message::Descriptors, &descriptors);
            }
            Request::Launch => self.launch(),
            Request::Start(start) => self.try_step(Input::Start(start)),
            Request::Stop { signal, grace } => self.try_step(Input::Stop { signal, grace }),
            Request::Kill => self.try_step(Input::Kill),
            Request::Release => self.release(),
        };
        let message = match result {
            Ok(()) => Message::Done,
            Err(reason) => Message::Refused { reason },
        };
        self.server.send(id, &message);
    }

    fn send_report(&mut self, id: ClientId) {
        self.server.send(id, &Message::Report(self.lifecycle.report().clone()));
    }

    /// The launch is on record before the task may be started, and not before its log is open.
    fn launch(&mut self) -> Result<(), String> {
        self.lifecycle.launch_refusal().map_or(Ok(()), Err)?;
        let record = || {
            let spec: LaunchSpec = status::read(&self.task_dir, SPEC)?;
            let streams = self.open_log(&spec)?;
            let launch = Launch { spec, ..self.launch.clone() };
            status::write(&self.task_dir, LAUNCH, &launch)?;
            Ok((launch, streams))
        };
        let (launch, streams) = record().map_err(|error: io::Error| error.to_string())?;
        self.launch = launch;
        self.take_up(streams);
        Ok(())
    }

    fn release(&mut self) -> Result<(), String> {
        if let Some(reason) = self.lifecycle.release_refusal() {
            return Err(reason);
        }
        self.streams.close(clock::wall());
        remains::remove(&self.launch, &self.task_dir)
            .map_err(|error| format!("remove what is left of the task: {error}"))?;
        self.released = true;
        Ok(())
    }

    fn step(&mut self, input: Input) {
        if let Err(reason) = self.try_step(input) {
            note(&reason);
        }
    }

    fn try_step(&mut self, input: Input) -> Result<(), String> {
        for output in self.lifecycle.step(input, now())? {
            self.carry_out(output);
        }
        Ok(())
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Fork(start) => {
                if let Err(failure) = self.fork(&start) {
                    let ended = Ended::Code(failure.code);
                    self.step(Input::ExecFailed(failure));
                    self.first_ended(ended);
                }
            }
            Output::Signal(signal) => {
                if let Some(pid) = self.lifecycle.pid()
                    && let Err(error) = sys::kill(pid, signal)
                {
                    note(&format!("send signal {signal} to the task: {error}"));
                }
            }
            Output::Probe => self.start_probe(),
            Output::AbortProbe => {
                if let Some(probe) = &mut self.probe {
                    probe.abort();
                }
            }
            Output::Report => {
                if let Err(error) = self.report() {
                    note(&format!("record the task's state: {error}"));
                }
            }
        }
    }

    fn fork(&mut self, start: &StartSpec) -> Result<(), Failure> {
        let (sandbox, streams) = (&self.sandbox, &mut self.streams);
        let first = start::fork(&self.launch, &self.task_dir, sandbox, streams, start)?;
        self.failure = Some(first.failure);
        self.lifeline = Some(first.lifeline);
        self.input = first.input;
        self.pid_ticks = status::process_ticks(first.pid);
        self.step(Input::Forked { pid: first.pid });
        Ok(())
    }

    fn start_probe(&mut self) {
        let (Some(pid), Some(check)) = (self.lifecycle.pid(), &self.launch.spec.health) else {
            return;
        };
        match RunningProbe::start(&self.launch.spec, &check.probe.argv(), pid) {
            Ok(probe) => {
                self.probe = Some(probe);
                self.probe_talks = true;
            }
            Err(failure) => {
                self.step(Input::Probed(ProbeResult::Failed { error: failure.error }));
            }
        }
    }

    /// Records a new phase and tells the subscribers.
    fn report(&mut self) -> io::Result<()> {
        let report = self.lifecycle.report().clone();
        let recorded = if self.recorded.as_ref() == Some(&report.phase) {
            Ok(())
        } else {
            self.recorded = Some(report.phase.clone());
            let status = Status { report: report.clone(), pid_ticks: self.pid_ticks };
            match status.report.phase {
                Phase::Exited(_) => status::write_durably(&self.task_dir, STATUS, &status),
                Phase::Prepared | Phase::Starting | Phase::Running { .. } => {
                    status::write(&self.task_dir, STATUS, &status)
                }
            }
        };
        self.server.publish(&Message::Report(report));
        recorded
    }
}
