//! `/swarm`: the cluster itself, and this node's membership.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use cluster::net::Subnet;
use cluster::spec::{Availability, ClusterSpec};
use cluster::time::Revision;
use serde::Deserialize;
use serde_json::{Value, json};

use super::wire::cluster_info::{check_fixed, swarm};
use super::{check_manager, cluster_state};
use crate::control_plane::{
    InitRequest, JoinRequest, LocalNodeState, RequestedCa, Snapshot, UpdateClusterRequest,
};
use crate::error::ApiError;
use crate::extract::Control;
use crate::json_case::{CLUSTER_SPEC, INIT, JOIN, UNLOCK};
use crate::query::{Params, read_json};

/// What the docker CLI sends if the user gave no listen address.
const DEFAULT_LISTEN: [&str; 2] = ["0.0.0.0:2377", "0.0.0.0"];
/// Docker's range for `DataPathPort`.
const DATA_PATH_PORTS: std::ops::RangeInclusive<u16> = 1024..=49151;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct InitBody {
    listen_addr: String,
    advertise_addr: String,
    data_path_addr: String,
    data_path_port: u16,
    force_new_cluster: bool,
    spec: ClusterSpec,
    auto_lock_managers: bool,
    availability: Availability,
    default_addr_pool: Vec<String>,
    subnet_size: u8,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct JoinBody {
    listen_addr: String,
    advertise_addr: String,
    data_path_addr: String,
    remote_addrs: Vec<String>,
    join_token: String,
    availability: Availability,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct UnlockBody {
    unlock_key: String,
}

/// `GET /swarm`.
pub(crate) async fn inspect(State(control): Control, params: Params) -> Result<Response, ApiError> {
    let snapshot = cluster_state(control.as_ref(), &params).await?;
    Ok(Json(swarm(cluster_of(&snapshot)?)).into_response())
}

/// `POST /swarm/init`: returns the node's id as a bare JSON string.
pub(crate) async fn init(State(control): Control, body: Bytes) -> Result<Json<String>, ApiError> {
    let request = init_request(read_json(&body, &INIT)?)?;
    if control.local().state != LocalNodeState::Inactive && !request.force_new_cluster {
        return Err(ApiError::already_member());
    }
    let node = control.init(request).await?;
    Ok(Json(node.to_string()))
}

/// `POST /swarm/join`.
pub(crate) async fn join(State(control): Control, body: Bytes) -> Result<(), ApiError> {
    let body: JoinBody = read_json(&body, &JOIN)?;
    if control.local().state != LocalNodeState::Inactive {
        return Err(ApiError::already_member());
    }
    control.join(join_request(body)?).await
}

/// `POST /swarm/leave`.
pub(crate) async fn leave(State(control): Control, params: Params) -> Result<(), ApiError> {
    if control.local().state == LocalNodeState::Inactive {
        return Err(ApiError::not_member());
    }
    control.leave(params.flag("force")).await
}

/// `POST /swarm/update`.
pub(crate) async fn update(
    State(control): Control,
    params: Params,
    body: Bytes,
) -> Result<(), ApiError> {
    let snapshot = cluster_state(control.as_ref(), &params).await?;
    let version = Revision(params.version("swarm")?);
    let mut spec: ClusterSpec = read_json(&body, &CLUSTER_SPEC)?;
    let ca = requested_ca(&mut spec, &cluster_of(&snapshot)?.spec)?;
    let request = UpdateClusterRequest {
        version,
        spec,
        rotate_worker_token: params.flag("rotateWorkerToken"),
        rotate_manager_token: params.flag("rotateManagerToken"),
        rotate_unlock_key: params.flag("rotateManagerUnlockKey"),
        ca,
    };
    control.update_cluster(request).await
}

/// `GET /swarm/unlockkey`: empty if managers are not locked, which Docker's clients print as "no
/// unlock key is set".
pub(crate) async fn unlock_key(State(control): Control) -> Result<Json<Value>, ApiError> {
    check_manager(control.as_ref())?;
    Ok(Json(json!({ "UnlockKey": control.unlock_key().await? })))
}

/// `POST /swarm/unlock`.
pub(crate) async fn unlock(State(control): Control, body: Bytes) -> Result<(), ApiError> {
    let body: UnlockBody = read_json(&body, &UNLOCK)?;
    if body.unlock_key.is_empty() {
        return Err(ApiError::bad_request("unlock key is empty: give the key of `unlock-key`"));
    }
    control.unlock(&body.unlock_key).await
}

fn cluster_of(snapshot: &Snapshot) -> Result<&cluster::object::Cluster, ApiError> {
    snapshot.state.cluster.as_deref().ok_or_else(ApiError::no_swarm)
}

pub(crate) fn init_request(body: InitBody) -> Result<InitRequest, ApiError> {
    let mut spec = body.spec;
    spec.check_ca()?;
    check_fixed(&spec)?;
    if body.auto_lock_managers {
        spec.lock_managers();
    }
    if body.data_path_port != 0 && !DATA_PATH_PORTS.contains(&body.data_path_port) {
        return Err(ApiError::bad_request(format!(
            "data path port {} is outside 1024-49151",
            body.data_path_port
        )));
    }
    let pools = body.default_addr_pool.iter().map(|pool| {
        pool.parse()
            .map_err(|error| ApiError::bad_request(format!("default address pool {pool}: {error}")))
    });
    Ok(InitRequest {
        listen_addr: listen(body.listen_addr),
        advertise_addr: given(body.advertise_addr),
        data_path_addr: given(body.data_path_addr),
        data_path_port: (body.data_path_port != 0).then_some(body.data_path_port),
        default_addr_pool: pools.collect::<Result<Vec<Subnet>, ApiError>>()?,
        subnet_size: (body.subnet_size != 0).then_some(body.subnet_size),
        force_new_cluster: body.force_new_cluster,
        spec,
        availability: body.availability,
    })
}

pub(crate) fn join_request(body: JoinBody) -> Result<JoinRequest, ApiError> {
    let remote_addrs: Vec<String> =
        body.remote_addrs.into_iter().filter(|address| !address.is_empty()).collect();
    if remote_addrs.is_empty() {
        return Err(ApiError::bad_request(
            "at least 1 RemoteAddr is required to join: give a manager's address, like \
             192.0.2.1:2377",
        ));
    }
    if body.join_token.is_empty() {
        return Err(ApiError::bad_request(
            "a join token is required: `swarm join-token worker` on a manager prints it",
        ));
    }
    Ok(JoinRequest {
        listen_addr: listen(body.listen_addr),
        advertise_addr: given(body.advertise_addr),
        data_path_addr: given(body.data_path_addr),
        remote_addrs,
        join_token: body.join_token,
        availability: body.availability,
    })
}

fn given(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn listen(text: String) -> Option<String> {
    given(text).filter(|address| !DEFAULT_LISTEN.contains(&address.as_str()))
}

/// Docker's rule: a given CA is installed; otherwise a new one is created if the count differs.
fn requested_ca(
    asked: &mut ClusterSpec,
    present: &ClusterSpec,
) -> Result<Option<RequestedCa>, ApiError> {
    let [certificate, key] = asked.take_signing_ca();
    asked.check_ca()?;
    check_fixed(asked)?;
    match (certificate.is_empty(), key.is_empty()) {
        (false, false) => Ok(Some(RequestedCa::Own { certificate, key })),
        (true, false) => Err(ApiError::bad_request(
            "if a signing CA key is provided, the signing CA cert must also be provided: give \
             --ca-cert too",
        )),
        (false, true) => Err(ApiError::not_implemented(
            "a CA certificate without its key is for an external CA, and external CAs are not \
             supported by Skein: give --ca-key too",
        )),
        (true, true) => {
            let forced = asked.force_rotate() != present.force_rotate();
            Ok(forced.then_some(RequestedCa::New))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json_case::correct;
    use crate::query::from_value;

    fn init_body(text: &str) -> InitBody {
        let mut value: Value = serde_json::from_str(text).unwrap();
        correct(&mut value, &INIT);
        from_value(value).unwrap()
    }

    /// The body that docker CLI 28.2.2 sends for `swarm init`.
    const CLI_INIT: &str = r#"{"ListenAddr":"0.0.0.0:2377","AdvertiseAddr":"","DataPathAddr":"",
        "DataPathPort":0,"ForceNewCluster":false,"Spec":{"Labels":null,"Orchestration":{},
        "Raft":{"ElectionTick":0,"HeartbeatTick":0},"Dispatcher":{},"CAConfig":{},
        "TaskDefaults":{},"EncryptionConfig":{"AutoLockManagers":false}},
        "AutoLockManagers":false,"Availability":"active","DefaultAddrPool":null,"SubnetSize":24}"#;

    #[test]
    fn zero_of_the_cli_means_default() {
        let request = init_request(init_body(CLI_INIT)).unwrap();
        assert_eq!(request.listen_addr, None);
        assert_eq!(request.advertise_addr, None);
        assert_eq!(request.data_path_port, None);
        assert_eq!(request.subnet_size, Some(24));
        assert_eq!(request.spec.orchestration.task_history_retention_limit, None);
    }

    #[test]
    fn autolock_is_asked_for_in_either_place() {
        for text in [
            r#"{"Spec":{"EncryptionConfig":{"AutoLockManagers":true}}}"#,
            r#"{"AutoLockManagers":true}"#,
        ] {
            assert!(init_request(init_body(text)).unwrap().spec.locks_managers(), "{text}");
        }
        assert!(!init_request(init_body("{}")).unwrap().spec.locks_managers());
    }

    #[test]
    fn bad_init_is_refused_with_the_value() {
        for (text, status, message) in [
            (r#"{"DataPathPort":80}"#, 400, "data path port 80 is outside 1024-49151"),
            (
                r#"{"DefaultAddrPool":["10.0.0.0/99"]}"#,
                400,
                "default address pool 10.0.0.0/99: invalid subnet 10.0.0.0/99: give an address \
                 and a prefix length, like 10.0.9.0/24",
            ),
            (
                r#"{"Spec":{"CAConfig":{"ExternalCAs":[{"Protocol":"cfssl","URL":"https://a"}]}}}"#,
                501,
                "external CA \"https://a\": external CAs are not supported by Skein",
            ),
            (
                r#"{"Spec":{"CAConfig":{"SigningCACert":"a","SigningCAKey":"b"}}}"#,
                501,
                "a CA of your own is not supported by `swarm init`: give it to `swarm ca --rotate \
                 --ca-cert FILE --ca-key FILE` then",
            ),
        ] {
            let error = init_request(init_body(text)).unwrap_err();
            assert_eq!((error.status, error.message.as_str()), (status, message));
        }
    }

    #[test]
    fn settings_that_are_fixed_are_refused_unless_they_say_so() {
        for (body, refused) in [
            (r#"{"Dispatcher":{"HeartbeatPeriod":5000000000}}"#, None),
            (r#"{"Raft":{"SnapshotInterval":10000},"TaskDefaults":{"LogDriver":{}}}"#, None),
            (
                r#"{"Dispatcher":{"HeartbeatPeriod":9000000000}}"#,
                Some(
                    "Dispatcher.HeartbeatPeriod 9000000000 is not supported by Skein: leave it \
                     out, or at 5000000000",
                ),
            ),
            (r#"{"TaskDefaults":{"LogDriver":{"Name":"local"}}}"#, None),
            (
                r#"{"TaskDefaults":{"Colour":"red"}}"#,
                Some("TaskDefaults.Colour \"red\" is not supported by Skein: leave it out"),
            ),
        ] {
            let spec: ClusterSpec = serde_json::from_str(body).unwrap();
            let said = check_fixed(&spec).map_err(|error| (error.status, error.message)).err();
            assert_eq!(said, refused.map(|text| (501, text.to_owned())), "{body}");
        }
    }

    #[test]
    fn who_wants_another_ca_says_so_whole() {
        let wanted = |asked: &str| {
            let spec = |text: &str| serde_json::from_str::<ClusterSpec>(text).unwrap();
            let mut asked = spec(asked);
            let present = spec(r#"{"CAConfig":{"ForceRotate":2}}"#);
            let wanted = requested_ca(&mut asked, &present);
            assert_eq!(asked.take_signing_ca(), ["", ""], "a key stays in the spec");
            wanted.map_err(|error| error.status)
        };
        let own = RequestedCa::Own { certificate: "a".to_owned(), key: "b".to_owned() };
        for (asked, expected) in [
            (r#"{"CAConfig":{"ForceRotate":2}}"#, Ok(None)),
            (r#"{"CAConfig":{"ForceRotate":3}}"#, Ok(Some(RequestedCa::New))),
            (
                r#"{"CAConfig":{"ForceRotate":2,"SigningCACert":"a","SigningCAKey":"b"}}"#,
                Ok(Some(own)),
            ),
            (r#"{"CAConfig":{"SigningCACert":"a","SigningCAKey":""}}"#, Err(501)),
            (r#"{"CAConfig":{"SigningCAKey":"b"}}"#, Err(400)),
            (r#"{"CAConfig":{"ForceRotate":3,"ExternalCAs":[{"URL":"a"}]}}"#, Err(501)),
        ] {
            assert_eq!(wanted(asked), expected, "{asked}");
        }
    }

    #[test]
    fn join_needs_a_manager_and_a_token() {
        let join = |addrs: &[&str], token: &str| {
            join_request(JoinBody {
                remote_addrs: addrs.iter().map(|a| (*a).to_owned()).collect(),
                join_token: token.to_owned(),
                ..JoinBody::default()
            })
        };
        assert_eq!(join(&[], "t").unwrap_err().status, 400);
        assert_eq!(join(&["192.0.2.1:2377"], "").unwrap_err().status, 400);
        assert!(join(&["192.0.2.1:2377"], "t").is_ok());
    }
}
