//! Creating, updating, rolling back and removing services.

use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;

use super::{check_version, names, ports, spec};
use crate::draft::Draft;
use crate::id::ServiceId;
use crate::object::{Service, UpdateState, UpdateStatus};
use crate::rejection::{Code, Rejection};
use crate::request::Answer;
use crate::spec::{ServiceMode, ServiceSpec};
use crate::state::State;
use crate::time::Revision;
use crate::transaction::Object;

pub(super) fn create(draft: &mut Draft<'_>, spec: &ServiceSpec) -> Result<Answer, Rejection> {
    let mut spec = spec.clone();
    if spec.name.is_empty() {
        spec.name = names::drawn(draft);
    }
    let (spec, warnings) = spec::checked(draft.state(), &spec)?;
    if draft.state().service_named(&spec.name).is_some() {
        return Err(Rejection::new(
            Code::NameTaken,
            format!("name conflicts with an existing object: service {} already exists", spec.name),
        ));
    }
    let id = ServiceId(draft.draw());
    let ports = ports::resolve(draft.state(), id, &spec, &[])?;
    let service = Service {
        id,
        meta: draft.new_meta(),
        spec,
        previous_spec: None,
        spec_version: next_spec_version(draft.state()),
        previous_spec_version: Revision(0),
        vips: BTreeMap::new(),
        ports,
        update_status: None,
        removed: false,
    };
    draft.put(Object::Service(Arc::new(service)));
    Ok(Answer::Service { id, warnings })
}

pub(super) fn update(
    draft: &mut Draft<'_>,
    id: ServiceId,
    version: Revision,
    spec: &ServiceSpec,
) -> Result<Answer, Rejection> {
    let before = existing(draft.state(), id, Some(version))?;
    let (spec, warnings) = spec::checked(draft.state(), spec)?;
    if spec.name != before.spec.name {
        return Err(Rejection::new(
            Code::Unimplemented,
            format!(
                "renaming services is not supported: {} cannot become {}",
                before.spec.name, spec.name
            ),
        ));
    }
    if !same_mode(&spec.mode, &before.spec.mode) {
        return Err(Rejection::new(
            Code::Unimplemented,
            format!(
                "service mode change is not allowed: remove service {} and create it again",
                spec.name
            ),
        ));
    }
    let ports = ports::resolve(draft.state(), id, &spec, &before.ports)?;
    let spec_version = if needs_new_tasks(&before.spec, &spec) {
        next_spec_version(draft.state())
    } else {
        before.spec_version
    };
    draft.edit_service(id, |service| {
        service.previous_spec = Some(mem::replace(&mut service.spec, spec));
        service.previous_spec_version = mem::replace(&mut service.spec_version, spec_version);
        service.ports = ports;
        service.update_status = None;
    });
    Ok(Answer::Service { id, warnings })
}

pub(super) fn rollback(
    draft: &mut Draft<'_>,
    id: ServiceId,
    version: Revision,
) -> Result<Answer, Rejection> {
    existing(draft.state(), id, Some(version))?;
    go_back(draft, id, "manually requested rollback", true)?;
    Ok(Answer::Service { id, warnings: Vec::new() })
}

/// Puts a service back to its previous spec. The specs change places if the user asked for it, so
/// that a second rollback undoes the first; after a failed update there is nothing to go back to.
pub(crate) fn go_back(
    draft: &mut Draft<'_>,
    id: ServiceId,
    message: &str,
    by_user: bool,
) -> Result<(), Rejection> {
    let service = existing(draft.state(), id, None)?;
    let Some(previous) = &service.previous_spec else {
        return Err(Rejection::new(
            Code::FailedPrecondition,
            format!("service {} does not have a previous spec", service.spec.name),
        ));
    };
    // Networks and ports of the previous spec may be gone or taken since.
    let (previous, _warnings) = spec::checked(draft.state(), previous)?;
    let ports = ports::resolve(draft.state(), id, &previous, &service.ports)?;
    let status = UpdateStatus {
        state: UpdateState::RollbackStarted,
        started_at: draft.now(),
        completed_at: None,
        message: message.to_owned(),
    };
    draft.edit_service(id, |service| {
        let failed = mem::replace(&mut service.spec, previous);
        mem::swap(&mut service.spec_version, &mut service.previous_spec_version);
        service.previous_spec = by_user.then_some(failed);
        service.ports = ports;
        service.update_status = Some(status);
    });
    Ok(())
}

/// Name and ports are free at once. The planners stop its tasks, and forget it when the last one
/// has ended.
pub(super) fn remove(draft: &mut Draft<'_>, id: ServiceId) -> Result<Answer, Rejection> {
    existing(draft.state(), id, None)?;
    draft.edit_service(id, |service| service.removed = true);
    Ok(Answer::Done)
}

fn existing(
    state: &State,
    id: ServiceId,
    version: Option<Revision>,
) -> Result<Arc<Service>, Rejection> {
    let service = state.services.get(&id).filter(|service| !service.removed);
    let service = service.ok_or_else(|| Rejection::not_found("service", id))?;
    if let Some(version) = version {
        check_version(&format!("service {}", service.spec.name), service.meta.version, version)?;
    }
    Ok(Arc::clone(service))
}

fn same_mode(a: &ServiceMode, b: &ServiceMode) -> bool {
    match (a, b) {
        (ServiceMode::Replicated(_), ServiceMode::Replicated(_))
        | (ServiceMode::Global(_), ServiceMode::Global(_)) => true,
        (ServiceMode::Replicated(_), ServiceMode::Global(_))
        | (ServiceMode::Global(_), ServiceMode::Replicated(_)) => false,
    }
}

/// Whether running tasks cannot follow the change: labels, replicas and update settings they can.
fn needs_new_tasks(before: &ServiceSpec, after: &ServiceSpec) -> bool {
    before.task_template != after.task_template || before.endpoint_spec != after.endpoint_spec
}

/// No service has had this one: the revision rises with every change.
fn next_spec_version(state: &State) -> Revision {
    Revision(state.revision.0.saturating_add(1))
}
