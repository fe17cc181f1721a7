//! The interface to a kernel: the real one (crate netprog-linux), or the fake one of tests and
//! simulation; a test checks that both behave the same.

use std::collections::BTreeSet;

use crate::op::Op;
use crate::plane::{Place, Plane};

/// An operation that the kernel refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{activity}: {reason}")]
pub struct KernelError {
    /// What was tried, with names and values.
    pub activity: String,
    /// The kernel's error message.
    pub reason: String,
    /// Its errno (errno(3)); 0 where something other than the kernel failed.
    pub errno: i32,
}

/// A kernel that can be read and changed.
pub trait Kernel {
    /// Reads what is ours. `desired` says which sysctls, tables and namespaces matter; fabrics that
    /// exist are read whether desired or not.
    fn observe(&mut self, desired: &Plane) -> Result<Plane, KernelError> {
        self.read(desired, None)
    }

    /// The same, of all namespaces or of those `only` that are named and exist.
    fn read(
        &mut self,
        desired: &Plane,
        only: Option<&BTreeSet<Place>>,
    ) -> Result<Plane, KernelError>;

    /// Applies operations in order. Continues after a failure (the next pass retries) and
    /// returns the failures by index.
    fn apply(&mut self, ops: &[Op]) -> Vec<(usize, KernelError)>;
}
