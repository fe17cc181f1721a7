//! Runs the pinned seeds of the simulator, and proves that its oracle can fail.

use std::thread;

use tests::sim::{Plant, run};

/// One seed a line. A seed that found a bug stays, with what it found.
const SEEDS: &str = include_str!("seeds.txt");
/// Runs at once: runs share nothing.
const THREADS: usize = 2;
/// Seeds that a planted bug is tried with.
const PLANT_SEEDS_MAX: u64 = 5;

fn seeds() -> Vec<u64> {
    let lines = SEEDS.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let lines = lines.filter(|line| !line.is_empty());
    lines.map(|line| line.parse().expect("a line of seeds.txt begins with a number")).collect()
}

/// Goal: whatever the pinned seeds draw, all ends as the state says.
/// Method: every run of `tests::sim`; a failure prints its seed and the command that replays it.
#[test]
fn pinned_seeds_end_as_the_state_says() {
    let seeds = seeds();
    assert!(seeds.len() >= 20, "{} seeds", seeds.len());
    let failures: Vec<String> = thread::scope(|scope| {
        let share = |first: usize| {
            let mine = seeds.iter().skip(first).step_by(THREADS);
            mine.filter_map(|seed| run(*seed, Plant::Nothing).err().map(|f| f.to_string()))
                .collect::<Vec<String>>()
        };
        let threads: Vec<_> = (0..THREADS).map(|first| scope.spawn(move || share(first))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a run ends")).collect()
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Goal: a seed is a whole run. Method: the hash over all events of two runs.
#[test]
fn one_seed_gives_one_run() {
    let runs = [7, 7, 8].map(|seed| run(seed, Plant::Nothing).expect("a good run"));
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0].trace, runs[2].trace);
}

/// What the oracle says of a planted bug, on the first seeds that give it a chance.
fn found(plant: Plant) -> String {
    let mut failures = (1..=PLANT_SEEDS_MAX).filter_map(|seed| run(seed, plant).err());
    let failure = failures.next().expect("a planted bug is found");
    assert!(failure.to_string().starts_with(&format!(
        "seed {seed} failed: cargo run -p tests --bin sim -- {seed}\n",
        seed = failure.seed
    )));
    failure.complaints.join("\n")
}

/// Goal: the oracle can fail, each part of it. Method: a bug for each, and what must be said of it.
#[test]
fn planted_bugs_are_found() {
    for (plant, words) in [
        (Plant::SkippedEntry, "of the assignment has no entries"),
        (Plant::LostDoorbell, "node 3"),
        (Plant::KeptRow, "still sees"),
        (Plant::SuspicionPurges, "of the assignment has no entries"),
        (Plant::EarlyEnd, "runs on node 4 and is failed"),
    ] {
        let complaints = found(plant);
        assert!(complaints.contains(words), "{plant:?}: {complaints}");
    }
}
