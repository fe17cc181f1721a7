//! The words of Docker's flags, as values of its spec.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

/// An element of a list.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    /// The element that a word stands for.
    pub(super) parse: fn(&str) -> anyhow::Result<Value>,
    /// What tells two elements apart: an added one replaces that with the same key.
    pub(super) key: fn(&Value) -> String,
    /// The key that a word of `…-rm` names.
    pub(super) removed: fn(&str) -> anyhow::Result<String>,
}

fn word(text: &str) -> anyhow::Result<Value> {
    Ok(json!(text))
}

fn whole(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[expect(clippy::unnecessary_wraps, reason = "one of several forms")]
fn itself(text: &str) -> anyhow::Result<String> {
    Ok(text.to_owned())
}

fn field(value: &Value, name: &str) -> String {
    whole(&value[name])
}

/// A word that stands for itself.
pub(super) const WORD: Entry = Entry { parse: word, key: whole, removed: itself };

/// `NAME=VALUE`; a name alone takes the value that it has here.
pub(super) const ENV: Entry = Entry {
    parse: variable,
    key: |value| value.as_str().unwrap_or_default().split('=').next().unwrap_or("").to_owned(),
    removed: itself,
};

/// A network by name or id. The spec that comes back holds ids: see `networks`.
pub(super) const NETWORK: Entry =
    Entry { parse: network, key: |value| field(value, "Target"), removed: itself };

/// A published port. Docker's `--publish-rm` names the target port.
pub(super) const PORT: Entry = Entry {
    parse: port,
    key: |value| {
        let protocol = value["Protocol"].as_str().unwrap_or("tcp");
        format!("{}/{protocol}", value["TargetPort"])
    },
    removed: |text| Ok((PORT.key)(&port(text)?)),
};

/// A mount, named by its target.
pub(super) const MOUNT: Entry =
    Entry { parse: mount, key: |value| field(value, "Target"), removed: itself };

/// `NAME:ADDRESS`, in the spec `ADDRESS NAME`.
pub(super) const HOST: Entry =
    Entry { parse: host, key: whole, removed: |text| Ok(whole(&host(text)?)) };

/// `NAME=SOFT[:HARD]`.
pub(super) const ULIMIT: Entry =
    Entry { parse: ulimit, key: |value| field(value, "Name"), removed: itself };

/// `KIND=NUMBER`.
pub(super) const GENERIC: Entry = Entry {
    parse: |text| {
        let (kind, number) = text.split_once('=').unwrap_or((text, ""));
        let value: i64 = number.parse().with_context(|| {
            format!("{text:?}: give KIND=NUMBER, like gpu=2; a reservation names no single one")
        })?;
        Ok(json!({ "DiscreteResourceSpec": { "Kind": kind, "Value": value } }))
    },
    key: |value| field(&value["DiscreteResourceSpec"], "Kind"),
    removed: itself,
};

/// `spread=DESCRIPTOR`.
pub(super) const PREFERENCE: Entry = Entry {
    parse: |text| match text.split_once('=') {
        Some(("spread", descriptor)) => Ok(json!({ "Spread": { "SpreadDescriptor": descriptor } })),
        _ => bail!("{text:?}: give spread=NAME, like spread=node.labels.rack"),
    },
    key: |value| whole(value),
    removed: |text| Ok(whole(&(PREFERENCE.parse)(text)?)),
};

#[expect(clippy::disallowed_methods, reason = "a variable of the user's, not configuration")]
fn variable(text: &str) -> anyhow::Result<Value> {
    let here = || std::env::var(text).map(|value| format!("{text}={value}"));
    Ok(json!(if text.contains('=') { text.to_owned() } else { here().unwrap_or_default() }))
}

/// `OS/ARCHITECTURE`.
pub(super) const PLATFORM: Entry = Entry {
    parse: |text| match text.split_once('/') {
        Some((os, architecture)) => Ok(json!({ "OS": os, "Architecture": architecture })),
        None => bail!("{text:?}: give OS/ARCHITECTURE, like linux/arm64"),
    },
    key: |value| format!("{}/{}", field(value, "OS"), field(value, "Architecture")),
    removed: itself,
};

/// `NAME`, or `name=NAME,alias=ALIAS,driver-opt=…`.
fn network(text: &str) -> anyhow::Result<Value> {
    if !text.contains('=') {
        return Ok(json!({ "Target": text }));
    }
    let mut target = json!({ "Target": "", "Aliases": [] });
    for field in csv(text)? {
        match field.split_once('=') {
            Some(("name", name)) => target["Target"] = json!(name),
            Some(("alias", alias)) => {
                target["Aliases"].as_array_mut().expect("made above").push(json!(alias));
            }
            Some(("driver-opt", option)) => {
                let (name, value) = option.split_once('=').unwrap_or((option, ""));
                target["DriverOpts"][name] = json!(value);
            }
            _ => bail!("{field:?}: give name=…, alias=… or driver-opt=…"),
        }
    }
    ensure!(target["Target"] != "", "{text:?}: name is missing, like name=web,alias=db");
    Ok(target)
}

/// `192.0.2.1:3000:80/udp`, or `published=3000,target=80,protocol=udp,mode=host,host-ip=192.0.2.1`.
fn port(text: &str) -> anyhow::Result<Value> {
    let wrong =
        || format!("{text:?}: give [[IP:]PUBLISHED:]TARGET[/PROTOCOL], like 3000:80 or 53:53/udp");
    if !text.contains('=') {
        let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let (ports, target) = ports.rsplit_once(':').unwrap_or(("0", ports));
        let (address, published) = ports.rsplit_once(':').unwrap_or(("", ports));
        let mut port = json!({
            "PublishedPort": published.parse::<u16>().with_context(wrong)?,
            "TargetPort": target.parse::<u16>().with_context(wrong)?,
            "Protocol": protocol,
            "PublishMode": "ingress",
        });
        if !address.is_empty() {
            port["HostIP"] = json!(address);
        }
        return Ok(port);
    }
    let mut port = json!({
        "PublishedPort": 0, "TargetPort": 0, "Protocol": "tcp", "PublishMode": "ingress",
    });
    for field in csv(text)? {
        let (name, value) = field.split_once('=').unwrap_or((&field, ""));
        let number = || value.parse::<u16>().with_context(wrong).map(|number| json!(number));
        match name {
            "published" => port["PublishedPort"] = number()?,
            "target" => port["TargetPort"] = number()?,
            "protocol" => port["Protocol"] = json!(value),
            "mode" => port["PublishMode"] = json!(value),
            "name" => port["Name"] = json!(value),
            "host-ip" => port["HostIP"] = json!(value),
            _ => bail!(
                "{field:?}: give published=…, target=…, protocol=…, mode=…, host-ip=… or name=…"
            ),
        }
    }
    Ok(port)
}

/// Docker's `--mount`.
fn mount(text: &str) -> anyhow::Result<Value> {
    let mut mount = json!({ "Type": "volume", "Source": "", "Target": "" });
    for field in csv(text)? {
        let (name, value) = field.split_once('=').unwrap_or((&field, ""));
        let on = || match value {
            "" | "true" | "1" => Ok(json!(true)),
            "false" | "0" => Ok(json!(false)),
            _ => bail!("{field:?}: give true or false"),
        };
        let pair = || value.split_once('=').unwrap_or((value, ""));
        match name {
            "type" => mount["Type"] = json!(value),
            "source" | "src" => mount["Source"] = json!(value),
            "target" | "dst" | "destination" => mount["Target"] = json!(value),
            "readonly" | "ro" => mount["ReadOnly"] = on()?,
            "consistency" => mount["Consistency"] = json!(value),
            "bind-propagation" => mount["BindOptions"]["Propagation"] = json!(value),
            "bind-create-mountpoint" => mount["BindOptions"]["CreateMountpoint"] = on()?,
            "bind-nonrecursive" => mount["BindOptions"]["NonRecursive"] = on()?,
            "volume-nocopy" => mount["VolumeOptions"]["NoCopy"] = on()?,
            "volume-subpath" => mount["VolumeOptions"]["Subpath"] = json!(value),
            "volume-label" => mount["VolumeOptions"]["Labels"][pair().0] = json!(pair().1),
            "volume-driver" => {
                mount["VolumeOptions"]["DriverConfig"]["Name"] = json!(value);
            }
            "volume-opt" => {
                mount["VolumeOptions"]["DriverConfig"]["Options"][pair().0] = json!(pair().1);
            }
            "tmpfs-size" => mount["TmpfsOptions"]["SizeBytes"] = json!(bytes(value)?),
            "tmpfs-mode" => {
                let mode = u32::from_str_radix(value, 8)
                    .with_context(|| format!("{field:?}: give an octal mode, like 1777"))?;
                mount["TmpfsOptions"]["Mode"] = json!(mode);
            }
            _ => bail!("{field:?} is no part of a mount: see docker's --mount"),
        }
    }
    ensure!(
        mount["Target"] != "",
        "{text:?}: target is missing, like type=bind,source=/srv,target=/srv"
    );
    Ok(mount)
}

fn host(text: &str) -> anyhow::Result<Value> {
    let wrong = || format!("{text:?}: give NAME:ADDRESS, like db:10.0.0.5");
    let (name, address) = text.split_once(':').with_context(wrong)?;
    let address: IpAddr = address.trim_matches(['[', ']']).parse().with_context(wrong)?;
    Ok(json!(format!("{address} {name}")))
}

fn ulimit(text: &str) -> anyhow::Result<Value> {
    let wrong = || format!("{text:?}: give NAME=SOFT[:HARD], like nofile=1024:2048");
    let (name, limits) = text.split_once('=').with_context(wrong)?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let number = |text: &str| text.parse::<i64>().with_context(wrong);
    Ok(json!({ "Name": name, "Soft": number(soft)?, "Hard": number(hard)? }))
}

/// The fields of a line of comma-separated values (RFC 4180): a field with a comma is quoted.
fn csv(text: &str) -> anyhow::Result<Vec<String>> {
    let mut lines = csv::ReaderBuilder::new().has_headers(false).from_reader(text.as_bytes());
    let line = lines.records().next().context("an empty value")?;
    Ok(line?.iter().map(str::to_owned).collect())
}

/// NAME=VALUE pairs, as an object; a name alone has an empty value.
pub(super) fn map(texts: &[String]) -> BTreeMap<&str, &str> {
    texts.iter().map(|text| text.split_once('=').unwrap_or((text, ""))).collect()
}

/// `64m`: Docker's sizes, where k, m, g and t are powers of 1024, with or without a b.
pub(super) fn bytes(text: &str) -> anyhow::Result<u64> {
    let wrong = || format!("{text:?} is no size: give one like 64m or 1.5g");
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let power = match lower[digits.len()..].trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        _ => bail!("{}", wrong()),
    };
    let number: f64 = digits.trim().parse().with_context(wrong)?;
    let bytes = number * 1024_f64.powi(power);
    ensure!((0.0..9e15).contains(&bytes), "{}", wrong());
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above")]
    Ok(bytes as u64)
}

/// `0.5`, in billionths of a CPU.
pub(super) fn cpus(text: &str) -> anyhow::Result<u64> {
    let wrong = || format!("{text:?} is no number of CPUs: give one like 0.5");
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    ensure!(part.len() <= 9 && part.bytes().all(|b| b.is_ascii_digit()), "{}", wrong());
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().with_context(wrong)? };
    let part: u64 = format!("{part:0<9}").parse().with_context(wrong)?;
    let cpus = whole.checked_mul(1_000_000_000).and_then(|whole| whole.checked_add(part));
    cpus.with_context(wrong)
}

/// `10s`, `1m30s`, `500ms`: Go's durations.
pub(in crate::cli) fn nanoseconds(text: &str) -> anyhow::Result<u64> {
    api::duration_ns(text)
        .with_context(|| format!("{text:?} is no duration: give one like 10s, 1m30s or 500ms"))
}

/// A command line's words, split as a shell does.
pub(super) fn words(text: &str) -> anyhow::Result<Vec<String>> {
    shlex::split(text).with_context(|| format!("{text:?}: a quote is not closed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_forms_are_docker_s() {
        assert_eq!(port("3000:80/udp").unwrap()["Protocol"], "udp");
        assert_eq!(port("80").unwrap()["PublishedPort"], 0);
        assert!(port("80").unwrap().get("HostIP").is_none());
        for text in ["192.0.2.1:3000:80/udp", "published=3000,target=80,host-ip=192.0.2.1"] {
            let port = port(text).unwrap();
            assert_eq!(port["HostIP"], "192.0.2.1", "{text}");
            assert_eq!((&port["PublishedPort"], &port["TargetPort"]), (&json!(3000), &json!(80)));
        }
        assert_eq!(port("published=1,target=2,mode=host").unwrap()["PublishMode"], "host");
        assert!(port("x:y").unwrap_err().to_string().contains("like 3000:80"));
        assert!(port("target=1,modus=host").unwrap_err().to_string().contains("modus=host"));
        assert_eq!((PORT.removed)("3000:80/udp").unwrap(), "80/udp");
        assert_eq!(nanoseconds("1m30s").unwrap(), 90_000_000_000);
        assert!(nanoseconds("5 parsecs").is_err());
        assert_eq!(network("web").unwrap(), json!({"Target": "web"}));
        assert_eq!(network("name=web,alias=a,alias=b").unwrap()["Aliases"], json!(["a", "b"]));
        assert_eq!(host("db:10.0.0.5").unwrap(), "10.0.0.5 db");
        assert_eq!(host("db:fd00::5").unwrap(), "fd00::5 db");
        assert_eq!(ulimit("nofile=1024").unwrap()["Hard"], 1024);
        assert_eq!(ulimit("nofile=1024:-1").unwrap()["Hard"], -1);
        assert_eq!((GENERIC.parse)("gpu=2").unwrap()["DiscreteResourceSpec"]["Value"], 2);
        assert!((PREFERENCE.parse)("node.labels.rack").is_err());
        assert_eq!(words("sh -c 'a b'").unwrap(), ["sh", "-c", "a b"]);
        assert!(words("sh 'a").is_err());
    }

    #[test]
    fn mounts_are_docker_s() {
        assert_eq!(mount("type=bind,src=/a,dst=/b,ro").unwrap()["ReadOnly"], true);
        assert_eq!(mount("type=bind,src=/a,dst=/b,readonly=false").unwrap()["ReadOnly"], false);
        let nfs = "type=volume,src=v,dst=/b,volume-driver=local,volume-opt=type=nfs,\
                   \"volume-opt=o=addr=192.0.2.1,rw\"";
        let options = &mount(nfs).unwrap()["VolumeOptions"]["DriverConfig"]["Options"];
        assert_eq!(*options, json!({"type": "nfs", "o": "addr=192.0.2.1,rw"}));
        for (word, pointer, value) in [
            ("consistency=cached", "/Consistency", json!("cached")),
            ("bind-propagation=rslave", "/BindOptions/Propagation", json!("rslave")),
            ("bind-nonrecursive", "/BindOptions/NonRecursive", json!(true)),
            ("bind-create-mountpoint", "/BindOptions/CreateMountpoint", json!(true)),
            ("volume-nocopy", "/VolumeOptions/NoCopy", json!(true)),
            ("volume-subpath=a/b", "/VolumeOptions/Subpath", json!("a/b")),
            ("volume-label=a=b", "/VolumeOptions/Labels/a", json!("b")),
        ] {
            let mount = mount(&format!("type=bind,src=/a,dst=/b,{word}")).unwrap();
            assert_eq!(mount.pointer(pointer), Some(&value), "{word}");
        }
        let tmpfs = mount("type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1777").unwrap();
        assert_eq!(tmpfs["TmpfsOptions"], json!({"SizeBytes": 1 << 20, "Mode": 0o1777}));
        for (wrong, named) in [("type=bind,src=/a", "target"), ("dst=/a,colour=red", "colour=red")]
        {
            assert!(mount(wrong).unwrap_err().to_string().contains(named), "{wrong}");
        }
    }

    #[test]
    fn quantities_are_exact_or_refused() {
        for (text, expected) in [
            ("64m", Some(64 << 20)),
            ("1.5g", Some(3 << 29)),
            ("10kb", Some(10 << 10)),
            ("10KiB", Some(10 << 10)),
            ("7", Some(7)),
            ("-1m", None),
            ("m", None),
            ("1x", None),
            ("1e300g", None),
        ] {
            assert_eq!(bytes(text).ok(), expected, "{text}");
        }
        for (text, expected) in [
            ("0.5", Some(500_000_000)),
            (".25", Some(250_000_000)),
            ("2", Some(2_000_000_000)),
            ("0.0000000001", None),
            ("-1", None),
            ("two", None),
        ] {
            assert_eq!(cpus(text).ok(), expected, "{text}");
        }
    }
}
