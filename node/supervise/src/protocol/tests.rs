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
        values.iter().map(|value| serde_json::to_string_pretty(value).unwrap() + "\n").collect();
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
            Request::Launch,
        ],
        &expect![[r#"
            "Subscribe"
            "Report"
            {
              "Start": {
                "addresses": [
                  "10.0.0.3"
                ]
              }
            }
            {
              "Stop": {
                "signal": 15,
                "grace": {
                  "secs": 1,
                  "nanos": 500000000
                }
              }
            }
            {
              "Stop": {
                "signal": null,
                "grace": null
              }
            }
            "Kill"
            "Descriptors"
            "Release"
            "Launch"
        "#]],
    );
}

fn at(second: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(second)
}

fn report(phase: Phase) -> Message {
    Message::Report(TaskReport { phase, health: None, dns_port: 40_000 })
}

#[test]
fn reports_of_a_living_task_keep_their_encoding() {
    let health =
        HealthReport { state: HealthState::Healthy, failing_streak: 2, output: "out\n".to_owned() };
    let running = Message::Report(TaskReport {
        phase: Phase::Running { pid: 77, started_at: at(5) },
        health: Some(health),
        dns_port: 40_000,
    });
    check(
        &[report(Phase::Prepared), report(Phase::Starting), running],
        &expect![[r#"
        {
          "Report": {
            "phase": "Prepared",
            "health": null,
            "dns_port": 40000
          }
        }
        {
          "Report": {
            "phase": "Starting",
            "health": null,
            "dns_port": 40000
          }
        }
        {
          "Report": {
            "phase": {
              "Running": {
                "pid": 77,
                "started_at": {
                  "secs_since_epoch": 5,
                  "nanos_since_epoch": 0
                }
              }
            },
            "health": {
              "state": "Healthy",
              "failing_streak": 2,
              "output": "out\n"
            },
            "dns_port": 40000
          }
        }
    "#]],
    );
}

#[test]
fn the_report_of_an_ended_task_keeps_its_encoding() {
    let exit = Exit {
        code: 127,
        signal: None,
        error: Some("exec \"x\": no such file or directory".to_owned()),
        out_of_memory: false,
        started_at: None,
        finished_at: at(9),
    };
    check(
        &[report(Phase::Exited(exit))],
        &expect![[r#"
        {
          "Report": {
            "phase": {
              "Exited": {
                "code": 127,
                "signal": null,
                "error": "exec \"x\": no such file or directory",
                "out_of_memory": false,
                "started_at": null,
                "finished_at": {
                  "secs_since_epoch": 9,
                  "nanos_since_epoch": 0
                }
              }
            },
            "health": null,
            "dns_port": 40000
          }
        }
    "#]],
    );
}

#[test]
fn answers_keep_their_encoding() {
    let refused = Message::Refused { reason: "no".to_owned() };
    check(
        &[Message::Done, refused, Message::Descriptors],
        &expect![[r#"
        "Done"
        {
          "Refused": {
            "reason": "no"
          }
        }
        "Descriptors"
    "#]],
    );
}
