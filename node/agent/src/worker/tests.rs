//! Goal: a task's way through its node. Method: inputs in, commands and statuses out, as text.

use super::*;
use cluster::assignment::{AssignedNode, AssignedTask};
use cluster::id::{ClusterId, ServiceId};
use cluster::net::{Addresses, MacAddr};
use cluster::object::Slot;
use cluster::spec::TaskSpec;

pub(crate) const NODE: NodeId = NodeId(1);
pub(crate) const TASK: TaskId = TaskId(5);

fn assignment(revision: u64, desired: Option<TaskState>, observed: TaskState) -> Input {
    let assignment = Arc::new(assigned(revision, desired, observed));
    Input::Assignment { assignment, from_manager: true }
}

/// An assignment with one task, if it is desired.
pub(crate) fn assigned(
    revision: u64,
    desired: Option<TaskState>,
    observed: TaskState,
) -> Assignment {
    let mut assignment = Assignment {
        revision: Revision(revision),
        cluster: ClusterId(1),
        node: NODE,
        schema: 1,
        data_path_port: 4789,
        gossip_keys: vec![],
        removed: Default::default(),
        raft_id: None,
        trust: None,
        nodes: BTreeMap::new(),
        networks: BTreeMap::new(),
        services: BTreeMap::new(),
        tasks: BTreeMap::new(),
        own: BTreeMap::new(),
    };
    let address: IpAddr = [192, 168, 50, 1].into();
    let node = AssignedNode {
        name: "a".into(),
        gossip: (address, 7946).into(),
        proof_key: None,
        vtep: address,
        manager: None,
        ingress: None,
        up: true,
        underlay_mtu: None,
    };
    assignment.nodes.insert(NODE, node);
    if let Some(desired) = desired {
        let own = OwnTask {
            spec: TaskSpec::default(),
            desired,
            observed,
            start_after: None,
            name: String::new(),
            service_name: "s".into(),
            service_labels: BTreeMap::new(),
            ports: vec![],
        };
        assignment.own.insert(TASK, own);
        let attachment = Attachment {
            network: cluster::id::NetworkId(3),
            addresses: Addresses::V4([10, 0, 1, 5].into()),
            mac: MacAddr([2, 0x42, 10, 0, 1, 5]),
            aliases: vec![],
        };
        let task = AssignedTask {
            service: ServiceId(2),
            name: "s.1.x".into(),
            slot: Slot::Replica(1),
            node: NODE,
            attachments: vec![attachment],
            draining: desired > TaskState::Running,
        };
        assignment.tasks.insert(TASK, task);
    }
    assignment
}

fn running(health: Health) -> Input {
    let detail = String::new();
    Input::Task(TASK, Event::Running { dns_udp_port: 1, dns_tcp_port: 2, pid: 77, health, detail })
}

fn worker() -> Worker {
    let mut worker = Worker::new(NODE, "172.18.0.0/16".parse().unwrap());
    assert_eq!(step(&mut worker, Input::Adopted(BTreeMap::new()), 0), []);
    worker
}

fn step(worker: &mut Worker, input: Input, ms: u64) -> Vec<Command> {
    worker.step(input, at(ms))
}

fn at(ms: u64) -> Moment {
    Moment { now: Duration::from_millis(ms), wall: Timestamp(ms) }
}

fn state(worker: &Worker) -> TaskState {
    worker.tasks()[&TASK].status.state
}

fn start(worker: &mut Worker) {
    let wanted = assignment(10, Some(TaskState::Running), TaskState::Assigned);
    assert_eq!(step(worker, wanted, 0), [Command::Launch(TASK)]);
    let prepared = Event::Prepared { dns_udp_port: 1, dns_tcp_port: 2 };
    assert_eq!(step(worker, Input::Task(TASK, prepared), 1), []);
    let programmed = Input::Programmed { ready: [TASK].into(), failed: BTreeMap::new() };
    assert_eq!(step(worker, programmed, 2), [Command::Start(TASK)]);
    assert_eq!(step(worker, running(Health::Healthy), 3), []);
    assert_eq!(state(worker), TaskState::Running);
}

#[test]
fn a_task_starts_only_in_a_programmed_sandbox_and_its_row_is_healthy_only_then() {
    let mut worker = worker();
    let wanted = assignment(10, Some(TaskState::Running), TaskState::Assigned);
    step(&mut worker, wanted, 0);
    assert_eq!(worker.own_rows().unwrap().len(), 0, "no sandbox, no endpoint");
    let prepared = Event::Prepared { dns_udp_port: 1, dns_tcp_port: 2 };
    step(&mut worker, Input::Task(TASK, prepared), 1);
    assert!(worker.own_rows().unwrap().values().all(|row| row.condition == Condition::Unhealthy));
    let failed = [(TASK, "set link: no such device".to_owned())].into();
    let not_programmed = Input::Programmed { ready: BTreeSet::new(), failed };
    assert_eq!(step(&mut worker, not_programmed, 2), []);
    assert_eq!(worker.statuses()[&TASK].error, "network is not ready: set link: no such device");
    let programmed = Input::Programmed { ready: [TASK].into(), failed: BTreeMap::new() };
    assert_eq!(step(&mut worker, programmed, 3), [Command::Start(TASK)]);
    step(&mut worker, running(Health::Healthy), 4);
    assert!(worker.own_rows().unwrap().values().all(|row| row.condition == Condition::Ready));
}

/// Goal: a task without a health check is ready once its ports are listened on, and in time anyway.
#[test]
fn a_task_without_a_check_is_young_until_something_listens() {
    let condition = |worker: &Worker| worker.own_rows().unwrap().values().next().unwrap().condition;
    for listens in [true, false] {
        let mut worker = worker();
        start(&mut worker);
        let wanted = assignment(11, Some(TaskState::Running), TaskState::Running);
        step(&mut worker, wanted, 4);
        assert_eq!(worker.young(), BTreeMap::new(), "it has a check that passes");
        let mut worker = self::worker();
        let wanted = assignment(10, Some(TaskState::Running), TaskState::Assigned);
        step(&mut worker, wanted, 0);
        let prepared = Event::Prepared { dns_udp_port: 1, dns_tcp_port: 2 };
        step(&mut worker, Input::Task(TASK, prepared), 1);
        let programmed = Input::Programmed { ready: [TASK].into(), failed: BTreeMap::new() };
        step(&mut worker, programmed, 2);
        step(&mut worker, running(Health::Unchecked), 3);
        assert_eq!(state(&worker), TaskState::Running);
        assert_eq!(condition(&worker), Condition::Young);
        assert_eq!(worker.young(), [(TASK, BTreeSet::new())].into());
        let limit = Duration::from_millis(3) + YOUNG_LIMIT;
        assert_eq!(worker.next_deadline(at(3)), Some(limit));
        let last = u64::try_from(limit.as_millis()).unwrap();
        step(&mut worker, Input::Tick, last - 1);
        assert_eq!(condition(&worker), Condition::Young);
        if listens {
            step(&mut worker, Input::Listens(TASK), last - 1);
        } else {
            step(&mut worker, Input::Tick, last);
        }
        assert_eq!(condition(&worker), Condition::Ready);
        step(&mut worker, running(Health::Unchecked), last + 1);
        assert_eq!(condition(&worker), Condition::Ready, "it stays so");
    }
}

#[test]
fn a_task_whose_check_has_not_passed_says_so_until_it_has() {
    let mut worker = worker();
    step(&mut worker, assignment(10, Some(TaskState::Running), TaskState::Assigned), 0);
    let prepared = Event::Prepared { dns_udp_port: 1, dns_tcp_port: 2 };
    step(&mut worker, Input::Task(TASK, prepared), 1);
    let programmed = Input::Programmed { ready: [TASK].into(), failed: BTreeMap::new() };
    assert_eq!(step(&mut worker, programmed, 2), [Command::Start(TASK)]);
    let told = |worker: &Worker| worker.statuses()[&TASK].message.clone();
    let awaited = "waiting for its health check";
    assert_eq!(told(&worker), "starting");
    step(&mut worker, running(Health::Starting), 3);
    assert_eq!((state(&worker), told(&worker).as_str()), (TaskState::Starting, awaited));
    step(&mut worker, running(Health::Healthy), 4);
    assert_eq!((state(&worker), told(&worker).as_str()), (TaskState::Running, "started"));
    step(&mut worker, running(Health::Starting), 5);
    assert_eq!(told(&worker), "started", "a state only rises");
}

#[test]
fn a_failing_health_check_takes_the_endpoint_out_and_ends_the_task() {
    let mut worker = worker();
    start(&mut worker);
    assert_eq!(step(&mut worker, running(Health::Unhealthy), 5), [Command::Stop(TASK)]);
    assert!(worker.own_rows().unwrap().values().all(|row| row.condition == Condition::Unhealthy));
    assert_eq!(state(&worker), TaskState::Running, "a state only rises");
    let ended = Ended { exit_code: Some(143), error: String::new(), rejected: false };
    assert_eq!(step(&mut worker, Input::Task(TASK, Event::Ended(ended)), 6), []);
    assert_eq!(state(&worker), TaskState::Failed);
}

#[test]
fn what_fails_its_checks_has_failed_whatever_its_exit_status() {
    for passes_while_it_ends in [false, true] {
        let mut worker = worker();
        start(&mut worker);
        let mut unhealthy = running(Health::Unhealthy);
        if let Input::Task(_, Event::Running { detail, .. }) = &mut unhealthy {
            "connection refused".clone_into(detail);
        }
        assert_eq!(step(&mut worker, unhealthy, 5), [Command::Stop(TASK)]);
        if passes_while_it_ends {
            assert_eq!(step(&mut worker, running(Health::Healthy), 6), []);
        }
        let ended = Ended { exit_code: Some(0), error: String::new(), rejected: false };
        step(&mut worker, Input::Task(TASK, Event::Ended(ended)), 7);
        let status = &worker.tasks()[&TASK].status;
        assert_eq!(status.state, TaskState::Failed);
        assert_eq!(status.error, "task: unhealthy: connection refused");
    }
}

#[test]
fn a_stop_waits_for_the_balancers_or_for_the_limit() {
    for (released, stopped_at) in [(true, 100), (false, 2100)] {
        let mut worker = worker();
        start(&mut worker);
        let unwanted = assignment(11, Some(TaskState::Shutdown), TaskState::Running);
        assert_eq!(step(&mut worker, unwanted, 100), []);
        if released {
            let input = Input::Released([TASK].into());
            assert_eq!(step(&mut worker, input, stopped_at), [Command::Stop(TASK)]);
        } else {
            let deadline = worker.next_deadline(at(0));
            assert_eq!(deadline, Some(Duration::from_millis(stopped_at)));
            assert_eq!(step(&mut worker, Input::Tick, stopped_at - 1), []);
            assert_eq!(step(&mut worker, Input::Tick, stopped_at), [Command::Stop(TASK)]);
        }
        assert_eq!(step(&mut worker, Input::Tick, 9000), [], "asked once");
        let ended = Ended { exit_code: Some(143), error: String::new(), rejected: false };
        step(&mut worker, Input::Task(TASK, Event::Ended(ended)), 9001);
        assert_eq!(state(&worker), TaskState::Shutdown);
        assert_eq!(worker.own_rows().unwrap().len(), 0);
        let gone = assignment(12, None, TaskState::Shutdown);
        assert_eq!(step(&mut worker, gone, 9002), [Command::Forget(TASK)]);
    }
}

#[test]
fn an_exit_is_complete_or_failed_by_its_code() {
    for (code, expected) in [(0, TaskState::Complete), (3, TaskState::Failed)] {
        let mut worker = worker();
        start(&mut worker);
        let ended = Ended { exit_code: Some(code), error: String::new(), rejected: false };
        step(&mut worker, Input::Task(TASK, Event::Ended(ended)), 50);
        assert_eq!(state(&worker), expected);
    }
}

#[test]
fn nothing_is_launched_before_the_running_tasks_are_known() {
    let mut worker = Worker::new(NODE, "172.18.0.0/16".parse().unwrap());
    let wanted = assignment(10, Some(TaskState::Running), TaskState::Running);
    assert_eq!(step(&mut worker, wanted, 0), []);
    assert!(worker.own_rows().is_none(), "rows are not taken back by a restart");
    let event = Event::Running {
        dns_udp_port: 1,
        dns_tcp_port: 2,
        pid: 77,
        health: Health::Healthy,
        detail: String::new(),
    };
    let adopted = Adopted { egress: Some([172, 18, 0, 2].into()), event };
    assert_eq!(step(&mut worker, Input::Adopted([(TASK, adopted)].into()), 1), []);
    assert_eq!(worker.own_rows().unwrap().len(), 1);
    assert_eq!(state(&worker), TaskState::Running);
}

#[test]
fn a_task_that_is_found_starting_is_not_started_twice() {
    let mut worker = Worker::new(NODE, "172.18.0.0/16".parse().unwrap());
    let wanted = assignment(10, Some(TaskState::Running), TaskState::Assigned);
    step(&mut worker, wanted, 0);
    let event = Event::Starting { dns_udp_port: 1, dns_tcp_port: 2 };
    let adopted = Adopted { egress: Some([172, 18, 0, 2].into()), event };
    assert_eq!(step(&mut worker, Input::Adopted([(TASK, adopted)].into()), 1), []);
    let programmed = Input::Programmed { ready: [TASK].into(), failed: BTreeMap::new() };
    assert_eq!(step(&mut worker, programmed, 2), []);
    step(&mut worker, running(Health::Healthy), 3);
    assert_eq!(state(&worker), TaskState::Running);
}

#[test]
fn a_task_that_ran_and_is_gone_is_reported_not_started_again() {
    let mut worker = worker();
    let wanted = assignment(10, Some(TaskState::Running), TaskState::Running);
    assert_eq!(step(&mut worker, wanted, 0), []);
    assert_eq!(state(&worker), TaskState::Failed);
}

#[test]
fn a_restart_delay_is_counted_by_the_leader_s_clock() {
    let mut worker = worker();
    step(&mut worker, Input::LeaderTime(Timestamp(1_000_000)), 0);
    let mut wanted = assignment(10, Some(TaskState::Running), TaskState::Assigned);
    if let Input::Assignment { assignment, .. } = &mut wanted {
        let own = Arc::make_mut(assignment).own.get_mut(&TASK).unwrap();
        own.start_after = Some(Timestamp(1_005_000));
    }
    assert_eq!(step(&mut worker, wanted, 0), [Command::Launch(TASK)]);
    let prepared = Event::Prepared { dns_udp_port: 1, dns_tcp_port: 2 };
    assert_eq!(step(&mut worker, Input::Task(TASK, prepared), 1), []);
    let programmed = Input::Programmed { ready: [TASK].into(), failed: BTreeMap::new() };
    assert_eq!(step(&mut worker, programmed, 2), []);
    assert_eq!(state(&worker), TaskState::Ready, "meanwhile it is ready, as in Docker");
    let deadline = worker.next_deadline(at(0));
    assert_eq!(deadline, Some(Duration::from_secs(5)));
    assert_eq!(step(&mut worker, Input::Tick, 4_999), []);
    assert_eq!(step(&mut worker, Input::Tick, 5_000), [Command::Start(TASK)]);
}

#[test]
fn an_older_assignment_is_ignored() {
    let mut worker = worker();
    start(&mut worker);
    assert_eq!(step(&mut worker, assignment(9, None, TaskState::New), 5), []);
    assert_eq!(state(&worker), TaskState::Running);
}

fn not_done(command: Command, error: &str) -> Input {
    Input::NotDone { command, error: error.to_owned() }
}

#[test]
fn a_launch_that_fails_is_tried_again_and_says_why_meanwhile() {
    let mut worker = worker();
    let wanted = assignment(10, Some(TaskState::Running), TaskState::Assigned);
    assert_eq!(step(&mut worker, wanted, 0), [Command::Launch(TASK)]);
    let cause = "launch task x: no such file or directory";
    assert_eq!(step(&mut worker, not_done(Command::Launch(TASK), cause), 10), []);
    let status = worker.statuses()[&TASK].clone();
    assert_eq!((status.state, status.error.as_str()), (TaskState::Preparing, cause));
    let deadline = worker.next_deadline(at(0));
    assert_eq!(deadline, Some(Duration::from_millis(1_010)));
    assert_eq!(step(&mut worker, Input::Tick, 1_009), []);
    assert_eq!(step(&mut worker, Input::Tick, 1_010), [Command::Launch(TASK)]);
    assert_eq!(step(&mut worker, Input::Tick, 5_000), [], "it is under way");
    let prepared = Event::Prepared { dns_udp_port: 1, dns_tcp_port: 2 };
    step(&mut worker, Input::Task(TASK, prepared), 5_001);
    assert_eq!(worker.statuses()[&TASK].error, "");
}

#[test]
fn a_launch_that_fails_for_too_long_has_failed() {
    let mut worker = worker();
    let wanted = assignment(10, Some(TaskState::Running), TaskState::Assigned);
    step(&mut worker, wanted, 0);
    let mut tries = 1;
    let mut ms = 0;
    while state(&worker) == TaskState::Preparing {
        step(&mut worker, not_done(Command::Launch(TASK), "no memory"), ms);
        ms += 1_000;
        tries += step(&mut worker, Input::Tick, ms).len();
        assert!(ms <= 100_000, "it is tried for ever");
    }
    assert_eq!((state(&worker), tries), (TaskState::Failed, 61));
    assert_eq!(worker.statuses()[&TASK].error, "no memory");
    let gone = assignment(12, None, TaskState::Failed);
    assert_eq!(step(&mut worker, gone, 200_000), [Command::Forget(TASK)]);
}

#[test]
fn a_task_whose_launch_fails_can_be_stopped() {
    let mut worker = worker();
    let wanted = assignment(10, Some(TaskState::Running), TaskState::Assigned);
    step(&mut worker, wanted, 0);
    let unwanted = || assignment(11, Some(TaskState::Shutdown), TaskState::Preparing);
    assert_eq!(step(&mut worker, unwanted(), 5), []);
    assert_eq!(state(&worker), TaskState::Preparing, "the launch may still succeed");
    assert_eq!(step(&mut worker, not_done(Command::Launch(TASK), "no memory"), 10), []);
    assert_eq!(state(&worker), TaskState::Shutdown);
    assert_eq!(step(&mut worker, Input::Tick, 20_000), [], "and not launched again");
}

#[test]
fn a_start_that_fails_is_tried_again() {
    let mut worker = worker();
    let wanted = assignment(10, Some(TaskState::Running), TaskState::Assigned);
    step(&mut worker, wanted, 0);
    let prepared = Event::Prepared { dns_udp_port: 1, dns_tcp_port: 2 };
    step(&mut worker, Input::Task(TASK, prepared), 1);
    let programmed = Input::Programmed { ready: [TASK].into(), failed: BTreeMap::new() };
    assert_eq!(step(&mut worker, programmed, 2), [Command::Start(TASK)]);
    assert_eq!(step(&mut worker, not_done(Command::Start(TASK), "no answer"), 3), []);
    assert_eq!(worker.statuses()[&TASK].error, "no answer");
    assert_eq!(step(&mut worker, Input::Tick, 1_003), [Command::Start(TASK)]);
    step(&mut worker, running(Health::Healthy), 1_004);
    let late = not_done(Command::Start(TASK), "no answer");
    assert_eq!(step(&mut worker, late, 1_005), [], "it runs, whatever the answer was");
    assert_eq!(step(&mut worker, Input::Tick, 9_000), []);
    assert_eq!((state(&worker), worker.statuses()[&TASK].error.as_str()), (TaskState::Running, ""));
}

#[test]
fn a_stop_and_a_forget_that_fail_are_tried_again() {
    let mut worker = worker();
    start(&mut worker);
    let unwanted = assignment(11, Some(TaskState::Shutdown), TaskState::Running);
    step(&mut worker, unwanted, 100);
    assert_eq!(step(&mut worker, Input::Released([TASK].into()), 100), [Command::Stop(TASK)]);
    assert_eq!(step(&mut worker, not_done(Command::Stop(TASK), "no answer"), 200), []);
    // What its health check says meanwhile changes nothing.
    step(&mut worker, running(Health::Healthy), 300);
    assert_eq!(step(&mut worker, Input::Tick, 1_200), [Command::Stop(TASK)]);
    let ended = Ended { exit_code: Some(143), error: String::new(), rejected: false };
    step(&mut worker, Input::Task(TASK, Event::Ended(ended)), 1_300);
    let gone = assignment(12, None, TaskState::Shutdown);
    assert_eq!(step(&mut worker, gone, 1_400), [Command::Forget(TASK)]);
    assert_eq!(step(&mut worker, not_done(Command::Forget(TASK), "busy"), 1_500), []);
    assert_eq!(step(&mut worker, Input::Tick, 11_499), []);
    assert_eq!(step(&mut worker, Input::Tick, 11_500), [Command::Forget(TASK)]);
    assert_eq!(step(&mut worker, Input::Tick, 60_000), []);
}

#[test]
fn without_a_free_address_a_task_waits() {
    let mut worker = Worker::new(NODE, "172.18.0.0/30".parse().unwrap());
    let mut addresses = Vec::new();
    while let Some(address) = worker.egress.allocate() {
        addresses.push(address);
    }
    step(&mut worker, Input::Adopted(BTreeMap::new()), 0);
    let wanted = assignment(10, Some(TaskState::Running), TaskState::Assigned);
    assert_eq!(step(&mut worker, wanted, 0), []);
    let told = "no free address on skein_gwbridge (172.18.0.0/30)";
    assert_eq!(worker.statuses()[&TASK].error, told);
    worker.egress.free(addresses[0]);
    assert_eq!(step(&mut worker, Input::Tick, 1_000), [Command::Launch(TASK)]);
}

#[test]
fn a_task_whose_port_a_program_has_is_rejected_before_it_starts_and_not_afterwards() {
    let refused = || Input::Refused([(TASK, "tcp port 22 of this node is in use".into())].into());
    let mut worker = worker();
    step(&mut worker, assignment(10, Some(TaskState::Running), TaskState::Assigned), 0);
    let prepared = Event::Prepared { dns_udp_port: 1, dns_tcp_port: 2 };
    step(&mut worker, Input::Task(TASK, prepared), 1);
    step(&mut worker, refused(), 2);
    assert_eq!(state(&worker), TaskState::Rejected);
    assert_eq!(worker.statuses()[&TASK].error, "tcp port 22 of this node is in use");
    let programmed = Input::Programmed { ready: [TASK].into(), failed: BTreeMap::new() };
    assert_eq!(step(&mut worker, programmed, 3), []);

    let mut worker = self::worker();
    start(&mut worker);
    step(&mut worker, refused(), 4);
    assert_eq!(state(&worker), TaskState::Running);
}
