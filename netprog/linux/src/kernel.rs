//! The real kernel as netprog's [`Kernel`].

mod activity;
mod shared;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::rc::Rc;

use netprog::kernel::{Kernel, KernelError};
use netprog::op::Op;
use netprog::plane::{Place, Plane, Space};

use crate::bulk::{self, Entry};
use crate::drift::Doorbell;
use crate::link;
use crate::namespace::{Identity, Inside, Namespace, Pending};
use crate::netlink::Refusal;
use crate::observe::{self, Unread, Wanted};
use crate::spaces::Spaces;
use crate::{conntrack, ipvs, nft, route, sysctl};
use activity::activity;

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
    /// is another process, and only we end fabrics. A sandbox may have been made anew.
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
            // Another namespace by the same name: the task or fabric was made anew.
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
        wanted: Wanted,
    ) -> io::Result<Option<Pending<Result<Space, Unread>>>> {
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

    fn apply_run(&mut self, run: Run, ops: &[Op]) -> Vec<(usize, Refusal)> {
        match run {
            Run::Entries(place) => {
                let entries: Vec<Entry> = ops.iter().filter_map(entry).collect();
                self.run_inside(place, ops.len(), move |inside| async move {
                    bulk::apply(&inside, &entries)
                })
            }
            Run::Ipvs(place) => {
                let ops = ops.to_vec();
                self.run_inside(place, ops.len(), move |inside| async move {
                    match inside.ipvs() {
                        Ok(Some(client)) => client.apply(&ops),
                        Ok(None) => ipvs::absent(ops.len()),
                        Err(refusal) => (0..ops.len()).map(|at| (at, refusal.clone())).collect(),
                    }
                })
            }
            Run::Nft(place) => {
                let ops = ops.to_vec();
                self.run_inside(place, ops.len(), move |inside| async move {
                    let socket = inside.nft.borrow().socket();
                    nft::apply(&socket, &ops).await
                })
            }
            Run::Inside(place) => {
                let ops = ops.to_vec();
                self.run_inside(place, ops.len(), move |inside| async move {
                    let mut failed = Vec::new();
                    for (at, op) in ops.iter().enumerate() {
                        if let Err(refusal) = inside_op(&inside, op).await {
                            failed.push((at, refusal));
                        }
                    }
                    failed
                })
            }
            Run::Alone => {
                let results = ops.iter().map(|op| self.alone(op));
                results.enumerate().filter_map(|(at, result)| Some((at, result.err()?))).collect()
            }
        }
    }
}

impl<S: Spaces> Kernel for LinuxKernel<S> {
    fn read(
        &mut self,
        desired: &Plane,
        only: Option<&BTreeSet<Place>>,
    ) -> Result<Plane, KernelError> {
        let failed = |activity: String| {
            move |error: io::Error| KernelError { activity, reason: error.to_string() }
        };
        let places = self.places().map_err(failed("list namespaces".to_owned()))?;
        self.entered.retain(|place, _| places.contains(place));
        if let Some(unsettled) = &mut self.unsettled {
            unsettled.retain(|place| places.contains(place));
        }
        let mut pending = Vec::with_capacity(places.len());
        let asked = |place: &Place| only.is_none_or(|only| only.contains(place));
        for place in places.into_iter().filter(asked) {
            let wanted = desired.spaces.get(&place).map(Wanted::of).unwrap_or_default();
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
                })?;
            plane.spaces.insert(place, space);
        }
        Ok(plane)
    }

    fn apply(&mut self, ops: &[Op]) -> Vec<(usize, KernelError)> {
        let mut failures = Failures::new();
        let mut start = 0;
        while let Some(first) = ops.get(start) {
            let run = Run::of(first);
            let same = ops[start..].iter().take_while(|op| Run::of(op) == run);
            let length = same.take(run.ops_max()).count();
            let part = &ops[start..start + length];
            for (at, refusal) in self.apply_run(run, part) {
                let Some(op) = part.get(at) else { continue };
                let error = KernelError { activity: activity(op), reason: refusal.to_string() };
                failures.push((start + at, error));
            }
            start += length;
        }
        self.settle_flows(ops);
        failures
    }
}

/// Consecutive operations of one kind go to the kernel together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Run {
    /// FDB and neighbour entries of one namespace.
    Entries(Place),
    /// Virtual services of one namespace.
    Ipvs(Place),
    /// nftables of one namespace.
    Nft(Place),
    /// Single requests in one namespace.
    Inside(Place),
    /// More than one namespace is concerned.
    Alone,
}

/// Requests of one job, and routes, links and the like: after each job what it caused is read, and
/// must fit the buffer of who listens.
const JOB_OPS_MAX: usize = bulk::BATCH_MAX;

impl Run {
    /// Operations that are one job of the namespace's thread.
    fn ops_max(self) -> usize {
        match self {
            Self::Entries(_) | Self::Ipvs(_) | Self::Inside(_) | Self::Alone => JOB_OPS_MAX,
            Self::Nft(_) => nft::TRANSACTION_OPS_MAX,
        }
    }

    fn of(op: &Op) -> Self {
        match op {
            shared_op!() => Self::Alone,
            Op::DeleteLink(place, ..)
            | Op::SetLink(place, ..)
            | Op::AddAddress(place, ..)
            | Op::DeleteAddress(place, ..)
            | Op::AddRoute(place, _)
            | Op::DeleteRoute(place, _)
            | Op::AddRule(place, _)
            | Op::DeleteRule(place, _)
            | Op::SetSysctl(place, ..) => Self::Inside(*place),
            Op::SetFdb(place, ..)
            | Op::DeleteFdb(place, _)
            | Op::SetNeighbour(place, ..)
            | Op::DeleteNeighbour(place, ..) => Self::Entries(*place),
            Op::SetVirtualService(place, ..)
            | Op::DeleteVirtualService(place, _)
            | Op::SetRealServer(place, ..)
            | Op::DeleteRealServer(place, ..)
            | Op::SetIpvsTimeouts(place, _) => Self::Ipvs(*place),
            Op::LoadTable(place, ..)
            | Op::DeleteTable(place, _)
            | Op::AddElement(place, ..)
            | Op::DeleteElement(place, ..)
            | Op::SetMapElement { place, .. } => Self::Nft(*place),
        }
    }
}

fn entry(op: &Op) -> Option<Entry> {
    match op {
        Op::SetFdb(_, key, vtep) => Some(Entry::SetFdb(key.clone(), *vtep)),
        Op::DeleteFdb(_, key) => Some(Entry::DeleteFdb(key.clone())),
        Op::SetNeighbour(_, device, address, mac) => {
            Some(Entry::SetNeighbour(device.clone(), *address, *mac))
        }
        Op::DeleteNeighbour(_, device, address) => {
            Some(Entry::DeleteNeighbour(device.clone(), *address))
        }
        shared_op!() | single_op!() | ipvs_op!() | nft_op!() => None,
    }
}

async fn inside_op(inside: &Inside, op: &Op) -> Result<(), Refusal> {
    match op {
        Op::DeleteLink(_, name) => link::delete(inside, name).await,
        Op::SetLink(_, name, change) => link::set(inside, name, change).await,
        Op::AddAddress(_, link, cidr) => route::add_address(inside, link, *cidr).await,
        Op::DeleteAddress(_, link, cidr) => route::delete_address(inside, link, *cidr).await,
        Op::AddRoute(_, route) => route::add_route(inside, route).await,
        Op::DeleteRoute(_, route) => route::delete_route(inside, route).await,
        Op::AddRule(_, rule) => route::add_rule(inside, rule).await,
        Op::DeleteRule(_, rule) => route::delete_rule(inside, rule).await,
        Op::SetSysctl(_, name, value) => sysctl::write(name, value),
        shared_op!() | entry_op!() | ipvs_op!() | nft_op!() => {
            Err(Refusal::other("this operation is not a single request"))
        }
    }
}
