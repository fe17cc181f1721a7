//! One pass of the reconciler: observe, plan, apply. The caller decides when; a pass takes no
//! event, reads everything, and changes nothing if it is run a second time.
//!
//! The observed copy is updated with every applied operation, so that a single change needs no dump
//! of the kernel. The copy is dropped as soon as anything fails. On request of the caller it is
//! compared with a dump: of everything on a slow timer, and of single namespaces after netlink
//! reported a change by another program.

use std::collections::{BTreeMap, BTreeSet};

use crate::kernel::{Kernel, KernelError};
use crate::model::Model;
use crate::op::Op;
use crate::plan::{Knowledge, plan};
use crate::plane::{Place, Plane};

/// An operation that the kernel refused, or the reading of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What was tried; unset if the kernel could not be read.
    pub op: Option<Op>,
    /// What the kernel said.
    pub error: KernelError,
}

impl Failure {
    /// The namespaces that stay wrong; the host's if the kernel could not be read at all.
    #[must_use]
    pub fn places(&self) -> Vec<Place> {
        self.op.as_ref().map_or_else(|| vec![Place::Host], Op::places)
    }
}

/// What a pass reads from the kernel before it plans. Without a valid copy it reads everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// Nothing: the copy is current.
    Remember,
    /// These namespaces, each once; the copy for all others.
    At(BTreeSet<Place>),
    /// Everything.
    Whole,
}

/// What a pass did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PassReport {
    /// Applied operations, including failed ones.
    pub operations: usize,
    /// How many of them were about which kind of kernel object ([`crate::op::Kind::name`]).
    pub by_kind: BTreeMap<&'static str, usize>,
    /// What failed; empty means that the kernel holds what it should (with partial knowledge: at
    /// least that).
    pub failures: Vec<Failure>,
    /// Operations that were needed only because something else changed the kernel. Always 0 if
    /// nothing is read.
    pub drift: usize,
    /// Whether the kernel was read.
    pub dumped: bool,
}

/// Drives one kernel.
#[derive(Debug)]
pub struct Programmer<K> {
    kernel: K,
    remembered: Option<Model>,
}

impl<K: Kernel> Programmer<K> {
    /// Knows nothing of the kernel yet: the first pass reads it.
    pub fn new(kernel: K) -> Self {
        Self { kernel, remembered: None }
    }

    pub fn kernel(&mut self) -> &mut K {
        &mut self.kernel
    }

    /// Reads the kernel for inspection; changes and remembers nothing.
    pub fn observe(&mut self, desired: &Plane) -> Result<Plane, KernelError> {
        self.kernel.observe(desired)
    }

    /// Makes the kernel hold what is desired.
    pub fn pass(&mut self, desired: &Plane, knowledge: Knowledge, look: &Look) -> PassReport {
        let mut report = PassReport::default();
        let remembered = self.remembered.take().filter(|model| covers(model, desired));
        let read = match (remembered, look) {
            (Some(model), Look::Remember) => Some(model),
            (before, Look::Remember | Look::Whole) | (before @ None, Look::At(_)) => {
                self.read(desired, knowledge, (before.as_ref(), None), &mut report)
            }
            (before, Look::At(places)) => {
                self.read(desired, knowledge, (before.as_ref(), Some(places)), &mut report)
            }
        };
        let Some(mut model) = read else { return report };
        let ops = plan(desired, &model.plane, knowledge);
        let failed = self.kernel.apply(&ops);
        report.operations = ops.len();
        for op in &ops {
            *report.by_kind.entry(op.kind.name()).or_default() += 1;
        }
        let modelled = ops.iter().all(|op| model.apply(op).is_ok());
        report.failures.extend(
            failed.into_iter().map(|(at, error)| Failure { op: ops.get(at).cloned(), error }),
        );
        if modelled && report.failures.is_empty() {
            self.remembered = Some(model);
        }
        report
    }

    fn read(
        &mut self,
        desired: &Plane,
        knowledge: Knowledge,
        (before, only): (Option<&Model>, Option<&BTreeSet<Place>>),
        report: &mut PassReport,
    ) -> Option<Model> {
        let plane = match self.kernel.read(desired, only) {
            Ok(read) => match (before, only) {
                (Some(before), Some(only)) => patched(&before.plane, read, only),
                (None, _) | (_, None) => read,
            },
            Err(error) => {
                report.failures.push(Failure { op: None, error });
                return None;
            }
        };
        report.dumped = true;
        if let Some(before) = before {
            let expected = plan(desired, &before.plane, knowledge);
            let expected: BTreeSet<&Op> = expected.iter().collect();
            let needed = plan(desired, &plane, knowledge);
            report.drift = needed.iter().filter(|op| !expected.contains(op)).count();
        }
        Some(Model::of(plane, desired))
    }
}

/// Merges namespaces that were read again into a plane. Those that were not found are removed.
fn patched(before: &Plane, mut read: Plane, only: &BTreeSet<Place>) -> Plane {
    let kept = before.spaces.iter().filter(|(place, _)| !only.contains(place));
    read.spaces.extend(kept.map(|(place, space)| (*place, space.clone())));
    read
}

/// Whether the copy contains every namespace that supervisors made: a new one has not been read.
fn covers(model: &Model, desired: &Plane) -> bool {
    desired.spaces.keys().all(|place| match place {
        Place::Fabric(_) => true,
        Place::Host | Place::Sandbox(_) => model.plane.spaces.contains_key(place),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeKernel;
    use crate::fixture::{REDIS, WEB, World, task};
    use crate::op::EntryOp;
    use crate::render::render;

    fn desired(tasks: &[(u8, u8)]) -> Plane {
        let mut world = World::new();
        for (n, on) in tasks {
            world.add(*n, REDIS, *on).up(*n, true);
        }
        render(&world.assignment, &world.view, &world.local)
    }

    fn programmer() -> Programmer<FakeKernel> {
        let mut kernel = FakeKernel::new();
        kernel.create_sandbox(task(1));
        Programmer::new(kernel)
    }

    #[test]
    fn a_change_needs_no_dump_and_leaves_nothing_to_verify() {
        let mut programmer = programmer();
        let first = programmer.pass(&desired(&[(1, 1)]), Knowledge::Complete, &Look::Remember);
        assert!(first.dumped && first.failures.is_empty(), "{first:?}");
        for tasks in [&[(1, 1), (2, 2)][..], &[(2, 2)], &[(1, 1), (3, 3)]] {
            let change = programmer.pass(&desired(tasks), Knowledge::Complete, &Look::Remember);
            assert!(!change.dumped && change.operations > 0, "{change:?}");
            let check = programmer.pass(&desired(tasks), Knowledge::Complete, &Look::Whole);
            let clean = PassReport { dumped: true, ..PassReport::default() };
            assert_eq!(check, clean);
        }
    }

    #[test]
    fn drift_is_repaired_and_counted_when_it_is_looked_for() {
        let mut programmer = programmer();
        let desired = desired(&[(1, 1), (2, 2)]);
        programmer.pass(&desired, Knowledge::Complete, &Look::Remember);
        let fabric = &desired.spaces[&Place::Fabric(WEB)];
        let gone = fabric.fdb.keys().next().unwrap().clone();
        let op = Op::new(Place::Fabric(WEB), EntryOp::DeleteFdb(gone));
        programmer.kernel().interfere(&op).unwrap();
        assert_eq!(programmer.pass(&desired, Knowledge::Complete, &Look::Remember).operations, 0);
        let repair = programmer.pass(&desired, Knowledge::Complete, &Look::Whole);
        assert_eq!((repair.operations, repair.drift), (1, 1));
    }

    #[test]
    fn a_failure_names_its_place_and_is_made_good() {
        let mut programmer = programmer();
        programmer.kernel().fail(3);
        let desired = desired(&[(1, 1)]);
        let failed = programmer.pass(&desired, Knowledge::Complete, &Look::Remember);
        assert_eq!(failed.failures[0].error.reason, "injected fault");
        assert_eq!(failed.failures[0].places().len(), 1);
        let again = programmer.pass(&desired, Knowledge::Complete, &Look::Remember);
        assert!(again.dumped && again.failures.is_empty(), "{again:?}");
        assert_eq!(programmer.pass(&desired, Knowledge::Complete, &Look::Whole).operations, 0);
    }

    #[test]
    fn a_sandbox_that_appears_is_read_first() {
        let mut programmer = Programmer::new(FakeKernel::new());
        let desired = desired(&[(1, 1)]);
        programmer.pass(&desired, Knowledge::Complete, &Look::Remember);
        programmer.kernel().create_sandbox(task(1));
        let pass = programmer.pass(&desired, Knowledge::Complete, &Look::Remember);
        assert!(pass.dumped && pass.operations > 0, "{pass:?}");
    }
}
