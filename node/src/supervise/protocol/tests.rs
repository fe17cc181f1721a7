use std::net::IpAddr;

use expect_test::{Expect, expect};
use serde::de::DeserializeOwned;

use super::*;

/// Supervisors of an older program must understand these, so the text may only grow.
fn check<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(
    values: &[T],
    expected: &Expect,
) {
    let lines: Vec<String> =
        values.iter().map(|value| serde_json::to_string(value).unwrap() + "\n").collect();
    expected.assert_eq(&lines.concat());
    for (line, value) in lines.iter().zip(values) {
        assert_eq!(&serde_json::from_str::<T>(line).unwrap(), value);
    }
}

#[test]
fn requests_keep_their_encoding() {
    let addresses = vec![IpAddr::from([10, 0, 0, 3])];
    check(
        &[
            Request::Subscribe,
            Request::Report,
            Request::Start(StartSpec { addresses }),
            Request::Stop { signal: Some(15), grace: Some(Duration::from_millis(1500)) },
            Request::Stop { signal: None, grace: None },
            Request::Kill,
            Request::Descriptors,
            Request::Release,
        ],
        &expect![[r#"
            "Subscribe"
            "Report"
            {"Start":{"addresses":["10.0.0.3"]}}
            {"Stop":{"signal":15,"grace":{"secs":1,"nanos":500000000}}}
            {"Stop":{"signal":null,"grace":null}}
            "Kill"
            "Descriptors"
            "Release"
        "#]],
    );
}

#[test]
fn messages_keep_their_encoding() {
    let at = |second| SystemTime::UNIX_EPOCH + Duration::from_secs(second);
    let report = |phase| TaskReport { phase, health: None, dns_port: 40_000 };
    let exit = Exit {
        code: 127,
        signal: None,
        error: Some("exec \"x\": no such file or directory".to_owned()),
        out_of_memory: false,
        started_at: None,
        finished_at: at(9),
    };
    let health =
        |state| Some(HealthReport { state, failing_streak: 2, output: "out\n".to_owned() });
    let running = Phase::Running { pid: 77, started_at: at(5) };
    let mut healthy = report(running);
    healthy.health = health(HealthState::Healthy);
    check(
        &[
            Message::Report(report(Phase::Prepared)),
            Message::Report(report(Phase::Starting)),
            Message::Report(healthy),
            Message::Report(report(Phase::Exited(exit))),
            Message::Done,
            Message::Refused { reason: "no".to_owned() },
            Message::Descriptors,
        ],
        &expect![[r#"
            {"Report":{"phase":"Prepared","health":null,"dns_port":40000}}
            {"Report":{"phase":"Starting","health":null,"dns_port":40000}}
            {"Report":{"phase":{"Running":{"pid":77,"started_at":{"secs_since_epoch":5,"nanos_since_epoch":0}}},"health":{"state":"Healthy","failing_streak":2,"output":"out\n"},"dns_port":40000}}
            {"Report":{"phase":{"Exited":{"code":127,"signal":null,"error":"exec \"x\": no such file or directory","out_of_memory":false,"started_at":null,"finished_at":{"secs_since_epoch":9,"nanos_since_epoch":0}}},"health":null,"dns_port":40000}}
            "Done"
            {"Refused":{"reason":"no"}}
            "Descriptors"
        "#]],
    );
}
