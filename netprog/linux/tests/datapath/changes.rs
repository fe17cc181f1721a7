//! Calls under load, from source ports that are used again and again, while backends change: none
//! is refused or reset. `SKEIN_CALLS` says how many; without it there are few.

use std::io::{Error, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use cluster::view::{Condition, EndpointOwner, Liveness};
use netprog::plane::Place;
use netprog_linux::spaces::Spaces as _;
use nix::sched::{CloneFlags, setns};

use crate::flows::reset_when_closed;
use crate::lab::{ECHO, Lab, VIP, node, run, sandbox, task};
use crate::paths::furnished;
use crate::talk::{ask, connect_from, serve};

/// Calls of a run that nobody sized.
const CALLS_DEFAULT: u64 = 3_000;
/// Callers at once, each with ports of its own.
const CALLERS: u16 = 4;
/// Ports of a caller: each is used again after so many calls.
const PORTS: u16 = 16;
/// Where they begin, below the ports that the kernel chooses.
const PORTS_FROM: u16 = 20_000;
/// What open calls need to end; a stopping task waits for two seconds.
const DRAINED: Duration = Duration::from_millis(200);

/// How long calls go on after a node was lost: longer than one waits for its answer.
const AFTER_LOSS: Duration = Duration::from_secs(4);
/// Failures that are shown.
const SHOWN: usize = 20;

#[expect(clippy::disallowed_methods, reason = "the size of this run is its runner's choice")]
fn calls() -> u64 {
    std::env::var("SKEIN_CALLS").map_or(CALLS_DEFAULT, |text| text.parse().unwrap())
}

/// What the callers share.
#[derive(Default)]
struct Tally {
    made: AtomicU64,
    ended: AtomicBool,
    /// A node is being lost: what begins now may be led there.
    losing: AtomicBool,
    aside: AtomicU64,
    failed: Mutex<Vec<String>>,
}

/// One call; every other one is ended by a RST, and so is one that fails, or its port would wait
/// for the lost node.
fn call(port: u16, number: u64) -> Result<(), Error> {
    let mut stream = connect_from(&format!("{VIP}:80"), port)?;
    reset_when_closed(&stream);
    ask(&mut stream, 64)?;
    if number.is_multiple_of(2) {
        return Ok(());
    }
    stream.write_all(&[0; 4])?;
    stream.read_to_end(&mut Vec::new())?;
    stream.shutdown(Shutdown::Write)
}

fn caller(lab: &mut Lab, first: u16, tally: Arc<Tally>) -> JoinHandle<()> {
    let (kernel, place) = lab.at(1, sandbox(5));
    let namespace = kernel.spaces().open(place).unwrap().unwrap();
    std::thread::spawn(move || {
        setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
        for port in (first..first + PORTS).cycle() {
            if tally.ended.load(Ordering::Relaxed) {
                return;
            }
            let losing = tally.losing.load(Ordering::Relaxed);
            let number = tally.made.fetch_add(1, Ordering::Relaxed);
            match call(port, number) {
                Ok(()) => {}
                // The port's last connection has not ended: no call was made.
                Err(error) if error.kind() == ErrorKind::AddrNotAvailable => {
                    tally.made.fetch_sub(1, Ordering::Relaxed);
                }
                Err(_) if losing => {
                    tally.aside.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => {
                    tally.failed.lock().unwrap().push(format!("call {number}: {error}"));
                }
            }
        }
    })
}

/// Lets calls go on for a while.
fn pause(time: Duration) {
    let (_quiet, silence) = channel::<()>();
    let _elapsed = silence.recv_timeout(time);
}

fn set(lab: &mut Lab, n: u8, condition: Condition) {
    for (key, row) in &mut lab.view.endpoints {
        if key.owner == EndpointOwner::Task(task(n)) {
            row.condition = condition;
        }
    }
}

/// Starts tasks as nodes do: known, then listening, then ready.
fn start(lab: &mut Lab, tasks: &[u8]) {
    for n in tasks {
        lab.add(*n, ECHO, 1 + n % 2);
        set(lab, *n, Condition::Young);
    }
    lab.settle();
    for n in tasks {
        serve(lab.at(1 + n % 2, sandbox(*n)), &format!("t{n}"));
        set(lab, *n, Condition::Ready);
    }
    lab.settle();
}

fn stop(lab: &mut Lab, tasks: &[u8]) {
    for n in tasks {
        lab.assignment.tasks.get_mut(&task(*n)).unwrap().draining = true;
    }
    lab.settle();
    pause(DRAINED);
    tasks.iter().for_each(|n| lab.remove(*n));
    lab.settle();
}

#[test]
fn no_call_is_refused_or_reset_while_backends_change() {
    let mut lab = furnished();
    let tally = Arc::<Tally>::default();
    let callers: Vec<_> =
        (0..CALLERS).map(|n| caller(&mut lab, PORTS_FROM + n * PORTS, tally.clone())).collect();
    let more: Vec<u8> = (20..30).collect();
    let (mut old, mut new) = ([1, 2], [42, 43]);
    while tally.made.load(Ordering::Relaxed) < calls() {
        start(&mut lab, &more);
        // A rolling update, the old task first.
        for (old, new) in old.iter().zip(new) {
            stop(&mut lab, &[*old]);
            start(&mut lab, &[new]);
        }
        stop(&mut lab, &more);
        (old, new) = (new, if old == [1, 2] { [44, 45] } else { old });
        // Node 2 is drained: what ran there runs on node 1, and back.
        let away = old[1];
        start(&mut lab, &[50]);
        stop(&mut lab, &[away]);
        start(&mut lab, &[away]);
        stop(&mut lab, &[50]);
    }
    tally.losing.store(true, Ordering::Relaxed);
    // Calls that began before are over, or count as under way.
    pause(DRAINED);
    run(lab.at(2, Place::Host).0, "ip link set eth0 down");
    lab.view.liveness.insert(node(2), Liveness::Suspect);
    lab.settle_on(1);
    tally.losing.store(false, Ordering::Relaxed);
    // What was under way fails meanwhile, and its callers go on.
    pause(AFTER_LOSS);
    tally.ended.store(true, Ordering::Relaxed);
    callers.into_iter().for_each(|caller| caller.join().unwrap());
    let (made, aside) = (tally.made.load(Ordering::Relaxed), tally.aside.load(Ordering::Relaxed));
    let failed = tally.failed.lock().unwrap();
    let summary = format!("{made} calls, {} failed, {aside} to the lost node", failed.len());
    writeln!(std::io::stderr(), "{summary}").unwrap();
    let first: Vec<_> = failed.iter().take(SHOWN).collect();
    assert!(failed.is_empty(), "{summary}: {first:#?}");
}
