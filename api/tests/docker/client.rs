//! Requests to a router in this process.

use std::sync::Arc;

use api::ControlPlane;
use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use expect_test::{Expect, ExpectFile};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::fake::Fake;
use crate::without_ids;

pub(crate) async fn send(router: &Router, method: &str, uri: &str, body: Body) -> Response<Body> {
    let request = Request::builder().method(method).uri(uri).body(body).unwrap();
    router.clone().oneshot(request).await.unwrap()
}

/// Status and body, JSON made pretty.
pub(crate) async fn call(router: &Router, method: &str, uri: &str, body: Value) -> (u16, String) {
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

pub(crate) async fn check(router: &Router, request: (&str, &str, Value), expected: Expect) {
    let (method, uri, body) = request;
    let (status, text) = call(router, method, uri, body).await;
    expected.assert_eq(&without_ids(&format!("{status}\n{text}\n")));
}

pub(crate) async fn check_file(router: &Router, uri: &str, expected: ExpectFile) {
    let (status, text) = call(router, "GET", uri, Value::Null).await;
    assert_eq!(status, 200, "{uri}: {text}");
    expected.assert_eq(&without_ids(&format!("{text}\n")));
}

pub(crate) async fn get(router: &Router, uri: &str) -> Value {
    let (status, text) = call(router, "GET", uri, Value::Null).await;
    assert_eq!(status, 200, "{uri}: {text}");
    serde_json::from_str(&text).unwrap()
}

pub(crate) async fn message(
    router: &Router,
    method: &str,
    uri: &str,
    body: Value,
) -> (u16, String) {
    let (status, text) = call(router, method, uri, body).await;
    let value: Value = serde_json::from_str(&text).unwrap();
    (status, value["message"].as_str().unwrap().to_owned())
}

pub(crate) fn router(fake: &Arc<Fake>) -> Router {
    api::router(Arc::clone(fake) as Arc<dyn ControlPlane>)
}

pub(crate) async fn manager() -> (Arc<Fake>, Router) {
    let fake = Fake::manager().await;
    let router = router(&fake);
    (fake, router)
}

/// A network `front` and a service `web` on it with two replicas and a published port.
pub(crate) async fn with_web() -> Router {
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

/// Percent-encodes all but letters and digits.
pub(crate) fn encode(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}
