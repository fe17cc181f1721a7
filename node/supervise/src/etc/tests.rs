use expect_test::expect;

use super::*;

#[test]
fn hosts_lists_extra_names_before_the_tasks_own() {
    let extra = HostEntry {
        address: "10.1.0.9".parse().unwrap(),
        names: vec!["db".to_owned(), "db.local".to_owned()],
    };
    let own = ["10.0.0.3".parse().unwrap(), "fd00::3".parse().unwrap()];
    expect![[r#"
        127.0.0.1	localhost
        ::1	localhost ip6-localhost ip6-loopback
        fe00::	ip6-localnet
        ff00::	ip6-mcastprefix
        ff02::1	ip6-allnodes
        ff02::2	ip6-allrouters
        10.1.0.9	db db.local
        10.0.0.3	web
        fd00::3	web
    "#]]
    .assert_eq(&hosts("web", &[extra], &own));
}

#[test]
fn resolv_conf_has_the_tasks_settings_else_the_hosts() {
    const HOST: &str = "\
# domain old.example
domain one.example
search two.example  three.example
nameserver 192.0.2.53
options edns0
options timeout:1 ndots:3
";
    let of = |search: &[&str], options: &[&str], host| {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let dns = DnsConfig {
            nameservers: vec!["192.0.2.54".parse().unwrap()],
            search: owned(search),
            options: owned(options),
        };
        resolv_conf(&dns, host)
    };
    let own = (["a.example", "b.example"].as_slice(), ["ndots:2", "rotate"].as_slice());
    for (text, expected) in [
        (of(&[], &[], ""), "options ndots:0"),
        (of(&[], &[], "search\noptions\n"), "options ndots:0"),
        (of(&[], &[], HOST), "search two.example three.example\noptions edns0 timeout:1 ndots:3"),
        (of(own.0, own.1, HOST), "search a.example b.example\noptions ndots:2 rotate"),
        (of(own.0, &[], HOST), "search a.example b.example\noptions edns0 timeout:1 ndots:3"),
        (of(&[], own.1, HOST), "search two.example three.example\noptions ndots:2 rotate"),
        (of(&["."], &["edns0"], HOST), "options edns0 ndots:0"),
        (of(&[], &[], "domain one.example\n"), "search one.example\noptions ndots:0"),
    ] {
        assert_eq!(text, format!("nameserver 127.0.0.11\n{expected}\n"));
    }
}
