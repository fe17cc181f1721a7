//! Why a sandbox or a task could not be dealt with.

use std::io;

/// Why an executor could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This task cannot run on this node, ever; the text is for the user.
    #[error("{reason}")]
    Rejected {
        /// What is wrong, with the value and the remedy.
        reason: String,
    },
    /// A task of this id is here already.
    #[error("task {task} has already been launched")]
    AlreadyLaunched {
        /// The task.
        task: String,
    },
    /// The supervisor could not be started or did not become ready.
    #[error("launch task {task}")]
    Launch {
        /// The task.
        task: String,
        /// What went wrong.
        source: io::Error,
    },
    /// The supervisor does not answer.
    #[error("reach the supervisor of task {task}")]
    Supervisor {
        /// The task.
        task: String,
        /// What went wrong.
        source: io::Error,
    },
    /// The request does not fit the task's phase.
    #[error("task {task}: {reason}")]
    Refused {
        /// The task.
        task: String,
        /// The supervisor's words.
        reason: String,
    },
    /// What is left of a task could not be removed.
    #[error("remove what is left of task {task}")]
    Remove {
        /// The task.
        task: String,
        /// What went wrong.
        source: io::Error,
    },
}

impl Error {
    /// Whether the reason may pass, so that trying again can help. Final is what the spec asks for
    /// and this node does not have or offer; a lack of memory, disk, processes or descriptors, a
    /// missing directory of Skein's, and a supervisor that is slow or gone may pass.
    pub fn may_pass(&self) -> bool {
        match self {
            Error::Rejected { .. } | Error::Refused { .. } => false,
            Error::AlreadyLaunched { .. }
            | Error::Launch { .. }
            | Error::Supervisor { .. }
            | Error::Remove { .. } => true,
        }
    }
}
