//! Versions of the Docker Engine API, and the version prefix of a path.

use axum::http::Uri;

use crate::error::ApiError;

/// The newest version of the Docker Engine API that is served.
pub const API_VERSION: &str = "1.44";
/// The oldest version of the Docker Engine API that is served.
pub const API_VERSION_MIN: &str = "1.24";

const MINOR_MAX: u32 = 44;
const MINOR_MIN: u32 = 24;

/// Removes the version prefix, or refuses a version that is not served.
pub(crate) fn without_version(uri: &Uri) -> Result<Uri, ApiError> {
    let Some(text) = uri.path_and_query().map(|both| both.as_str()) else {
        return Ok(uri.clone());
    };
    let Some((version, rest)) = text.strip_prefix("/v").and_then(split_version) else {
        return Ok(uri.clone());
    };
    let (major, minor) = version;
    if (major, minor) > (1, MINOR_MAX) {
        return Err(ApiError::bad_request(format!(
            "client version {major}.{minor} is too new. Maximum supported API version is \
             {API_VERSION}"
        )));
    }
    if (major, minor) < (1, MINOR_MIN) {
        return Err(ApiError::bad_request(format!(
            "client version {major}.{minor} is too old. Minimum supported API version is \
             {API_VERSION_MIN}, please upgrade your client to a newer version"
        )));
    }
    let rest = if rest.is_empty() { "/" } else { rest };
    rest.parse().map_err(|error| ApiError::bad_request(format!("bad request path {rest}: {error}")))
}

/// `1.44/nodes?x` → ((1, 44), `/nodes?x`); `None` for a path that only looks like it.
fn split_version(text: &str) -> Option<((u32, u32), &str)> {
    let end = text.find(['/', '?']).unwrap_or(text.len());
    let (version, rest) = text.split_at(end);
    let (major, minor) = version.split_once('.')?;
    Some(((major.parse().ok()?, minor.parse().ok()?), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_prefix_is_taken_off() {
        for (given, expected) in [
            ("/v1.44/nodes?a=b", Ok("/nodes?a=b")),
            ("/v1.24/_ping", Ok("/_ping")),
            ("/nodes", Ok("/nodes")),
            ("/volumes", Ok("/volumes")),
            ("/version", Ok("/version")),
            ("/v1.44", Ok("/")),
            (
                "/v1.45/nodes",
                Err("client version 1.45 is too new. Maximum supported API version is 1.44"),
            ),
            (
                "/v1.23/nodes",
                Err("client version 1.23 is too old. Minimum supported API version is 1.24, \
                     please upgrade your client to a newer version"),
            ),
        ] {
            let uri: Uri = given.parse().unwrap();
            let got = without_version(&uri).map(|uri| uri.to_string()).map_err(|e| e.message);
            assert_eq!(got, expected.map(str::to_owned).map_err(str::to_owned), "{given}");
        }
    }
}
