//! Names of services whose users gave none: two words, as Docker's.

use crate::draft::Draft;

const FIRST: [&str; 32] = [
    "amber", "bold", "brave", "bright", "brisk", "calm", "clear", "clever", "cool", "deep",
    "eager", "early", "fair", "fast", "firm", "fresh", "gentle", "golden", "grand", "keen", "kind",
    "light", "lively", "lucid", "mellow", "neat", "noble", "quick", "quiet", "ready", "steady",
    "swift",
];
const SECOND: [&str; 32] = [
    "anchor", "beacon", "bridge", "brook", "cedar", "cliff", "cloud", "comet", "coral", "crane",
    "dune", "falcon", "fern", "field", "fjord", "forest", "harbor", "heron", "island", "lake",
    "lynx", "maple", "meadow", "oak", "otter", "pine", "raven", "reef", "river", "spruce", "stone",
    "valley",
];

/// A name that is free; after some tries with a number behind it.
pub(super) fn drawn(draft: &mut Draft<'_>) -> String {
    let mut tries: u32 = 0;
    loop {
        let drawn = draft.draw();
        let word = |words: [&'static str; 32], shift: u32| words[(drawn >> shift) as usize % 32];
        let mut name = format!("{}_{}", word(FIRST, 0), word(SECOND, 8));
        if tries > 8 {
            name = format!("{name}{}", (drawn >> 16) as u32);
        }
        if draft.state().service_named(&name).is_none() {
            return name;
        }
        tries += 1;
    }
}
