//! One pass: observe, plan, apply.
use netprog::kernel::{Kernel, KernelError};
use netprog::op::Op;
use netprog::plan::{Knowledge, plan};
use netprog::plane::{Place, Plane};

#[derive(Debug, Clone)]
pub struct Failure {
    pub op: Op,
    pub error: KernelError,
}
impl Failure {
    pub fn places(&self) -> Vec<Place> {
        vec![]
    }
}
#[derive(Debug, Clone, Default)]
pub struct PassReport {
    pub operations: usize,
    pub failures: Vec<Failure>,
}
pub struct Programmer<K> {
    kernel: K,
}
impl<K: Kernel> Programmer<K> {
    pub fn new(kernel: K) -> Self {
        Self { kernel }
    }
    pub fn observe(&mut self, desired: &Plane) -> Result<Plane, KernelError> {
        self.kernel.observe(desired)
    }
    pub fn pass(&mut self, desired: &Plane, knowledge: Knowledge, _verify: bool) -> PassReport {
        let observed = match self.kernel.observe(desired) {
            Ok(o) => o,
            Err(error) => {
                return PassReport {
                    operations: 0,
                    failures: vec![Failure { op: Op::CreateSpace(Place::Host), error }],
                };
            }
        };
        let ops = plan(desired, &observed, knowledge);
        let failed = self.kernel.apply(&ops);
        PassReport {
            operations: ops.len(),
            failures: failed
                .into_iter()
                .map(|(i, error)| Failure { op: ops[i].clone(), error })
                .collect(),
        }
    }
}
