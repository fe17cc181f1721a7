use netprog::plane::ipvs::{FLAG_FALLBACK, FLAG_PORT};

use super::*;
use crate::netlink::raw::{Request, encode};

const KEY: VirtualKey = VirtualKey { ipv6: false, fwmark: 0x0a00_0102 };
const KEY_SIX: VirtualKey = VirtualKey { ipv6: true, fwmark: 2 };

fn mh() -> Scheduler {
    Scheduler { name: "mh".to_owned(), flags: FLAG_FALLBACK | FLAG_PORT }
}

/// The whole message in hexadecimal, a line for each 16 bytes.
fn hex(command: u8, attributes: &Attributes) -> String {
    let header = [command, VERSION, 0, 0];
    let request = Request { kind: 0x20, header: &header, attributes };
    let bytes = encode(&request, 7, 5);
    let word = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let line = |bytes: &[u8]| bytes.chunks(4).map(word).collect::<Vec<_>>().join(" ");
    bytes.chunks(16).map(line).collect::<Vec<_>>().join("\n")
}

/// A kernel takes these, and `ipvsadm` shows what they say: tests/ipvs/services.rs. The bytes are
/// those of little-endian machines.
#[test]
fn requests_have_these_bytes() {
    let table = [
        (
            NEW_SERVICE,
            service(KEY, &mh()),
            "4c000000 20000500 07000000 00000000\n\
             01010000 38000180 06000100 02000000\n\
             08000500 0201000a 07000600 6d680000\n\
             0c000700 18000000 ffffffff 08000800\n\
             00000000 08000900 ffffffff",
        ),
        (
            DELETE_SERVICE,
            named(KEY_SIX),
            "28000000 20000500 07000000 00000000\n\
             03010000 14000180 06000100 0a000000\n\
             08000500 02000000",
        ),
        (
            SET_CONFIG,
            timeouts(Timeouts { tcp: 86_400, tcp_fin: 120, udp: 300 }),
            "2c000000 20000500 07000000 00000000\n\
             0c010000 08000400 80510100 08000500\n\
             78000000 08000600 2c010000",
        ),
        (
            NEW_REAL,
            real(KEY, IpAddr::from([10, 0, 1, 11]), 1),
            "70000000 20000500 07000000 00000000\n\
             05010000 14000180 06000100 02000000\n\
             08000500 0201000a 48000280 06000b00\n\
             02000000 14000100 0a00010b 00000000\n\
             00000000 00000000 06000200 00000000\n\
             08000300 03000000 08000400 01000000\n\
             08000500 00000000 08000600 00000000",
        ),
    ];
    for (command, attributes, expected) in table {
        assert_eq!(hex(command, &attributes), expected);
    }
}
