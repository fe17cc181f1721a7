//! One pass of the reconciler: observe, plan, apply. Whoever drives it decides when; a pass takes
//! no event, reads everything, and done twice changes nothing the second time.
//!
//! The observed copy is kept current with what was applied, so that a single change needs no dump
//! of the kernel. It is forgotten as soon as anything fails, and compared with a full dump whenever
//! the caller wants (on a slow timer, and when netlink says that something else interfered).

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
    /// The namespaces that it leaves wrong; the host's where the kernel could not be read, which
    /// concerns everything.
    #[must_use]
    pub fn places(&self) -> Vec<Place> {
        self.op.as_ref().map_or_else(|| vec![Place::Host], Op::places)
    }
}

/// What a pass did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PassReport {
    /// Operations that were applied, failed ones too.
    pub operations: usize,
    /// What failed; empty means that the kernel holds what it should (with partial knowledge: at
    /// least that).
    pub failures: Vec<Failure>,
    /// Operations that were only needed because the kernel was not as this programmer had left
    /// it. Always 0 without a full dump.
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

    /// The kernel.
    pub fn kernel(&mut self) -> &mut K {
        &mut self.kernel
    }

    /// Reads the kernel for somebody who wants to look; nothing is changed or remembered.
    pub fn observe(&mut self, desired: &Plane) -> Result<Plane, KernelError> {
        self.kernel.observe(desired)
    }

    /// Makes the kernel hold what is desired. With `verify`, and whenever the remembered copy is
    /// not good enough, the kernel is read first.
    pub fn pass(&mut self, desired: &Plane, knowledge: Knowledge, verify: bool) -> PassReport {
        let mut report = PassReport::default();
        let remembered = self.remembered.take().filter(|model| covers(model, desired));
        let mut model = match remembered {
            Some(model) if !verify => model,
            before => match self.read(desired, knowledge, before.as_ref(), &mut report) {
                Some(model) => model,
                None => return report,
            },
        };
        let ops = plan(desired, &model.plane, knowledge);
        let failed = self.kernel.apply(&ops);
        report.operations = ops.len();
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
        before: Option<&Model>,
        report: &mut PassReport,
    ) -> Option<Model> {
        let plane = match self.kernel.observe(desired) {
            Ok(plane) => plane,
            Err(error) => {
                report.failures.push(Failure { op: None, error });
                return None;
            }
        };
        report.dumped = true;
        if let Some(before) = before {
            let expected = plan(desired, &before.plane, knowledge);
            let needed = plan(desired, &plane, knowledge);
            report.drift = needed.iter().filter(|op| !expected.contains(op)).count();
        }
        Some(Model::of(plane, desired))
    }
}

/// Whether the copy knows every namespace that others make: one that has appeared since was never
/// read.
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
        let first = programmer.pass(&desired(&[(1, 1)]), Knowledge::Complete, false);
        assert!(first.dumped && first.failures.is_empty(), "{first:?}");
        for tasks in [&[(1, 1), (2, 2)][..], &[(2, 2)], &[(1, 1), (3, 3)]] {
            let change = programmer.pass(&desired(tasks), Knowledge::Complete, false);
            assert!(!change.dumped && change.operations > 0, "{change:?}");
            let check = programmer.pass(&desired(tasks), Knowledge::Complete, true);
            let clean = PassReport { dumped: true, ..PassReport::default() };
            assert_eq!(check, clean);
        }
    }

    #[test]
    fn drift_is_repaired_and_counted_when_it_is_looked_for() {
        let mut programmer = programmer();
        let desired = desired(&[(1, 1), (2, 2)]);
        programmer.pass(&desired, Knowledge::Complete, false);
        let fabric = &desired.spaces[&Place::Fabric(WEB)];
        let gone = fabric.fdb.keys().next().unwrap().clone();
        let op = Op::DeleteFdb(Place::Fabric(WEB), gone);
        programmer.kernel().interfere(&op).unwrap();
        assert_eq!(programmer.pass(&desired, Knowledge::Complete, false).operations, 0);
        let repair = programmer.pass(&desired, Knowledge::Complete, true);
        assert_eq!((repair.operations, repair.drift), (1, 1));
    }

    #[test]
    fn a_failure_names_its_place_and_is_made_good() {
        let mut programmer = programmer();
        programmer.kernel().fail(3);
        let desired = desired(&[(1, 1)]);
        let failed = programmer.pass(&desired, Knowledge::Complete, false);
        assert_eq!(failed.failures[0].error.reason, "injected fault");
        assert_eq!(failed.failures[0].places().len(), 1);
        let again = programmer.pass(&desired, Knowledge::Complete, false);
        assert!(again.dumped && again.failures.is_empty(), "{again:?}");
        assert_eq!(programmer.pass(&desired, Knowledge::Complete, true).operations, 0);
    }

    #[test]
    fn a_sandbox_that_appears_is_read_first() {
        let mut programmer = Programmer::new(FakeKernel::new());
        let desired = desired(&[(1, 1)]);
        programmer.pass(&desired, Knowledge::Complete, false);
        programmer.kernel().create_sandbox(task(1));
        let pass = programmer.pass(&desired, Knowledge::Complete, false);
        assert!(pass.dumped && pass.operations > 0, "{pass:?}");
    }
}
