//! What fuzzing calls: each function decodes any bytes, panics where a law of a decoder breaks, and
//! says whether there was something to decode.

use axum::extract::Query as AxumQuery;
use axum::http::Uri;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use cluster::exec::ExecSpec;
use cluster::id::TaskId;
use cluster::spec::{ClusterSpec, NodeSpec};
use cluster::time::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::control_plane::LogSelector;
use crate::docker::events::moment;
use crate::docker::logs::{log_request, unix_time};
use crate::docker::swarm::{InitBody, JoinBody, UnlockBody, init_request, join_request};
use crate::docker::wire::certificate::parse_certificate;
use crate::docker::{networks, services};
use crate::filters::Filters;
use crate::json_case::{
    CLUSTER_SPEC, INIT, JOIN, NETWORK_CREATE, NODE_SPEC, SERVICE_SPEC, Shape, UNLOCK, correct,
};
use crate::native::RestoreBody;
use crate::native::exec::ExecBody;
use crate::query::{Params, read_json};
use crate::version::without_version;

/// Begins a certificate.
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
/// First byte of a body's input: which route reads the rest.
const ROUTES: u8 = 9;
const SHAPES: [&Shape; 7] =
    [&SERVICE_SPEC, &NETWORK_CREATE, &NODE_SPEC, &CLUSTER_SPEC, &INIT, &JOIN, &UNLOCK];

/// The body of a request.
pub fn body(bytes: &[u8]) -> bool {
    let Some((route, bytes)) = bytes.split_first() else { return false };
    if let Ok(value) = serde_json::from_slice::<Value>(bytes) {
        let mut once = value;
        let shape = SHAPES[usize::from(*route) % SHAPES.len()];
        correct(&mut once, shape);
        let mut twice = once.clone();
        correct(&mut twice, shape);
        assert_eq!(once, twice, "correcting twice changed something");
    }
    match route % ROUTES {
        0 => services::new_spec(bytes).is_ok_and(|spec| {
            law(&spec);
            if let Ok(changed) = services::changed_spec(bytes, &spec) {
                law(&changed);
            }
            true
        }),
        1 => networks::new_spec(bytes).map(|spec| law(&spec)).is_ok(),
        2 => read_json::<NodeSpec>(bytes, &NODE_SPEC).map(|spec| law(&spec)).is_ok(),
        3 => read_json::<ClusterSpec>(bytes, &CLUSTER_SPEC).map(|spec| law(&spec)).is_ok(),
        4 => read_json::<InitBody>(bytes, &INIT).and_then(init_request).is_ok(),
        5 => read_json::<JoinBody>(bytes, &JOIN).and_then(join_request).is_ok(),
        6 => read_json::<UnlockBody>(bytes, &UNLOCK).is_ok(),
        7 => serde_json::from_slice::<RestoreBody>(bytes).is_ok(),
        _ => serde_json::from_slice::<ExecBody>(bytes).map(ExecSpec::from).is_ok(),
    }
}

fn law<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(decoded: &T) {
    let again = serde_json::to_vec(decoded).expect("what was decoded can be encoded");
    let again: T = serde_json::from_slice(&again).expect("what was encoded can be decoded");
    assert_eq!(&again, decoded, "a spec changed on its way");
}

/// A body for each route.
#[must_use]
pub fn body_seeds() -> Vec<Vec<u8>> {
    let state = cluster::fuzzing::state();
    let service = state.services.values().next().map(|found| json!(found.spec));
    let network = state.networks.values().next().map(|found| json!(found.spec));
    let node = state.nodes.values().next().map(|found| json!(found.spec));
    let cluster = state.cluster.as_ref().map(|found| json!(found.spec));
    let full = json!({
        "name": "web",
        "Labels": null,
        "taskTemplate": {
            "ContainerSpec": {
                "Image": "host",
                "Command": ["sh"],
                "Env": ["A=b"],
                "Mounts": [{ "Type": "bind", "Source": "/a", "Target": "/b" }],
                "Healthcheck": { "Test": ["CMD", "true"], "Interval": 1_000_000_000 },
                "StopGracePeriod": 5,
            },
            "Resources": { "Limits": { "NanoCPUs": 1, "MemoryBytes": 1 } },
            "Placement": { "Constraints": ["node.role==worker"] },
            "Networks": [{ "Target": "web", "Aliases": ["w"] }],
            "RestartPolicy": { "Condition": "any", "Delay": 1 },
        },
        "Mode": { "replicated": { "Replicas": 3 } },
        "UpdateConfig": { "Parallelism": 1, "MaxFailureRatio": 0.5, "Order": "" },
        "EndpointSpec": { "Mode": "vip", "Ports": [{ "TargetPort": 80, "PublishedPort": 3000 }] },
    });
    let init = json!({ "ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": "192.0.2.1" });
    let join = json!({ "RemoteAddrs": ["192.0.2.1:2377"], "JoinToken": "SWMTKN-1-a-b" });
    let bodies = [
        (0, Some(full)),
        (0, service),
        (1, network),
        (2, node),
        (3, cluster),
        (4, Some(init)),
        (5, Some(join)),
        (6, Some(json!({ "UnlockKey": "SWMKEY-1-a" }))),
        (7, Some(json!({ "Path": "/a" }))),
        (8, Some(json!({ "Cmd": ["sh"], "Env": ["A=b"], "Tty": true, "ConsoleSize": [24, 80] }))),
    ];
    let of = |(route, value): (u8, Option<Value>)| {
        Some([vec![route], serde_json::to_vec(&value?).ok()?].concat())
    };
    bodies.into_iter().filter_map(of).collect()
}

/// A path with its parameters, as the routes that read most of them do.
pub fn request(bytes: &[u8]) -> bool {
    let Ok(uri) = Uri::try_from(bytes) else { return false };
    let Ok(uri) = without_version(&uri) else { return false };
    let Ok(AxumQuery(pairs)) = AxumQuery::<Vec<(String, String)>>::try_from_uri(&uri) else {
        return false;
    };
    let params: Params = pairs.into_iter().collect();
    let now = Timestamp(1_000_000);
    let read = (
        log_request(LogSelector::Task(TaskId(7)), &params).is_ok(),
        moment(&params, "since", now).is_ok(),
        moment(&params, "until", now).is_ok(),
        params.version("service").is_ok(),
    );
    let filtered = Filters::parse(params.text("filters"), &["id"]).is_ok();
    read != (false, false, false, false) || filtered
}

/// Paths with and without a version, and parameters of all routes.
#[must_use]
pub fn request_seeds() -> Vec<Vec<u8>> {
    let paths = [
        "/v1.44/services/web/logs?stdout=1&stderr=true&tail=100&since=1700000000.000000001",
        "/v1.24/events?since=0&until=1700000000&filters=%7B%22id%22%3A%5B%22a%22%5D%7D",
        "/services/web/update?version=12&rollback=previous&registryAuthFrom=spec",
        "/skein/v1/explain?from=web.1&to=redis&port=6379&consistency=stale",
    ];
    paths.map(|path| path.as_bytes().to_vec()).to_vec()
}

/// A parameter, or a certificate that is shown.
pub fn text(bytes: &[u8]) -> bool {
    let base64 = BASE64_STANDARD.encode(bytes);
    let mut found = parse_certificate(&format!("{BEGIN}\n{base64}\n")).is_some();
    let Ok(text) = std::str::from_utf8(bytes) else { return found };
    found |= parse_certificate(text).is_some();
    found |= unix_time(text).is_ok();
    let known = ["id", "label", "name", "role"];
    let Ok(filters) = Filters::parse(text, &known) else { return found };
    for key in known {
        let _answers = (
            filters.exact(key, "worker"),
            filters.prefix(key, "worker"),
            filters.labels(key, &[("a".to_owned(), "b".to_owned())].into()),
            filters.check_words(key, &["worker"]).is_ok(),
            filters.flag(key).is_ok(),
        );
    }
    true
}

/// Filters in both forms, a time, a certificate.
#[must_use]
pub fn text_seeds() -> Vec<Vec<u8>> {
    let certificate = include_str!("../tests/docker/ca.pem");
    let texts = [r#"{"name":["^web$"],"label":["a=b"]}"#, r#"{"role":{"worker":true}}"#, "1.5"];
    texts.into_iter().chain([certificate]).map(|text| text.as_bytes().to_vec()).collect()
}
