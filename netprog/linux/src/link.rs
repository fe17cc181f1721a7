//! Links: bridges, VXLAN devices, veth pairs, and their properties.

use std::os::fd::{AsRawFd, OwnedFd};

use cluster::net::MacAddr;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth,
    InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netprog::op::{LinkChange, LinkOp};
use netprog::plane::{Link, LinkKind, PortFlags};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;

use crate::namespace::Inside;
use crate::netlink::{Refusal, dump, request};

/// The index of a link of the calling thread's namespace.
pub(crate) fn index(name: &str) -> Result<u32, Refusal> {
    if_nametoindex(name).map_err(|errno| {
        let text = format!("no device {name} ({})", errno.desc().to_lowercase());
        Refusal { errno: errno as i32, text }
    })
}

/// Makes a bridge or a VXLAN device, down; [`finish`] does the rest where it stands.
///
/// A VXLAN device is asked for by a socket of the host's namespace with the fabric as its
/// destination: the kernel then binds the device's own UDP socket to the requester's namespace
/// (`vxlan_newlink` in drivers/net/vxlan/vxlan_core.c), which is the underlay, and no device of
/// ours ever stands in the host's namespace half made.
pub(crate) async fn create(
    inside: &Inside,
    name: &str,
    link: &Link,
    destination: Option<&OwnedFd>,
) -> Result<(), Refusal> {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    if let Some(mac) = link.mac {
        message.attributes.push(LinkAttribute::Address(mac.0.to_vec()));
    }
    if let Some(fd) = destination {
        message.attributes.push(LinkAttribute::NetNsFd(fd.as_raw_fd()));
    }
    message.attributes.push(LinkAttribute::LinkInfo(kind_info(&link.kind)?));
    let message = RouteNetlinkMessage::NewLink(message);
    request(&inside.route, message, NLM_F_CREATE | NLM_F_EXCL).await
}

/// Gives a new link its alias and MTU. A bridge only keeps an MTU that is set after its creation:
/// otherwise every port that joins changes it (`br_mtu_auto_adjust` in net/bridge/br_if.c).
pub(crate) async fn finish(inside: &Inside, name: &str, link: &Link) -> Result<(), Refusal> {
    let mut message = LinkMessage::default();
    message.header.index = index(name)?;
    message.attributes.push(LinkAttribute::IfAlias(link.alias.clone()));
    message.attributes.push(LinkAttribute::Mtu(link.mtu));
    request(&inside.route, RouteNetlinkMessage::SetLink(message), 0).await
}

fn kind_info(kind: &LinkKind) -> Result<Vec<LinkInfo>, Refusal> {
    match kind {
        LinkKind::Bridge => Ok(vec![
            LinkInfo::Kind(InfoKind::Bridge),
            // Entries are ours and static: no snooping, and no second copy of each per VLAN.
            LinkInfo::Data(InfoData::Bridge(vec![
                InfoBridge::MulticastSnooping(false),
                InfoBridge::VlanDefaultPvid(0),
            ])),
        ]),
        LinkKind::Vxlan { vni, local, port } => {
            let local = match local {
                std::net::IpAddr::V4(v4) => InfoVxlan::Local(*v4),
                std::net::IpAddr::V6(v6) => InfoVxlan::Local6(*v6),
            };
            Ok(vec![
                LinkInfo::Kind(InfoKind::Vxlan),
                LinkInfo::Data(InfoData::Vxlan(vec![
                    InfoVxlan::Id(vni.get()),
                    local,
                    InfoVxlan::Port(*port),
                    InfoVxlan::Learning(false),
                    InfoVxlan::Proxy(true),
                ])),
            ])
        }
        LinkKind::Veth => Err(Refusal::other("a veth is made as a pair")),
        LinkKind::Other(kind) => Err(Refusal::other(format!("no links of kind {kind} are made"))),
    }
}

/// One end of a veth pair to be made.
pub(crate) struct VethEnd {
    pub(crate) name: String,
    pub(crate) namespace: OwnedFd,
}

/// Makes a veth pair with both ends in their namespaces, down.
pub(crate) async fn create_veth(
    inside: &Inside,
    outer: &VethEnd,
    inner: &VethEnd,
) -> Result<(), Refusal> {
    let end = |end: &VethEnd| {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(end.name.clone()));
        message.attributes.push(LinkAttribute::NetNsFd(end.namespace.as_raw_fd()));
        message
    };
    let mut message = end(outer);
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(end(inner)))),
    ]));
    let message = RouteNetlinkMessage::NewLink(message);
    request(&inside.route, message, NLM_F_CREATE | NLM_F_EXCL).await
}

/// Applies one operation on a link that is there.
pub(crate) async fn apply(inside: &Inside, op: &LinkOp) -> Result<(), Refusal> {
    match op {
        LinkOp::Delete(name) => delete(inside, name).await,
        LinkOp::Set(name, change) => set(inside, name, change).await,
    }
}

/// Removes a link; succeeds if there is none.
async fn delete(inside: &Inside, name: &str) -> Result<(), Refusal> {
    let Ok(index) = index(name) else { return Ok(()) };
    let mut message = LinkMessage::default();
    message.header.index = index;
    match request(&inside.route, RouteNetlinkMessage::DelLink(message), 0).await {
        Err(refusal) if refusal.is(Errno::ENODEV) => Ok(()),
        other => other,
    }
}

/// Removes every link of a namespace that is ours as a whole.
pub(crate) async fn delete_all(inside: &Inside) -> Result<(), Refusal> {
    let list = RouteNetlinkMessage::GetLink(LinkMessage::default());
    for message in dump(&inside.route, list).await? {
        let RouteNetlinkMessage::NewLink(found) = message else { continue };
        let made_by_kernel = !found.attributes.iter().any(|attribute| {
            matches!(attribute, LinkAttribute::LinkInfo(infos) if infos.iter().any(is_ours))
        });
        if made_by_kernel {
            continue;
        }
        let mut message = LinkMessage::default();
        message.header.index = found.header.index;
        match request(&inside.route, RouteNetlinkMessage::DelLink(message), 0).await {
            Err(refusal) if refusal.is(Errno::ENODEV) => {}
            other => other?,
        }
    }
    Ok(())
}

/// Of a kind that we make; the kernel's own devices (lo, tunl0 …) go with the namespace.
fn is_ours(info: &LinkInfo) -> bool {
    matches!(info, LinkInfo::Kind(InfoKind::Bridge | InfoKind::Vxlan | InfoKind::Veth))
}

/// Changes one property.
pub(crate) async fn set(inside: &Inside, name: &str, change: &LinkChange) -> Result<(), Refusal> {
    let mut message = LinkMessage::default();
    message.header.index = index(name)?;
    match change {
        LinkChange::Up(up) => {
            message.header.change_mask = LinkFlags::Up;
            if *up {
                message.header.flags = LinkFlags::Up;
            }
        }
        LinkChange::Mtu(mtu) => message.attributes.push(LinkAttribute::Mtu(*mtu)),
        LinkChange::Mac(mac) => message.attributes.push(address(*mac)),
        LinkChange::Master(master) => {
            let master = master.as_deref().map_or(Ok(0), index)?;
            message.attributes.push(LinkAttribute::Controller(master));
        }
        LinkChange::Alias(alias) => {
            message.attributes.push(LinkAttribute::IfAlias(alias.clone()));
        }
        LinkChange::Port(flags) => {
            // Only a request to make a link looks at a port's settings; for a link that exists it
            // changes them (`rtnl_changelink`).
            message.attributes.push(port(*flags));
            return request(&inside.route, RouteNetlinkMessage::NewLink(message), 0).await;
        }
    }
    request(&inside.route, RouteNetlinkMessage::SetLink(message), 0).await
}

fn address(mac: MacAddr) -> LinkAttribute {
    LinkAttribute::Address(mac.0.to_vec())
}

fn port(flags: PortFlags) -> LinkAttribute {
    LinkAttribute::LinkInfo(vec![
        LinkInfo::PortKind(InfoPortKind::Bridge),
        LinkInfo::PortData(InfoPortData::BridgePort(vec![
            InfoBridgePort::Learning(flags.learning),
            InfoBridgePort::UnicastFlood(flags.flood),
            InfoBridgePort::HairpinMode(flags.hairpin),
            InfoBridgePort::Isolated(flags.isolated),
            InfoBridgePort::ProxyARPWifi(flags.proxied),
        ])),
    ])
}
