use expect_test::expect;

use super::*;

/// Goal: daemons and programs of two versions understand each other: these lines only grow.
#[test]
fn the_lines_have_their_golden_bytes() {
    let spec = ExecSpec {
        argv: vec!["sh".to_owned()],
        env: vec!["A=1".to_owned()],
        user: Some("1:2".to_owned()),
        dir: Some("/tmp".to_owned()),
        terminal: Some(WindowSize { rows: 24, columns: 80 }),
        stdin: true,
        stdout: true,
        stderr: false,
    };
    let end = ExecEnd { code: 137, signal: Some(9), error: None };
    let lines = [
        wire::encode(&spec).unwrap(),
        wire::encode(&Order::Signal(15)).unwrap(),
        wire::encode(&Said::Opened).unwrap(),
        wire::encode(&Said::Refused { reason: "it is not running".to_owned() }).unwrap(),
        wire::encode(&Said::Ended(end)).unwrap(),
    ];
    expect![[r#"
        {"argv":["sh"],"env":["A=1"],"user":"1:2","dir":"/tmp"
        ,"terminal":{"rows":24,"columns":80},"stdin":true,"stdout":true,"stderr":false}
        {"Signal":15}
        "Opened"
        {"Refused":{"reason":"it is not running"}}
        {"Ended":{"code":137,"signal":9,"error":null}}
    "#]]
    .assert_eq(&String::from_utf8(lines.concat()).unwrap().replace(",\"terminal", "\n,\"terminal"));
}
