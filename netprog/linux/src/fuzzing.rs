//! What fuzzing calls: each function decodes any bytes, panics where a law of a decoder breaks, and
//! says whether there was something to decode.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use cluster::id::{NetworkId, NodeId, TaskId};
use cluster::view::View;
use hickory_server::net::xfer::Protocol;
use hickory_server::proto::op::{Message, MessageType, Query};
use hickory_server::proto::rr::{Name, RData, Record, RecordType};
use hickory_server::server::Request;
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use netlink_packet_route::rule::{RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netprog::dns::Zone;
use netprog::plane::Place;
use netprog::plane::ipvs::{SCHEDULER_FLAGS, Scheduler, VirtualKey};
use tokio::runtime::{Builder, Runtime};

use crate::bulk;
use crate::dns_server::cache::Cache;
use crate::dns_server::upstream::answer_to;
use crate::dns_server::{Answer, Forwarder, Handler, Question, Resolver};
use crate::drift::notice::Watcher;
use crate::drift::own::Outcome;
use crate::drift::{Disturbance, OwnChanges};
use crate::generic::HEADER_BYTES;
use crate::ipvs::wire;
use crate::netlink::raw::{Answers, Attributes, Expect, MESSAGE_ERROR, Request as Ask, encode};
use crate::nft::wire::Message as Nft;
use crate::nft::{list, read};
use crate::{conntrack, firewalls, observe, probe, sock_diag};

/// The number of the request that a datagram answers.
const SEQUENCE: u16 = 7;
/// First byte of netlink's input: who reads the rest.
const READERS: u8 = 6;
/// Messages of the batch that is answered.
const BATCH: u32 = 3;

/// A datagram of the kernel.
pub fn netlink(bytes: &[u8]) -> bool {
    let Some((reader, bytes)) = bytes.split_first() else { return false };
    match reader % READERS {
        0 => {
            let mut answers = Answers::new(SEQUENCE.into(), Expect::Dump);
            let taken = answers.take(bytes).is_ok();
            answers.found.iter().for_each(|payload| families(payload));
            taken
        }
        1 => {
            families(bytes);
            true
        }
        2 => notices(Watcher::new(Place::Fabric(NetworkId(1))), bytes),
        3 => {
            let mut refused = Vec::new();
            let taken = bulk::take(bytes, SEQUENCE.into(), BATCH, &mut refused);
            let outside = refused.iter().any(|(offset, _)| *offset >= BATCH as usize);
            assert!(!outside, "an answer to a message that was not sent");
            taken.is_ok()
        }
        4 => NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes).is_ok_and(|message| {
            match message.payload {
                NetlinkPayload::InnerMessage(inner) => observe::read_any(inner),
                _ => false,
            }
        }),
        _ => notices(Watcher::new(Place::Host), bytes),
    }
}

fn notices(mut watcher: Watcher, bytes: &[u8]) -> bool {
    let mut found = Disturbance::default();
    let entries = [Outcome::NoFdb(1, cluster::net::MacAddr([2; 6]))].into();
    watcher.route(bytes, None, &mut found);
    watcher.route(bytes, Some(&OwnChanges { entries, ..OwnChanges::default() }), &mut found);
    watcher.nftables(bytes, &mut found);
    true
}

/// One message without its netlink header, as each family reads it.
fn families(payload: &[u8]) {
    if let Some((key, scheduler)) = wire::read_service(payload) {
        let name_ends = scheduler.name.contains('\0');
        let again = [&[0; HEADER_BYTES], wire::service(key, &scheduler).as_bytes()].concat();
        let again = wire::read_service(&again);
        // What a family of addresses is not ours becomes IPv4; a name within which a zero stands
        // is no scheduler's.
        assert!(again == Some((key, scheduler)) || name_ends, "a service changed on its way");
    }
    let _real = (wire::read_real(payload, false), wire::read_real(payload, true));
    let _listener = sock_diag::listener(payload, cluster::spec::Protocol::Tcp);
    let _flow = conntrack::flow(payload);
    if let Some(found) = wire::read_timeouts(payload) {
        let again = [&[0; HEADER_BYTES], wire::timeouts(found).as_bytes()].concat();
        assert_eq!(wire::read_timeouts(&again), Some(found), "timeouts changed");
    }
    let _answer = probe::read(payload, 600, 80, 7);
    let _blockers = firewalls::legacy::read(&String::from_utf8_lossy(payload), &["ing0"], &[4789]);
    let message = Nft(payload.to_vec());
    let _drops = firewalls::drops_all(&message);
    let _table = read::table(&message);
    let (_name, (keys, values)) = read::set(&message);
    for (key, value) in list::raw(&message) {
        let read = [(&keys, &key), (&values, &value)];
        for element in read.iter().filter_map(|(of, bytes)| of.as_ref()?.read(bytes)) {
            assert!(!element.to_string().is_empty(), "an element without text");
        }
    }
}

/// Messages of each family, and notifications.
#[must_use]
pub fn netlink_seeds() -> Vec<Vec<u8>> {
    let of = |reader: u8, bytes: &[u8]| [&[reader], bytes].concat();
    let key = VirtualKey { ipv6: false, fwmark: 0x0a00_0102 };
    let scheduler = Scheduler { name: "mh".to_owned(), flags: SCHEDULER_FLAGS };
    let real = wire::real(key, Ipv4Addr::new(10, 0, 1, 11).into(), 1);
    let element = Attributes::default()
        .nest(1, &Attributes::default().bytes(1, &[10, 0, 0, 15]))
        .nest(2, &Attributes::default().bytes(1, &[0, 80]));
    let nft = Attributes::default()
        .text(1, "skein")
        .text(2, "set")
        .nest(3, &Attributes::default().nest(1, &element))
        .bytes(4, &7_u32.to_be_bytes())
        .bytes(6, &[0, 3, b'a', b'b', 0]);
    let bodies = [wire::service(key, &scheduler), real, nft];
    let header = [2, 0, 0, 0];
    bodies
        .iter()
        .flat_map(|attributes| {
            let payload = [&header, attributes.as_bytes()].concat();
            // A new link, a new address, a new route, a new neighbour, a table of nftables.
            let kinds = [16, 20, 24, 28, 10 << 8];
            let whole = kinds.map(|kind| {
                let ask = Ask { kind, header: &header, attributes };
                encode(&ask, SEQUENCE.into(), 0)
            });
            let answers = whole.clone().map(|bytes| of(0, &bytes));
            let notices = [2, 5].map(|reader| whole.clone().map(|bytes| of(reader, &bytes)));
            [of(1, &payload)].into_iter().chain(answers).chain(notices.into_iter().flatten())
        })
        .chain(route_seeds())
        .collect()
}

/// What route netlink says, to all that read it.
fn route_seeds() -> Vec<Vec<u8>> {
    let mut link = LinkMessage::default();
    link.header.index = 7;
    link.attributes.push(LinkAttribute::IfName("skein0".to_owned()));
    link.attributes.push(LinkAttribute::Address(vec![2, 0, 0, 0, 0, 1]));
    link.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]));
    let mut route = RouteMessage::default();
    route.header.address_family = AddressFamily::Inet;
    route.header.kind = RouteType::Unicast;
    let gateway = Ipv4Addr::new(10, 0, 0, 1);
    route.attributes.push(RouteAttribute::Gateway(RouteAddress::Inet(gateway)));
    let mut rule = RuleMessage::default();
    rule.attributes.push(RuleAttribute::FwMark(7));
    let mut entry = NeighbourMessage::default();
    entry.attributes.push(NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0, 1]));
    let messages = [
        RouteNetlinkMessage::NewLink(link),
        RouteNetlinkMessage::NewRoute(route),
        RouteNetlinkMessage::NewRule(rule),
        RouteNetlinkMessage::NewNeighbour(entry),
    ];
    let messages = messages.map(|message| {
        let mut message = NetlinkMessage::from(message);
        message.header.sequence_number = SEQUENCE.into();
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    });
    // An acknowledgement: no error, and the header of the request.
    let request = Attributes::default().bytes(0, &[0; 12]);
    let ask = Ask { kind: MESSAGE_ERROR, header: &[0; 4], attributes: &request };
    let acknowledged = encode(&ask, SEQUENCE.into(), 0);
    let all = messages.iter().flat_map(|bytes| [2, 3, 4, 5].map(|reader| (reader, bytes.clone())));
    let all = all.chain([(0, acknowledged.clone()), (3, acknowledged)]);
    all.map(|(reader, bytes)| [&[reader], &bytes[..]].concat()).collect()
}

/// The names of a small cluster.
struct Names(Zone);

impl Resolver for Names {
    fn resolve(&self, asker: TaskId, question: &Question) -> Answer {
        netprog::dns::answer(&self.0, asker, question)
    }
}

thread_local! {
    static SERVER: (Runtime, Handler) = server();
}

fn server() -> (Runtime, Handler) {
    let state = cluster::fuzzing::state();
    let assignment = cluster::assignment_for(&state, NodeId(2)).expect("the node is a member");
    let resolver = Arc::new(Names(Zone::build(&assignment, &View::default())));
    // Without resolvers it asks nobody.
    let forwarder = Arc::new(Forwarder::to(Vec::new(), Arc::new(|| Duration::ZERO)));
    let handler = Handler { asker: TaskId(7), turn: AtomicUsize::new(0), resolver, forwarder };
    let runtime = Builder::new_current_thread().enable_time().build();
    (runtime.expect("a runtime without threads starts"), handler)
}

/// A question of a task. hickory decodes it before our code sees it.
pub fn dns_question(bytes: &[u8]) -> bool {
    let source = (Ipv4Addr::LOCALHOST, 53).into();
    let Ok(request) = Request::from_bytes(bytes.to_vec(), source, Protocol::Udp) else {
        return false;
    };
    SERVER.with(|(runtime, handler)| {
        let _reply = runtime.block_on(handler.reply(&request));
    });
    true
}

/// An answer of one of the host's resolvers, as it is checked, kept and given again.
pub fn dns_answer(bytes: &[u8]) -> bool {
    let mut asked = Message::query();
    asked.metadata.id = SEQUENCE;
    asked.add_query(Query::query(name(), RecordType::A));
    let Some(answer) = answer_to(&asked, bytes) else { return false };
    let mut cache = Cache::default();
    let query = &asked.queries[0];
    cache.put(query, &answer, Duration::ZERO);
    for seconds in [1, 10, u64::MAX] {
        if let Some(kept) = cache.get(query, Duration::from_secs(seconds)) {
            assert!(kept.answers.len() <= answer.answers.len(), "an answer grew");
        }
    }
    true
}

fn name() -> Name {
    Name::from_ascii("redis.example.").expect("it is a name")
}

/// Questions of every type that is answered.
#[must_use]
pub fn dns_question_seeds() -> Vec<Vec<u8>> {
    let names = [
        ("redis.", RecordType::A),
        ("tasks.redis.", RecordType::AAAA),
        ("2.1.0.10.in-addr.arpa.", RecordType::PTR),
        ("_80._tcp.redis.", RecordType::SRV),
        ("redis.web.", RecordType::TXT),
    ];
    let questions = names.into_iter().filter_map(|(name, kind)| {
        let mut message = Message::query();
        message.add_query(Query::query(Name::from_ascii(name).ok()?, kind));
        message.to_vec().ok()
    });
    questions.collect()
}

/// An answer, one without records, and a long one with a name that is written once.
#[must_use]
pub fn dns_answer_seeds() -> Vec<Vec<u8>> {
    let of = |records: u8| {
        let mut answer = Message::query();
        answer.metadata.id = SEQUENCE;
        answer.metadata.message_type = MessageType::Response;
        answer.add_query(Query::query(name(), RecordType::A));
        for number in 0..records {
            let data = RData::A(Ipv4Addr::new(192, 0, 2, number).into());
            answer.add_answer(Record::from_rdata(name(), 60, data));
        }
        answer.to_vec().ok()
    };
    [0, 1, 40].into_iter().filter_map(of).collect()
}
