//! Links and which of them are ours.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cluster::net::{MacAddr, Vni};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVxlan, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage,
};
use netprog::plane::{ALIAS_PREFIX, Link, LinkKind, Place, PortFlags};

use crate::namespace::Inside;
use crate::netlink::{Refusal, dump};

const LOOPBACK: &str = "lo";

/// The links of a namespace by index.
pub(crate) struct Links {
    place: Place,
    all: BTreeMap<u32, (String, Option<Link>)>,
}

impl Links {
    /// From messages by index.
    pub(super) fn of(
        messages: &BTreeMap<u32, LinkMessage>,
        place: Place,
        wanted: &BTreeSet<String>,
    ) -> Self {
        let names: BTreeMap<u32, String> =
            messages.iter().filter_map(|(index, message)| Some((*index, name(message)?))).collect();
        let all = messages
            .iter()
            .filter_map(|(index, message)| {
                let name = names.get(index)?.clone();
                let link = Some(link(message, &names))
                    .filter(|link| wanted.contains(&name) || is_ours(place, &name, link));
                Some((*index, (name, link)))
            })
            .collect();
        Self { place, all }
    }

    /// The name of a link that is ours.
    pub(crate) fn ours(&self, index: u32) -> Option<&str> {
        let (name, link) = self.all.get(&index)?;
        link.as_ref().map(|_| name.as_str())
    }

    /// The same, or the loopback of a namespace that is ours as a whole.
    pub(crate) fn ours_or_loopback(&self, index: u32) -> Option<&str> {
        let (name, link) = self.all.get(&index)?;
        let loopback = self.place != Place::Host && name == LOOPBACK;
        (link.is_some() || loopback).then_some(name.as_str())
    }

    /// A link that is ours.
    pub(crate) fn get(&self, index: u32) -> Option<(&str, &Link)> {
        let (name, link) = self.all.get(&index)?;
        Some((name.as_str(), link.as_ref()?))
    }

    /// Of those that are ours.
    pub(crate) fn indexes(&self) -> BTreeSet<u32> {
        let ours = self.all.iter().filter(|(_, (_, link))| link.is_some());
        ours.map(|(index, _)| *index).collect()
    }

    /// By name, those that are ours.
    pub(crate) fn into_links(self) -> BTreeMap<String, Link> {
        self.all.into_values().filter_map(|(name, link)| Some((name, link?))).collect()
    }
}

/// Reads the links of a namespace.
pub(crate) async fn read(
    inside: &Inside,
    place: Place,
    wanted: &BTreeSet<String>,
) -> Result<Links, Refusal> {
    let message = RouteNetlinkMessage::GetLink(LinkMessage::default());
    let mut messages = BTreeMap::new();
    for message in dump(&inside.route, message).await? {
        if let RouteNetlinkMessage::NewLink(message) = message {
            messages.insert(message.header.index, message);
        }
    }
    Ok(Links::of(&messages, place, wanted))
}

/// In the host's namespace what carries our alias. In the others everything of the kinds that we
/// make, even without its alias: its maker may have been stopped halfway. Not the devices that the
/// kernel itself puts into each new namespace (tunl0, sit0 …), which cannot be removed.
fn is_ours(place: Place, name: &str, link: &Link) -> bool {
    let marked = link.alias.starts_with(ALIAS_PREFIX);
    match (place, &link.kind) {
        (Place::Host, _) | (_, LinkKind::Other(_)) => marked,
        (Place::Fabric(_) | Place::Sandbox(_), _) => name != LOOPBACK,
    }
}

fn name(message: &LinkMessage) -> Option<String> {
    message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })
}

fn link(message: &LinkMessage, names: &BTreeMap<u32, String>) -> Link {
    let mut link = Link {
        kind: LinkKind::Other(String::new()),
        up: message.header.flags.contains(LinkFlags::Up),
        mtu: 0,
        mac: None,
        master: None,
        alias: String::new(),
        port: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(octets) => {
                link.mac = <[u8; 6]>::try_from(octets.as_slice()).ok().map(MacAddr);
            }
            LinkAttribute::Controller(index) => link.master = names.get(index).cloned(),
            LinkAttribute::IfAlias(alias) => link.alias.clone_from(alias),
            LinkAttribute::LinkInfo(infos) => {
                link.kind = kind(infos);
                link.port = port(infos);
            }
            _ => {}
        }
    }
    link
}

fn kind(infos: &[LinkInfo]) -> LinkKind {
    let mut name = None;
    let mut vxlan = None;
    for info in infos {
        match info {
            LinkInfo::Kind(kind) => name = Some(kind),
            LinkInfo::Data(InfoData::Vxlan(data)) => vxlan = vxlan_kind(data),
            _ => {}
        }
    }
    match name {
        Some(InfoKind::Bridge) => LinkKind::Bridge,
        Some(InfoKind::Veth) => LinkKind::Veth,
        // One that we did not make has no source address or a VNI of 0.
        Some(InfoKind::Vxlan) => vxlan.unwrap_or_else(|| LinkKind::Other("vxlan".to_owned())),
        Some(other) => LinkKind::Other(other.to_string()),
        None => LinkKind::Other(String::new()),
    }
}

fn vxlan_kind(data: &[InfoVxlan]) -> Option<LinkKind> {
    let mut vni = None;
    let mut local = None;
    let mut port = None;
    for info in data {
        match info {
            InfoVxlan::Id(number) => vni = Vni::try_from(*number).ok(),
            InfoVxlan::Local(address) => local = Some(IpAddr::V4(*address)),
            InfoVxlan::Local6(address) => local = Some(IpAddr::V6(*address)),
            InfoVxlan::Port(number) => port = Some(*number),
            _ => {}
        }
    }
    Some(LinkKind::Vxlan { vni: vni?, local: local?, port: port? })
}

fn port(infos: &[LinkInfo]) -> Option<PortFlags> {
    let is_bridge = |info: &LinkInfo| matches!(info, LinkInfo::PortKind(InfoPortKind::Bridge));
    if !infos.iter().any(is_bridge) {
        return None;
    }
    let data = infos.iter().find_map(|info| match info {
        LinkInfo::PortData(InfoPortData::BridgePort(data)) => Some(data),
        _ => None,
    })?;
    let mut flags = PortFlags {
        learning: false,
        flood: false,
        hairpin: false,
        isolated: false,
        proxied: false,
    };
    for info in data {
        match info {
            InfoBridgePort::Learning(on) => flags.learning = *on,
            InfoBridgePort::UnicastFlood(on) => flags.flood = *on,
            InfoBridgePort::HairpinMode(on) => flags.hairpin = *on,
            InfoBridgePort::Isolated(on) => flags.isolated = *on,
            InfoBridgePort::ProxyARPWifi(on) => flags.proxied = *on,
            _ => {}
        }
    }
    Some(flags)
}
