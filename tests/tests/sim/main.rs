//! Runs the pinned seeds of the simulator, and proves that its oracle can fail.

use std::thread;

use tests::sim::{Members, PlantedBug, Summary, run};

/// One seed a line. A seed that found a bug stays, with what it found.
const SEEDS: &str = include_str!("seeds.txt");
/// The same for runs whose members and managers change.
const MEMBER_SEEDS: &str = include_str!("members.txt");
/// Runs at once: runs share nothing.
const THREADS: usize = 2;
/// Seeds that a planted bug is tried with.
const PLANT_SEEDS_MAX: u64 = 5;

fn seeds(text: &str) -> Vec<u64> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let lines = lines.filter(|line| !line.is_empty());
    lines.map(|line| line.parse().expect("a line of seeds.txt starts with a number")).collect()
}

/// Runs all seeds of a file; a failure prints its seed and the command that replays it.
fn all_end_well(text: &str, members: Members) -> Vec<Summary> {
    let seeds = seeds(text);
    assert!(seeds.len() >= 20, "{} seeds", seeds.len());
    let runs = thread::scope(|scope| {
        let share = |first: usize| {
            let mine = seeds.iter().skip(first).step_by(THREADS);
            mine.map(|seed| run(*seed, members, PlantedBug::Nothing)).collect::<Vec<_>>()
        };
        let threads: Vec<_> = (0..THREADS).map(|first| scope.spawn(move || share(first))).collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("a run ends"))
            .collect::<Vec<_>>()
    });
    let failures: Vec<String> =
        runs.iter().filter_map(|run| Some(run.as_ref().err()?.to_string())).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    runs.into_iter().flatten().collect()
}

/// Goal: whatever the pinned seeds draw, all ends as the state says. Method: every run of them.
#[test]
fn pinned_seeds_end_as_the_state_says() {
    all_end_well(SEEDS, Members::Fixed);
}

/// Goal: the same while nodes are promoted, demoted, removed and joined: who is removed opens no
/// datagram after the turn of the key, nobody who was waited for meets one that it cannot open, and
/// managers hold one state. Method: the pinned runs of that kind; all of it happens in them.
#[test]
fn pinned_seeds_with_other_members_end_as_the_state_says() {
    let runs = all_end_well(MEMBER_SEEDS, Members::Changing);
    let sum = |of: fn(&Summary) -> u64| runs.iter().map(of).sum::<u64>();
    let counts = [sum(|run| run.moved), sum(|run| run.turns), sum(|run| run.compared)];
    assert!(counts.iter().all(|count| *count >= 20), "moved, turned, compared: {counts:?}");
}

/// Goal: a seed is a whole run. Method: the hash over all events of two runs.
#[test]
fn one_seed_gives_one_run() {
    for members in [Members::Fixed, Members::Changing] {
        let runs =
            [7, 7, 8].map(|seed| run(seed, members, PlantedBug::Nothing).expect("a good run"));
        assert_eq!(runs[0], runs[1]);
        assert_ne!(runs[0].trace, runs[2].trace);
    }
}

/// What the oracle says of a planted bug, on the first seeds that give it a chance.
fn found(members: Members, plant: PlantedBug) -> String {
    let mut failures = (1..=PLANT_SEEDS_MAX).filter_map(|seed| run(seed, members, plant).err());
    let failure = failures.next().expect("a planted bug is found");
    assert!(failure.to_string().starts_with(&format!(
        "seed {seed} failed: cargo run -p tests --bin sim -- {seed}{word}\n",
        seed = failure.seed,
        word = members.word()
    )));
    failure.complaints.join("\n")
}

/// Goal: the oracle can fail, each part of it. Method: a bug for each, and what must be said of it.
#[test]
fn planted_bugs_are_found() {
    for (members, plant, words) in [
        (Members::Fixed, PlantedBug::SkippedEntry, "of the assignment has no entries"),
        (Members::Fixed, PlantedBug::LostDoorbell, "node 3"),
        (Members::Fixed, PlantedBug::KeptRow, "still sees"),
        (Members::Fixed, PlantedBug::SuspicionPurges, "of the assignment has no entries"),
        (Members::Fixed, PlantedBug::EarlyEnd, "runs on node 4 and is failed"),
        (Members::Fixed, PlantedBug::LateWrite, "is launched before it is on disk"),
        (Members::Fixed, PlantedBug::SaidOnce, "is not as the state has it"),
        (Members::Fixed, PlantedBug::NoAddress, "and in the state at \"0.0.0.0\""),
        (Members::Fixed, PlantedBug::CountedSilence, "after a majority was back"),
        (Members::Changing, PlantedBug::OtherName, "hold different states at revision"),
        (Members::Changing, PlantedBug::KeptKey, "node 3 cannot open what node"),
        (Members::Changing, PlantedBug::NoTurn, "knew is in use"),
        (Members::Changing, PlantedBug::ToldThief, ", removed, opens what node"),
        (Members::Changing, PlantedBug::KeptVote, "votes"),
    ] {
        let complaints = found(members, plant);
        assert!(complaints.contains(words), "{plant:?}: {complaints}");
    }
}
