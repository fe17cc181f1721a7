//! Consecutive operations of one namespace that are sent to the kernel together.

use netprog::op::{EntryOp, IpvsOp, Kind, LinkOp, NewLink, NftOp, RouteOp, SpaceOp, Sysctl};

use crate::bulk;
use crate::namespace::Inside;
use crate::netlink::Refusal;
use crate::{link, nft, route, sysctl};

/// Operations of one job: the notifications of a job are read when it ends, and must fit the
/// receive buffer of the subscription.
const JOB_OPS_MAX: usize = bulk::BATCH_MAX;

/// What is applied at once.
pub(super) enum Batch {
    /// Concerns more than this namespace.
    Space(SpaceOp),
    /// The same.
    NewLink(NewLink),
    /// Single requests.
    Inside(Vec<Request>),
    /// FDB and neighbour entries.
    Entries(Vec<EntryOp>),
    /// Virtual services.
    Ipvs(Vec<IpvsOp>),
    /// One transaction of nftables.
    Nft(Vec<NftOp>),
}

/// A single request inside a namespace.
pub(super) enum Request {
    Link(LinkOp),
    Route(RouteOp),
    Sysctl(Sysctl),
}

impl Request {
    pub(super) async fn send(&self, inside: &Inside) -> Result<(), Refusal> {
        match self {
            Self::Link(op) => link::apply(inside, op).await,
            Self::Route(op) => route::apply(inside, op).await,
            Self::Sysctl(sysctl) => sysctl::write(&sysctl.name, &sysctl.value),
        }
    }
}

impl Batch {
    /// One operation.
    pub(super) fn of(kind: &Kind) -> Self {
        match kind.clone() {
            Kind::Space(op) => Self::Space(op),
            Kind::NewLink(op) => Self::NewLink(op),
            Kind::Link(op) => Self::Inside(vec![Request::Link(op)]),
            Kind::Route(op) => Self::Inside(vec![Request::Route(op)]),
            Kind::Sysctl(sysctl) => Self::Inside(vec![Request::Sysctl(sysctl)]),
            Kind::Entry(op) => Self::Entries(vec![op]),
            Kind::Ipvs(op) => Self::Ipvs(vec![op]),
            Kind::Nft(op) => Self::Nft(vec![op]),
        }
    }

    /// Adds the next operation if it is of the same kind and there is room.
    pub(super) fn add(&mut self, kind: &Kind) -> bool {
        if self.len() >= self.ops_max() {
            return false;
        }
        match (self, kind) {
            (Self::Inside(batch), Kind::Link(op)) => batch.push(Request::Link(op.clone())),
            (Self::Inside(batch), Kind::Route(op)) => batch.push(Request::Route(op.clone())),
            (Self::Inside(batch), Kind::Sysctl(op)) => batch.push(Request::Sysctl(op.clone())),
            (Self::Entries(batch), Kind::Entry(op)) => batch.push(op.clone()),
            (Self::Ipvs(batch), Kind::Ipvs(op)) => batch.push(op.clone()),
            (Self::Nft(batch), Kind::Nft(op)) => batch.push(op.clone()),
            _ => return false,
        }
        true
    }

    /// Operations in it.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Space(_) | Self::NewLink(_) => 1,
            Self::Inside(requests) => requests.len(),
            Self::Entries(ops) => ops.len(),
            Self::Ipvs(ops) => ops.len(),
            Self::Nft(ops) => ops.len(),
        }
    }

    /// Operations that are one job of the namespace's thread.
    fn ops_max(&self) -> usize {
        match self {
            Self::Space(_) | Self::NewLink(_) => 1,
            Self::Inside(_) | Self::Entries(_) | Self::Ipvs(_) => JOB_OPS_MAX,
            Self::Nft(_) => nft::TRANSACTION_OPS_MAX,
        }
    }
}
