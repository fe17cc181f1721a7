use clap::Parser;

use super::*;

#[derive(Parser)]
struct Create {
    #[command(flatten)]
    args: CreateArgs,
}

#[derive(Parser)]
struct Update {
    #[command(flatten)]
    args: UpdateArgs,
}

fn created(line: &str) -> Value {
    Create::try_parse_from(forms::words(line).unwrap()).unwrap().args.to_spec().unwrap()
}

fn updated(spec: &Value, line: &str) -> anyhow::Result<Value> {
    let ids = BTreeMap::from([("web".to_owned(), "id1".to_owned())]);
    let args = Update::try_parse_from(forms::words(line)?)?.args;
    args.apply(spec.clone(), &ids)
}

/// A word that each form takes.
fn example(flag: &Flag) -> &'static str {
    match (flag.form, flag.name) {
        (Form::Text | Form::Words | Form::Check | Form::Capabilities(_), _) => "word",
        (Form::Integer, _) => "3",
        (Form::Ratio | Form::Cpus, _) => "0.5",
        (Form::Duration, _) => "5s",
        (Form::Bytes, _) => "64m",
        (Form::Switch, _) => "true",
        (Form::Map, _) => "a=b",
        (Form::List(_), "env" | "ulimit" | "generic-resource") => "a=1",
        (Form::List(_), "platform") => "linux/arm64",
        (Form::List(_), "publish") => "3000:80",
        (Form::List(_), "mount") => "type=volume,src=v,dst=/v",
        (Form::List(_), "host") => "db:10.0.0.5",
        (Form::List(_), "placement-pref") => "spread=node.labels.rack",
        (Form::List(_), _) => "word",
    }
}

/// Goal: every flag reaches its field, by both commands, and an update can take it back.
#[test]
fn every_flag_reaches_its_field() {
    for (field, flag) in flags() {
        let pointer = format!("/{}", field.replace('.', "/"));
        let spec = created(&format!("x --{}={} host", on_create(flag).0, example(flag)));
        let value = spec.pointer(&pointer).unwrap_or_else(|| panic!("--{}: {spec}", flag.name));
        assert!(!value.is_null(), "--{}", flag.name);
        let (set, removed) = on_update(flag);
        let line = format!("x --{set}={} s", example(flag));
        assert_eq!(updated(&json!({}), &line).unwrap().pointer(&pointer), Some(value), "{line}");
        if let Some(removed) = removed {
            let name = match flag.name {
                "publish" => "80",
                "mount" => "/v",
                "host" | "placement-pref" | "platform" => example(flag),
                _ => example(flag).split('=').next().unwrap(),
            };
            let line = format!("x --{removed}={name} s");
            let left = updated(&spec, &line).unwrap();
            let left = left.pointer(&pointer).unwrap();
            assert!(left == &json!([]) || left == &json!({}), "{line}: {left}");
        }
    }
}

/// Goal: no field that the API honours is out of the client's reach. The table is that of
/// docs/api.md, which a test of the crate `cluster` holds equal to what is decided.
#[test]
fn every_honoured_field_has_a_flag() {
    const ELSEWHERE: [&str; 9] = [
        "Name",
        "Mode.Replicated.Replicas",
        "Mode.Global",
        "TaskTemplate.ContainerSpec.Image",
        "TaskTemplate.ContainerSpec.Args",
        // `--force`.
        "TaskTemplate.ForceUpdate",
        // One value is all there is.
        "TaskTemplate.Runtime",
        // Of clients before API 1.25.
        "Networks[].Target",
        "Networks[].Aliases",
    ];
    let page = include_str!("../../../../../docs/api.md");
    let rows =
        page.lines().filter_map(|line| line.strip_prefix("| `")?.strip_suffix("` | honoured |"));
    let rows: Vec<&str> = rows.collect();
    assert!(rows.len() > 60, "the table is not where it was");
    for row in rows.iter().filter(|row| !ELSEWHERE.contains(row)) {
        let field = row.split("[]").next().unwrap_or(row);
        assert!(flags().any(|(path, _)| path == field), "{row} has no flag");
    }
}

#[test]
fn an_update_keeps_what_it_does_not_name() {
    let spec = json!({
        "Mode": {"Replicated": {"Replicas": 1}}, "Other": 7,
        "TaskTemplate": {
            "ContainerSpec": {"Env": ["A=1", "B=1", "C=1"]},
            "Networks": [{"Target": "id1"}],
        },
        "EndpointSpec": {"Ports": [{"TargetPort": 80}, {"TargetPort": 81}]},
    });
    let line =
        "x --force --replicas 3 --env-add A=2 --env-rm B --publish-rm 80/tcp --network-rm web s";
    let changed = updated(&spec, line).unwrap();
    assert_eq!(changed["Other"], 7);
    assert_eq!(changed["TaskTemplate"]["ContainerSpec"]["Env"], json!(["C=1", "A=2"]));
    assert_eq!(changed["EndpointSpec"]["Ports"], json!([{"TargetPort": 81}]));
    assert_eq!(changed["TaskTemplate"]["ForceUpdate"], 1);
    assert_eq!(changed["TaskTemplate"]["Networks"], json!([]));
    let again = updated(&spec, "x --network-add name=web,alias=db s").unwrap();
    let networks = &again["TaskTemplate"]["Networks"];
    assert_eq!(networks.as_array().map(Vec::len), Some(1), "the same network: {networks}");
}

#[test]
fn a_capability_is_added_or_dropped() {
    let spec = created("x --cap-drop ALL --cap-drop NET_RAW --cap-add NET_ADMIN host");
    let changed = updated(&spec, "x --cap-add CAP_NET_RAW s").unwrap();
    let container = &changed["TaskTemplate"]["ContainerSpec"];
    assert_eq!(container["CapabilityDrop"], json!(["ALL"]));
    assert_eq!(container["CapabilityAdd"], json!(["NET_ADMIN", "CAP_NET_RAW"]));
    let both = created("x --cap-add ALL --cap-drop ALL host");
    assert_eq!(both["TaskTemplate"]["ContainerSpec"]["CapabilityAdd"], json!(["ALL"]));
    assert_eq!(both["TaskTemplate"]["ContainerSpec"]["CapabilityDrop"], json!([]));
}

#[test]
fn a_wrong_word_is_named_with_its_flag() {
    for (line, named) in [
        ("x --limit-memory lots s", "--limit-memory"),
        ("x --mount-add type=bind,src=/a s", "--mount"),
        ("x --update-max-failure-ratio 2 s", "--update-max-failure-ratio"),
    ] {
        let error = format!("{:#}", updated(&json!({}), line).unwrap_err());
        assert!(error.contains(named), "{line}: {error}");
    }
}
