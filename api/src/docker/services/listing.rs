//! The list of services as bytes, cached between requests: an unchanged service is not rendered
//! again, and a list of an unchanged state is returned as it is.
//!
//! A cached row belongs to one object and a cached list to one state, both compared by pointer
//! (`Arc::ptr_eq`), so neither can be stale. The cache is limited and may be dropped at any time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use axum::body::Bytes;
use cluster::id::ServiceId;
use cluster::net::Subnets;
use cluster::object::Service;
use cluster::state::State;

use crate::docker::wire::service::{Counts, counts, service, subnets};
use crate::error::ApiError;

/// Memory limit of cached rows and lists; what exceeds it is rendered for each request.
const KEPT_BYTES_MAX: usize = 32 << 20;

/// The representation of a service that a client requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Form {
    /// With the number of its tasks.
    pub(crate) with_status: bool,
    /// With Docker's defaults for absent fields of the spec.
    pub(crate) with_defaults: bool,
}

/// The cache. Concurrent requests wait for the first one to render.
#[derive(Debug, Default)]
pub(crate) struct Listing(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// The state of the cached lists. Holding it prevents another state from reusing its address.
    state: Weak<State>,
    lists: BTreeMap<Form, Bytes>,
    rows: BTreeMap<(ServiceId, bool), Row>,
    bytes: usize,
}

/// A service without its status.
#[derive(Debug)]
struct Row {
    service: Arc<Service>,
    /// Those of its networks, of which the prefix lengths are shown with its virtual addresses.
    subnets: Vec<Option<Subnets>>,
    json: Bytes,
}

impl Listing {
    /// All services that are visible to clients.
    pub(crate) fn all(&self, state: &Arc<State>, form: Form) -> Result<Bytes, ApiError> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::ptr::eq(kept.state.as_ptr(), Arc::as_ptr(state)) {
            kept.follow(state);
        }
        if let Some(list) = kept.lists.get(&form) {
            return Ok(list.clone());
        }
        let list = kept.render(state, state.live_services(), form)?;
        if kept.has_room_for(list.len()) {
            kept.bytes += list.len();
            kept.lists.insert(form, list.clone());
        }
        Ok(list)
    }

    /// These services of the state.
    pub(crate) fn some<'a>(
        &self,
        state: &State,
        services: impl Iterator<Item = &'a Arc<Service>>,
        form: Form,
    ) -> Result<Bytes, ApiError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).render(state, services, form)
    }
}

impl Kept {
    /// Drops lists of other states, and rows of services that are not in this one.
    fn follow(&mut self, state: &Arc<State>) {
        self.lists.clear();
        self.rows.retain(|(id, _), _| state.services.contains_key(id));
        self.bytes = self.rows.values().map(|row| row.json.len()).sum();
        self.state = Arc::downgrade(state);
    }

    fn has_room_for(&self, bytes: usize) -> bool {
        self.bytes + bytes <= KEPT_BYTES_MAX
    }

    fn render<'a>(
        &mut self,
        state: &State,
        services: impl Iterator<Item = &'a Arc<Service>>,
        form: Form,
    ) -> Result<Bytes, ApiError> {
        let mut list = vec![b'['];
        for found in services {
            if list.len() > 1 {
                list.push(b',');
            }
            let row = self.row(state, found, form.with_defaults)?;
            let status = form.with_status.then(|| counts(found, state.tasks_of(found.id)));
            append(&mut list, &row, status)?;
        }
        list.push(b']');
        Ok(list.into())
    }

    fn row(
        &mut self,
        state: &State,
        found: &Arc<Service>,
        with_defaults: bool,
    ) -> Result<Bytes, ApiError> {
        let key = (found.id, with_defaults);
        let subnets = subnets(found, &state.networks);
        let is_of = |row: &&Row| Arc::ptr_eq(&row.service, found) && row.subnets == subnets;
        if let Some(row) = self.rows.get(&key).filter(is_of) {
            return Ok(row.json.clone());
        }
        if let Some(old) = self.rows.remove(&key) {
            self.bytes -= old.json.len();
        }
        let view = service(found, &state.networks, with_defaults);
        let json = Bytes::from(serde_json::to_vec(&view).map_err(unwritable)?);
        if self.has_room_for(json.len()) {
            self.bytes += json.len();
            self.rows.insert(key, Row { service: Arc::clone(found), subnets, json: json.clone() });
        }
        Ok(json)
    }
}

/// Writes a service; its status is the last field of the object.
fn append(list: &mut Vec<u8>, row: &[u8], status: Option<Counts>) -> Result<(), ApiError> {
    let (Some(status), Some(open)) = (status, row.strip_suffix(b"}")) else {
        list.extend_from_slice(row);
        return Ok(());
    };
    list.extend_from_slice(open);
    list.extend_from_slice(b",\"ServiceStatus\":");
    serde_json::to_writer(&mut *list, &status).map_err(unwritable)?;
    list.push(b'}');
    Ok(())
}

fn unwritable(error: serde_json::Error) -> ApiError {
    ApiError::internal(format!("write a service as JSON: {error}"))
}

#[cfg(test)]
mod tests {
    use cluster::spec::ServiceSpec;

    use super::*;

    fn web() -> Arc<Service> {
        let service = serde_json::json!({
            "id": ServiceId(1),
            "meta": {"version": 1, "created_at": 0, "updated_at": 0},
            "spec": {"Name": "web"},
            "previous_spec": null,
            "spec_version": 1,
            "vips": {},
            "ports": [],
            "update_status": null,
            "removed": false,
        });
        Arc::new(serde_json::from_value(service).unwrap())
    }

    #[test]
    fn a_row_is_rendered_when_its_object_is_another() {
        let (mut kept, state, service) = (Kept::default(), State::default(), web());
        let mut row = |service| kept.row(&state, service, false).unwrap();
        let first = row(&service);
        assert_eq!(first.as_ptr(), row(&service).as_ptr());
        let spec = ServiceSpec { name: "shop".to_owned(), ..ServiceSpec::clone(&service.spec) };
        let renamed = Arc::new(Service { spec: spec.into(), ..Service::clone(&service) });
        let second = row(&renamed);
        assert_ne!(first, second);
        assert_eq!(kept.bytes, second.len());
    }

    #[test]
    fn a_row_is_rendered_when_a_prefix_length_is_another() {
        let (mut kept, state, service) = (Kept::default(), State::default(), web());
        let first = kept.row(&state, &service, false).unwrap();
        for row in kept.rows.values_mut() {
            row.subnets = vec![Some(Subnets::V4("10.0.1.1/24".parse().unwrap()))];
        }
        let second = kept.row(&state, &service, false).unwrap();
        assert_ne!(first.as_ptr(), second.as_ptr());
        assert_eq!(kept.bytes, second.len());
    }

    #[test]
    fn what_is_kept_has_a_limit() {
        let (mut kept, state, service) = (Kept::default(), State::default(), web());
        kept.bytes = KEPT_BYTES_MAX;
        let row = kept.row(&state, &service, false).unwrap();
        assert!(row.starts_with(b"{\"ID\":"));
        assert!(kept.rows.is_empty());
    }

    #[test]
    fn rows_of_removed_services_are_forgotten() {
        let (mut kept, service) = (Kept::default(), web());
        kept.row(&State::default(), &service, true).unwrap();
        kept.follow(&Arc::default());
        assert_eq!((kept.rows.len(), kept.bytes), (0, 0));
    }

    #[test]
    fn the_status_is_a_services_last_field() {
        let mut list = Vec::new();
        let status = counts(&web(), std::iter::empty());
        append(&mut list, b"{\"ID\":\"a\"}", Some(status)).unwrap();
        let counts = "{\"RunningTasks\":0,\"DesiredTasks\":1,\"CompletedTasks\":0}";
        assert_eq!(list, format!("{{\"ID\":\"a\",\"ServiceStatus\":{counts}}}").as_bytes());
    }
}
