//! Engine objects that Skein does not have: lists are empty and each object is 404, because
//! `docker inspect NAME` queries every kind and continues only after 404.

use axum::Json;
use axum::extract::Path;
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::extract::Id;

/// `GET /containers/json`, `/images/json`, `/plugins`: empty.
pub(crate) async fn none() -> Json<Vec<Value>> {
    Json(Vec::new())
}

/// `GET /volumes`: empty.
pub(crate) async fn volumes() -> Json<Value> {
    Json(json!({ "Volumes": [], "Warnings": null }))
}

/// `GET /system/df`: nothing is used.
pub(crate) async fn disk_usage() -> Json<Value> {
    Json(json!({
        "LayersSize": 0,
        "Images": [],
        "Containers": [],
        "Volumes": [],
        "BuildCache": [],
        "BuilderSize": 0,
    }))
}

/// `GET /containers/{id}/json`.
pub(crate) async fn container(id: Id) -> ApiError {
    ApiError::not_found(format!("No such container: {}", id.0))
}

/// `GET /images/{name}/json`; a name may have slashes.
pub(crate) async fn image(Path(path): Path<String>) -> ApiError {
    match path.strip_suffix("/json") {
        Some(name) => ApiError::not_found(format!("No such image: {name}")),
        None => ApiError::page_not_found(),
    }
}

/// `GET /volumes/{name}`.
pub(crate) async fn volume(id: Id) -> ApiError {
    ApiError::not_found(format!("get {}: no such volume", id.0))
}

/// `GET /plugins/{name}/json`; a name may have slashes.
pub(crate) async fn plugin(Path(path): Path<String>) -> ApiError {
    match path.strip_suffix("/json") {
        Some(name) => ApiError::not_found(format!("plugin \"{name}\" not found")),
        None => ApiError::page_not_found(),
    }
}
