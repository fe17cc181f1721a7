//! Which addresses a member has: the request's, else the flags', else the one of the default
//! route.

use std::net::{IpAddr, SocketAddr};

use api::ApiError;

use super::{Addresses, Daemon};
use crate::config::CLUSTER_PORT;
use crate::identity::{AddressFlags, Identity};

impl Daemon {
    /// Decides a member's addresses from what a request gives.
    pub(super) fn addresses(
        &self,
        listen: Option<&str>,
        advertise: Option<&str>,
        data_path: Option<&str>,
    ) -> Result<Addresses, ApiError> {
        let listen = listen.or(self.config.listen_addr.as_deref());
        let listen = listen.map(|text| self.listen(text)).transpose()?;
        let listen_port = listen.map_or(CLUSTER_PORT, |(_, port)| port);
        let listen_ip = listen.and_then(|(ip, _)| ip);
        let advertise = advertise.or(self.config.advertise_addr.as_deref());
        let (advertise, port) = match advertise {
            Some(text) => self.named(text, "--advertise-addr")?,
            None => match listen_ip {
                Some(ip) => (ip, None),
                None => (self.host.default_address().map_err(ApiError::bad_request)?, None),
            },
        };
        let data_path = match data_path.or(self.config.data_path_addr.as_deref()) {
            Some(text) => self.named(text, "--data-path-addr")?.0,
            None => advertise,
        };
        let cluster = SocketAddr::new(advertise, port.unwrap_or(listen_port));
        let listen = SocketAddr::new(listen_ip.unwrap_or(advertise), listen_port);
        Ok(Addresses { advertise, data_path, listen, cluster })
    }

    /// The daemon's flags, as they are now.
    pub(super) fn address_flags(&self) -> Result<AddressFlags, ApiError> {
        let listen = self.config.listen_addr.as_deref();
        Ok(AddressFlags {
            advertise: self.config.advertise_addr.clone(),
            data_path: self.config.data_path_addr.clone(),
            listen: listen.map(|text| self.listen(text)).transpose()?,
        })
    }

    /// Gives a member whose addresses are gone from this machine, or that is started with other
    /// flags, those that it would join with now: it is the same node, since it has the same key.
    /// The managers are told by its first report.
    pub(super) fn follow_address(&self, identity: &mut Identity) -> anyhow::Result<()> {
        let flags = self.address_flags();
        let flags = flags.map_err(|error| anyhow::anyhow!("{}", error.message))?;
        let is_here = |address: IpAddr| self.host.address_of(&address.to_string()).is_ok();
        let kept = stays(identity, &flags, is_here);
        if kept == Kept::ALL {
            identity.flags = flags;
            return Ok(());
        }
        let found = self.addresses(None, None, None);
        let found = found.map_err(|error| anyhow::anyhow!("{}", error.message))?;
        let before = (identity.advertise, identity.data_path, identity.listen);
        take(identity, found, kept, &flags);
        identity.flags = flags;
        let after = (identity.advertise, identity.data_path, identity.listen);
        tracing::info!(?before, ?after, "this node's addresses have changed");
        Ok(())
    }

    /// `IP`, `IP:PORT`, `:PORT`, `IFACE` or `IFACE:PORT`.
    fn listen(&self, text: &str) -> Result<(Option<IpAddr>, u16), ApiError> {
        if let Some(parsed) = parse_listen(text) {
            return Ok(parsed);
        }
        let (address, port) = self.named(text, "--listen-addr")?;
        Ok((Some(address), port.unwrap_or(CLUSTER_PORT)))
    }

    /// `IP`, `IP:PORT`, `IFACE` or `IFACE:PORT`; the address must be this node's.
    fn named(&self, text: &str, flag: &str) -> Result<(IpAddr, Option<u16>), ApiError> {
        let (name, port) = match text.parse::<SocketAddr>() {
            Ok(socket) => (socket.ip().to_string(), Some(socket.port())),
            Err(_not_a_socket) => match text.rsplit_once(':') {
                Some((name, port)) if !name.contains(':') => {
                    let port = port.parse().map_err(|_not_a_port| {
                        ApiError::bad_request(format!("{flag} {text:?}: {port:?} is no port"))
                    })?;
                    (name.to_owned(), Some(port))
                }
                _no_port => (text.to_owned(), None),
            },
        };
        let found = self.host.address_of(&name);
        let address =
            found.map_err(|reason| ApiError::bad_request(format!("{flag} {text:?}: {reason}")))?;
        Ok((address, port))
    }
}

/// Which addresses a member keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kept {
    advertise: bool,
    data_path: bool,
    listen: bool,
}

impl Kept {
    const ALL: Self = Self { advertise: true, data_path: true, listen: true };
}

/// An address stays unless it is gone from the machine or its flag is another one than before. A
/// data path and a listener at the advertised address go with it.
fn stays(identity: &Identity, flags: &AddressFlags, is_here: impl Fn(IpAddr) -> bool) -> Kept {
    let Identity { advertise, data_path, listen, flags: before, .. } = identity;
    let same_flag = |now: &Option<String>, before: &Option<String>| now.is_none() || now == before;
    let kept = is_here(*advertise) && same_flag(&flags.advertise, &before.advertise);
    let with_it = |address: IpAddr| kept || address != *advertise;
    Kept {
        advertise: kept,
        data_path: is_here(*data_path)
            && with_it(*data_path)
            && same_flag(&flags.data_path, &before.data_path),
        listen: is_here(listen.ip())
            && with_it(listen.ip())
            && (flags.listen.is_none() || flags.listen == before.listen),
    }
}

/// Takes what does not stay from what was found. Ports stay where no flag gives another one.
fn take(identity: &mut Identity, mut found: Addresses, kept: Kept, flags: &AddressFlags) {
    if flags.listen.is_none() {
        // A port of its own in `--advertise-addr` differs from that of the listener, and counts.
        if found.cluster.port() == found.listen.port() {
            found.cluster.set_port(identity.manager_address().port());
        }
        found.listen.set_port(identity.listen.port());
    }
    if kept.advertise {
        found.cluster.set_ip(identity.advertise);
        if flags.listen.is_none_or(|(address, _)| address.is_none()) {
            found.listen.set_ip(identity.advertise);
        }
    }
    if !kept.advertise || !kept.listen {
        identity.cluster_address = Some(found.cluster);
    }
    if !kept.advertise {
        identity.advertise = found.advertise;
    }
    if !kept.data_path {
        identity.data_path = found.data_path;
    }
    if !kept.listen {
        identity.listen = found.listen;
    }
}

/// `IP`, `IP:PORT` or `:PORT`; an unspecified address is none, and need not be this node's.
fn parse_listen(text: &str) -> Option<(Option<IpAddr>, u16)> {
    let (ip, port) = if let Ok(socket) = text.parse::<SocketAddr>() {
        (socket.ip(), socket.port())
    } else if let Ok(ip) = text.parse::<IpAddr>() {
        (ip, CLUSTER_PORT)
    } else {
        (IpAddr::from([0, 0, 0, 0]), text.strip_prefix(':')?.parse().ok()?)
    };
    Some(((!ip.is_unspecified()).then_some(ip), port))
}

/// Managers to ask, as typed; the port is 2377 unless given.
pub(super) fn managers(texts: &[String]) -> Result<Vec<SocketAddr>, ApiError> {
    let parse = |text: &String| {
        let parsed = text.parse::<SocketAddr>();
        parsed.or_else(|_no_port| text.parse::<IpAddr>().map(|ip| (ip, CLUSTER_PORT).into()))
    };
    let bad = |text: &String| {
        ApiError::bad_request(format!(
            "remote address {text:?}: give IP:PORT of a manager, like 192.168.1.10:2377"
        ))
    };
    let managers: Vec<SocketAddr> =
        texts.iter().map(|text| parse(text).map_err(|_e| bad(text))).collect::<Result<_, _>>()?;
    if managers.is_empty() {
        return Err(ApiError::bad_request("at least one remote address of a manager is needed"));
    }
    Ok(managers)
}

#[cfg(test)]
mod tests {
    use cluster::id::{ClusterId, NodeId};

    use super::*;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    /// At address 1, as a request said or a flag, listening on a port of its own.
    fn member(data_path: u8, flags: AddressFlags) -> Identity {
        Identity {
            cluster: ClusterId(1),
            node: NodeId(1),
            raft_id: Some(1),
            log_of: None,
            advertise: ip(1),
            data_path: ip(data_path),
            listen: (ip(1), 2399).into(),
            gossip_port: 7946,
            managers: Vec::new(),
            generation: 1,
            cluster_address: Some((ip(1), 2399).into()),
            flags,
        }
    }

    fn advertised(address: Option<&str>) -> AddressFlags {
        AddressFlags { advertise: address.map(str::to_owned), ..AddressFlags::default() }
    }

    /// What a member with these flags has after a start where machine and flags offer address 9.
    fn after(member: &Identity, flags: &AddressFlags, here: &[u8]) -> (u8, u8, String) {
        let kept = stays(member, flags, |address| here.iter().any(|last| ip(*last) == address));
        let port = flags.listen.map_or(CLUSTER_PORT, |(_, port)| port);
        let socket = SocketAddr::new(ip(9), port);
        let found =
            Addresses { advertise: ip(9), data_path: ip(9), listen: socket, cluster: socket };
        let mut member = member.clone();
        take(&mut member, found, kept, flags);
        let last = |address: IpAddr| match address {
            IpAddr::V4(address) => address.octets()[3],
            IpAddr::V6(_) => 0,
        };
        assert_eq!(member.listen, member.manager_address());
        (last(member.advertise), last(member.data_path), member.listen.to_string())
    }

    #[test]
    fn an_address_stays_unless_it_is_gone_or_its_flag_is_another_one() {
        let (none, first) = (advertised(None), advertised(Some("192.0.2.1")));
        let second = advertised(Some("192.0.2.9"));
        let data_path = AddressFlags { data_path: Some("192.0.2.9".to_owned()), ..none.clone() };
        let listen = AddressFlags { listen: Some((None, 2400)), ..none.clone() };
        let (old, new) = ("192.0.2.1:2399", "192.0.2.9:2399");
        let rows = [
            ("nothing has changed", member(1, first.clone()), &first, vec![1], (1, 1, old)),
            ("given by a request", member(1, none.clone()), &none, vec![1, 9], (1, 1, old)),
            ("the flag is gone", member(1, first.clone()), &none, vec![1], (1, 1, old)),
            ("it is gone", member(1, none.clone()), &none, vec![9], (9, 9, new)),
            ("another flag", member(1, first.clone()), &second, vec![1, 9], (9, 9, new)),
            ("its own data path stays", member(2, none.clone()), &none, vec![2, 9], (9, 2, new)),
            ("only that is gone", member(2, none.clone()), &none, vec![1], (1, 9, old)),
            ("another flag for it", member(1, none.clone()), &data_path, vec![1, 9], (1, 9, old)),
            ("another port", member(1, none.clone()), &listen, vec![1], (1, 1, "192.0.2.1:2400")),
        ];
        for (what, member, flags, here, expected) in rows {
            let (advertise, data_path, listen) = after(&member, flags, &here);
            assert_eq!((advertise, data_path, listen.as_str()), expected, "{what}");
        }
    }
}
