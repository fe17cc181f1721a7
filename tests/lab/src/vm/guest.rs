//! One virtual machine: from its description to the command line of its monitor, the process that
//! is the machine to this one (QEMU, or user-mode Linux itself).

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use super::accel::Accel;
use super::kernel::Boot;

/// QEMU's program.
pub const QEMU: &str = "qemu-system-x86_64";

/// What a guest is made of. It is put into its folder: its data disk, console and monitor's pid.
#[derive(Debug, Clone)]
pub struct Guest {
    /// Its host name.
    pub name: String,
    /// Its folder, which every command line of it carries.
    pub folder: PathBuf,
    /// Its kernel.
    pub boot: Boot,
    /// How QEMU runs its code.
    pub accel: Accel,
    /// Image of its root.
    pub root: PathBuf,
    /// Image of the programs of this build.
    pub programs: PathBuf,
    /// Its memory in MiB.
    pub memory_mib: u32,
    pub wire: Wire,
    /// The program that makes a system of it, where not that of the root image (busybox).
    pub init: Option<String>,
}

/// The wire of a guest: a TAP of the namespace that its monitor runs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wire {
    /// The TAP's name.
    pub tap: String,
    /// The guest's address on it.
    pub address: Ipv4Addr,
    /// Bits of the subnet's prefix.
    pub prefix: u8,
    /// Its default route.
    pub gateway: Option<Ipv4Addr>,
    /// Where it asks for names.
    pub dns: Option<Ipv4Addr>,
}

impl Guest {
    /// The image of what it keeps: `/var/lib/skein` of the guest.
    #[must_use]
    pub fn data_disk(&self) -> PathBuf {
        self.folder.join("data.img")
    }

    /// What it wrote to its serial console, of all boots.
    #[must_use]
    pub fn console(&self) -> PathBuf {
        self.folder.join("console.log")
    }

    /// The command line of its monitor. The console is the monitor's standard output.
    #[must_use]
    pub fn line(&self) -> Vec<String> {
        match &self.boot {
            Boot::Qemu { kernel, initramfs, modules } => self.qemu(kernel, initramfs, modules),
            Boot::Uml { program } => self.uml(program),
        }
    }

    fn qemu(&self, kernel: &Path, initramfs: &Path, modules: &Path) -> Vec<String> {
        let disks = [
            (&self.root, "on"),
            (&self.programs, "on"),
            (&self.data_disk(), "off"),
            (&modules.to_owned(), "on"),
        ];
        let append = format!(
            "console=ttyS0 quiet loglevel=4 mitigations=off net.ifnames=0 \
             skein.modules=/dev/vdd {}",
            self.parameters("vd")
        );
        let mut line = qemu_words(self.accel, self.memory_mib);
        line.extend(["-name".to_owned(), self.name.clone()]);
        line.extend(["-kernel".to_owned(), shown(kernel)]);
        line.extend(["-initrd".to_owned(), shown(initramfs)]);
        line.extend(["-append".to_owned(), append]);
        for (image, read_only) in disks {
            let mut drive =
                format!("file={},if=virtio,format=raw,readonly={read_only}", shown(image));
            // Images that nobody writes are shared with user-mode Linux, whose locks on them
            // QEMU would take for a writer's.
            if read_only == "on" {
                drive += ",file.locking=off";
            }
            line.extend(["-drive".to_owned(), drive]);
        }
        let tap = &self.wire.tap;
        line.extend([
            "-netdev".to_owned(),
            format!("tap,id=wire,ifname={tap},script=no,downscript=no"),
            "-device".to_owned(),
            format!("virtio-net-pci,netdev=wire,mac={}", mac(self.wire.address)),
        ]);
        line
    }

    fn uml(&self, program: &Path) -> Vec<String> {
        let Self { memory_mib, root, programs, .. } = self;
        let tap = &self.wire.tap;
        // A reboot would restart the program while the TAP is still held: it exits instead.
        let words = format!(
            "mem={memory_mib}M seccomp=on quiet loglevel=4 root=/dev/ubda ro rootfstype=ext4 \
             init=/lab/first con=null con0=null,fd:1 ubd0r={} ubd1r={} ubd2={} uml_dir={} \
             noreboot vec0:transport=tap,ifname={tap},mac={} {}",
            shown(root),
            shown(programs),
            shown(&self.data_disk()),
            shown(&self.folder),
            mac(self.wire.address),
            self.parameters("ubd")
        );
        let words = words.split_whitespace().map(str::to_owned);
        std::iter::once(shown(program)).chain(words).collect()
    }

    /// What the guest's own programs read of the kernel's command line.
    fn parameters(&self, disk: &str) -> String {
        let Wire { address, prefix, gateway, dns, .. } = &self.wire;
        let mut text = format!(
            "skein.name={} skein.programs=/dev/{disk}b skein.data=/dev/{disk}c \
             skein.address={address}/{prefix}",
            self.name
        );
        for (key, value) in [("gateway", gateway), ("dns", dns)] {
            if let Some(value) = value {
                text += &format!(" skein.{key}={value}");
            }
        }
        // Without a dot the kernel hands it on as a variable, which guest/first reads.
        if let Some(init) = &self.init {
            text += &format!(" LAB_INIT={init}");
        }
        text
    }
}

/// QEMU's words that are the same for every machine.
pub(super) fn qemu_words(accel: Accel, memory_mib: u32) -> Vec<String> {
    let (accel, processor) = accel.words();
    let memory = memory_mib.to_string();
    let words = [
        QEMU,
        "-accel",
        accel,
        "-cpu",
        processor,
        "-smp",
        "1",
        "-m",
        &memory,
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-serial",
        "stdio",
        "-rtc",
        "base=utc,clock=host",
    ];
    words.map(str::to_owned).to_vec()
}

/// A hardware address of our own (locally administered), from the address that is unique here.
fn mac(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("52:54:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(boot: Boot, accel: Accel) -> Guest {
        Guest {
            name: "node1".to_owned(),
            folder: "/lab/n1".into(),
            boot,
            accel,
            root: "/c/root.img".into(),
            programs: "/c/programs.img".into(),
            memory_mib: 300,
            wire: Wire {
                tap: "p11".to_owned(),
                address: Ipv4Addr::new(192, 168, 50, 11),
                prefix: 24,
                gateway: Some(Ipv4Addr::new(192, 168, 50, 100)),
                dns: None,
            },
            init: None,
        }
    }

    #[test]
    fn qemus_line_carries_disks_wire_and_parameters() {
        let boot = Boot::Qemu {
            kernel: "/c/vmlinuz".into(),
            initramfs: "/c/initramfs.gz".into(),
            modules: "/c/modules.img".into(),
        };
        let line = guest(boot.clone(), Accel::Tcg).line().join(" ");
        for part in [
            "-accel tcg,thread=multi -cpu max -smp 1 -m 300 ",
            "-kernel /c/vmlinuz -initrd /c/initramfs.gz ",
            "-drive file=/c/root.img,if=virtio,format=raw,readonly=on,file.locking=off \
             -drive file=/c/programs.img,if=virtio,format=raw,readonly=on,file.locking=off \
             -drive file=/lab/n1/data.img,if=virtio,format=raw,readonly=off \
             -drive file=/c/modules.img,if=virtio,format=raw,readonly=on,file.locking=off",
            "-netdev tap,id=wire,ifname=p11,script=no,downscript=no ",
            "mac=52:54:c0:a8:32:0b",
            "skein.name=node1 skein.programs=/dev/vdb skein.data=/dev/vdc \
             skein.address=192.168.50.11/24 skein.gateway=192.168.50.100",
            "skein.modules=/dev/vdd",
        ] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
        assert!(!line.contains("skein.dns"), "{line}");
        let fast = guest(boot, Accel::Kvm).line().join(" ");
        assert!(fast.contains("-accel kvm -cpu host "), "{fast}");
    }

    #[test]
    fn umls_line_carries_disks_wire_and_parameters() {
        let line = guest(Boot::Uml { program: "/c/linux".into() }, Accel::Tcg).line();
        assert_eq!(line[0], "/c/linux");
        for word in [
            "mem=300M",
            "seccomp=on",
            "init=/lab/first",
            "con0=null,fd:1",
            "noreboot",
            "ubd0r=/c/root.img",
            "ubd1r=/c/programs.img",
            "ubd2=/lab/n1/data.img",
            "uml_dir=/lab/n1",
            "vec0:transport=tap,ifname=p11,mac=52:54:c0:a8:32:0b",
            "skein.programs=/dev/ubdb",
            "skein.data=/dev/ubdc",
            "skein.gateway=192.168.50.100",
        ] {
            assert!(line.iter().any(|has| has == word), "{word} is not in {line:?}");
        }
        assert!(!line.iter().any(|word| word.starts_with("skein.modules")), "{line:?}");
    }
}
