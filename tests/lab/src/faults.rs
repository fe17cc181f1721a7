//! Faults of an underlay: frames between two wires are dropped or held back.
//!
//! Faults need only the underlay's namespace, with a bridge in it, and the address behind each
//! wire. What is attached at the other end of a wire does not matter. Cut and loss are rules of a
//! bridge table. The kernel may lack netem, so frames to delay are passed through a TAP to a small
//! program, the [`line`](self::line), which returns them to the bridge. A file lists the active
//! faults; each change renders all of them again.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use nix::fcntl::{Flock, FlockArg};

use self::line::Pair;
use crate::command::run_with_input;
use crate::topology::{Fault, Point};

pub mod line;
pub mod link;
#[allow(unsafe_code, reason = "opening a TAP takes an ioctl that nix does not have")]
pub mod tap;

/// The file that holds the faults.
const FAULTS_FILE: &str = "faults.json";
/// The nft tables, of the families bridge and netdev; everything in them is ours.
const TABLE: &str = "skein-lab";
/// The longest delay of one frame, its spread included.
pub const DELAY_MS_MAX: u32 = 60_000;
/// Limit for one call of nft.
const NFT_SECONDS: u32 = 20;

/// One end of an underlay.
#[derive(Debug, Clone)]
pub struct End {
    /// Which one.
    pub point: Point,
    /// Its port of the bridge.
    pub wire: String,
    pub address: Ipv4Addr,
}

/// Faults by (from, to), one way each.
type Faults = BTreeMap<(Point, Point), Fault>;

/// An underlay that can be disturbed.
#[derive(Debug)]
pub struct Underlay {
    namespace: String,
    folder: PathBuf,
    ends: Vec<End>,
}

impl Underlay {
    /// The underlay in a namespace with these ends on its bridge; `folder` keeps what is known of
    /// its faults.
    #[must_use]
    pub fn new(namespace: &str, folder: &Path, ends: Vec<End>) -> Self {
        Self { namespace: namespace.to_owned(), folder: folder.to_owned(), ends }
    }

    /// Puts a fault on the way from one point to another, in place of any that was there.
    ///
    /// # Errors
    /// When it makes no sense, or the kernel refuses.
    pub fn disturb(&mut self, from: Point, to: Point, fault: Fault) -> Result<()> {
        check(fault)?;
        let put = |faults: &mut Faults| {
            faults.insert((from, to), fault);
        };
        self.change(put).with_context(|| format!("{fault} from {from} to {to}"))
    }

    /// Takes away the faults between two points, both ways.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn heal(&mut self, one: Point, other: Point) -> Result<()> {
        let pairs = [(one, other), (other, one)];
        self.change(|faults| faults.retain(|pair, _| !pairs.contains(pair)))
            .with_context(|| format!("healing {one} and {other}"))
    }

    /// The faults that are there: (from, to, fault).
    ///
    /// # Errors
    /// When the file of them cannot be read.
    pub fn faults(&self) -> Result<Vec<(Point, Point, Fault)>> {
        let file = self.lock()?;
        let faults = read(&file)?;
        Ok(faults.into_iter().map(|((from, to), fault)| (from, to, fault)).collect())
    }

    /// Changes the faults in the kernel and then in the file, while no other process does.
    fn change(&self, edit: impl FnOnce(&mut Faults)) -> Result<()> {
        let mut file = self.lock()?;
        let mut faults = read(&file)?;
        edit(&mut faults);
        self.apply(&faults)?;
        let listed: Vec<_> = faults.iter().collect();
        let text = serde_json::to_string(&listed).context("writing faults as JSON")?;
        file.set_len(0).context("clearing the file of faults")?;
        file.rewind().context("clearing the file of faults")?;
        file.write_all(text.as_bytes()).context("writing the file of faults")
    }

    fn lock(&self) -> Result<Flock<File>> {
        let path = self.folder.join(FAULTS_FILE);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.with_context(|| format!("opening {}", path.display()))?;
        let locked = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error);
        locked.with_context(|| format!("locking {}", path.display()))
    }

    /// Frames are handed to the link only while it runs, and cut before it gives back what it
    /// holds: it is told first where it goes on, last where it ends.
    fn apply(&self, faults: &Faults) -> Result<()> {
        let (script, pairs) = (render(faults, &self.ends)?, pairs(faults, &self.ends)?);
        if !pairs.is_empty() {
            link::set(&self.namespace, &self.folder, &pairs)?;
        }
        let nft = ["ip", "netns", "exec", &self.namespace, "nft", "-f", "-"];
        run_with_input(NFT_SECONDS, &nft, &script)?.ok().context("changing the underlay")?;
        if pairs.is_empty() {
            link::end(&self.folder)?;
        }
        Ok(())
    }
}

fn check(fault: Fault) -> Result<()> {
    match fault {
        Fault::Cut => {}
        Fault::Loss { percent } => {
            ensure!((1..=100).contains(&percent), "a loss of {percent} %: say 1 to 100");
        }
        Fault::Delay { ms, spread_ms } => {
            let whole = u64::from(ms) + u64::from(spread_ms);
            ensure!(
                (1..=u64::from(DELAY_MS_MAX)).contains(&whole),
                "a delay of {whole} ms: say 1 to {DELAY_MS_MAX}, spread included"
            );
        }
    }
    Ok(())
}

fn read(mut file: &File) -> Result<Faults> {
    let mut text = String::new();
    file.read_to_string(&mut text).context("reading the file of faults")?;
    if text.is_empty() {
        return Ok(Faults::new());
    }
    let listed: Vec<((Point, Point), Fault)> =
        serde_json::from_str(&text).context("reading the file of faults")?;
    Ok(listed.into_iter().collect())
}

fn end(ends: &[End], point: Point) -> Result<&End> {
    let found = ends.iter().find(|end| end.point == point);
    found.with_context(|| format!("{point} is no end of this underlay"))
}

/// What the link is told.
fn pairs(faults: &Faults, ends: &[End]) -> Result<Vec<Pair>> {
    let mut pairs = Vec::new();
    for ((from, to), fault) in faults {
        if let Fault::Delay { ms, spread_ms } = *fault {
            let (from, to) = (end(ends, *from)?.address, end(ends, *to)?.address);
            pairs.push(Pair { from, to, ms, spread_ms });
        }
    }
    Ok(pairs)
}

/// The nft script that puts exactly these faults in the place of whatever was there.
fn render(faults: &Faults, ends: &[End]) -> Result<String> {
    let (mut dropped, mut slowed) = (String::new(), BTreeMap::<&str, String>::new());
    for ((from, to), fault) in faults {
        let (from, to) = (end(ends, *from)?, end(ends, *to)?);
        let ways = format!("iifname \"{}\" oifname \"{}\"", from.wire, to.wire);
        match fault {
            Fault::Cut => {
                writeln!(dropped, "    {ways} drop")?;
                // What the link still held when the way was cut.
                let (slow, address) = (link::TAP, from.address);
                let held = format!("iifname \"{slow}\" oifname \"{}\"", to.wire);
                writeln!(dropped, "    {held} ip saddr {address} drop")?;
            }
            // nft refuses to compare a number below 100 with 100.
            Fault::Loss { percent: 100 } => writeln!(dropped, "    {ways} drop")?,
            Fault::Loss { percent } => {
                writeln!(dropped, "    {ways} numgen random mod 100 < {percent} drop")?;
            }
            Fault::Delay { .. } => {
                let rules = slowed.entry(&from.wire).or_default();
                writeln!(rules, "    ip daddr {} fwd to \"{}\"", to.address, link::TAP)?;
            }
        }
    }
    let mut script = String::new();
    for family in ["bridge", "netdev"] {
        // Made if it is not there, so that it can be removed, in one transaction.
        writeln!(script, "table {family} {TABLE}\ndelete table {family} {TABLE}")?;
    }
    if !dropped.is_empty() {
        let hook = "    type filter hook forward priority 0; policy accept;";
        writeln!(script, "table bridge {TABLE} {{\n  chain forward {{\n{hook}\n{dropped}  }}\n}}")?;
    }
    for (wire, rules) in &slowed {
        let hook =
            format!("    type filter hook ingress device \"{wire}\" priority 0; policy accept;");
        writeln!(script, "table netdev {TABLE} {{\n  chain {wire} {{\n{hook}\n{rules}  }}\n}}")?;
    }
    Ok(script)
}

#[cfg(test)]
fn three_ends() -> Vec<End> {
    let end = |point, last: u8| End {
        point,
        wire: format!("p{last}"),
        address: Ipv4Addr::new(192, 168, 50, last),
    };
    vec![end(Point::Node(0), 11), end(Point::Node(1), 12), end(Point::Client, 100)]
}

#[test]
fn faults_are_rendered_as_one_transaction() {
    let faults = Faults::from([
        ((Point::Node(0), Point::Node(1)), Fault::Cut),
        ((Point::Node(1), Point::Node(0)), Fault::Loss { percent: 30 }),
        ((Point::Node(0), Point::Client), Fault::Delay { ms: 20, spread_ms: 5 }),
    ]);
    let expected = "\
table bridge skein-lab
delete table bridge skein-lab
table netdev skein-lab
delete table netdev skein-lab
table bridge skein-lab {
  chain forward {
    type filter hook forward priority 0; policy accept;
    iifname \"p11\" oifname \"p12\" drop
    iifname \"slow0\" oifname \"p12\" ip saddr 192.168.50.11 drop
    iifname \"p12\" oifname \"p11\" numgen random mod 100 < 30 drop
  }
}
table netdev skein-lab {
  chain p11 {
    type filter hook ingress device \"p11\" priority 0; policy accept;
    ip daddr 192.168.50.100 fwd to \"slow0\"
  }
}
";
    assert_eq!(render(&faults, &three_ends()).expect("all ends are known"), expected);
    let none = render(&Faults::new(), &three_ends()).expect("no fault");
    assert_eq!(none.lines().count(), 4, "{none}");
    let told = pairs(&faults, &three_ends()).expect("all ends are known");
    let (from, to) = (Ipv4Addr::new(192, 168, 50, 11), Ipv4Addr::new(192, 168, 50, 100));
    assert_eq!(told, [Pair { from, to, ms: 20, spread_ms: 5 }]);
}

#[test]
fn faults_without_sense_and_strangers_are_refused_by_name() {
    for (fault, named) in [
        (Fault::Loss { percent: 0 }, "0 %"),
        (Fault::Loss { percent: 101 }, "101 %"),
        (Fault::Delay { ms: 0, spread_ms: 0 }, "0 ms"),
        (Fault::Delay { ms: DELAY_MS_MAX, spread_ms: 1 }, "60001 ms"),
        (Fault::Delay { ms: u32::MAX, spread_ms: u32::MAX }, "8589934590 ms"),
    ] {
        let error = check(fault).expect_err("no sense").to_string();
        assert!(error.contains(named), "{error}");
    }
    let faults = Faults::from([((Point::Node(0), Point::Node(7)), Fault::Cut)]);
    let error = render(&faults, &three_ends()).expect_err("no such end").to_string();
    assert!(error.contains("node8"), "{error}");
}
