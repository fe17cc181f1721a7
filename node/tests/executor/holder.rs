//! The holder of namespaces.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use nix::sched::{CloneFlags, setns};
use supervise::hold::{Client, ensure_running};

use super::node::{Node, eventually, exe};

fn inode(descriptor: impl AsFd) -> u64 {
    nix::sys::stat::fstat(descriptor).unwrap().st_ino
}

#[tokio::test]
async fn namespaces_are_made_once_listed_and_closed() {
    let node = Node::new();
    let run_dir = node.run_dir();
    let client = ensure_running(exe(), &run_dir).unwrap();
    assert_eq!(client.list().unwrap(), Vec::<String>::new());
    let web = client.open("fabric-web").unwrap();
    let db = client.open("fabric-db").unwrap();
    assert_ne!(inode(&web), inode(&db));
    let own = File::open("/proc/self/ns/net").unwrap();
    assert_ne!(inode(&web), inode(&own));
    assert_eq!(inode(&web), inode(client.open("fabric-web").unwrap()));
    assert_eq!(client.list().unwrap(), ["fabric-db", "fabric-web"]);
    let file = run_dir.join("netns/fabric-web");
    assert_eq!(inode(&web), inode(File::open(&file).unwrap()));

    let devices = std::thread::scope(|scope| {
        let list = || {
            setns(web.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
            std::fs::read_to_string("/proc/thread-self/net/dev").unwrap()
        };
        scope.spawn(list).join().unwrap()
    });
    assert!(devices.contains("lo:"), "{devices}");

    client.close("fabric-web").unwrap();
    client.close("fabric-web").unwrap();
    assert_eq!(client.list().unwrap(), ["fabric-db"]);
    assert!(!file.exists());
    for name in ["sandbox-x", "../x", ""] {
        assert!(
            client.open(name).unwrap_err().to_string().contains("cannot be a namespace's name")
        );
    }
    client.quit().unwrap();
}

fn holder_of(run_dir: &Path) -> nix::unistd::Pid {
    let wanted = format!("hold\0{}\0", run_dir.display());
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let pid =
        processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()).find(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).ends_with(&wanted)
        });
    nix::unistd::Pid::from_raw(pid.unwrap())
}

#[tokio::test]
async fn a_namespace_outlives_its_clients_and_even_the_holder() {
    let node = Node::new();
    let run_dir = node.run_dir();
    let made = inode(ensure_running(exe(), &run_dir).unwrap().open("fabric-a").unwrap());
    // A second daemon finds the first one's holder.
    let client = ensure_running(exe(), &run_dir).unwrap();
    assert_eq!(inode(client.open("fabric-a").unwrap()), made);

    let holder = holder_of(&run_dir);
    // It is at home in the namespace that it was started in.
    assert_eq!(
        std::fs::read_link(format!("/proc/{holder}/ns/net")).unwrap(),
        std::fs::read_link("/proc/self/ns/net").unwrap()
    );
    nix::sys::signal::kill(holder, nix::sys::signal::Signal::SIGKILL).unwrap();
    eventually("the holder is gone", async || !Path::new(&format!("/proc/{holder}")).exists())
        .await;
    assert!(client.list().is_err());
    let client = ensure_running(exe(), &run_dir).unwrap();
    assert_eq!(client.list().unwrap(), ["fabric-a"]);
    assert_eq!(inode(client.open("fabric-a").unwrap()), made);
    Client::new(&run_dir).quit().unwrap();
    assert!(!run_dir.join("netns/fabric-a").exists());
    assert!(!run_dir.join("hold.sock").exists());
}

#[test]
fn a_holder_that_cannot_start_says_why() {
    let node = Node::new();
    let run_dir = node.run_dir();
    std::fs::write(run_dir.join("netns"), "a file in the way").unwrap();
    let error = ensure_running(exe(), &run_dir).unwrap_err().to_string();
    assert!(error.starts_with("start the holder of namespaces: "), "{error}");
    assert!(error.contains("exists"), "{error}");
}
