//! Services, tasks, events and Skein's own resources: requests and answers, byte for byte where
//! clients depend on them.

use axum::body::Body;
use expect_test::{expect, expect_file};
use serde_json::{Value, json};

use crate::client::{call, check, check_file, encode, get, manager, message, send, with_web};

#[tokio::test]
async fn service_has_dockers_shape() {
    let router = with_web().await;
    check_file(&router, "/services/web", expect_file!["golden/service.json"]).await;
    let full = get(&router, "/services/web?insertDefaults=true").await;
    assert_eq!(full["Spec"]["UpdateConfig"]["Monitor"], json!(5_000_000_000_u64));
    assert_eq!(full["Spec"]["TaskTemplate"]["RestartPolicy"]["Condition"], "any");
    assert_eq!(full["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"], "host:latest");
    let list = get(&router, "/services?status=true").await;
    assert_eq!(
        list[0]["ServiceStatus"],
        json!({ "RunningTasks": 2, "DesiredTasks": 2, "CompletedTasks": 0 })
    );
}

#[tokio::test]
async fn services_are_filtered() {
    let router = with_web().await;
    for (filters, count) in [
        (r#"{"name":{"w":true}}"#, 1),
        (r#"{"name":["api"]}"#, 0),
        (r#"{"mode":["global"]}"#, 0),
        (r#"{"mode":["replicated"]}"#, 1),
        (r#"{"label":{"tier=front":true}}"#, 1),
        (r#"{"label":{"tier=back":true}}"#, 0),
        (r#"{"runtime":["container"]}"#, 1),
    ] {
        let list = get(&router, &format!("/services?filters={}", encode(filters))).await;
        assert_eq!(list.as_array().unwrap().len(), count, "{filters}");
    }
}

#[tokio::test]
async fn service_updates_need_the_version_that_was_read() {
    let router = with_web().await;
    let web = get(&router, "/services/web").await;
    let version = web["Version"]["Index"].as_u64().unwrap();
    let uri = |version: u64| format!("/services/web/update?version={version}");
    let mut spec = web["Spec"].clone();
    spec["Mode"] = json!({ "replicated": { "replicas": 3 } });
    check(
        &router,
        ("POST", &uri(version), spec.clone()),
        expect![[r#"
            200
            {
              "Warnings": null
            }
        "#]],
    )
    .await;
    let after = get(&router, "/services/web").await;
    assert_eq!(after["Spec"]["Mode"]["Replicated"]["Replicas"], 3);
    let (status, text) = message(&router, "POST", &uri(version), spec).await;
    assert_eq!(status, 409);
    assert!(text.ends_with("update out of sequence"), "{text}");
    let version = after["Version"]["Index"].as_u64().unwrap();
    let rollback = format!("/services/web/update?rollback=previous&version={version}");
    assert_eq!(call(&router, "POST", &rollback, Value::Null).await.0, 200);
    let back = get(&router, "/services/web").await;
    assert_eq!(back["Spec"]["Mode"]["Replicated"]["Replicas"], 2);
}

/// docker-py scales so: it reads with defaults and writes back what it read.
#[tokio::test]
async fn writing_back_what_was_shown_replaces_no_task() {
    let router = with_web().await;
    let ids = || async {
        let tasks = get(&router, "/tasks").await;
        let ids = tasks.as_array().unwrap().iter().map(|task| task["ID"].clone());
        ids.collect::<Vec<Value>>()
    };
    let before = ids().await;
    let shown = get(&router, "/services/web?insertDefaults=true").await;
    let uri = format!("/services/web/update?version={}", shown["Version"]["Index"]);
    let (status, text) = call(&router, "POST", &uri, shown["Spec"].clone()).await;
    assert_eq!(status, 200, "{text}");
    assert_eq!(ids().await, before);
    let stored = get(&router, "/services/web").await;
    assert_eq!(stored["Spec"].get("UpdateConfig"), None);
}

#[tokio::test]
async fn what_a_client_wrote_comes_back() {
    let (_fake, router) = manager().await;
    let template = json!({
        "ContainerSpec": {
            "Image": "host",
            "Labels": { "Image": "not a field" },
            "Privileges": { "NoNewPrivileges": true },
            "Ulimits": [{ "Name": "nofile", "Soft": 1024, "Hard": 4096 }],
            "Isolation": "default",
        },
        "Placement": { "Preferences": [{ "Spread": { "SpreadDescriptor": "node.labels.rack" } }] },
        "LogDriver": { "Name": "json-file", "Options": { "max-file": "3", "tag": "x" } },
        "ForceUpdate": 0,
    });
    let spec = json!({ "Name": "kept", "TaskTemplate": template });
    let (status, text) = call(&router, "POST", "/services/create", spec).await;
    assert_eq!(status, 201, "{text}");
    let warnings: Value = serde_json::from_str::<Value>(&text).unwrap()["Warnings"].clone();
    assert!(warnings.to_string().contains("log option tag=x"), "{warnings}");
    let back = get(&router, "/services/kept").await;
    for (path, expected) in [
        ("/ContainerSpec/Labels/Image", json!("not a field")),
        ("/ContainerSpec/Privileges", template["ContainerSpec"]["Privileges"].clone()),
        ("/ContainerSpec/Ulimits", template["ContainerSpec"]["Ulimits"].clone()),
        ("/Placement/Preferences", template["Placement"]["Preferences"].clone()),
        ("/LogDriver", template["LogDriver"].clone()),
    ] {
        assert_eq!(back["Spec"]["TaskTemplate"].pointer(path), Some(&expected), "{path}");
    }
}

#[tokio::test]
async fn task_has_dockers_shape() {
    let router = with_web().await;
    let list = get(&router, "/tasks?filters=%7B%22service%22:%5B%22web%22%5D%7D").await;
    let first = list
        .as_array()
        .unwrap()
        .iter()
        .find(|task| task["Slot"] == 1)
        .map(|task| task["ID"].as_str().unwrap().to_owned())
        .unwrap();
    check_file(&router, &format!("/tasks/{first}"), expect_file!["golden/task.json"]).await;
}

#[tokio::test]
async fn tasks_are_filtered() {
    let router = with_web().await;
    for (filters, count) in [
        (r#"{"service":{"web":true}}"#, 2),
        (r#"{"service":{"web":true},"_up-to-date":{"true":true}}"#, 2),
        (r#"{"_up-to-date":{"false":true}}"#, 0),
        (r#"{"desired-state":["running"]}"#, 2),
        (r#"{"desired-state":["shutdown"]}"#, 0),
        (r#"{"node":["alpha"]}"#, 2),
        (r#"{"name":["web.1."]}"#, 1),
        (r#"{"label":["tier=front"]}"#, 2),
        (r#"{"label":["tier=back"]}"#, 0),
    ] {
        let list = get(&router, &format!("/tasks?filters={}", encode(filters))).await;
        assert_eq!(list.as_array().unwrap().len(), count, "{filters}");
    }
    for (filters, status, text) in [
        (r#"{"node":["self"]}"#, 404, "node self not found"),
        (r#"{"service":["x"]}"#, 404, "service x not found"),
        (r#"{"desired-state":["up"]}"#, 400, "Invalid desired-state filter: 'up'"),
        (r#"{"colour":["red"]}"#, 400, "Invalid filter 'colour'"),
    ] {
        let uri = format!("/tasks?filters={}", encode(filters));
        assert_eq!(message(&router, "GET", &uri, Value::Null).await, (status, text.to_owned()));
    }
}

#[tokio::test]
async fn bad_bodies_are_refused() {
    let (_fake, router) = manager().await;
    let response = send(&router, "POST", "/services/create", Body::from("{\"Name\":")).await;
    assert_eq!(response.status(), 400);
    let large = Body::from(vec![b' '; api::BODY_BYTES_MAX + 1]);
    let response = send(&router, "POST", "/services/create", large).await;
    assert_eq!(response.status(), 413);
    let wrong = json!({ "Name": 7 });
    let expected = "invalid JSON: invalid type: integer `7`, expected a string".to_owned();
    assert_eq!(message(&router, "POST", "/services/create", wrong).await, (400, expected));
}

/// Goal: a client that still writes its body gets the answer and not a broken pipe. Method: routes
/// that need no body, or refuse the request before it, given one that tells when it was read.
#[tokio::test]
async fn the_body_is_read_whatever_becomes_of_the_request() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let router = with_web().await;
    for (uri, status) in [
        ("/services/web/update?rollback=previous&version=0", 409),
        ("/services/web/update", 400),
        ("/containers/create", 501),
        ("/nothing", 404),
        ("/v1.99/services/create", 400),
    ] {
        let read = std::sync::Arc::new(AtomicBool::new(false));
        let told = std::sync::Arc::clone(&read);
        let body = futures_util::stream::once(async move {
            told.store(true, Ordering::SeqCst);
            Ok::<_, std::convert::Infallible>("{}")
        });
        let response = send(&router, "POST", uri, Body::from_stream(body)).await;
        assert_eq!(response.status(), status, "{uri}");
        assert!(read.load(Ordering::SeqCst), "{uri}");
    }
}

#[tokio::test]
async fn events_tell_what_the_objects_tell() {
    let router = with_web().await;
    check(
        &router,
        ("GET", "/events?since=0&until=1", Value::Null),
        expect![[r#"
        200

    "#]],
    )
    .await;
    let filters = encode(r#"{"type":["service","network"],"event":["create"]}"#);
    let uri = format!("/events?since=0&until=1763929349&filters={filters}");
    check_file(&router, &uri, expect_file!["golden/events.txt"]).await;
}

#[tokio::test]
async fn events_follow_the_state() {
    use api::ControlPlane as _;
    use futures_util::StreamExt;
    let (fake, router) = manager().await;
    let response = send(&router, "GET", "/events", Body::empty()).await;
    let mut lines = response.into_body().into_data_stream();
    let history = lines.next().await.unwrap().unwrap();
    assert_eq!(history.len(), 0);
    let network = json!({ "Name": "front", "Driver": "overlay" });
    call(&router, "POST", "/networks/create", network).await;
    let created: Value = serde_json::from_slice(&lines.next().await.unwrap().unwrap()).unwrap();
    assert_eq!(
        (&created["Type"], &created["Action"], &created["Actor"]["Attributes"]["name"]),
        (&json!("network"), &json!("create"), &json!("front"))
    );
    call(&router, "DELETE", "/networks/front", Value::Null).await;
    let removed: Value = serde_json::from_slice(&lines.next().await.unwrap().unwrap()).unwrap();
    assert_eq!(removed["Action"], "remove");
    assert_eq!(removed["timeNano"], fake.local().now.0 * 1_000_000, "the time of the removal");
}

#[tokio::test]
async fn a_service_without_a_name_gets_one() {
    let (_fake, router) = manager().await;
    let spec = json!({ "TaskTemplate": { "ContainerSpec": { "Image": "host", "Command": ["a"],
        "Healthcheck": { "Test": ["CMD", "true"] } } } });
    let mut names = Vec::new();
    for _ in 0..2 {
        let (status, body) = call(&router, "POST", "/services/create", spec.clone()).await;
        assert_eq!(status, 201, "{body}");
        let id = serde_json::from_str::<Value>(&body).unwrap()["ID"].clone();
        let shown =
            get(&router, &format!("/services/{}", id.as_str().unwrap())).await["Spec"].clone();
        // What was not given is not shown: a client would take it for a change.
        let health = &shown["TaskTemplate"]["ContainerSpec"]["Healthcheck"];
        assert_eq!(*health, json!({ "Test": ["CMD", "true"] }));
        names.push(shown["Name"].as_str().unwrap().to_owned());
    }
    assert!(names[0] != names[1] && names.iter().all(|name| name.contains('_')), "{names:?}");
}

#[tokio::test]
async fn skeins_own_resources_are_passed_on() {
    let (_fake, router) = manager().await;
    assert_eq!(
        get(&router, "/skein/v1/explain?from=a&to=b").await,
        json!({ "topic": "Explain", "query": { "from": "a", "to": "b" } })
    );
    assert_eq!(
        get(&router, "/skein/v1/why?service=web").await,
        json!({ "topic": "Why", "query": { "service": "web" } })
    );
    for (uri, status, text) in [
        ("/skein/v1/debug/state", 200, "state\n"),
        ("/metrics", 200, "skein_revision 7\n"),
        ("/healthz", 200, "ok\n"),
        ("/readyz", 200, "ready\n"),
    ] {
        let expected = (status, text.to_owned());
        assert_eq!(call(&router, "GET", uri, Value::Null).await, expected, "{uri}");
    }
    assert_eq!(message(&router, "GET", "/skein/v1/nothing", Value::Null).await.0, 404);
    assert_eq!(message(&router, "POST", "/skein/v1/plan", Value::Null).await.0, 404);
    assert_eq!(get(&router, "/skein/v1/openapi.json").await["openapi"], "3.1.0");
}
