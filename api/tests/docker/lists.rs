//! Lists of services: whatever is kept of one, a client sees the newest state.

use axum::Router;
use axum::body::{Body, Bytes};
use serde_json::{Value, json};

use crate::client::{call, get, manager, send};

const FORMS: [&str; 4] = ["", "status=1", "insertDefaults=1", "status=1&insertDefaults=1"];

async fn list(router: &Router, query: &str) -> Bytes {
    let response = send(router, "GET", &format!("/services?{query}"), Body::empty()).await;
    assert_eq!(response.headers()["content-type"], "application/json");
    axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap()
}

/// Each form of the list against what the inspection of each service says.
async fn check_lists(router: &Router, names: &[&str], step: &str) {
    let ids = |list: &Value| {
        let ids = list.as_array().unwrap().iter().map(|service| service["ID"].clone());
        ids.collect::<Vec<Value>>()
    };
    let whole: Value = serde_json::from_slice(&list(router, "").await).unwrap();
    let mut found: Vec<&str> =
        whole.as_array().unwrap().iter().filter_map(|s| s["Spec"]["Name"].as_str()).collect();
    found.sort_unstable();
    assert_eq!(found, names, "{step}");
    for form in FORMS {
        let mut listed: Value = serde_json::from_slice(&list(router, form).await).unwrap();
        assert_eq!(ids(&listed), ids(&whole), "{step}, {form}");
        for service in listed.as_array_mut().unwrap() {
            let status = service.as_object_mut().unwrap().remove("ServiceStatus");
            let wanted = service["Spec"]["Mode"]["Replicated"]["Replicas"].clone();
            let told = status.map(|status| status["DesiredTasks"].clone());
            assert_eq!(told, form.contains("status").then_some(wanted), "{step}, {form}");
            let uri = format!("/services/{}?{form}", service["ID"].as_str().unwrap());
            assert_eq!(*service, get(router, &uri).await, "{step}, {form}");
        }
    }
}

async fn create(router: &Router, name: &str) -> String {
    let spec = json!({
        "Name": name,
        "TaskTemplate": {"ContainerSpec": {"Image": "host:latest"}},
        "Mode": {"Replicated": {"Replicas": 1}},
        "EndpointSpec": {"Ports": [{"TargetPort": 80}]},
    });
    let (status, text) = call(router, "POST", "/services/create", spec).await;
    assert_eq!(status, 201, "{text}");
    let answer: Value = serde_json::from_str(&text).unwrap();
    answer["ID"].as_str().unwrap().to_owned()
}

/// Goal: no list shows a service as it was. Method: each form before and after each kind of change.
#[tokio::test]
async fn lists_follow_each_change() {
    let (_fake, router) = manager().await;
    check_lists(&router, &[], "no service").await;
    let api = create(&router, "api").await;
    check_lists(&router, &["api"], "created").await;
    let web = create(&router, "web").await;
    check_lists(&router, &["api", "web"], "another created").await;
    let shown = get(&router, &format!("/services/{api}")).await;
    let mut spec = shown["Spec"].clone();
    spec["Mode"] = json!({"Replicated": {"Replicas": 3}});
    let uri = format!("/services/{api}/update?version={}", shown["Version"]["Index"]);
    assert_eq!(call(&router, "POST", &uri, spec).await.0, 200);
    check_lists(&router, &["api", "web"], "scaled").await;
    assert_eq!(call(&router, "DELETE", &format!("/services/{web}"), Value::Null).await.0, 200);
    check_lists(&router, &["api"], "removed").await;
}

/// Goal: what did not change is not rendered again. Method: the very bytes of two answers.
#[tokio::test]
async fn a_list_of_the_same_state_is_the_same_bytes() {
    let (_fake, router) = manager().await;
    create(&router, "web").await;
    for form in FORMS {
        let (first, second) = (list(&router, form).await, list(&router, form).await);
        assert_eq!(first.as_ptr(), second.as_ptr(), "{form}");
    }
    let before = list(&router, "").await;
    create(&router, "api").await;
    assert_ne!(before, list(&router, "").await);
}
