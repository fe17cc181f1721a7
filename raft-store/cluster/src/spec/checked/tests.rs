use serde_json::json;

use super::*;

fn service(spec: serde_json::Value) -> CheckedSpec {
    serde_json::from_value(spec).unwrap()
}

fn task(template: &serde_json::Value) -> CheckedTask {
    service(json!({ "TaskTemplate": template })).task()
}

#[test]
fn what_is_left_out_has_docker_s_meaning() {
    let terms = &service(json!({})).terms;
    let usual = UpdateTerms {
        parallelism: 1,
        delay: Duration::ZERO,
        monitor: Duration::from_secs(5),
        failure_action: Some(FailureAction::Pause),
        max_failure_ratio: 0.0,
        order: Some(UpdateOrder::StopFirst),
    };
    assert_eq!((terms.update, terms.rollback), (usual, usual));
    let (condition, delay) = (RestartCondition::Any, None);
    let usual = RestartTerms { condition, delay, attempts_max: None, window: None };
    assert_eq!(terms.task.restart, usual);
    assert_eq!(task(&json!({})).log_driver(), LogDriver::default());
}

#[test]
fn durations_are_whole_milliseconds() {
    let update = json!({ "Delay": 1_999_999, "Monitor": 2_000_000, "Parallelism": 0 });
    let terms = service(json!({ "UpdateConfig": update })).terms().update;
    assert_eq!((terms.delay, terms.monitor), (Duration::from_millis(1), Duration::from_millis(2)));
    assert_eq!(terms.parallelism, u64::MAX);
    let policy = json!({ "Delay": 999_999, "Window": 999_999, "MaxAttempts": 0 });
    let restart = task(&json!({ "RestartPolicy": policy })).terms().restart;
    assert_eq!((restart.delay, restart.window), (Some(Duration::ZERO), None));
    assert_eq!(restart.attempts_max, None);
}

#[test]
fn words_are_read_or_are_faults() {
    let read = |action: &str, order: &str| {
        let config = json!({ "FailureAction": action, "Order": order });
        let terms = service(json!({ "RollbackConfig": config })).terms().rollback;
        (terms.failure_action, terms.order)
    };
    assert_eq!(read("", ""), (Some(FailureAction::Pause), Some(UpdateOrder::StopFirst)));
    let both = (Some(FailureAction::Rollback), Some(UpdateOrder::StartFirst));
    assert_eq!(read("rollback", "start-first"), both);
    assert_eq!(read("continue", "x"), (Some(FailureAction::Continue), None));
    assert_eq!(read("Pause", "stop-first"), (None, Some(UpdateOrder::StopFirst)));
}

/// Goal: planners read a state with specs that `decide` refuses, and no task gets more than it was
/// meant to. Method: each kind of fault.
#[test]
fn faults_let_nothing_through() {
    let placement = json!({ "Constraints": ["node.role=worker"],
        "Preferences": [{ "Spread": { "SpreadDescriptor": "zone" } }] });
    let named = json!([{ "NamedResourceSpec": { "Kind": "gpu", "Value": "a" } }]);
    let reserved = json!({ "Reservations": { "GenericResources": named } });
    let networks = json!([{ "Target": "web" }, { "Target": NetworkId(7).to_string() }]);
    let spec = task(&json!({ "Placement": placement, "Resources": reserved,
        "Networks": networks, "LogDriver": { "Name": "gelf" } }));
    let node = crate::fixture::node(2, "a", None);
    assert!(crate::constraint::unmet(&spec.terms().constraints, &node).is_some());
    assert!(spec.terms().spread[0].is_err());
    let offered = crate::generic::parse(&["gpu=a".to_owned()]).unwrap();
    assert!(crate::generic::Held::default().claim(&spec.terms().generic, &offered).is_err());
    assert_eq!(spec.attached().map(|(id, _)| id).collect::<Vec<_>>(), [NetworkId(7)]);
    assert_eq!(spec.log_driver(), LogDriver::default());
    let ports = json!([{ "HostIP": "192.0.2.1" }, { "HostIP": "x" }, { "HostIP": "0.0.0.0" }]);
    let spec = service(json!({ "EndpointSpec": { "Ports": ports } }));
    let addresses: Vec<_> = spec.terms().addresses.iter().map(|read| read.as_ref().ok()).collect();
    assert_eq!(addresses, [Some(&Some([192, 0, 2, 1].into())), None, Some(&None)]);
}

/// Goal: the checked form is Docker's on the wire, and tasks of a service share one spec, also
/// those that were read from bytes.
#[test]
fn tasks_share_the_spec_of_their_service() {
    let template = json!({ "ContainerSpec": { "Image": "host" }, "ForceUpdate": 0 });
    let web = service(json!({ "Name": "web", "TaskTemplate": template }));
    let plain = serde_json::to_value(&*web.spec).unwrap();
    assert_eq!(serde_json::to_value(&web).unwrap(), plain);
    let (one, other) = (web.task(), web.clone().task());
    assert!(Arc::ptr_eq(&one.spec, &other.spec));
    assert!(web.shared(&one).is_none(), "it is shared already");
    let copy = CheckedTask::of(TaskSpec::clone(&one));
    assert!(Arc::ptr_eq(&web.shared(&copy).unwrap().spec, &one.spec));
    let another = CheckedTask::of(TaskSpec { force_update: 1, ..TaskSpec::clone(&one) });
    assert!(web.shared(&another).is_none());
}
