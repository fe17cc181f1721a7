//! Demo: calls redis by its service name again and again and reports which replica answered.
//!
//! Usage: `skein-demo-worker [NAME:PORT]`. Every call is a new connection to the address of the
//! name, which is the VIP. A line on standard output every second tells, per replica
//! address, how many calls it answered; `?` counts calls whose replica is not known. After an error
//! it tells the last one, and which call that was.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::time::Duration;

use anyhow::{Context as _, Result};
use lab::demo::{Redis, end_on_sigterm};
use lab::wait::Pace;

const CALL_PERIOD: Duration = Duration::from_millis(50);
const CALLS_PER_REPORT: u64 = 20;

fn main() -> Result<()> {
    end_on_sigterm()?;
    let name = std::env::args().nth(1).unwrap_or_else(|| "redis:6379".to_owned());
    let mut counts = Counts::default();
    let mut pace = Pace::new(CALL_PERIOD);
    for call in 1_u64.. {
        counts.count(call, call_once(&name));
        if call % CALLS_PER_REPORT == 0 {
            // Replicas come and go: learn who is there before naming them.
            counts.learn(&name);
            writeln!(std::io::stdout(), "{}", counts.report(&name)).context("reporting")?;
        }
        pace.wait();
    }
    Ok(())
}

/// The run id of the replica that the VIP led to.
fn call_once(name: &str) -> Result<String> {
    Redis::connect(resolve(name)?)?.run_id()
}

fn resolve(name: &str) -> Result<SocketAddr> {
    let mut addresses = name.to_socket_addrs().with_context(|| format!("resolving {name}"))?;
    addresses.next().with_context(|| format!("{name} has no address"))
}

/// Calls by replica, and what is known of replicas.
#[derive(Default)]
struct Counts {
    calls: BTreeMap<String, u64>,
    addresses: BTreeMap<String, String>,
    errors: u64,
    last_error: String,
}

impl Counts {
    fn count(&mut self, call: u64, answered: Result<String>) {
        match answered {
            Ok(run_id) => *self.calls.entry(run_id).or_default() += 1,
            Err(error) => {
                self.errors += 1;
                self.last_error = format!("call {call}: {error:#}");
            }
        }
    }

    /// Asks every address behind `tasks.<name>` for its run id.
    fn learn(&mut self, name: &str) {
        let tasks = format!("tasks.{name}").to_socket_addrs().into_iter().flatten();
        for address in tasks {
            if let Ok(run_id) = Redis::connect(address).and_then(|mut redis| redis.run_id()) {
                self.addresses.insert(run_id, address.ip().to_string());
            }
        }
    }

    fn report(&self, name: &str) -> String {
        let mut by_address: BTreeMap<&str, u64> = BTreeMap::new();
        for (run_id, calls) in &self.calls {
            let address = self.addresses.get(run_id).map_or("?", String::as_str);
            *by_address.entry(address).or_default() += calls;
        }
        let vip = resolve(name).map_or("none".to_owned(), |address| address.ip().to_string());
        let mut line = format!("vip={vip}");
        for (address, calls) in by_address {
            line += &format!(" {address}={calls}");
        }
        line += &format!(" errors={}", self.errors);
        if self.errors > 0 {
            line += &format!(" last_error={:?}", self.last_error);
        }
        line
    }
}

#[test]
fn a_report_names_replicas_by_address() {
    let mut counts = Counts::default();
    counts.addresses.insert("a".to_owned(), "10.0.1.3".to_owned());
    for (call, run_id) in (1..).zip(["a", "a", "b"]) {
        counts.count(call, Ok(run_id.to_owned()));
    }
    counts.count(4, Err(anyhow::anyhow!("refused")));
    let report = counts.report("127.0.0.1:1");
    assert_eq!(report, "vip=127.0.0.1 10.0.1.3=2 ?=1 errors=1 last_error=\"call 4: refused\"");
}
