//! The image of the nodes: rebuilt when a program of this build has changed.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

use super::engine::Engine;
use super::machine::PROGRAMS;
use crate::command::run;
use crate::{checkout, program, target_folder};

/// The image's name; what it was made of is its tag.
const NAME: &str = "skein-demo";
/// The stage of the Dockerfile that has the demo's programs.
const STAGE: &str = "demo";
/// Programs and lists that the image is made by, below the workspace's root.
const RECIPE: [&str; 3] =
    ["deploy/container/build.sh", "deploy/container/tree.sh", "deploy/container/Dockerfile"];
/// How long the build may take; most of it is Debian's packages on their way here.
const BUILD_SECONDS: u32 = 600;

/// Builds the image of this build's programs unless the engine has it, and gives its name.
///
/// # Errors
/// When a program is missing, or with the build's own words.
pub(super) fn build(engine: &Engine) -> Result<String> {
    let image = format!("{NAME}:{:016x}", fingerprint()?);
    if engine.docker(&["image", "inspect", "--format", "{{.Id}}", &image])?.status == 0 {
        return Ok(image);
    }
    let script = workspace()?.join(RECIPE[0]).display().to_string();
    let folder = target_folder()?.display().to_string();
    run(BUILD_SECONDS, &[&script, &folder, STAGE, &image, "-H", engine.url()])?.ok()?;
    Ok(image)
}

/// Changes when a program or the recipe does.
fn fingerprint() -> Result<u64> {
    let mut paths: Vec<PathBuf> = PROGRAMS.into_iter().map(program).collect::<Result<_>>()?;
    let root = workspace()?;
    paths.extend(RECIPE.map(|name| root.join(name)));
    let mut hasher = DefaultHasher::new();
    for path in paths {
        let shown = || format!("looking at {}", path.display());
        let data = fs::metadata(&path).with_context(shown)?;
        (data.len(), data.modified().with_context(shown)?).hash(&mut hasher);
    }
    Ok(hasher.finish())
}

/// The workspace that this program was built from.
pub(super) fn workspace() -> Result<PathBuf> {
    let root = checkout();
    ensure!(
        root.join(RECIPE[0]).exists(),
        "this was built from {}, which is gone: build it where the sources are now",
        root.display()
    );
    Ok(root)
}
