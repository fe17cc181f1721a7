//! Requests and answers, byte for byte where clients depend on them.

use std::sync::Arc;

use api::{ControlPlane, LocalNodeState};
use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, header};
use expect_test::{Expect, ExpectFile, expect, expect_file};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::fake::Fake;
use crate::without_ids;

async fn send(router: &Router, method: &str, uri: &str, body: Body) -> Response<Body> {
    let request = Request::builder().method(method).uri(uri).body(body).unwrap();
    router.clone().oneshot(request).await.unwrap()
}

/// Status and body, JSON made pretty.
async fn call(router: &Router, method: &str, uri: &str, body: Value) -> (u16, String) {
    let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
    let response = send(router, method, uri, body).await;
    let status = response.status().as_u16();
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    let text = match serde_json::from_slice::<Value>(&bytes) {
        Ok(value) => serde_json::to_string_pretty(&value).unwrap(),
        Err(_not_json) => String::from_utf8_lossy(&bytes).into_owned(),
    };
    (status, text)
}

async fn check(router: &Router, request: (&str, &str, Value), expected: Expect) {
    let (method, uri, body) = request;
    let (status, text) = call(router, method, uri, body).await;
    expected.assert_eq(&without_ids(&format!("{status}\n{text}\n")));
}

async fn check_file(router: &Router, uri: &str, expected: ExpectFile) {
    let (status, text) = call(router, "GET", uri, Value::Null).await;
    assert_eq!(status, 200, "{uri}: {text}");
    expected.assert_eq(&without_ids(&format!("{text}\n")));
}

async fn get(router: &Router, uri: &str) -> Value {
    let (status, text) = call(router, "GET", uri, Value::Null).await;
    assert_eq!(status, 200, "{uri}: {text}");
    serde_json::from_str(&text).unwrap()
}

async fn message(router: &Router, method: &str, uri: &str, body: Value) -> (u16, String) {
    let (status, text) = call(router, method, uri, body).await;
    let value: Value = serde_json::from_str(&text).unwrap();
    (status, value["message"].as_str().unwrap().to_owned())
}

fn router(fake: &Arc<Fake>) -> Router {
    api::router(Arc::clone(fake) as Arc<dyn ControlPlane>)
}

async fn manager() -> (Arc<Fake>, Router) {
    let fake = Fake::manager().await;
    let router = router(&fake);
    (fake, router)
}

/// A network `front` and a service `web` on it with two replicas and a published port.
async fn with_web() -> Router {
    let (_fake, router) = manager().await;
    let network = json!({ "Name": "front", "Driver": "overlay" });
    let (status, text) = call(&router, "POST", "/networks/create", network).await;
    assert_eq!(status, 201, "{text}");
    let service = json!({
        "Name": "web",
        "Labels": { "tier": "front" },
        "TaskTemplate": {
            "ContainerSpec": { "Image": "host:latest", "Command": ["/bin/server"] },
            "Networks": [{ "Target": "front", "Aliases": ["www"] }],
        },
        "Mode": { "Replicated": { "Replicas": 2 } },
        "EndpointSpec": { "Ports": [{ "TargetPort": 80, "PublishedPort": 3000 }] },
    });
    let (status, text) = call(&router, "POST", "/services/create", service).await;
    assert_eq!(status, 201, "{text}");
    router
}

#[tokio::test]
async fn ping_tells_version_and_membership() {
    let fake = Fake::outside();
    let router = router(&fake);
    for (state, control, expected) in [
        (LocalNodeState::Inactive, false, "inactive"),
        (LocalNodeState::Pending, false, "pending"),
        (LocalNodeState::Active, false, "active/worker"),
        (LocalNodeState::Active, true, "active/manager"),
        (LocalNodeState::Error, true, "error"),
        (LocalNodeState::Locked, true, "locked"),
    ] {
        fake.with_local(|local| (local.state, local.control_available) = (state, control));
        for (method, uri) in [("HEAD", "/_ping"), ("GET", "/_ping"), ("GET", "/v1.44/_ping")] {
            let response = send(&router, method, uri, Body::empty()).await;
            assert_eq!(response.status(), 200);
            let headers = response.headers();
            assert_eq!(headers["swarm"], expected);
            assert_eq!(headers["api-version"], "1.44");
            assert_eq!(headers["ostype"], "linux");
            assert_eq!(headers["server"], "Skein/0.1.0 (linux)");
        }
    }
}

#[tokio::test]
async fn errors_carry_the_headers_and_dockers_words() {
    let router = router(&Fake::outside());
    let response = send(&router, "GET", "/v1.45/info", Body::empty()).await;
    assert_eq!(response.status(), 400);
    assert_eq!(response.headers()["api-version"], "1.44");
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
    for (method, uri, status, text) in [
        ("GET", "/nothing", 404, "page not found"),
        ("PATCH", "/info", 404, "page not found"),
        (
            "GET",
            "/v1.44/containers/json",
            501,
            "GET /containers/json: Skein does not manage containers; it runs services, see \
             `docker service`",
        ),
        (
            "POST",
            "/networks/x/connect",
            501,
            "POST /networks/x/connect: Skein does not manage connecting containers to networks; \
             it runs services, see `docker service`",
        ),
    ] {
        let expected = (status, text.to_owned());
        assert_eq!(message(&router, method, uri, Value::Null).await, expected);
    }
}

#[tokio::test]
async fn outside_a_cluster_and_on_a_worker_cluster_routes_are_503() {
    let fake = Fake::outside();
    let router = router(&fake);
    let routes = [
        ("GET", "/swarm"),
        ("GET", "/nodes"),
        ("GET", "/services"),
        ("GET", "/tasks"),
        ("GET", "/secrets"),
        ("GET", "/configs"),
        ("DELETE", "/services/x"),
        ("GET", "/services/x/logs?stdout=1"),
    ];
    for (method, uri) in routes {
        let (status, text) = message(&router, method, uri, Value::Null).await;
        assert_eq!(status, 503, "{uri}");
        assert!(text.starts_with("This node is not a swarm manager. Use "), "{uri}: {text}");
    }
    fake.with_local(|local| local.state = LocalNodeState::Active);
    for (method, uri) in routes {
        let (status, text) = message(&router, method, uri, Value::Null).await;
        assert_eq!(status, 503, "{uri}");
        assert!(text.starts_with("This node is not a swarm manager. Worker nodes"), "{text}");
    }
    // What a worker has itself it shows.
    assert_eq!(get(&router, "/networks").await, json!([]));
    assert_eq!(get(&router, "/info").await["Swarm"]["LocalNodeState"], "active");
}

#[tokio::test]
async fn init_answers_a_bare_string_and_refuses_a_second_time() {
    let router = router(&Fake::outside());
    let body = json!({ "ListenAddr": "0.0.0.0:2377", "Spec": { "Orchestration": {} } });
    check(
        &router,
        ("POST", "/swarm/init", body.clone()),
        expect![[r#"
            200
            "<id 1>"
        "#]],
    )
    .await;
    let (status, text) = message(&router, "POST", "/swarm/init", body).await;
    assert_eq!(status, 503);
    assert!(text.starts_with("This node is already part of a swarm."), "{text}");
    let (status, text) = message(&router, "POST", "/swarm/leave", Value::Null).await;
    assert_eq!(status, 503);
    assert!(text.starts_with("You are attempting to leave the swarm"), "{text}");
    assert_eq!(call(&router, "POST", "/swarm/leave?force=1", Value::Null).await.0, 200);
    let (status, text) = message(&router, "POST", "/swarm/leave", Value::Null).await;
    assert_eq!((status, text.as_str()), (503, "This node is not part of a swarm"));
}

#[tokio::test]
async fn swarm_has_dockers_shape() {
    let (_fake, router) = manager().await;
    check_file(&router, "/swarm", expect_file!["golden/swarm.json"]).await;
}

#[tokio::test]
async fn tokens_rotate_at_the_version_that_was_read() {
    let (_fake, router) = manager().await;
    let swarm = get(&router, "/swarm").await;
    let version = swarm["Version"]["Index"].as_u64().unwrap();
    let uri = |version: u64| format!("/swarm/update?rotateWorkerToken=true&version={version}");
    let update = call(&router, "POST", &uri(version), swarm["Spec"].clone()).await;
    assert_eq!(update, (200, String::new()));
    let tokens = &get(&router, "/swarm").await["JoinTokens"];
    assert_eq!(tokens["Worker"], "SWMTKN-1-ca-worker2");
    assert_eq!(tokens["Manager"], "SWMTKN-1-ca-manager");
    let (status, text) = message(&router, "POST", &uri(version), swarm["Spec"].clone()).await;
    assert_eq!(status, 409);
    assert!(text.starts_with("update out of sequence"), "{text}");
    let mut spec = swarm["Spec"].clone();
    spec["CAConfig"]["ForceRotate"] = json!(1);
    assert_eq!(message(&router, "POST", &uri(version), spec).await.0, 501);
    let no_version = message(&router, "POST", "/swarm/update", swarm["Spec"].clone()).await;
    assert_eq!(
        no_version,
        (400, "invalid swarm version '': cannot parse integer from empty string".to_owned())
    );
}

#[tokio::test]
async fn node_has_dockers_shape() {
    let (_fake, router) = manager().await;
    check_file(&router, "/nodes/alpha", expect_file!["golden/node.json"]).await;
    check(
        &router,
        ("GET", "/nodes/self", Value::Null),
        expect![[r#"
            404
            {
              "message": "node self not found"
            }
        "#]],
    )
    .await;
}

#[tokio::test]
async fn nodes_are_filtered() {
    let (_fake, router) = manager().await;
    for (filters, count) in [
        (r#"{"name":{"alp":true}}"#, 1),
        (r#"{"name":["beta"]}"#, 0),
        (r#"{"role":["manager"]}"#, 1),
        (r#"{"role":["worker"]}"#, 0),
        (r#"{"membership":["pending"]}"#, 0),
        (r#"{"id":["0000"]}"#, 0),
        (r#"{"node.label":["rack"]}"#, 0),
        (r#"{"label":["rack"]}"#, 0),
    ] {
        let nodes = get(&router, &format!("/nodes?filters={}", encode(filters))).await;
        assert_eq!(nodes.as_array().unwrap().len(), count, "{filters}");
    }
    let bad = format!("/nodes?filters={}", encode(r#"{"role":["boss"]}"#));
    let expected = (400, "Invalid role filter: 'boss'".to_owned());
    assert_eq!(message(&router, "GET", &bad, Value::Null).await, expected);
}

#[tokio::test]
async fn network_has_dockers_shape() {
    let router = with_web().await;
    check_file(&router, "/networks/front?verbose=1", expect_file!["golden/network.json"]).await;
    let (status, _) = call(&router, "GET", "/networks/front?scope=swarm", Value::Null).await;
    assert_eq!(status, 200);
    let (status, text) = message(&router, "GET", "/networks/front?scope=local", Value::Null).await;
    assert_eq!((status, text.as_str()), (404, "network front not found"));
    let list = get(&router, "/networks").await;
    assert_eq!(list[0]["Containers"], Value::Null);
    assert_eq!(list.as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn networks_are_filtered() {
    let router = with_web().await;
    for (filters, names) in [
        (r#"{"name":{"fr":true}}"#, vec!["front"]),
        (r#"{"driver":{"overlay":true},"scope":["swarm"]}"#, vec!["front", "ingress"]),
        (r#"{"driver":["bridge"]}"#, vec![]),
        (r#"{"dangling":["true"]}"#, vec![]),
        (r#"{"dangling":["false"]}"#, vec!["front", "ingress"]),
        (r#"{"type":["builtin"]}"#, vec![]),
        (r#"{"label":["com.docker.stack.namespace=x"]}"#, vec![]),
    ] {
        let list = get(&router, &format!("/networks?filters={}", encode(filters))).await;
        let mut found: Vec<&str> =
            list.as_array().unwrap().iter().map(|n| n["Name"].as_str().unwrap()).collect();
        found.sort_unstable();
        assert_eq!(found, names, "{filters}");
    }
}

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
    assert!(text.starts_with("update out of sequence"), "{text}");
    let version = after["Version"]["Index"].as_u64().unwrap();
    let rollback = format!("/services/web/update?rollback=previous&version={version}");
    assert_eq!(call(&router, "POST", &rollback, Value::Null).await.0, 200);
    let back = get(&router, "/services/web").await;
    assert_eq!(back["Spec"]["Mode"]["Replicated"]["Replicas"], 2);
}

#[tokio::test]
async fn what_a_client_wrote_comes_back() {
    let (_fake, router) = manager().await;
    let template = json!({
        "ContainerSpec": {
            "Image": "host",
            "Labels": { "Image": "not a field" },
            "Privileges": { "NoNewPrivileges": true },
            "Sysctls": { "net.core.somaxconn": "1024" },
            "Isolation": "default",
        },
        "Placement": { "Preferences": [{ "Spread": { "SpreadDescriptor": "node.labels.rack" } }] },
        "LogDriver": { "Name": "json-file", "Options": { "max-file": "3" } },
        "ForceUpdate": 0,
    });
    let spec = json!({ "Name": "kept", "TaskTemplate": template });
    let (status, text) = call(&router, "POST", "/services/create", spec).await;
    assert_eq!(status, 201, "{text}");
    let back = get(&router, "/services/kept").await;
    for (path, expected) in [
        ("/ContainerSpec/Labels/Image", json!("not a field")),
        ("/ContainerSpec/Privileges", template["ContainerSpec"]["Privileges"].clone()),
        ("/ContainerSpec/Sysctls", template["ContainerSpec"]["Sysctls"].clone()),
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

#[tokio::test]
async fn distribution_keeps_images_as_they_are() {
    let router = router(&Fake::outside());
    for image in ["host:latest", "dir:/srv/x", "dir:%2Fsrv%2Fx"] {
        let answer = get(&router, &format!("/v1.44/distribution/{image}/json")).await;
        assert_eq!(answer["Descriptor"]["digest"], "");
        assert_eq!(answer["Platforms"], json!([]));
    }
    assert_eq!(message(&router, "GET", "/distribution/x", Value::Null).await.0, 404);
}

#[tokio::test]
async fn secrets_and_configs_do_not_exist() {
    let (_fake, router) = manager().await;
    assert_eq!(get(&router, "/secrets").await, json!([]));
    assert_eq!(get(&router, "/configs?filters=%7B%7D").await, json!([]));
    assert_eq!(message(&router, "GET", "/configs/c", Value::Null).await.0, 404);
    let (status, text) = message(&router, "POST", "/secrets/create", json!({})).await;
    assert_eq!(status, 501);
    assert!(text.starts_with("POST /secrets/create: Skein does not manage secrets"), "{text}");
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
    use futures_util::StreamExt;
    let (_fake, router) = manager().await;
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
}

#[tokio::test]
async fn skeins_own_resources_are_passed_on() {
    let (_fake, router) = manager().await;
    assert_eq!(
        get(&router, "/skein/v1/explain?from=a&to=b").await,
        json!({ "topic": "Explain", "query": { "from": "a", "to": "b" } })
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

/// Percent-encodes all but letters and digits.
fn encode(text: &str) -> String {
    let byte = |b: u8| match b {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(b).to_string(),
        _ => format!("%{b:02X}"),
    };
    text.bytes().map(byte).collect()
}
