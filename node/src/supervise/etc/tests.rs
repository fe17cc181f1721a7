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
fn resolv_conf_names_the_sandbox_server_and_keeps_the_users_ndots() {
    expect![[r#"
        nameserver 127.0.0.11
        options ndots:0
    "#]]
    .assert_eq(&resolv_conf(&DnsConfig::default()));
    let dns = DnsConfig {
        search: vec!["a.example".to_owned(), "b.example".to_owned()],
        options: vec!["ndots:2".to_owned(), "rotate".to_owned()],
    };
    expect![[r#"
        nameserver 127.0.0.11
        search a.example b.example
        options ndots:2 rotate
    "#]]
    .assert_eq(&resolv_conf(&dns));
}
