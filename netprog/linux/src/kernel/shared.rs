//! Operations that concern more than one namespace.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use netprog::op::{LinkChange, NewLink, SpaceOp};
use netprog::plane::{Link, LinkKind, Place};

use super::{LinuxKernel, no_namespace};
use crate::link::{self, VethEnd};
use crate::namespace::Inside;
use crate::netlink::Refusal;
use crate::spaces::Spaces;

impl<S: Spaces> LinuxKernel<S> {
    pub(super) fn change_space(&mut self, place: Place, op: SpaceOp) -> Result<(), Refusal> {
        match op {
            SpaceOp::Create => self.create_space(place),
            SpaceOp::Delete => self.delete_space(place),
        }
    }

    pub(super) fn make_link(&mut self, place: Place, op: &NewLink) -> Result<(), Refusal> {
        match op {
            NewLink::Veth { name, peer } => self.create_veth((place, name), (peer.0, &peer.1)),
            NewLink::Device(name, link) => self.create_link(place, name, link),
        }
    }

    fn create_space(&mut self, place: Place) -> Result<(), Refusal> {
        let Place::Fabric(network) = place else {
            return Err(Refusal::other(format!("{place} is not a fabric: others make it")));
        };
        self.spaces.create_fabric(network)?;
        self.inside(
            place,
            |inside| async move { link::set(&inside, "lo", &LinkChange::Up(true)).await },
        )
    }

    fn delete_space(&mut self, place: Place) -> Result<(), Refusal> {
        let Place::Fabric(network) = place else {
            return Err(Refusal::other(format!("{place} is not a fabric: others remove it")));
        };
        // The kernel takes a namespace apart some time after its last user is gone; until then a
        // veth's other end and a VXLAN device's VNI would stay taken.
        if self.known(place)?.is_some() {
            self.inside(place, |inside| async move { link::delete_all(&inside).await })?;
        }
        // Our own thread must not keep alive what the keeper lets go.
        self.release(place);
        Ok(self.spaces.delete_fabric(network)?)
    }

    fn create_link(&mut self, place: Place, name: &str, link: &Link) -> Result<(), Refusal> {
        let (new, text) = (link.clone(), name.to_owned());
        match link.kind {
            LinkKind::Vxlan { .. } => {
                let destination = self.file(place)?;
                self.asked_by(Place::Host, [place], move |inside| async move {
                    link::create(&inside, &text, &new, Some(&destination)).await
                })?;
            }
            LinkKind::Bridge | LinkKind::Veth | LinkKind::Other(_) => {
                self.inside(place, move |inside| async move {
                    link::create(&inside, &text, &new, None).await
                })?;
            }
        }
        let (new, text) = (link.clone(), name.to_owned());
        self.inside(place, move |inside| async move { link::finish(&inside, &text, &new).await })
    }

    fn create_veth(
        &mut self,
        (outer_place, outer): (Place, &str),
        (inner_place, inner): (Place, &str),
    ) -> Result<(), Refusal> {
        let mut end = |place: Place, name: &str| {
            Ok::<_, Refusal>(VethEnd { name: name.to_owned(), namespace: self.file(place)? })
        };
        let (outer, inner) = (end(outer_place, outer)?, end(inner_place, inner)?);
        // Asked for where the first end will be: Linux before 6.14 looks for a link of its name in
        // the asking namespace (`__rtnl_newlink` in net/core/rtnetlink.c), and outer ends of a task
        // have one name in all of theirs.
        self.asked_by(outer_place, [outer_place, inner_place], move |inside| async move {
            link::create_veth(&inside, &outer, &inner).await
        })
    }

    /// A request in one namespace that changes others, where it does not count as drift.
    fn asked_by<const N: usize, F, Fut>(
        &mut self,
        asker: Place,
        changed: [Place; N],
        job: F,
    ) -> Result<(), Refusal>
    where
        F: FnOnce(Rc<Inside>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), Refusal>> + 'static,
    {
        for namespace in changed.iter().filter_map(|place| self.entered.get(place)) {
            namespace.changing();
        }
        let result = self.inside(asker, job);
        for namespace in changed.iter().filter_map(|place| self.entered.get(place)) {
            namespace.changed()?;
        }
        result
    }

    fn file(&mut self, place: Place) -> Result<OwnedFd, Refusal> {
        let namespace = self.known(place)?.ok_or_else(|| Refusal::other(no_namespace(place)))?;
        Ok(namespace.file()?)
    }

    fn inside<F, Fut>(&mut self, place: Place, job: F) -> Result<(), Refusal>
    where
        F: FnOnce(Rc<Inside>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), Refusal>> + 'static,
    {
        let namespace = self.known(place)?.ok_or_else(|| Refusal::other(no_namespace(place)))?;
        namespace.start_change(job)?.wait()?
    }
}
