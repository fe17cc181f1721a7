//! A sandbox's DNS server on real sockets, with resolvers of the host that misbehave.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cluster::id::TaskId;
use hickory_server::proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_server::proto::rr::rdata::A;
use hickory_server::proto::rr::{Name, RData, Record, RecordType};
use netprog::dns::TTL_SECONDS;
use netprog_linux::dns_server::{Answer, Data, DnsServer, Forwarder, Kind, Question, Resolver};
use netprog_linux::namespace::Namespace;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::world::{SANDBOX, TASK, World};

/// Far below the forwarder's deadline: what is known to have failed is said at once.
const QUICK: Duration = Duration::from_secs(1);
/// Queries that are sent before an answer is read.
const BURST: usize = 1_000;
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);

/// Names of the cluster; each asker sees the same.
struct Names(BTreeMap<&'static str, Vec<Data>>);

impl Resolver for Names {
    fn resolve(&self, asker: TaskId, question: &Question) -> Answer {
        assert_eq!(asker, TASK);
        let Some(found) = self.0.get(question.name.as_str()) else { return Answer::Unknown };
        let fits = |data: &&Data| match data {
            Data::Address(address) if address.is_ipv4() => question.kind == Kind::A,
            Data::Address(_) => question.kind == Kind::Aaaa,
            Data::Name(_) => question.kind == Kind::Ptr,
            Data::Service { .. } => question.kind == Kind::Srv,
        };
        Answer::Known(found.iter().filter(fits).cloned().collect())
    }
}

fn names() -> Arc<Names> {
    let address = |text: &str| Data::Address(text.parse().unwrap());
    let many = (0..40).map(|n| Data::Address(IpAddr::from([10, 0, 0, n]))).collect();
    let crowd = (0..150).map(|n| Data::Address(IpAddr::from([10, 0, 1, n]))).collect();
    Arc::new(Names(BTreeMap::from([
        ("redis", vec![address("10.0.0.15")]),
        ("tasks.redis", vec![address("10.0.0.5"), address("10.0.0.6")]),
        ("tasks.many", many),
        ("tasks.crowd", crowd),
        ("15.0.0.10.in-addr.arpa", vec![Data::Name("redis.vote".to_owned())]),
        ("16.0.0.10.in-addr.arpa", vec![Data::Name("app_web.1.x-_y".to_owned())]),
        ("app_web", vec![address("10.0.0.16")]),
        ("b\u{fc}cher", vec![address("10.0.0.17")]),
        ("-a--b-", vec![address("10.0.0.18")]),
        ("_8080._tcp.app_web", vec![Data::Service { port: 80, target: "app_web".to_owned() }]),
        ("_http._tcp.web", vec![Data::Service { port: 80, target: "web".to_owned() }]),
    ])))
}

/// A sandbox with open DNS sockets, as its supervisor keeps them.
struct Sandbox {
    inside: Namespace,
    udp: OwnedFd,
    tcp: OwnedFd,
    address: SocketAddr,
    tcp_address: SocketAddr,
}

impl Sandbox {
    fn new() -> Self {
        let mut world = World::furnished();
        let inside = Namespace::enter("sandbox", world.open(SANDBOX)).unwrap();
        let (udp, tcp) = inside
            .run(|| {
                let any = ("127.0.0.11", 0);
                (std::net::UdpSocket::bind(any), std::net::TcpListener::bind(any))
            })
            .unwrap();
        let (udp, tcp) = (udp.unwrap(), tcp.unwrap());
        let (address, tcp_address) = (udp.local_addr().unwrap(), tcp.local_addr().unwrap());
        Self { inside, udp: udp.into(), tcp: tcp.into(), address, tcp_address }
    }

    fn serve(&self, resolvers: Vec<SocketAddr>) -> DnsServer {
        self.serve_by(Forwarder::to(resolvers, Arc::new(|| Duration::ZERO)))
    }

    fn serve_by(&self, forwarder: Forwarder) -> DnsServer {
        let forwarder = Arc::new(forwarder);
        let (udp, tcp) = (self.udp.try_clone().unwrap(), self.tcp.try_clone().unwrap());
        DnsServer::start(TASK, udp, tcp, names(), forwarder).unwrap()
    }

    /// A program of the task, with a socket of its own.
    fn client(&self) -> UdpSocket {
        let socket =
            self.inside.run(|| std::net::UdpSocket::bind(("127.0.0.1", 0))).unwrap().unwrap();
        socket.set_nonblocking(true).unwrap();
        UdpSocket::from_std(socket).unwrap()
    }

    async fn ask(&self, query: &Message) -> Message {
        let client = self.client();
        client.send_to(&query.to_vec().unwrap(), self.address).await.unwrap();
        receive(&client).await
    }

    async fn ask_by_tcp(&self, query: &Message) -> Message {
        let to = self.tcp_address;
        let stream = self.inside.run(move || std::net::TcpStream::connect(to)).unwrap().unwrap();
        stream.set_nonblocking(true).unwrap();
        let mut stream = TcpStream::from_std(stream).unwrap();
        write_framed(&mut stream, query).await;
        read_framed(&mut stream).await
    }
}

async fn receive(client: &UdpSocket) -> Message {
    let mut buffer = [0; 4096];
    let receiving = tokio::time::timeout(ANSWER_WAIT_MAX, client.recv(&mut buffer));
    let length = receiving.await.unwrap().unwrap();
    Message::from_vec(&buffer[..length]).unwrap()
}

async fn write_framed(stream: &mut TcpStream, message: &Message) {
    let bytes = message.to_vec().unwrap();
    let length = u16::try_from(bytes.len()).unwrap();
    stream.write_all(&[&length.to_be_bytes(), bytes.as_slice()].concat()).await.unwrap();
}

async fn read_framed(stream: &mut TcpStream) -> Message {
    let mut bytes = vec![0; usize::from(stream.read_u16().await.unwrap())];
    stream.read_exact(&mut bytes).await.unwrap();
    Message::from_vec(&bytes).unwrap()
}

fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    let labels = name.trim_end_matches('.').split('.').map(str::as_bytes);
    message.add_query(Query::query(Name::from_labels(labels).unwrap(), kind));
    message
}

fn data(message: &Message) -> Vec<String> {
    assert_eq!(message.metadata.response_code, ResponseCode::NoError);
    message.answers.iter().map(|record| record.data.to_string()).collect()
}

/// A resolver of the host on loopback; counts what it is asked by UDP.
struct Upstream {
    address: SocketAddr,
    asked: Arc<AtomicU32>,
    /// Of these with EDNS.
    extended: Arc<AtomicU32>,
}

#[derive(Clone, Copy)]
enum Manner {
    Answers(u32),
    Fails(ResponseCode),
    Truncates,
    Silent,
    /// Refuses EDNS by this code, and repeats no question.
    Old(ResponseCode),
    /// Drops what has EDNS, and changes the case of names.
    Drops,
}

fn answer(query: &Message, manner: Manner, by_tcp: bool) -> Message {
    let code = match manner {
        Manner::Fails(code) => code,
        Manner::Old(code) if query.edns.is_some() => code,
        _ => ResponseCode::NoError,
    };
    let mut answer = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
    answer.metadata.response_code = code;
    match manner {
        Manner::Old(_) => {}
        Manner::Drops => {
            let asked = &query.queries[0];
            let name = Name::from_utf8(asked.name().to_string().to_uppercase()).unwrap();
            answer.add_query(Query::query(name, asked.query_type()));
        }
        _ => drop(answer.add_queries(query.queries.clone())),
    }
    let cut = matches!(manner, Manner::Truncates) && !by_tcp;
    answer.metadata.truncation = cut;
    if !cut && code == ResponseCode::NoError {
        let ttl = if let Manner::Answers(ttl) = manner { ttl } else { 60 };
        let data = RData::A(A([192, 0, 2, 80].into()));
        answer.add_answer(Record::from_rdata(query.queries[0].name().clone(), ttl, data));
    }
    answer
}

async fn upstream(manner: Manner) -> Upstream {
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let tcp = TcpListener::bind(udp.local_addr().unwrap()).await.unwrap();
    upstream_on(manner, udp, tcp)
}

fn upstream_on(manner: Manner, udp: UdpSocket, tcp: TcpListener) -> Upstream {
    let address = udp.local_addr().unwrap();
    let asked = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&asked);
    let extended = Arc::new(AtomicU32::new(0));
    let with_edns = Arc::clone(&extended);
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        loop {
            let (length, from) = udp.recv_from(&mut buffer).await.unwrap();
            count.fetch_add(1, Ordering::Relaxed);
            if matches!(manner, Manner::Silent) {
                continue;
            }
            let query = Message::from_vec(&buffer[..length]).unwrap();
            if query.edns.is_some() {
                with_edns.fetch_add(1, Ordering::Relaxed);
                if matches!(manner, Manner::Drops) {
                    continue;
                }
            }
            let answer = answer(&query, manner, false);
            udp.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
        }
    });
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = tcp.accept().await.unwrap();
            let query = read_framed(&mut stream).await;
            write_framed(&mut stream, &answer(&query, manner, true)).await;
        }
    });
    Upstream { address, asked, extended }
}

#[tokio::test]
async fn names_of_the_cluster_are_answered_and_never_forwarded() {
    let sandbox = Sandbox::new();
    let host = upstream(Manner::Answers(60)).await;
    let _server = sandbox.serve(vec![host.address]);
    let table: [(&str, RecordType, &[&str]); 12] = [
        ("redis", RecordType::A, &["10.0.0.15"]),
        ("ReDis.", RecordType::A, &["10.0.0.15"]),
        ("redis", RecordType::AAAA, &[]),
        ("redis", RecordType::MX, &[]),
        ("tasks.redis", RecordType::A, &["10.0.0.5", "10.0.0.6"]),
        ("15.0.0.10.in-addr.arpa", RecordType::PTR, &["redis.vote."]),
        ("_http._tcp.web", RecordType::SRV, &["0 0 80 web."]),
        ("app_web", RecordType::A, &["10.0.0.16"]),
        ("16.0.0.10.in-addr.arpa", RecordType::PTR, &["app_web.1.x-_y."]),
        ("_8080._tcp.app_web", RecordType::SRV, &["0 0 80 app_web."]),
        ("b\u{fc}cher", RecordType::A, &["10.0.0.17"]),
        ("-a--b-", RecordType::A, &["10.0.0.18"]),
    ];
    for (name, kind, expected) in table {
        let answer = sandbox.ask(&query(name, kind)).await;
        let mut found = data(&answer);
        found.sort();
        assert_eq!(found, expected, "{name} {kind}");
        assert!(answer.metadata.authoritative && answer.metadata.recursion_available);
        assert!(answer.answers.iter().all(|record| record.ttl == TTL_SECONDS));
    }
    assert_eq!(host.asked.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn each_address_comes_first_in_its_turn() {
    let sandbox = Sandbox::new();
    let _server = sandbox.serve(Vec::new());
    let mut first = Vec::new();
    for _ in 0..4 {
        let answer = sandbox.ask(&query("tasks.redis", RecordType::A)).await;
        first.extend(data(&answer).into_iter().next());
    }
    assert_eq!(first, ["10.0.0.5", "10.0.0.6", "10.0.0.5", "10.0.0.6"]);
}

#[tokio::test]
async fn other_names_are_forwarded_and_kept() {
    let sandbox = Sandbox::new();
    let host = upstream(Manner::Answers(60)).await;
    let _server = sandbox.serve(vec![host.address]);
    for _twice in 0..2 {
        let answer = sandbox.ask(&query("example.org", RecordType::A)).await;
        assert_eq!(data(&answer), ["192.0.2.80"]);
        assert!(!answer.metadata.authoritative);
    }
    assert_eq!(host.asked.load(Ordering::Relaxed), 1);
}

/// Goal: no resolver hears of a name that one before it has answered, as of an internal one.
#[tokio::test]
async fn resolvers_are_asked_in_their_order() {
    let sandbox = Sandbox::new();
    let absent = upstream(Manner::Fails(ResponseCode::NXDomain)).await;
    let answers = upstream(Manner::Answers(0)).await;
    let table = [
        ([&answers, &absent], ResponseCode::NoError, [1, 0]),
        ([&absent, &answers], ResponseCode::NXDomain, [1, 0]),
    ];
    for (resolvers, code, times) in table {
        let before = resolvers.map(|resolver| resolver.asked.load(Ordering::Relaxed));
        let server = sandbox.serve(resolvers.map(|resolver| resolver.address).into());
        let answer = sandbox.ask(&query("internal.example", RecordType::A)).await;
        assert_eq!(answer.metadata.response_code, code);
        let after = resolvers.map(|resolver| resolver.asked.load(Ordering::Relaxed));
        assert_eq!([after[0] - before[0], after[1] - before[1]], times);
        server.stop().await;
    }
}

/// Goal: a task's own resolvers are asked from its sandbox, by UDP and TCP, and no other.
/// Method: they listen there alone, on an address where the host has another one.
#[tokio::test]
async fn a_tasks_own_resolvers_are_asked_from_its_sandbox() {
    const ADDRESS: &str = "127.0.0.77:53";
    let sandbox = Sandbox::new();
    let sockets = || (std::net::UdpSocket::bind(ADDRESS), std::net::TcpListener::bind(ADDRESS));
    let serve =
        |(udp, tcp): (io::Result<std::net::UdpSocket>, io::Result<std::net::TcpListener>)| {
            let (udp, tcp) = (udp.unwrap(), tcp.unwrap());
            udp.set_nonblocking(true).unwrap();
            tcp.set_nonblocking(true).unwrap();
            (UdpSocket::from_std(udp).unwrap(), TcpListener::from_std(tcp).unwrap())
        };
    let (udp, tcp) = serve(sockets());
    let host = upstream_on(Manner::Fails(ResponseCode::NXDomain), udp, tcp);
    let (udp, tcp) = serve(sandbox.inside.run(sockets).unwrap());
    let own = upstream_on(Manner::Truncates, udp, tcp);
    let namespace = sandbox.inside.run(netprog_linux::spaces::own_namespace).unwrap().unwrap();
    let resolvers = ["127.0.0.77".parse().unwrap()];
    let _server =
        sandbox.serve_by(Forwarder::within(namespace, &resolvers, Arc::new(|| Duration::ZERO)));
    for times in 1..3 {
        let answer = sandbox.ask(&query("example.org", RecordType::A)).await;
        assert_eq!(data(&answer), ["192.0.2.80"]);
        // Nothing is kept.
        assert_eq!(own.asked.load(Ordering::Relaxed), times);
    }
    assert_eq!(host.asked.load(Ordering::Relaxed), 0);
    let known = sandbox.ask(&query("redis", RecordType::A)).await;
    assert_eq!(data(&known), ["10.0.0.15"]);
}

/// Goal: a resolver that does not know EDNS is asked without it, and that is remembered.
/// Method: after some queries, those that arrive have no EDNS.
#[tokio::test]
async fn old_resolvers_are_understood() {
    for manner in
        [Manner::Old(ResponseCode::FormErr), Manner::Old(ResponseCode::NotImp), Manner::Drops]
    {
        let sandbox = Sandbox::new();
        let old = upstream(manner).await;
        let _server = sandbox.serve(vec![old.address]);
        let mut extended = Vec::new();
        for number in 0..5 {
            let name = format!("name{number}.example.org");
            let answer = sandbox.ask(&query(&name, RecordType::A)).await;
            assert_eq!(data(&answer), ["192.0.2.80"]);
            extended.push(old.extended.swap(0, Ordering::Relaxed) > 0);
        }
        assert!(extended[0] && !extended[3] && !extended[4], "{extended:?}");
    }
}

#[tokio::test]
async fn a_resolv_conf_that_changes_is_followed() {
    let dir = std::env::temp_dir().join(format!("skein-resolv-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join("resolv.conf");
    let now = Arc::new(Mutex::new(Duration::ZERO));
    let clock = Arc::clone(&now);
    // Nothing listens on port 53 of these addresses: the error says which one was asked.
    let forwarder = Forwarder::following(&file, Arc::new(move || *clock.lock().unwrap()));
    let asked = Query::query(Name::from_utf8("example.org.").unwrap(), RecordType::A);
    for (seconds, text, resolver) in [
        (0, None, "the host has no resolvers"),
        (2, Some("nameserver 127.0.0.91\n"), "ask 127.0.0.91:53"),
        (4, Some("search example.org\nnameserver 127.0.0.92\n"), "ask 127.0.0.92:53"),
        (6, None, "ask 127.0.0.92:53"),
    ] {
        *now.lock().unwrap() = Duration::from_secs(seconds);
        match text {
            Some(text) => std::fs::write(&file, text).unwrap(),
            None => drop(std::fs::remove_file(&file)),
        }
        let said = forwarder.ask(&asked).await.unwrap_err().to_string();
        assert!(said.starts_with(resolver), "{said}");
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

/// Goal: a program that asks for many names at once is answered every time.
#[tokio::test]
async fn a_burst_of_queries_is_answered() {
    let sandbox = Sandbox::new();
    let _server = sandbox.serve(Vec::new());
    let client = sandbox.client();
    let room: usize = 4 << 20;
    nix::sys::socket::setsockopt(&client, nix::sys::socket::sockopt::RcvBufForce, &room).unwrap();
    for _ in 0..BURST {
        let asked = query("redis", RecordType::A).to_vec().unwrap();
        client.send_to(&asked, sandbox.address).await.unwrap();
    }
    for _ in 0..BURST {
        assert_eq!(data(&receive(&client).await), ["10.0.0.15"]);
    }
}

#[tokio::test]
async fn one_resolver_that_answers_is_enough() {
    let sandbox = Sandbox::new();
    let refuses = upstream(Manner::Fails(ResponseCode::Refused)).await;
    let fails = upstream(Manner::Fails(ResponseCode::ServFail)).await;
    let silent = upstream(Manner::Silent).await;
    let answers = upstream(Manner::Answers(0)).await;
    let all = [refuses.address, fails.address, silent.address, answers.address];
    let _server = sandbox.serve(all.into());
    let asked = query("example.org", RecordType::A);
    let answer = tokio::time::timeout(QUICK, sandbox.ask(&asked)).await.unwrap();
    assert_eq!(data(&answer), ["192.0.2.80"]);
}

#[tokio::test]
async fn what_cannot_be_had_fails_quickly() {
    let sandbox = Sandbox::new();
    let closed = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let fails = upstream(Manner::Fails(ResponseCode::ServFail)).await;
    let absent = upstream(Manner::Fails(ResponseCode::NXDomain)).await;
    let table = [
        (vec![], ResponseCode::ServFail),
        (vec![closed], ResponseCode::ServFail),
        (vec![fails.address, closed], ResponseCode::ServFail),
        (vec![fails.address, absent.address], ResponseCode::NXDomain),
    ];
    for (resolvers, code) in table {
        let server = sandbox.serve(resolvers);
        let asked = query("example.org", RecordType::A);
        let answer = tokio::time::timeout(QUICK, sandbox.ask(&asked)).await.unwrap();
        assert_eq!(answer.metadata.response_code, code);
        server.stop().await;
    }
}

#[tokio::test]
async fn a_silent_resolver_costs_the_deadline_and_no_more() {
    let sandbox = Sandbox::new();
    let silent = upstream(Manner::Silent).await;
    let _server = sandbox.serve(vec![silent.address]);
    let answer = sandbox.ask(&query("example.org", RecordType::A)).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    // It was asked again: a datagram can be lost.
    assert!(silent.asked.load(Ordering::Relaxed) > 1);
}

#[tokio::test]
async fn long_answers_go_by_tcp_on_both_sides() {
    let sandbox = Sandbox::new();
    let cuts = upstream(Manner::Truncates).await;
    let _server = sandbox.serve(vec![cuts.address]);
    let answer = sandbox.ask(&query("example.org", RecordType::A)).await;
    assert_eq!(data(&answer), ["192.0.2.80"]);

    let mut asked = query("tasks.many", RecordType::A);
    assert!(sandbox.ask(&asked).await.metadata.truncation);
    assert_eq!(data(&sandbox.ask_by_tcp(&asked).await).len(), 40);
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    asked.set_edns(edns);
    let answer = sandbox.ask(&asked).await;
    assert_eq!((data(&answer).len(), answer.metadata.truncation), (40, false));
    // As much as the client has room for.
    let mut asked = query("tasks.crowd", RecordType::A);
    for (room, whole) in [(1232, false), (4096, true)] {
        let mut edns = Edns::new();
        edns.set_max_payload(room);
        asked.set_edns(edns);
        let answer = sandbox.ask(&asked).await;
        assert_eq!(!answer.metadata.truncation, whole, "{room}");
    }
}

#[tokio::test]
async fn what_is_no_question_is_refused() {
    let sandbox = Sandbox::new();
    let _server = sandbox.serve(Vec::new());
    let mut update = query("redis", RecordType::A);
    update.metadata.op_code = OpCode::Notify;
    assert_eq!(sandbox.ask(&update).await.metadata.response_code, ResponseCode::NotImp);
    let mut chaos = query("version.bind", RecordType::TXT);
    chaos.queries[0].query_class = hickory_server::proto::rr::DNSClass::CH;
    assert_eq!(sandbox.ask(&chaos).await.metadata.response_code, ResponseCode::Refused);
}

/// Method: the daemon is away; a query is sent; the daemon comes back with the same sockets.
#[tokio::test]
async fn a_query_outlives_the_daemon() {
    let sandbox = Sandbox::new();
    sandbox.serve(Vec::new()).stop().await;
    let client = sandbox.client();
    let asked = query("redis", RecordType::A).to_vec().unwrap();
    client.send_to(&asked, sandbox.address).await.unwrap();
    let _server = sandbox.serve(Vec::new());
    assert_eq!(data(&receive(&client).await), ["10.0.0.15"]);
}

#[tokio::test]
async fn the_cache_follows_the_clock() {
    let host = upstream(Manner::Answers(60)).await;
    let now = Arc::new(Mutex::new(Duration::from_secs(10)));
    let clock = Arc::clone(&now);
    let forwarder = Forwarder::to(vec![host.address], Arc::new(move || *clock.lock().unwrap()));
    let asked = Query::query(Name::from_utf8("example.org.").unwrap(), RecordType::A);
    for (seconds, ttl, times) in [(10, 60, 1), (30, 40, 1), (70, 60, 2)] {
        *now.lock().unwrap() = Duration::from_secs(seconds);
        let answer = forwarder.ask(&asked).await.unwrap();
        assert_eq!(answer.answers[0].ttl, ttl);
        assert_eq!(host.asked.load(Ordering::Relaxed), times);
    }
}
