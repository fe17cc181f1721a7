//! Which addresses a member has: the request's, else the flags', else the one of the default
//! route.

use std::net::{IpAddr, SocketAddr};

use api::ApiError;

use super::{Addresses, Daemon};
use crate::config::{CLUSTER_PORT, parse_listen};
use crate::identity::Identity;

impl Daemon {
    /// Decides a member's addresses from what a request gives.
    pub(super) fn addresses(
        &self,
        listen: Option<&str>,
        advertise: Option<&str>,
        data_path: Option<&str>,
    ) -> Result<Addresses, ApiError> {
        let bad = |e: crate::config::ConfigError| ApiError::bad_request(e.to_string());
        let listen = match listen {
            Some(text) => Some(parse_listen(text).map_err(bad)?),
            None => self.config.listen_addr,
        };
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

    /// Gives a worker whose addresses are gone from this machine those that it would join with
    /// now: it is the same node, since it has the same key. A manager's address is the others' way
    /// to it, so it has to be given back.
    pub(super) fn follow_address(&self, identity: &mut Identity) -> anyhow::Result<()> {
        let is_here = |address: IpAddr| self.host.address_of(&address.to_string()).is_ok();
        let stays = is_here(identity.advertise) && is_here(identity.data_path);
        if stays || identity.raft_id.is_some() {
            return Ok(());
        }
        let found = self.addresses(None, None, None);
        let found = found.map_err(|error| anyhow::anyhow!("{}", error.message))?;
        let (old, new) = (identity.advertise, found.advertise);
        tracing::info!(%old, %new, "this node's address has changed");
        identity.advertise = found.advertise;
        identity.data_path = found.data_path;
        identity.listen = found.listen;
        Ok(())
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
