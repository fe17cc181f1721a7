//! What handlers take from a request.

use std::ops::Deref;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;

use crate::control_plane::ControlPlane;
use crate::error::ApiError;

/// The daemon behind the API.
pub(crate) type Control = State<Arc<dyn ControlPlane>>;

/// The decoded `{id}` of a path.
pub(crate) struct Id(pub String);

impl Deref for Id {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(id)) => Ok(Self(id)),
            Err(error) => Err(ApiError::bad_request(error.body_text())),
        }
    }
}
