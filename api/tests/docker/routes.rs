//! The node, the cluster, its nodes and networks: requests and answers, byte for byte where
//! clients depend on them.

use api::LocalNodeState;
use axum::body::Body;
use axum::http::header;
use cluster::net::Subnets;
use cluster::object::{CaDigest, Trust};
use expect_test::{expect, expect_file};
use serde_json::{Value, json};

use crate::client::{
    call, check, check_file, encode, get, manager, message, router, send, with_web,
};
use crate::fake::Fake;

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
            "POST",
            "/v1.44/containers/create",
            501,
            "POST /containers/create: Skein does not manage containers; it runs services, see \
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
    assert!(text.ends_with("update out of sequence"), "{text}");
    let no_version = message(&router, "POST", "/swarm/update", swarm["Spec"].clone()).await;
    assert_eq!(
        no_version,
        (400, "invalid swarm version '': cannot parse integer from empty string".to_owned())
    );
}

/// Goal: docker's client counts the nodes that have moved. Method: what it compares.
#[tokio::test]
async fn a_rotation_of_the_ca_shows_how_far_it_has_come() {
    let (fake, router) = manager().await;
    let before = get(&router, "/swarm").await;
    let version = before["Version"]["Index"].as_u64().unwrap();
    let mut spec = before["Spec"].clone();
    spec["CAConfig"]["ForceRotate"] = json!(1);
    let uri = format!("/swarm/update?version={version}");
    assert_eq!(call(&router, "POST", &uri, spec).await, (200, String::new()));
    let during = get(&router, "/swarm").await;
    assert_eq!(during["RootRotationInProgress"], true);
    assert_eq!(get(&router, "/info").await["Swarm"]["Cluster"]["RootRotationInProgress"], true);
    assert_eq!(during["TLSInfo"]["TrustRoot"], before["TLSInfo"]["TrustRoot"]);
    assert_eq!(during["JoinTokens"], before["JoinTokens"]);
    let issuer = |told: &Value| told["TLSInfo"]["CertIssuerSubject"].clone();
    assert_ne!(issuer(&during), issuer(&before));
    let node = || async { get(&router, "/nodes/alpha").await["Description"].clone() };
    assert_eq!(issuer(&node().await), "", "it has not said yet");
    let (old, new) = (CaDigest([1; 32]), CaDigest([2; 32]));
    fake.describe(Trust { issuer: old, roots: vec![old] });
    assert_eq!(node().await["TLSInfo"], before["TLSInfo"]);
    fake.describe(Trust { issuer: new, roots: vec![new, old] });
    let after = get(&router, "/swarm").await;
    assert_eq!(after["RootRotationInProgress"], false);
    assert_eq!(after["JoinTokens"]["Worker"], "SWMTKN-1-ca2-worker");
    assert_eq!(issuer(&node().await), issuer(&after));
    assert_ne!(node().await["TLSInfo"], after["TLSInfo"], "it trusts the old one still");
    fake.describe(Trust { issuer: new, roots: vec![new] });
    assert_eq!(node().await["TLSInfo"], after["TLSInfo"]);
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
async fn without_quorum_reads_say_so_and_stale_reads_work() {
    let (fake, router) = manager().await;
    fake.lose_quorum();
    let expected = (503, "no quorum: 1 of 3 managers is reachable".to_owned());
    assert_eq!(message(&router, "GET", "/nodes", Value::Null).await, expected);
    let stale = get(&router, "/nodes?consistency=stale").await;
    assert_eq!(stale.as_array().unwrap().len(), 1);
    let info = get(&router, "/info").await;
    assert_eq!(info["Swarm"]["Error"], expected.1);
    assert_eq!(info["Swarm"]["Nodes"], 1);
    let ready = call(&router, "GET", "/readyz", Value::Null).await;
    assert_eq!(ready, (503, format!("{}\n", expected.1)));
}

#[tokio::test]
async fn a_worker_shows_the_networks_on_it() {
    let fake = Fake::outside();
    let router = router(&fake);
    fake.with_local(|local| {
        local.state = LocalNodeState::Active;
        local.networks = vec![api::LocalNetwork {
            id: cluster::id::NetworkId(u128::MAX / 7),
            name: "front".to_owned(),
            created_at: cluster::time::Timestamp(1_700_000_000_000),
            vni: cluster::net::Vni::FIRST,
            subnets: Subnets::V4("10.0.1.1/24".parse().unwrap()),
            internal: false,
            ingress: false,
        }];
    });
    let list = get(&router, "/networks").await;
    assert_eq!(list[0]["Name"], "front");
    assert_eq!(list[0]["Created"], "2023-11-14T22:13:20Z");
    assert_eq!(get(&router, "/networks/front").await, list[0]);
    let id = list[0]["Id"].as_str().unwrap();
    assert_eq!(get(&router, &format!("/networks/{}", &id[..8])).await, list[0]);
    assert_eq!(list[0]["IPAM"]["Config"][0]["Subnet"], "10.0.1.0/24");
    let none = format!("/networks?filters={}", encode(r#"{"name":["back"]}"#));
    assert_eq!(get(&router, &none).await, json!([]));
    assert_eq!(message(&router, "GET", "/networks/back", Value::Null).await.0, 404);
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

/// Goal: `docker inspect NAME` finds a network, service, task or node of that name: it goes on
/// after 404 only.
#[tokio::test]
async fn what_an_engine_has_and_skein_not_is_absent() {
    let (_fake, router) = manager().await;
    for (uri, expected) in [
        ("/containers/json?all=1", json!([])),
        ("/images/json", json!([])),
        ("/plugins", json!([])),
        ("/volumes", json!({ "Volumes": [], "Warnings": null })),
    ] {
        assert_eq!(get(&router, uri).await, expected, "{uri}");
    }
    assert_eq!(get(&router, "/system/df").await["Containers"], json!([]));
    for (uri, text) in [
        ("/containers/web/json", "No such container: web"),
        ("/images/library/web:1/json", "No such image: library/web:1"),
        ("/volumes/web", "get web: no such volume"),
        ("/plugins/vieux/sshfs/json", "plugin \"vieux/sshfs\" not found"),
    ] {
        let expected = (404, text.to_owned());
        assert_eq!(message(&router, "GET", uri, Value::Null).await, expected, "{uri}");
    }
    // What would change one is refused by name as before.
    assert_eq!(message(&router, "DELETE", "/containers/web", Value::Null).await.0, 501);
    assert_eq!(message(&router, "POST", "/volumes/create", json!({})).await.0, 501);
    assert_eq!(get(&router, "/info").await["CgroupVersion"], "2");
}

#[tokio::test]
async fn unused_networks_are_pruned_by_their_filters() {
    let (_fake, router) = manager().await;
    for (name, label) in [("kept", "keep"), ("old", "drop")] {
        let body = json!({ "Name": name, "Driver": "overlay", "Labels": { label: "1" } });
        call(&router, "POST", "/networks/create", body).await;
    }
    for (filters, deleted) in [
        (r#"{"until":["24h"]}"#, json!([])),
        (r#"{"until":["1"]}"#, json!([])),
        (r#"{"until":["0"]}"#, json!([])),
        (r#"{"label!":["keep=1"],"until":["9999999999"]}"#, json!(["old"])),
        (r#"{"label":["keep"]}"#, json!(["kept"])),
    ] {
        let uri = format!("/networks/prune?filters={}", encode(filters));
        let (status, body) = call(&router, "POST", &uri, Value::Null).await;
        assert_eq!(status, 200, "{body}");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["NetworksDeleted"], deleted, "{filters}");
    }
    let uri = format!("/networks/prune?filters={}", encode(r#"{"until":["soon"]}"#));
    let (status, text) = message(&router, "POST", &uri, Value::Null).await;
    assert!(status == 400 && text.contains("invalid until 'soon'"), "{text}");
}

#[tokio::test]
async fn what_a_network_does_not_do_is_warned_about() {
    let (_fake, router) = manager().await;
    let body = json!({
        "Name": "a",
        "Driver": "overlay",
        "Attachable": true,
        "Options": { "com.docker.network.driver.mtu": "1400", "colour": "red" },
    });
    let (status, text) = call(&router, "POST", "/networks/create", body).await;
    assert_eq!(status, 201, "{text}");
    let warning = serde_json::from_str::<Value>(&text).unwrap()["Warning"].clone();
    let expected = "option colour is not supported: it has no effect; Attachable is not \
                    supported: there are no containers but tasks of services";
    assert_eq!(warning, expected);
    let plain = json!({ "Name": "b", "Driver": "overlay" });
    let (_, text) = call(&router, "POST", "/networks/create", plain).await;
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["Warning"], "");
}
