//! What planners have to look at: kept with the state, change by change, so that a plan costs what
//! there is to do and not what there is. What belongs on it is the planners' to say
//! (`plan/agenda.rs`).

use imbl::OrdSet;

use crate::id::{NetworkId, NodeId, ServiceId, TaskId};
use crate::object::Slot;

/// What planners have to look at.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Agenda {
    /// Live services that do not plainly have the tasks that they should have.
    pub(crate) restless: OrdSet<ServiceId>,
    /// Nodes that a global service is to have a task on and has none.
    pub(crate) gaps: OrdSet<(ServiceId, NodeId)>,
    pub(crate) globals: OrdSet<ServiceId>,
    /// Services that are being removed.
    pub(crate) leaving: OrdSet<ServiceId>,
    /// Slots with more history than is kept.
    pub(crate) crowded: OrdSet<(ServiceId, Slot)>,
    /// Tasks that their node, or the removal of their service, has something to say to.
    pub(crate) adrift: OrdSet<TaskId>,
    /// Tasks that nobody can say anything of.
    pub(crate) lost: OrdSet<TaskId>,
    /// Tasks without a node.
    pub(crate) waiting: OrdSet<TaskId>,
    /// Networks that are being removed.
    pub(crate) removed_networks: OrdSet<NetworkId>,
    /// Nodes whose place on the ingress network is not what it should be.
    pub(crate) misplaced: OrdSet<NodeId>,
    /// Live services whose virtual addresses or ingress ports are not what they should be.
    pub(crate) lacking: OrdSet<ServiceId>,
}
