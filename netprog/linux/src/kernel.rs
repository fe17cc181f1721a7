//! The real kernel as netprog's [`Kernel`].

mod activity;
mod batch;
mod shared;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::rc::Rc;

use netprog::kernel::{Kernel, KernelError};
use netprog::op::Op;
use netprog::plane::{Place, Plane, Space};

use crate::bulk;
use crate::drift::Doorbell;
use crate::namespace::{Identity, Inside, Namespace, Pending};
use crate::netlink::Refusal;
use crate::observe::{self, ReadError, ReadScope};
use crate::spaces::Spaces;
use crate::{conntrack, ipvs, nft};
use activity::activity;
use batch::Batch;

/// The kernel of this machine. Its methods block: call them from a thread of yours, never from a
/// runtime's worker.
pub struct LinuxKernel<S> {
    spaces: S,
    bell: Doorbell,
    entered: BTreeMap<Place, Namespace>,
    /// Where flows may lead elsewhere than published ports do. `None` before the first pass: what
    /// an agent before this one has changed is not known.
    unsettled: Option<BTreeSet<Place>>,
}

fn no_namespace(place: Place) -> String {
    format!("there is no namespace {place}")
}

type Failures = Vec<(usize, KernelError)>;

impl<S: Spaces> LinuxKernel<S> {
    /// Works on the namespaces that `spaces` keeps. Nothing is opened before it is needed.
    #[must_use]
    pub fn new(spaces: S) -> Self {
        Self { spaces, bell: Doorbell::default(), entered: BTreeMap::new(), unsettled: None }
    }

    /// Rings when others change what is ours in a namespace that has been observed.
    #[must_use]
    pub fn doorbell(&self) -> Doorbell {
        self.bell.clone()
    }

    /// The keeper of namespaces.
    pub fn spaces(&mut self) -> &mut S {
        &mut self.spaces
    }

    /// Runs `job` on the thread that lives in the namespace: sockets that it opens stay bound to
    /// it, programs that it starts inherit it. Waits for the result.
    pub fn run<T: Send + 'static>(
        &mut self,
        place: Place,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        self.enter(place)?
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, no_namespace(place)))?
            .run(job)
    }

    /// Leaves a namespace, so that nothing of this process keeps it alive.
    pub fn release(&mut self, place: Place) {
        self.entered.remove(&place);
    }

    /// A namespace to work in. A fabric that has been entered is not asked for again: its keeper
    /// is another process, and only we end fabrics. A sandbox may have been created again.
    fn known(&mut self, place: Place) -> io::Result<Option<&Namespace>> {
        match place {
            Place::Fabric(_) if self.entered.contains_key(&place) => Ok(self.entered.get(&place)),
            Place::Fabric(_) | Place::Host | Place::Sandbox(_) => self.enter(place),
        }
    }

    /// Enters a namespace, or finds that it has been; `None` if it does not exist.
    fn enter(&mut self, place: Place) -> io::Result<Option<&Namespace>> {
        let Some(fd) = self.spaces.open(place)? else {
            self.entered.remove(&place);
            return Ok(None);
        };
        let identity = Identity::of(&fd)?;
        let known = self.entered.get(&place).map(Namespace::identity);
        if known != Some(identity) {
            // Another namespace of the same name: the sandbox or fabric was created again.
            self.entered.remove(&place);
            let namespace = Namespace::enter_listening(place, fd, self.bell.clone())?;
            self.entered.insert(place, namespace);
        }
        Ok(self.entered.get(&place))
    }

    fn places(&self) -> io::Result<Vec<Place>> {
        let mut places = vec![Place::Host];
        places.extend(self.spaces.fabrics()?.into_iter().map(Place::Fabric));
        places.extend(self.spaces.sandboxes()?.into_iter().map(Place::Sandbox));
        Ok(places)
    }

    fn start_observing(
        &mut self,
        place: Place,
        wanted: ReadScope,
    ) -> io::Result<Option<Pending<Result<Space, ReadError>>>> {
        let Some(namespace) = self.enter(place)? else { return Ok(None) };
        namespace
            .start(move |inside| async move { observe::space(&inside, place, &wanted).await })
            .map(Some)
    }

    /// Runs part of a batch inside one namespace.
    fn run_inside<F, Fut>(&mut self, place: Place, count: usize, job: F) -> Vec<(usize, Refusal)>
    where
        F: FnOnce(Rc<Inside>) -> Fut + Send + 'static,
        Fut: Future<Output = Vec<(usize, Refusal)>> + 'static,
    {
        let all = |refusal: &Refusal| (0..count).map(|at| (at, refusal.clone())).collect();
        match self.known(place) {
            Ok(None) => all(&Refusal::other(no_namespace(place))),
            Err(error) => all(&error.into()),
            Ok(Some(namespace)) => match namespace.start_change(job).and_then(Pending::wait) {
                Ok(failed) => failed,
                Err(error) => all(&error.into()),
            },
        }
    }

    /// Deletes flows that lead elsewhere than published ports do now. What fails is tried again
    /// with the next operations; the kernel holds what it should all the same.
    fn settle_flows(&mut self, ops: &[Op]) {
        let known = self.unsettled.take().unwrap_or_else(|| self.entered.keys().copied().collect());
        let places: BTreeSet<Place> =
            known.into_iter().chain(ops.iter().filter_map(conntrack::unsettled_by)).collect();
        let mut unsettled = BTreeSet::new();
        for place in places {
            // With a namespace its flows are gone.
            if matches!(self.known(place), Ok(None)) {
                continue;
            }
            let settle = move |inside: Rc<Inside>| async move {
                let socket = inside.nft.borrow().socket();
                let failed = conntrack::settle(&socket, place).err();
                failed.map(|refusal| (0, refusal)).into_iter().collect()
            };
            for (_, refusal) in self.run_inside(place, 1, settle) {
                unsettled.insert(place);
                tracing::warn!(%place, error = %refusal, "delete stale flows");
            }
        }
        self.unsettled = Some(unsettled);
    }

    fn apply_batch(&mut self, place: Place, batch: Batch) -> Vec<(usize, Refusal)> {
        let count = batch.len();
        match batch {
            Batch::Space(op) => alone(self.change_space(place, op)),
            Batch::NewLink(op) => alone(self.make_link(place, &op)),
            Batch::Inside(requests) => self.run_inside(place, count, move |inside| async move {
                let mut failed = Vec::new();
                for (at, request) in requests.iter().enumerate() {
                    if let Err(refusal) = request.send(&inside).await {
                        failed.push((at, refusal));
                    }
                }
                failed
            }),
            Batch::Entries(ops) => self
                .run_inside(place, count, move |inside| async move { bulk::apply(&inside, &ops) }),
            Batch::Ipvs(ops) => self.run_inside(place, count, move |inside| async move {
                match inside.ipvs() {
                    Ok(Some(client)) => client.apply(&ops),
                    Ok(None) => ipvs::absent(count),
                    Err(refusal) => (0..count).map(|at| (at, refusal.clone())).collect(),
                }
            }),
            Batch::Nft(ops) => self.run_inside(place, count, move |inside| async move {
                let socket = inside.nft.borrow().socket();
                nft::apply(&socket, &ops).await
            }),
        }
    }
}

/// The failure of an operation that goes by itself.
fn alone(result: Result<(), Refusal>) -> Vec<(usize, Refusal)> {
    result.err().map(|refusal| (0, refusal)).into_iter().collect()
}

impl<S: Spaces> Kernel for LinuxKernel<S> {
    fn read(
        &mut self,
        desired: &Plane,
        only: Option<&BTreeSet<Place>>,
    ) -> Result<Plane, KernelError> {
        let failed = |activity: String| {
            move |error: io::Error| {
                let errno = error.raw_os_error().unwrap_or(0);
                KernelError { activity, reason: error.to_string(), errno }
            }
        };
        let places = self.places().map_err(failed("list namespaces".to_owned()))?;
        self.entered.retain(|place, _| places.contains(place));
        if let Some(unsettled) = &mut self.unsettled {
            unsettled.retain(|place| places.contains(place));
        }
        let mut pending = Vec::with_capacity(places.len());
        let asked = |place: &Place| only.is_none_or(|only| only.contains(place));
        for place in places.into_iter().filter(asked) {
            let wanted = desired.spaces.get(&place).map(ReadScope::of).unwrap_or_default();
            let observing = self
                .start_observing(place, wanted)
                .map_err(failed(format!("enter namespace {place}")))?;
            pending.extend(observing.map(|observing| (place, observing)));
        }
        let mut plane = Plane::default();
        for (place, observing) in pending {
            let space = observing
                .wait()
                .map_err(failed(format!("read namespace {place}")))?
                .map_err(|unread| KernelError {
                    activity: format!("{} of namespace {place}", unread.what),
                    reason: unread.refusal.to_string(),
                    errno: unread.refusal.errno,
                })?;
            plane.spaces.insert(place, space);
        }
        Ok(plane)
    }

    fn apply(&mut self, ops: &[Op]) -> Vec<(usize, KernelError)> {
        let mut failures = Failures::new();
        let mut start = 0;
        while let Some((first, rest)) = ops[start..].split_first() {
            let mut batch = Batch::of(&first.kind);
            let more = rest.iter().take_while(|op| op.place == first.place && batch.add(&op.kind));
            let part = &ops[start..=start + more.count()];
            for (at, refusal) in self.apply_batch(first.place, batch) {
                let Some(op) = part.get(at) else { continue };
                let (activity, reason) = (activity(op), refusal.to_string());
                let error = KernelError { activity, reason, errno: refusal.errno };
                failures.push((start + at, error));
            }
            start += part.len();
        }
        self.settle_flows(ops);
        failures
    }
}
