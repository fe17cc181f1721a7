//! Begins a rotation of the CA: makes the one that is to take over, or takes the user's, and has
//! the present one sign for it. When the rotation is complete the planner finds (`cluster::plan`).

use api::{ApiError, RequestedCa};
use cluster::object::{CaRotation, Cluster};
use cluster::request::CaChange;
use cluster::time::Timestamp;
use time::OffsetDateTime;

use crate::causes::chain;
use crate::clock;
use crate::pki::{self, Ca, PkiError};

/// What is to happen to the CA of this cluster. That the user gives the one that it has calls a
/// rotation off, as with Docker.
pub fn change(cluster: &Cluster, wanted: &RequestedCa) -> Result<CaChange, ApiError> {
    let now = OffsetDateTime::from(clock::wall());
    let new = match wanted {
        RequestedCa::New => {
            pki::new_ca(cluster.id, now).map_err(|e| ApiError::internal(chain(&e)))?
        }
        RequestedCa::Own { certificate, key } => pki::adopt(certificate, key, now).map_err(bad)?,
    };
    let old = Ca { certificate: cluster.ca_certificate.clone(), key: cluster.ca_key.clone() };
    let from = pki::ca_name(&old.certificate).map_err(bad)?;
    let to = pki::ca_name(&new.certificate).map_err(bad)?;
    if to == from {
        return Ok(CaChange::Keep { ca: from });
    }
    let cross_signed = pki::cross_sign(&new, &old, now).map_err(bad)?;
    Ok(CaChange::Rotate(Box::new(CaRotation {
        certificate: new.certificate,
        key: new.key,
        cross_signed,
        from,
        to,
        worker_token: pki::new_token(to.0),
        manager_token: pki::new_token(to.0),
        begun_at: Timestamp(0),
    })))
}

fn bad(error: PkiError) -> ApiError {
    ApiError::bad_request(chain(&error))
}
