//! One log entry: decisions already taken, as whole objects with the versions they were taken on.
//!
//! The log records decisions and never policies, so two versions of the program replay one log to
//! one state.

use std::fmt;
use std::sync::Arc;

use crate::id::{NetworkId, NodeId, RequestId, ServiceId, TaskId};
use crate::object::{Cluster, Meta, Network, Node, Service, Task};
use crate::request::Answer;
use crate::time::{Revision, Timestamp};

/// One log entry; all of it takes effect, or nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Transaction {
    /// The leader's time when it was decided: `updated_at` of every object in it.
    pub at: Timestamp,
    /// In the order of their keys; a key at most once.
    pub changes: Vec<Change>,
    /// Requests of clients that it does, with what they are answered; a request at most once.
    pub answered: Vec<Answered>,
}

impl Transaction {
    /// Whether there is nothing to propose.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

/// A request that was done, and what is answered when it is asked again.
#[derive(Debug, Clone, PartialEq)]
pub struct Answered {
    /// Which.
    pub request: RequestId,
    /// As [`Answer::recorded`].
    pub answer: Arc<Answer>,
}

/// One object put or removed.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Stores an object whole.
    Put {
        /// The version it was decided on; `None`: it must not exist.
        expected: Option<Revision>,
        /// The object; `apply` sets its version and times.
        object: Object,
    },
    /// Forgets an object.
    Remove {
        /// Which.
        key: Key,
        /// The version it was decided on.
        expected: Revision,
    },
}

impl Change {
    /// The object that it is about.
    #[must_use]
    pub fn key(&self) -> Key {
        match self {
            Self::Put { object, .. } => object.key(),
            Self::Remove { key, .. } => *key,
        }
    }
}

/// An object of any kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Object {
    /// The cluster.
    Cluster(Arc<Cluster>),
    /// A node.
    Node(Arc<Node>),
    /// A network.
    Network(Arc<Network>),
    /// A service.
    Service(Arc<Service>),
    /// A task.
    Task(Arc<Task>),
}

impl Object {
    /// What names it.
    #[must_use]
    pub fn key(&self) -> Key {
        match self {
            Self::Cluster(_) => Key::Cluster,
            Self::Node(node) => Key::Node(node.id),
            Self::Network(network) => Key::Network(network.id),
            Self::Service(service) => Key::Service(service.id),
            Self::Task(task) => Key::Task(task.id),
        }
    }

    /// Its version and times.
    #[must_use]
    pub fn meta(&self) -> Meta {
        match self {
            Self::Cluster(cluster) => cluster.meta,
            Self::Node(node) => node.meta,
            Self::Network(network) => network.meta,
            Self::Service(service) => service.meta,
            Self::Task(task) => task.meta,
        }
    }

    /// The same object with other version and times.
    #[must_use]
    pub fn with_meta(mut self, meta: Meta) -> Self {
        match &mut self {
            Self::Cluster(cluster) => Arc::make_mut(cluster).meta = meta,
            Self::Node(node) => Arc::make_mut(node).meta = meta,
            Self::Network(network) => Arc::make_mut(network).meta = meta,
            Self::Service(service) => Arc::make_mut(service).meta = meta,
            Self::Task(task) => Arc::make_mut(task).meta = meta,
        }
        self
    }
}

/// Names an object of any kind. The order is that of changes in a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// The cluster.
    Cluster,
    /// A node.
    Node(NodeId),
    /// A network.
    Network(NetworkId),
    /// A service.
    Service(ServiceId),
    /// A task.
    Task(TaskId),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster => f.write_str("the cluster"),
            Self::Node(id) => write!(f, "node {id}"),
            Self::Network(id) => write!(f, "network {id}"),
            Self::Service(id) => write!(f, "service {id}"),
            Self::Task(id) => write!(f, "task {id}"),
        }
    }
}
