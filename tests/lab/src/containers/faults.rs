//! Faults of a container network: one nftables table of the bridge family, in the namespace that
//! holds the engine's bridge, replaced as a whole at each change.
//!
//! Frames are matched by the containers' MAC addresses, which the compose file fixes: a fault
//! holds across a restart of a container, while its port of the bridge changes its name. Queries of
//! ARP go to everyone; they are matched by the requested address.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, bail, ensure};

use crate::topology::{Fault, Point};

/// An end of the network as frames show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Station {
    /// Its address; the last byte is that of its MAC address, too.
    pub(super) address: Ipv4Addr,
}

impl Station {
    /// As the compose file gives it to the container.
    fn mac(self) -> String {
        let last = self.address.octets()[3];
        format!("02:5e:00:00:00:{last:02x}")
    }
}

/// Faults by direction.
pub(super) type Faults = BTreeMap<(Point, Point), Fault>;

/// The name of a project's table.
pub(super) fn table(project: &str) -> String {
    format!("skein-faults-{project}")
}

/// The program for `nft -f` that puts the table in the place of any that was there, at once.
pub(super) fn render(
    project: &str,
    faults: &Faults,
    station: impl Fn(Point) -> Result<Station>,
) -> Result<String> {
    let table = table(project);
    let mut text = remove(project);
    if faults.is_empty() {
        return Ok(text);
    }
    text += &format!("table bridge {table} {{\n  chain forward {{\n");
    text += "    type filter hook forward priority 0; policy accept;\n";
    for (&(from, to), &fault) in faults {
        let (from, to) = (station(from)?, station(to)?);
        let verdict = verdict(fault)?;
        let frames = format!("ether saddr {}", from.mac());
        text += &format!("    {frames} ether daddr {} {verdict}\n", to.mac());
        text += &format!("    {frames} arp operation request arp daddr ip {} ", to.address);
        text += &format!("{verdict}\n");
    }
    text += "  }\n}\n";
    Ok(text)
}

/// The program that removes the table, whether it is there or not.
pub(super) fn remove(project: &str) -> String {
    let table = table(project);
    format!("table bridge {table} {{}}\ndelete table bridge {table}\n")
}

/// One fault a line, for another process: `node0 client loss 7`.
pub(super) fn write(faults: &Faults) -> String {
    let point = |point| match point {
        Point::Node(index) => format!("node{index}"),
        Point::Client => "client".to_owned(),
    };
    let lines = faults.iter().map(|(&(from, to), &fault)| {
        let fault = match fault {
            Fault::Cut => "cut".to_owned(),
            Fault::Loss { percent } => format!("loss {percent}"),
            Fault::Delay { ms, spread_ms } => format!("delay {ms} {spread_ms}"),
        };
        format!("{} {} {fault}\n", point(from), point(to))
    });
    lines.collect()
}

/// Reads what [`write`] wrote.
pub(super) fn read(text: &str) -> Result<Faults> {
    let point = |word: &str| match word.strip_prefix("node") {
        Some(index) => index.parse().ok().map(Point::Node),
        None => (word == "client").then_some(Point::Client),
    };
    let line = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let (from, to) = (point(words.first()?)?, point(words.get(1)?)?);
        let fault = match words.get(2..)? {
            ["cut"] => Fault::Cut,
            ["loss", percent] => Fault::Loss { percent: percent.parse().ok()? },
            _ => return None,
        };
        Some(((from, to), fault))
    };
    text.lines().map(|text| line(text).with_context(|| format!("reading fault {text:?}"))).collect()
}

fn verdict(fault: Fault) -> Result<String> {
    match fault {
        Fault::Cut => Ok("drop".to_owned()),
        Fault::Loss { percent } => {
            ensure!((1..=100).contains(&percent), "a loss of {percent} %: give 1 to 100");
            Ok(format!("numgen random mod 100 < {percent} drop"))
        }
        Fault::Delay { .. } => bail!(
            "containers offer no delay: give a cut or a loss, or use another topology (nothing \
             that a stock Docker Engine sets up can hold frames back)"
        ),
    }
}

#[cfg(test)]
fn station_of(point: Point) -> Result<Station> {
    let last = match point {
        Point::Node(index) => 11 + u8::try_from(index)?,
        Point::Client => 100,
    };
    Ok(Station { address: Ipv4Addr::new(192, 168, 61, last) })
}

#[test]
fn a_cut_is_one_way_and_takes_the_questions_of_arp_with_it() {
    let faults = Faults::from([
        ((Point::Node(0), Point::Node(1)), Fault::Cut),
        ((Point::Client, Point::Node(0)), Fault::Loss { percent: 7 }),
    ]);
    let text = render("lab", &faults, station_of).expect("it is offered");
    for line in [
        "ether saddr 02:5e:00:00:00:0b ether daddr 02:5e:00:00:00:0c drop",
        "ether saddr 02:5e:00:00:00:0b arp operation request arp daddr ip 192.168.61.12 drop",
        "saddr 02:5e:00:00:00:64 ether daddr 02:5e:00:00:00:0b numgen random mod 100 < 7 drop",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(!text.contains("saddr 02:5e:00:00:00:0c"), "{text}");
    assert_eq!(read(&write(&faults)).expect("it was written"), faults);
    let none = render("lab", &Faults::new(), station_of).expect("nothing to do");
    assert_eq!(none, "table bridge skein-faults-lab {}\ndelete table bridge skein-faults-lab\n");
}

#[test]
fn what_is_not_offered_is_refused_by_name() {
    let delay =
        Faults::from([((Point::Client, Point::Node(0)), Fault::Delay { ms: 1, spread_ms: 0 })]);
    let error = render("lab", &delay, station_of).expect_err("no delay");
    assert!(error.to_string().contains("containers offer no delay"), "{error}");
    let loss = Faults::from([((Point::Client, Point::Node(0)), Fault::Loss { percent: 0 })]);
    assert!(render("lab", &loss, station_of).is_err());
}
