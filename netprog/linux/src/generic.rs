//! Generic netlink's controller: which families the kernel has, and their numbers
//! (include/uapi/linux/genetlink.h).

use nix::errno::Errno;
use rtnetlink::sys::Socket;

use crate::netlink::Refusal;
use crate::netlink::raw::{Attributes, Expect, Request, exchange, ne16, nested, text};

const CONTROLLER: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
const VERSION: u8 = 2;
/// `struct genlmsghdr`: command, version, reserved.
pub(crate) const HEADER_BYTES: usize = 4;

/// The number of a family that is already loaded. Unlike [`load`] it never makes the kernel search
/// for a module, which starts a program each time.
pub(crate) fn find(socket: &Socket, name: &str) -> Result<Option<u16>, Refusal> {
    let families = ask(socket, &Attributes::default(), Expect::Dump)?;
    Ok(families.iter().find_map(|family| number(family, name)))
}

/// The number of a family; a request by name loads its module if there is one.
pub(crate) fn load(socket: &Socket, name: &str) -> Result<Option<u16>, Refusal> {
    match ask(socket, &Attributes::default().text(FAMILY_NAME, name), Expect::Answer) {
        Ok(found) => Ok(found.iter().find_map(|family| number(family, name))),
        Err(refusal) if refusal.is(Errno::ENOENT) => Ok(None),
        Err(refusal) => Err(refusal),
    }
}

fn ask(socket: &Socket, attributes: &Attributes, expect: Expect) -> Result<Vec<Vec<u8>>, Refusal> {
    let header = [GET_FAMILY, VERSION, 0, 0];
    exchange(socket, &Request { kind: CONTROLLER, header: &header, attributes }, expect)
}

fn number(family: &[u8], name: &str) -> Option<u16> {
    let attributes = family.get(HEADER_BYTES..)?;
    let value = |wanted| nested(attributes).find(|(kind, _)| *kind == wanted).map(|(_, v)| v);
    (text(value(FAMILY_NAME)?) == name).then(|| ne16(value(FAMILY_ID)?)).flatten()
}

#[cfg(test)]
mod tests {
    use rtnetlink::sys::protocols::NETLINK_GENERIC;

    use super::*;

    #[test]
    fn families_are_told_apart() {
        let socket = crate::netlink::open(NETLINK_GENERIC).unwrap();
        assert_eq!(find(&socket, "nlctrl").unwrap(), Some(CONTROLLER));
        assert_eq!(load(&socket, "nlctrl").unwrap(), Some(CONTROLLER));
        assert_eq!(find(&socket, "skein-nix").unwrap(), None);
        assert_eq!(load(&socket, "skein-nix").unwrap(), None);
    }
}
