use super::*;

fn interface(addresses: &[&str]) -> Interface {
    let parse = |text: &&str| {
        let (address, len) = text.split_once('/').unwrap();
        (address.parse().unwrap(), len.parse().unwrap())
    };
    Interface { mtu: 1500, up: true, ours: false, addresses: addresses.iter().map(parse).collect() }
}

fn facts(addresses: &[&str]) -> HostFacts {
    HostFacts {
        interfaces: [
            ("eth0".to_owned(), interface(addresses)),
            ("eth1".to_owned(), Interface { mtu: 9000, ..interface(&["198.51.100.7/24"]) }),
            ("eth2".to_owned(), interface(&[])),
        ]
        .into(),
        default_interface: Some("eth0".to_owned()),
        routes: Vec::new(),
    }
}

fn advertised(addresses: &[&str], given: Option<&str>) -> String {
    match facts(addresses).advertise_address(given) {
        Ok(address) => address.to_string(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn the_advertised_address_is_chosen_or_the_refusal_says_what_to_give() {
    let one = ["192.0.2.2/24", "fe80::1/64"];
    let table: &[(&[&str], Option<&str>, &str)] = &[
        (&one, None, "192.0.2.2"),
        (&["2001:db8::2/64", "192.0.2.2/24"], None, "192.0.2.2"),
        (&one, Some("192.0.2.2"), "192.0.2.2"),
        (&one, Some("eth1"), "198.51.100.7"),
        (&one, Some("198.51.100.7"), "198.51.100.7"),
        (
            &one,
            Some("192.0.2.9"),
            "\"192.0.2.9\" is neither an address of this machine nor an interface: \
             give one of 192.0.2.2, 198.51.100.7",
        ),
        (
            &one,
            Some("eth2"),
            "interface eth2 has no address: give it one, or name another interface or address",
        ),
        (&[], None, "could not find the system's IP address - specify one with --advertise-addr"),
        (
            &["192.0.2.2/24", "192.0.2.3/24"],
            None,
            "could not choose an IP address to advertise since this system has multiple addresses \
             on interface eth0 (192.0.2.2, 192.0.2.3) - specify one with --advertise-addr",
        ),
    ];
    for (addresses, given, expected) in table {
        assert_eq!(advertised(addresses, *given), *expected);
    }
}

#[test]
fn the_mtu_is_that_of_the_link_with_the_address() {
    let facts = facts(&["192.0.2.2/24"]);
    assert_eq!(facts.mtu_of("198.51.100.7".parse().unwrap()), Some(9000));
    assert_eq!(facts.mtu_of("198.51.100.8".parse().unwrap()), None);
}

#[test]
fn the_egress_bridge_keeps_its_prefix_or_avoids_every_route() {
    let mut facts = facts(&[]);
    let chosen = |facts: &HostFacts| facts.gwbridge_subnet("skein_gwbridge").map(|s| s.to_string());
    assert_eq!(chosen(&facts).as_deref(), Some("172.18.0.0/16"));
    facts.routes = ["172.18.5.0/24", "172.16.0.0/14"].map(|s| s.parse().unwrap()).into();
    assert_eq!(chosen(&facts).as_deref(), Some("172.20.0.0/16"));
    facts.routes = vec!["172.16.0.0/12".parse().unwrap()];
    assert_eq!(chosen(&facts), None);
    let bridge = Interface { ours: true, ..interface(&["172.25.0.1/16"]) };
    facts.interfaces.insert("skein_gwbridge".to_owned(), bridge);
    assert_eq!(chosen(&facts).as_deref(), Some("172.25.0.0/16"));
}

#[test]
fn resolvers_are_read_as_the_library_reads_them() {
    let text = "# nameserver 192.0.2.1\nsearch example.org\nnameserver 192.0.2.2\n\
                nameserver\t2001:db8::53\noptions ndots:2\nnameserver nonsense\n\
                nameserver 127.0.0.53\nnameserver 192.0.2.9\n";
    assert_eq!(
        resolvers(text),
        ["192.0.2.2", "2001:db8::53", "127.0.0.53"].map(|a| a.parse::<IpAddr>().unwrap())
    );
    assert_eq!(resolvers(""), Vec::<IpAddr>::new());
}

#[test]
fn the_facts_of_this_machine_can_be_read() {
    let facts = HostFacts::read().unwrap();
    let loopback = &facts.interfaces["lo"];
    assert!(loopback.addresses.contains(&("127.0.0.1".parse().unwrap(), 8)));
    assert!(facts.routes.iter().all(|route| !route.contains("127.0.0.1".parse().unwrap())));
}
