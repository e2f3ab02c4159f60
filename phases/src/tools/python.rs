//! Python environments, made by uv from locked requirements.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use taskrun_engine::context::{Context, View};
use taskrun_engine::fingerprint::Digest;
use taskrun_engine::outcome::{Failure, Persistence};
use taskrun_engine::process::Command;

use super::{cache, files, run_as};
use crate::outputs::{Machine, Program};
use crate::phase0::find_program;

/// The version of uv that is fetched where there is none.
pub const UV_VERSION: &str = "0.13.9";

/// The versions of Python that all locked requirements are made for.
const PYTHONS: std::ops::RangeInclusive<u32> = 10..=13;

/// How long making an environment may take; the largest one is 1 GB.
const TIMEOUT: Duration = Duration::from_secs(900);

/// The file in an environment that says what it was made from.
const STAMP: &str = "taskrun.stamp";

/// The interpreters that may do, the most likely one first: the distribution's own can be run by every user.
pub fn candidates() -> Vec<PathBuf> {
    let usual = ["/usr/bin/python3", "/usr/local/bin/python3"].map(PathBuf::from).into_iter();
    let mut found: Vec<PathBuf> = usual.filter(|path| path.is_file()).chain(find_program("python3")).collect();
    found.dedup();
    found
}

/// An interpreter of the right version that the service user can run.
///
/// # Errors
/// There is none.
pub async fn interpreter(view: &View, given: Option<&Path>) -> Result<Program, Failure> {
    const VERSION: &str =
        "import sys, venv, ensurepip; print('%d.%d.%d' % sys.version_info[:3]); print(sys.executable)";
    let machine: Machine = view.output()?;
    let candidates = given.map_or_else(candidates, |given| vec![given.to_owned()]);
    let mut said = Vec::new();
    for path in candidates {
        let command =
            run_as::service_user(&machine, &path).args(["-I", "-c", VERSION]).dir("/").timeout(Duration::from_secs(30));
        match view.capture(command).await {
            Ok(told) => {
                let version = told.lines().next().unwrap_or_default().to_owned();
                let minor = version.split('.').nth(1).and_then(|minor| minor.parse().ok());
                if version.starts_with("3.") && minor.is_some_and(|minor| PYTHONS.contains(&minor)) {
                    return Ok(Program { path, version });
                }
                said.push(format!("{} is version {version}", path.display()));
            }
            Err(failure) => {
                let last = failure.command.as_ref().and_then(|command| command.tail.lines().last().map(str::to_owned));
                said.push(format!("{}: {}", path.display(), last.unwrap_or_else(|| failure.to_string())));
            }
        }
    }
    Err(Failure::permanent(format!("find a Python 3.10 to 3.13 that the service user can run: {}", said.join("; ")))
        .with_hint("apt-get install python3 python3-venv, or name one as `tools.python` in the configuration"))
}

/// uv: the one on PATH if it is of the pinned version, else fetched into an environment of its own.
///
/// # Errors
/// It cannot be fetched.
pub async fn uv(context: &Context, python: &Program, runtime: &Path) -> Result<Program, Failure> {
    let version = UV_VERSION.to_owned();
    if let Some(path) = find_program("uv") {
        let told = context.capture(Command::new(&path).arg("--version").timeout(Duration::from_secs(30))).await?;
        if told.split_whitespace().nth(1) == Some(UV_VERSION) {
            return Ok(Program { path, version });
        }
    }
    let folder = runtime.join("uv");
    let path = folder.join("bin").join("uv");
    let fetch = async {
        files::remove(&folder)?;
        context.command(Command::new(&python.path).args(["-m", "venv"]).arg(&folder).timeout(TIMEOUT)).await?;
        let pip = Command::new(folder.join("bin").join("python"));
        let pip = pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
        context.command(pip.arg(format!("uv=={UV_VERSION}")).timeout(TIMEOUT)).await.map_err(transient)?;
        Ok(Program { path: path.clone(), version })
    };
    let holds = |made: &Program| made.path.is_file() && made.version == UV_VERSION;
    context.step_checked("fetch uv", holds, fetch).await
}

/// An environment with exactly the locked requirements; one that is there already is kept.
///
/// # Errors
/// A requirement cannot be fetched, or is not the one that was locked.
pub async fn environment(
    context: &Context,
    uv: &Program,
    python: &Program,
    folder: &Path,
    locked: &str,
) -> Result<PathBuf, Failure> {
    let wanted = format!("{} {} {}", Digest::of(locked.as_bytes()), python.path.display(), python.version);
    let stamp = folder.join(STAMP);
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let holds = |_: &PathBuf| fs::read_to_string(&stamp).is_ok_and(|made_from| made_from == wanted);
    let make = async {
        files::remove(folder)?;
        let cache = cache::folder()?.join(cache::UV);
        let base = |command: Command| {
            command
                .env("UV_CACHE_DIR", &cache)
                // Links into a cache that only its owner may enter could not be followed by the service user.
                .env("UV_LINK_MODE", "copy")
                .env("UV_NO_CONFIG_UPDATE", "1")
                .env("UV_PYTHON_DOWNLOADS", "never")
                .timeout(TIMEOUT)
        };
        let venv = Command::new(&uv.path).args(["venv", "--quiet", "--python"]).arg(&python.path).arg(folder);
        context.command(base(venv)).await?;
        let file = folder.join("requirements.txt");
        fs::write(&file, locked).map_err(|error| files::failure("write", &file, &error))?;
        let sync = Command::new(&uv.path).args(["pip", "sync", "--quiet", "--require-hashes", "--python"]);
        context.command(base(sync.arg(folder.join("bin").join("python")).arg(&file))).await.map_err(transient)?;
        fs::write(&stamp, &wanted).map_err(|error| files::failure("write", &stamp, &error))?;
        Ok(folder.to_owned())
    };
    context.step_checked(&format!("make the environment {name}"), holds, make).await
}

/// What is fetched may be there the next time.
pub(crate) fn transient(mut failure: Failure) -> Failure {
    if failure.persistence == Persistence::Permanent {
        failure.persistence = Persistence::Transient;
    }
    failure
}
