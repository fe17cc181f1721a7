//! Runs one program of this machine on a kernel of choice: boots a guest for it alone, gives it
//! the program, and passes its output and exit status through. A test of the kernel runs so on
//! kernels that this machine does not have.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::disk::make_data_disk;
use super::guest::{Guest, Wire};
use super::images::Images;
use super::kernel::Kernel;
use super::monitor::Monitor;
use super::{host, wires};
use crate::command::run;
use crate::kinds::folder_of;
use crate::{sweep, sweep_dead, test_name};

const SUBNET: [u8; 3] = [192, 168, 50];
/// Where the given files lie in the guest.
const FILES_FOLDER: &str = "/var/lib/skein/files";
const STRIP_SECONDS: u32 = 120;

/// One program and what it needs.
#[derive(Debug, Clone)]
pub struct Job {
    /// The kernel that it runs on.
    pub kernel: Kernel,
    /// The guest's memory in MiB, where the usual does not do.
    pub memory_mib: Option<u32>,
    /// Further files in the folder of the program.
    pub files: Vec<PathBuf>,
    /// Variables, as `KEY=VALUE`.
    pub env: Vec<String>,
    /// The program and its arguments. A program that is a file of this machine is copied.
    pub words: Vec<String>,
}

/// A guest for one program, gone when this value is.
#[derive(Debug)]
struct Stage {
    name: String,
    folder: PathBuf,
}

impl Drop for Stage {
    fn drop(&mut self) {
        // What stays is found by name and removed by the next run.
        let _ = sweep(&self.name, &self.folder);
    }
}

impl Job {
    /// Runs it; gives its exit status.
    ///
    /// # Errors
    /// When the guest cannot be made or does not boot, or a file cannot be read.
    pub fn run(&self) -> Result<i32> {
        ensure!(!self.words.is_empty(), "no program is named");
        host::check_tap()?;
        let images = Images::build(self.kernel)?;
        let memory_mib = self.memory_mib.unwrap_or_else(|| images.memory_mib());
        sweep_dead()?;
        let name = test_name("vm");
        let folder = folder_of(&name);
        host::check_room(1, memory_mib, &folder)?;
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let stage = Stage { name, folder };
        let words = self.give_files(&stage.folder)?;
        let monitor = self.make_guest(&stage, &images, memory_mib)?;
        monitor.start()?;
        monitor.wait_boot()?;
        let mut line = monitor.call_line(&[]);
        line.truncate(line.len() - 1);
        line.extend(self.env.iter().flat_map(|pair| ["--env".to_owned(), pair.clone()]));
        line.push("--".to_owned());
        line.extend(words);
        let status = Command::new(&line[0]).args(&line[1..]).status().context("calling")?;
        drop(stage);
        Ok(status.code().unwrap_or(255))
    }

    fn make_guest(&self, stage: &Stage, images: &Images, memory_mib: u32) -> Result<Monitor> {
        let wires = wires::make(&stage.name, 1, SUBNET)?;
        let node = &wires.nodes[0];
        let wire = Wire {
            tap: node.wire.clone(),
            address: node.address,
            prefix: wires::PREFIX,
            gateway: None,
            dns: None,
        };
        let guest = Guest {
            name: "guest".to_owned(),
            folder: stage.folder.clone(),
            boot: images.boot.clone(),
            accel: images.accel,
            root: images.root.clone(),
            programs: images.programs.clone(),
            memory_mib,
            wire,
            init: None,
        };
        Monitor::new(guest, &node.underlay)
    }

    /// Makes the data disk with the program and its files; gives the command line in the guest.
    fn give_files(&self, folder: &Path) -> Result<Vec<String>> {
        let disk = folder.join("disk");
        let files = disk.join("files");
        fs::create_dir_all(&files).with_context(|| format!("making {}", files.display()))?;
        let mut words = self.words.clone();
        let program = PathBuf::from(&words[0]);
        let is_file = words[0].contains('/') && program.is_file();
        if is_file {
            words[0] = give(&program, &files)?;
        }
        for file in &self.files {
            give(file, &files)?;
        }
        make_data_disk(&folder.join("data.img"), Some(&disk))?;
        fs::remove_dir_all(&disk).with_context(|| format!("removing {}", disk.display()))?;
        Ok(words)
    }
}

/// Copies a file, a program without its symbols, and gives its place in the guest.
fn give(file: &Path, files: &Path) -> Result<String> {
    let name = file.file_name().with_context(|| format!("{} has no name", file.display()))?;
    let place = files.join(name);
    fs::copy(file, &place).with_context(|| format!("copying {}", file.display()))?;
    let bytes = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    if bytes.starts_with(b"\x7fELF") {
        run(STRIP_SECONDS, &["strip", &place.to_string_lossy()])?.ok()?;
    }
    Ok(format!("{FILES_FOLDER}/{}", name.to_string_lossy()))
}
