//! Debian's packages for guests, fetched by the machine's own apt with settings of our own: the
//! machine's sources, lists and installed packages are neither used nor changed, but for the
//! mirror, which is the one that the machine uses.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::command::run;

/// How long fetching packages may take.
const FETCH_SECONDS: u32 = 900;
/// How long unpacking one package may take.
const UNPACK_SECONDS: u32 = 300;
/// As `dpkg-deb -x`, which would put a folder `/bin` in the place of the link to `/usr/bin`.
const UNPACK: &str = "set -o pipefail; mkdir -p \"$1\" && dpkg-deb --fsys-tarfile \"$0\" | \
    tar -xf - -C \"$1\" --keep-directory-symlink";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// apt with a folder of its own, for one release of Debian.
#[derive(Debug)]
pub struct Apt {
    folder: PathBuf,
}

impl Apt {
    /// Reads the lists of packages of `suites` (`["bookworm", "bookworm-updates"]`) into a folder.
    ///
    /// # Errors
    /// When this is not Debian, or the mirror cannot be reached.
    pub fn new(folder: &Path, suites: &[&str]) -> Result<Self> {
        let mirror = mirror()?;
        for part in ["lists/partial", "archives/partial", "parts"] {
            let path = folder.join(part);
            fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        }
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
        };
        // Nothing is installed: apt resolves all dependencies.
        write("status", "")?;
        let suites = suites.join(" ");
        write(
            "parts/guest.sources",
            &format!(
                "Types: deb\nURIs: {mirror}\nSuites: {suites}\nComponents: main\n\
                 Signed-By: {KEYRING}\n"
            ),
        )?;
        write("apt.conf", &settings(folder))?;
        let apt = Self { folder: folder.to_owned() };
        apt.run("apt-get", &["update", "-qq", "-o", "APT::Update::Error-Mode=any"])
            .context("reading Debian's lists of packages; is there a network?")?;
        Ok(apt)
    }

    /// Fetches packages with all that they depend on, and unpacks them over one another.
    ///
    /// # Errors
    /// When one does not exist or cannot be fetched.
    pub fn unpack_with_dependencies(&self, packages: &[&str], into: &Path) -> Result<()> {
        let words = ["install", "--download-only", "-y", "-qq", "-o", "Debug::NoLocking=1"];
        self.run("apt-get", &[&words, packages].concat()).context("fetching packages")?;
        self.unpack_all(&self.folder.join("archives"), into)
    }

    /// Fetches one package without what it depends on, and unpacks it.
    ///
    /// # Errors
    /// As [`Apt::unpack_with_dependencies`].
    pub fn unpack(&self, package: &str, into: &Path) -> Result<()> {
        let place = self.folder.join("single");
        fs::create_dir_all(&place).with_context(|| format!("making {}", place.display()))?;
        let inner = format!("cd {} && exec apt-get download -qq {package}", place.display());
        self.run("sh", &["-c", &inner]).with_context(|| format!("fetching {package}"))?;
        self.unpack_all(&place, into)
    }

    /// The package that a package of the name of a whole line (`linux-source`) leads to now.
    ///
    /// # Errors
    /// When it depends on none whose name begins in the same way.
    pub fn newest(&self, line: &str) -> Result<String> {
        let text = self.run("apt-cache", &["depends", line])?;
        let prefix = line.split('-').take(2).collect::<Vec<_>>().join("-");
        let named = text.lines().filter_map(|row| row.trim().strip_prefix("Depends: "));
        let found = named.into_iter().find(|name| name.starts_with(&prefix));
        found.map(str::to_owned).with_context(|| format!("{line} leads to no package: {text}"))
    }

    fn unpack_all(&self, from: &Path, into: &Path) -> Result<()> {
        for entry in from.read_dir().with_context(|| format!("listing {}", from.display()))? {
            let path = entry.with_context(|| format!("listing {}", from.display()))?.path();
            if path.extension().is_some_and(|end| end == "deb") {
                let (package, into) = (path.to_string_lossy(), into.to_string_lossy());
                run(UNPACK_SECONDS, &["bash", "-c", UNPACK, &package, &into])?.ok()?;
            }
        }
        Ok(())
    }

    fn run(&self, program: &str, words: &[&str]) -> Result<String> {
        let settings = format!("APT_CONFIG={}", self.folder.join("apt.conf").display());
        let mut line = vec!["env", "DEBIAN_FRONTEND=noninteractive", &settings, program];
        line.extend(words);
        run(FETCH_SECONDS, &line)?.ok()
    }
}

fn settings(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "Dir::Etc::SourceList \"/dev/null\";\n\
         Dir::Etc::SourceParts \"{folder}/parts\";\n\
         Dir::State \"{folder}\";\n\
         Dir::State::Lists \"{folder}/lists\";\n\
         Dir::State::status \"{folder}/status\";\n\
         Dir::Cache \"{folder}\";\n\
         Dir::Cache::Archives \"{folder}/archives\";\n\
         APT::Install-Recommends \"false\";\n\
         APT::Sandbox::User \"root\";\n\
         Acquire::Languages \"none\";\n"
    )
}

/// The release that this machine runs: programs of the build need its libc in the guest.
///
/// # Errors
/// When it is not Debian.
pub fn own_release() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("reading /etc/os-release")?;
    let field = |key: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(key));
        value.map(|value| value.trim_matches('"').to_owned()).unwrap_or_default()
    };
    let (id, release) = (field("ID="), field("VERSION_CODENAME="));
    if id != "debian" || release.is_empty() {
        bail!("guests are made of Debian's packages by apt: this machine is {id:?}, not Debian");
    }
    Ok(release)
}

/// The mirror of Debian's main archive that this machine uses.
fn mirror() -> Result<String> {
    let words = [
        "apt-get",
        "indextargets",
        "--format",
        "$(REPO_URI) $(ORIGIN) $(LABEL)",
        "Created-By: Packages",
    ];
    let text = run(60, &words)?.ok().context("guests are made of Debian's packages by apt")?;
    choose_mirror(&text)
        .context("apt knows no mirror of Debian's main archive: run apt-get update first")
}

fn choose_mirror(text: &str) -> Option<String> {
    let mut rows = text.lines().filter_map(|line| line.strip_suffix(" Debian Debian"));
    rows.next().map(str::to_owned)
}

#[test]
fn the_mirror_is_the_main_archives() {
    let text = "http://a.example/extra/ Other Other\n\
        http://a.example/debian-security/ Debian Debian-Security\n\
        http://a.example/debian/ Debian Debian\n";
    assert_eq!(choose_mirror(text), Some("http://a.example/debian/".to_owned()));
    assert_eq!(choose_mirror("http://a.example/ Other Other\n"), None);
}
