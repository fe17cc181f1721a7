use super::*;

const PASSWD: &str =
    "root:x:0:0:root:/root:/bin/sh\n\nbroken line\nweb:x:33:34::/srv/web:/bin/sh\n";
const GROUP: &str = "root:x:0:\nweb:x:34:\nlogs:x:50:web,other\nssl:x:51:other,web\n";

fn check(user: Option<&str>, more: &[&str]) -> String {
    let more: Vec<String> = more.iter().map(|text| (*text).to_owned()).collect();
    match resolve(user, &more, PASSWD, GROUP) {
        Ok(Identity { uid, gid, groups, home }) => format!("{uid} {gid} {groups:?} {home}"),
        Err(failure) => format!("{}: {}", failure.code, failure.error),
    }
}

#[test]
fn users_are_resolved_as_docker_resolves_them() {
    let table = [
        (None, "0 0 [] /root"),
        (Some(""), "0 0 [] /root"),
        (Some("web"), "33 34 [50, 51] /srv/web"),
        (Some("33"), "33 34 [50, 51] /srv/web"),
        (Some("web:logs"), "33 50 [] /srv/web"),
        (Some("web:77"), "33 77 [] /srv/web"),
        (Some("1000"), "1000 0 [] /"),
        (Some("1000:1001"), "1000 1001 [] /"),
        (Some("nobody"), "126: unable to find user nobody: no matching entries in passwd file"),
        (Some("web:none"), "126: unable to find group none: no matching entries in group file"),
        (Some("-1"), "126: unable to find user -1: no matching entries in passwd file"),
    ];
    for (user, expected) in table {
        assert_eq!(check(user, &[]), expected, "{user:?}");
    }
    assert_eq!(check(Some("web"), &["root", "99", "99"]), "33 34 [0, 50, 51, 99] /srv/web");
}
