//! Goal: what the agent says to whom, when, and in which order. Method: inputs in, outputs out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cluster::assign::Held;
use cluster::assignment::Assignment;
use cluster::id::TaskId;
use cluster::object::{NodeDescription, TaskState};
use cluster::session::{Digest, Told};
use cluster::time::{Revision, Timestamp};
use cluster::view::View;
use netprog::kernel::KernelError;
use netprog::local::Balancer;
use netprog::plan::Knowledge;
use netprog::plane::Place;
use netprog::programmer::{Failure, Look, PassReport};

use crate::worker::tests::{NODE, TASK, assigned};
use crate::*;

fn description(mtu: u32) -> NodeDescription {
    let address = [192, 168, 50, 1].into();
    NodeDescription {
        hostname: "a".to_owned(),
        os: "linux".to_owned(),
        architecture: "x86_64".to_owned(),
        nano_cpus: 1,
        memory_bytes: 1,
        engine_version: "0.1.0".to_owned(),
        gossip: (address, 7946).into(),
        vtep: address,
        routes: Vec::new(),
        balancer: "nft".to_owned(),
        executors: Vec::new(),
        certificate_subject: String::new(),
        schema: 1,
        manager_address: None,
        proof_key: None,
        trust: None,
        underlay_mtu: Some(mtu),
        generic_resources: Vec::new(),
    }
}

/// An agent with its outputs, at a time.
struct Run {
    agent: Agent,
    ms: u64,
}

impl Run {
    fn new(on_disk: OnDisk) -> Self {
        let facts = Facts {
            vtep: [192, 168, 50, 1].into(),
            cluster_port: 2377,
            underlay_mtu: 1500,
            gwbridge: "172.18.0.0/16".parse().unwrap(),
            balancer: Balancer::Nft,
        };
        let config = Config { node: NODE, facts, description: description(1500), on_disk };
        Self { agent: Agent::new(config, at(0)), ms: 0 }
    }

    fn step(&mut self, input: Input) -> Vec<Output> {
        self.agent.step(input, at(self.ms))
    }

    /// What is due at a time, and that nothing is before.
    fn wait_until(&mut self, ms: u64) -> Vec<Output> {
        let due = self.agent.next_deadline(at(self.ms));
        assert_eq!(due, Some(Duration::from_millis(ms)));
        self.ms = ms;
        self.step(Input::Tick)
    }

    /// An answer to the watch, with this assignment.
    fn hears(&mut self, digest: u8, assignment: Assignment) -> Vec<Output> {
        self.step(answer(held(digest, assignment)))
    }

    /// The same, and the disk takes it at once.
    fn told(&mut self, digest: u8, assignment: Assignment) -> Vec<Output> {
        let mut outputs = self.hears(digest, assignment);
        if outputs.iter().any(|output| matches!(output, Output::Write(_))) {
            outputs.extend(self.step(Input::Written(true)));
        }
        outputs
    }

    fn view(&mut self, complete: bool) -> Vec<Output> {
        let since = Duration::from_millis(self.ms);
        self.step(Input::View { view: Arc::new(View { complete, ..View::default() }), since })
    }
}

fn at(ms: u64) -> Moment {
    Moment { now: Duration::from_millis(ms), wall: Timestamp(ms) }
}

fn leader(number: u8) -> SocketAddr {
    ([192, 168, 50, number], 2377).into()
}

/// Names an assignment by its data path port: tests number them by that.
fn hash(bytes: &[u8]) -> [u8; 32] {
    let text = str::from_utf8(bytes).unwrap_or_default();
    let number = match text.split_once("\"data_path_port\":") {
        Some((_, rest)) => rest.split(',').next().unwrap().parse().unwrap(),
        None if text.starts_with('{') => u8::MAX,
        // Digests of parts, the least one first.
        None => bytes[0],
    };
    [number; 32]
}

fn held(digest: u8, assignment: Assignment) -> Arc<Held> {
    let assignment = Assignment { data_path_port: digest.into(), ..assignment };
    Arc::new(Held::next(None, NODE, Told::whole(&assignment, hash), hash).unwrap())
}

fn answer(assignment: Arc<Held>) -> Input {
    let (time, arrived, released) = (Timestamp(0), Duration::ZERO, BTreeSet::new());
    let assignment = Some(assignment);
    Input::Watched(Ok(Answer { leader: leader(9), time, assignment, released, arrived }))
}

fn nothing_on_disk() -> OnDisk {
    OnDisk { has_identity: true, ..OnDisk::default() }
}

/// Outputs in words.
fn words(outputs: &[Output]) -> Vec<String> {
    let name = |digest: Option<Digest>| digest.map(|Digest(bytes)| bytes[0]);
    let word = |output: &Output| match output {
        Output::Task(command) => format!("{command:?}"),
        Output::Write(Files { identity, assignment, egress }) => {
            let assignment = assignment.as_ref().map(|held| held.assignment.revision.0);
            format!("write {identity} {assignment:?} {}", egress.is_some())
        }
        Output::Watch(watch) => {
            let call = &watch.call;
            let is_to_confirm = !call.confirmed && !call.have.is_empty();
            let least = call.have.first().copied();
            format!("watch {:?}{}", name(least), if is_to_confirm { " to confirm" } else { "" })
        }
        Output::Report(report) => {
            let said = report.description.as_ref().and_then(|said| said.underlay_mtu);
            let statuses = report.statuses.values().map(|status| status.state.name());
            let statuses: Vec<&str> = statuses.collect();
            format!("report {:?} {statuses:?} {said:?}", name(report.applied))
        }
        Output::Pass(pass) => format!("pass {:?} {:?}", pass.look, pass.knowledge),
        Output::LookAtPorts => "look at ports".to_owned(),
        Output::LookForListeners(young) => format!("look for listeners {}", young.len()),
        Output::Gossip(gossip::Input::Keys(_)) => "keys".to_owned(),
        Output::Gossip(gossip::Input::Peers(peers)) => format!("peers {}", peers.len()),
        Output::Gossip(gossip::Input::Own { endpoints, .. }) => format!("rows {}", endpoints.len()),
        Output::Gossip(other) => format!("{other:?}"),
        Output::NoKeys(error) => error.to_string(),
        Output::InForce { assignment, is_manager_s } => {
            format!("in force {} {is_manager_s}", assignment.revision.0)
        }
    };
    outputs.iter().map(word).collect()
}

/// The words that begin with one of these.
fn only(outputs: &[Output], kinds: &[&str]) -> Vec<String> {
    let mut words = words(outputs);
    words.retain(|word| kinds.iter().any(|kind| word.starts_with(kind)));
    words
}

fn passed(failures: &[&str]) -> Input {
    let failure = |reason: &&str| Failure {
        op: None,
        error: KernelError { activity: "read".to_owned(), reason: (*reason).to_owned(), errno: 5 },
    };
    let failures = failures.iter().map(failure).collect();
    let report = PassReport { failures, ..PassReport::default() };
    Input::Passed(Passed { report, ..Passed::default() })
}

const NOTHING: [&str; 0] = [];

/// What goes to the disk or depends on it.
fn of_disk(outputs: &[Output]) -> Vec<String> {
    only(outputs, &["write", "Launch", "Start", "Stop", "pass", "in force", "watch", "peers"])
}

/// An agent that knows all, with an assignment that is being written.
fn writing() -> Run {
    let mut run = Run::new(nothing_on_disk());
    run.step(Input::Tick);
    run.step(Input::Adopted(BTreeMap::new()));
    run.view(true);
    let outputs = run.hears(1, assigned(10, Some(TaskState::Running), TaskState::Assigned));
    assert_eq!(of_disk(&outputs), ["write false Some(10) true"]);
    run
}

#[test]
fn an_assignment_is_on_disk_before_anything_depends_on_it() {
    let mut run = writing();
    let outputs = run.step(Input::Written(true));
    assert_eq!(
        words(&outputs),
        [
            format!("{:?}", Command::Launch(TASK)),
            "gossip key 0 should seal datagrams but is not in the key ring".to_owned(),
            "peers 0".to_owned(),
            "in force 10 true".to_owned(),
            "rows 0".to_owned(),
            "pass Whole Complete".to_owned(),
            "watch Some(1)".to_owned(),
        ]
    );
    // What the disk has is not written again, and what it has is not waited for.
    let prepared = Event::Prepared { dns_udp_port: 1, dns_tcp_port: 2 };
    assert_eq!(only(&run.step(Input::Task(TASK, prepared)), &["write"]), NOTHING);
}

/// Goal: a slow disk costs no lease, and a disk that never answers holds nothing back for long.
#[test]
fn a_write_that_takes_too_long_holds_nothing_back() {
    let mut run = writing();
    let outputs = run.step(Input::Reported(Some(leader(9))));
    assert_eq!(words(&outputs), ["report None [\"preparing\"] None"]);
    run.step(Input::Reported(Some(leader(9))));
    assert_eq!(words(&run.wait_until(500)), ["report None [] None"]);
    let launch = format!("{:?}", Command::Launch(TASK));
    let held_back =
        [&launch, "peers 0", "in force 10 true", "pass Whole Complete", "watch Some(1)"];
    let mut outputs = run.wait_until(1_000);
    assert_eq!(of_disk(&outputs), held_back);
    // What comes after it does not wait either.
    run.step(Input::Task(TASK, Event::Starting { dns_udp_port: 1, dns_tcp_port: 2 }));
    run.step(passed(&[]));
    run.step(passed(&[]));
    outputs = run.hears(2, assigned(11, Some(TaskState::Running), TaskState::Running));
    assert_eq!(
        of_disk(&outputs),
        ["peers 0", "in force 11 true", "pass Remember Complete", "watch Some(2)"]
    );
    assert_eq!(of_disk(&run.step(Input::Written(true))), ["write false Some(11) false"]);
}

/// Goal: what had to wait is carried out only if it is still wanted, and a stop never waits.
#[test]
fn what_waited_is_done_only_if_it_is_wanted() {
    let mut run = writing();
    assert_eq!(of_disk(&run.step(Input::StopAll)), NOTHING);
    let outputs = run.step(Input::Written(true));
    assert_eq!(only(&outputs, &["Launch", "Stop"]), NOTHING);
    assert_eq!(run.agent.worker().tasks()[&TASK].phase, Phase::Ended);

    let mut run = writing();
    run.step(Input::Written(true));
    run.step(Input::Task(TASK, Event::Starting { dns_udp_port: 1, dns_tcp_port: 2 }));
    run.hears(2, assigned(11, Some(TaskState::Running), TaskState::Running));
    let stop = format!("{:?}", Command::Stop(TASK));
    assert_eq!(only(&run.step(Input::StopAll), &["Launch", "Stop"]), [stop]);
}

/// Goal: a disk that takes nothing holds no task back, and has everything once it takes something.
#[test]
fn a_full_disk_is_tried_again_and_holds_nothing_back() {
    let mut run = Run::new(OnDisk::default());
    run.step(Input::Tick);
    run.step(Input::Adopted(BTreeMap::new()));
    run.step(Input::Written(false));
    run.ms = 500;
    let launch = format!("{:?}", Command::Launch(TASK));
    let outputs = run.hears(1, assigned(10, Some(TaskState::Running), TaskState::Assigned));
    assert_eq!(only(&outputs, &["write", "Launch"]), [launch]);
    run.ms = 1_000;
    let all = "write true Some(10) true";
    assert_eq!(only(&run.step(Input::Tick), &["write"]), [all]);
    run.step(Input::Written(false));
    run.ms = 2_000;
    assert_eq!(only(&run.step(Input::Tick), &["write"]), [all]);
    run.step(Input::Written(true));
    run.ms = 9_000;
    assert_eq!(only(&run.step(Input::Tick), &["write"]), Vec::<String>::new());
}

#[test]
fn a_report_goes_at_once_with_news_and_else_at_an_interval() {
    let mut run = Run::new(nothing_on_disk());
    run.step(Input::Tick);
    let reports = |outputs: &[Output]| only(outputs, &["report"]);
    assert_eq!(reports(&run.step(Input::Adopted(BTreeMap::new()))), Vec::<String>::new());
    assert_eq!(reports(&run.step(Input::Reported(Some(leader(9))))), Vec::<String>::new());
    assert_eq!(reports(&run.wait_until(500)), ["report None [] None"]);
    // While one is under way there is no other.
    let lost = assigned(10, Some(TaskState::Running), TaskState::Running);
    assert_eq!(reports(&run.told(1, lost)), Vec::<String>::new());
    let outputs = run.step(Input::Reported(Some(leader(9))));
    assert_eq!(reports(&outputs), ["report None [\"failed\"] None"]);
    assert_eq!(reports(&run.step(Input::Reported(Some(leader(9))))), Vec::<String>::new());
    assert!(run.agent.worker().statuses().is_empty(), "the leader knows it");
    run.ms = 600;
    let more = Input::Machine { routes: Vec::new(), underlay_mtu: Some(1400) };
    assert_eq!(reports(&run.step(more)), ["report None [] Some(1400)"]);
    run.step(Input::Reported(Some(leader(9))));
    let same = Input::Machine { routes: Vec::new(), underlay_mtu: None };
    assert_eq!(reports(&run.step(same)), Vec::<String>::new(), "the link is away for a moment");
}

/// Goal: an answer that cannot be read, with all that the node lacks, is not fetched in a busy
/// loop; reports go on to the leader that gave it.
#[test]
fn an_answer_that_cannot_be_read_is_asked_for_later() {
    let mut run = Run::new(nothing_on_disk());
    run.step(Input::Tick);
    run.step(Input::Reported(Some(leader(9))));
    run.step(Input::Watched(Err(Missed::Unreadable)));
    for ms in (500..5_000).step_by(500) {
        run.ms = ms;
        assert_eq!(words(&run.step(Input::Tick)), ["report None [] None"]);
        run.step(Input::Reported(Some(leader(9))));
    }
    run.ms = 5_000;
    assert_eq!(words(&run.step(Input::Tick)), ["watch None", "report None [] None"]);
}

/// Goal: without a leader calls pause, and the next one hears what the node is like.
#[test]
fn a_new_leader_hears_what_the_node_is_like() {
    let mut run = Run::new(nothing_on_disk());
    run.step(Input::Tick);
    run.step(Input::Reported(Some(leader(9))));
    run.ms = 500;
    assert_eq!(words(&run.step(Input::Tick)), ["report None [] None"]);
    assert_eq!(words(&run.step(Input::Reported(None))), Vec::<String>::new());
    assert_eq!(words(&run.step(Input::Watched(Err(Missed::NoLeader)))), Vec::<String>::new());
    let again = run.wait_until(600);
    assert_eq!(words(&again), ["watch None", "report None [] Some(1500)"]);
    run.step(Input::Reported(Some(leader(8))));
    run.ms = 1_100;
    assert_eq!(words(&run.step(Input::Tick)), ["report None [] None"]);
    // Another one heard it, to whom it was not said.
    run.step(Input::Reported(Some(leader(7))));
    run.ms = 1_600;
    assert_eq!(words(&run.step(Input::Tick)), ["report None [] Some(1500)"]);
}

#[test]
fn only_a_whole_pass_with_full_knowledge_acknowledges_an_assignment() {
    let mut run = Run::new(nothing_on_disk());
    run.step(Input::Tick);
    run.step(Input::Reported(Some(leader(9))));
    let outputs = run.told(1, assigned(10, None, TaskState::New));
    assert_eq!(only(&outputs, &["pass", "watch"]), ["pass Whole Partial", "watch Some(1)"]);
    run.step(Input::Adopted(BTreeMap::new()));
    assert_eq!(only(&run.step(passed(&[])), &["report"]), Vec::<String>::new());
    let outputs = run.view(true);
    assert_eq!(only(&outputs, &["pass"]), Vec::<String>::new(), "one is under way");
    assert_eq!(only(&run.step(passed(&[])), &["pass"]), ["pass Remember Complete"]);
    let outputs = run.step(passed(&["no memory"]));
    assert_eq!(only(&outputs, &["report"]), Vec::<String>::new());
    run.ms = 250;
    assert_eq!(only(&run.step(Input::Tick), &["pass"]), ["pass Whole Complete"]);
    let outputs = run.step(passed(&[]));
    assert_eq!(only(&outputs, &["report"]), ["report Some(1) [] None"]);
}

#[test]
fn the_kernel_is_looked_at_after_news_after_drift_and_in_time() {
    let mut run = Run::new(nothing_on_disk());
    run.step(Input::Adopted(BTreeMap::new()));
    run.told(1, assigned(10, None, TaskState::New));
    run.ms = 100;
    assert!(!run.agent.hears_drift(Duration::from_millis(100)), "a pass is under way");
    run.step(passed(&[]));
    assert!(run.agent.hears_drift(Duration::from_millis(100)));
    let disturbed = |place| Input::Disturbed([(place, BTreeSet::new())].into());
    let outputs = run.step(disturbed(Place::Host));
    assert_eq!(only(&outputs, &["pass"]), ["pass At({Host}) Partial"]);
    run.ms = 400;
    run.step(passed(&[]));
    assert!(!run.agent.hears_drift(Duration::from_millis(699)), "as long as the pass took");
    assert!(run.agent.hears_drift(Duration::from_millis(700)));
    assert_eq!(only(&run.view(true), &["pass"]), ["pass Remember Complete"]);
    run.step(passed(&[]));
    run.ms = 10_099;
    assert_eq!(only(&run.step(Input::Tick), &["pass"]), Vec::<String>::new());
    run.ms = 10_100;
    assert_eq!(only(&run.step(Input::Tick), &["pass"]), ["pass Whole Complete"]);
    run.step(passed(&[]));
    assert_eq!(only(&run.step(Input::Inspected), &["pass"]), ["pass Whole Complete"]);
}

/// Goal: a port that a program has is looked for until the program has gone.
#[test]
fn withheld_ports_are_looked_at_every_second() {
    let mut run = Run::new(nothing_on_disk());
    run.step(Input::Adopted(BTreeMap::new()));
    run.told(1, assigned(10, None, TaskState::New));
    run.step(Input::Passed(Passed { has_withheld: true, ..Passed::default() }));
    run.ms = 1_000;
    assert_eq!(only(&run.step(Input::Tick), &["look", "pass"]), ["look at ports"]);
    assert_eq!(only(&run.step(Input::PortsLookedAt(false)), &["look", "pass"]), [""; 0]);
    run.ms = 2_000;
    assert_eq!(only(&run.step(Input::Tick), &["look", "pass"]), ["look at ports"]);
    let outputs = run.step(Input::PortsLookedAt(true));
    assert_eq!(only(&outputs, &["look", "pass"]), ["pass Remember Partial"]);
    assert_eq!(run.agent.lateness().waiting(Duration::from_secs(9)), Duration::ZERO);
}

#[test]
fn an_older_assignment_from_a_manager_acknowledges_nothing() {
    let mut run = Run::new(nothing_on_disk());
    run.step(Input::Adopted(BTreeMap::new()));
    run.told(1, assigned(10, None, TaskState::New));
    let outputs = run.told(2, assigned(9, None, TaskState::New));
    assert_eq!(only(&outputs, &["in force", "watch"]), ["watch Some(2)"]);
    assert_eq!(run.agent.worker().assignment().map(|a| a.revision), Some(Revision(10)));
    run.step(passed(&[]));
    run.view(true);
    run.step(passed(&[]));
    assert_eq!(run.agent.last_report().applied, None);
}

/// Goal: what an earlier run left counts until a manager speaks, and deletes nothing.
#[test]
fn an_assignment_from_disk_is_in_force_and_is_not_acknowledged() {
    let on_disk = held(1, assigned(10, None, TaskState::New));
    let on_disk = OnDisk { assignment: Some(on_disk), ..nothing_on_disk() };
    let mut run = Run::new(on_disk);
    let outputs = run.step(Input::Tick);
    let kinds = ["write", "in force", "pass", "watch"];
    assert_eq!(
        only(&outputs, &kinds),
        ["in force 10 false", "pass Whole Partial", "watch Some(1) to confirm"]
    );
    run.step(Input::Adopted(BTreeMap::new()));
    run.step(passed(&[]));
    run.view(true);
    run.step(passed(&[]));
    assert_eq!(run.agent.last_report().applied, None);
    let outputs = run.told(1, assigned(10, None, TaskState::New));
    assert_eq!(only(&outputs, &["in force", "watch"]), ["in force 10 true", "watch Some(1)"]);
}

#[test]
fn knowledge_is_whole_once_tasks_and_view_are() {
    let mut run = Run::new(nothing_on_disk());
    run.told(1, assigned(10, None, TaskState::New));
    run.view(true);
    run.step(passed(&[]));
    let outputs = run.step(Input::Adopted(BTreeMap::new()));
    let Some(Output::Pass(pass)) =
        run.step(passed(&[])).into_iter().chain(outputs).find(|o| matches!(o, Output::Pass(_)))
    else {
        panic!("no pass");
    };
    assert_eq!((pass.look.clone(), pass.knowledge), (Look::Remember, Knowledge::Complete));
    let _: &BTreeMap<TaskId, _> = &pass.local.sandboxes;
}
