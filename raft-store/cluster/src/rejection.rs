//! What the user is told when a request is wrong or lost a race: one line that names the value and
//! the remedy, and a code that the API turns into a status.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// Stable; programs may match on it.
    pub code: Code,
    /// For people; Docker's words where Docker has any.
    pub message: String,
}

/// Kinds of refusal. Names are stable: they cross the wire between managers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Code {
    /// The named object does not exist.
    NotFound,
    /// The name belongs to another object.
    NameTaken,
    /// Something else that may exist only once is taken: a subnet, a VNI, a Raft id.
    Conflict,
    /// The request contradicts itself or the rules.
    Invalid,
    /// The object changed since the client read it.
    StaleVersion,
    /// Nothing is left to give out: subnets, addresses, ports.
    Exhausted,
    /// Right in Docker, absent here.
    Unimplemented,
    /// Never allowed on this object.
    NotAllowed,
    /// Not possible in the present state of things.
    FailedPrecondition,
    /// There is no cluster here.
    Unavailable,
}

impl Code {
    /// Docker's HTTP status for it; where Docker says 500 for a user's mistake this says 400, and
    /// 409 for a stale version.
    #[must_use]
    pub fn http_status(self) -> u16 {
        match self {
            Self::NotFound => 404,
            Self::NameTaken | Self::Conflict | Self::StaleVersion => 409,
            Self::Invalid | Self::Exhausted | Self::FailedPrecondition => 400,
            Self::NotAllowed => 403,
            Self::Unimplemented => 501,
            Self::Unavailable => 503,
        }
    }
}

impl Rejection {
    /// A refusal of some kind.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// `<kind> <name> not found`, as Docker says it.
    #[must_use]
    pub fn not_found(kind: &str, name: impl fmt::Display) -> Self {
        Self::new(Code::NotFound, format!("{kind} {name} not found"))
    }

    /// The request is wrong in itself.
    #[must_use]
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::Invalid, message)
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Rejection {}
