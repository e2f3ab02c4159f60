//! Programs from the distribution's packages, unpacked and not installed: an installation would start a server, and might
//! upgrade one that the machine has. PostgreSQL's are taken as they are installed, if they are.

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use taskrun_engine::context::Context;
use taskrun_engine::outcome::{Failure, Persistence};
use taskrun_engine::process::Command;

use super::files;
use super::python::transient;
use crate::outputs::PostgresPrograms;

/// How long fetching packages may take.
const TIMEOUT: Duration = Duration::from_secs(600);

/// The programs and extensions that a usable server has.
const PROGRAMS: [&str; 4] = ["postgres", "initdb", "pg_dump", "pg_restore"];
const EXTENSIONS: [&str; 2] = ["uuid-ossp.control", "pg_stat_statements.control"];

/// The programs in the folder that the user named, or those of the newest installed server.
///
/// # Errors
/// The named folder lacks a program.
pub fn installed(given: Option<&Path>) -> Result<Option<PostgresPrograms>, Failure> {
    if let Some(bin) = given {
        return match PROGRAMS.iter().find(|program| !bin.join(program).is_file()) {
            None => programs(bin, Vec::new()).map(Some),
            Some(program) => {
                Err(Failure::permanent(format!("tools.postgres: there is no {}", bin.join(program).display()))
                    .with_hint("name the folder of PostgreSQL's server programs, such as /usr/lib/postgresql/15/bin"))
            }
        };
    }
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut majors: Vec<u32> = versions.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    majors.sort_unstable();
    let usable = majors.into_iter().rev().find(|&major| {
        let bin = folder(major);
        let extensions = PathBuf::from(format!("/usr/share/postgresql/{major}/extension"));
        PROGRAMS.iter().all(|program| bin.join(program).is_file())
            && EXTENSIONS.iter().all(|extension| extensions.join(extension).is_file())
    });
    usable.map(|major| programs(&folder(major), Vec::new())).transpose()
}

/// Where the programs of a major version of PostgreSQL are installed.
pub fn folder(major: u32) -> PathBuf {
    PathBuf::from(format!("/usr/lib/postgresql/{major}/bin"))
}

/// The installed programs of a major version of PostgreSQL, if they are.
///
/// # Errors
/// They do not tell their version.
pub fn of_major(major: u32) -> Result<Option<PostgresPrograms>, Failure> {
    let bin = folder(major);
    bin.join("postgres").is_file().then(|| programs(&bin, Vec::new())).transpose()
}

/// Fetches the packages of the distribution's PostgreSQL and what they need that the machine lacks, and unpacks them
/// into `target`.
///
/// # Errors
/// A package cannot be fetched; apt checks each against the signed lists of the distribution.
pub async fn unpack(context: &Context, target: &Path) -> Result<PostgresPrograms, Failure> {
    let server = depends(context, "postgresql").await?.into_iter().find(|name| name.starts_with("postgresql-"));
    let server = server.ok_or_else(|| {
        Failure::permanent("find PostgreSQL among the packages of this distribution")
            .with_hint("fetch the package lists: apt-get update")
    })?;
    let major = server.trim_start_matches("postgresql-");
    let libraries = unpack_packages(context, &[&server, &format!("postgresql-client-{major}")], &[], target).await?;
    programs(&target.join(format!("usr/lib/postgresql/{major}/bin")), libraries)
}

/// Fetches packages of the distribution and the libraries that they need and the machine lacks, and unpacks them into
/// `target`, which is emptied before. Nothing is installed: no script of a package runs, and no daemon starts. `parts` are
/// programs that some releases have in a package of their own, which the wanted one needs. Returns the folders for
/// LD_LIBRARY_PATH.
///
/// # Errors
/// A package cannot be fetched; apt checks each against the signed lists of the distribution.
pub async fn unpack_packages(
    context: &Context,
    wanted: &[&str],
    parts: &[&str],
    target: &Path,
) -> Result<Vec<PathBuf>, Failure> {
    let packages = with_libraries(context, wanted, parts).await?;
    context.say(format!("unpacking {}", packages.iter().cloned().collect::<Vec<_>>().join(" ")));
    let fetched = target.with_extension("packages");
    files::remove(target)?;
    files::remove(&fetched)?;
    fs::create_dir_all(&fetched).map_err(|error| files::failure("make", &fetched, &error))?;
    let fetch = Command::new("apt-get").args(["download", "--quiet"]).args(&packages).dir(&fetched).timeout(TIMEOUT);
    let hint = "fetch the package lists: apt-get update";
    context.command(fetch).await.map_err(|failure| transient(failure).with_hint(hint))?;
    let archives = fs::read_dir(&fetched).map_err(|error| files::failure("read", &fetched, &error))?;
    for archive in archives.flatten() {
        let unpack = Command::new("dpkg-deb").arg("--extract").arg(archive.path()).arg(target).timeout(TIMEOUT);
        context.command(unpack).await?;
    }
    files::remove(&fetched)?;
    mend_links(target, target).map_err(|error| files::failure("mend the links in", target, &error))?;
    Ok(library_folders(target))
}

/// Lets links of the packages lead to what was unpacked below `root`, or else to what is installed: they are written for
/// a system with both.
fn mend_links(root: &Path, folder: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (kind, path) = (entry.file_type()?, entry.path());
        if kind.is_dir() {
            mend_links(root, &path)?;
        } else if kind.is_symlink() {
            // Where the link would lead on a system with the package.
            let place = Path::new("/").join(folder.strip_prefix(root).unwrap_or(folder));
            let installed = normalised(&place.join(fs::read_link(&path)?));
            let unpacked = root.join(installed.strip_prefix("/").unwrap_or(&installed));
            if let Some(target) = [unpacked, installed].into_iter().find(|target| target.exists()) {
                fs::remove_file(&path)?;
                std::os::unix::fs::symlink(target, &path)?;
            }
        }
    }
    Ok(())
}

/// An absolute path without `.` and `..`.
fn normalised(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

/// The packages with those libraries that they need and that are not installed.
async fn with_libraries(context: &Context, wanted: &[&str], parts: &[&str]) -> Result<BTreeSet<String>, Failure> {
    let wanted = wanted.iter().map(|package| (*package).to_owned());
    let (mut packages, mut open) = (wanted.clone().collect::<BTreeSet<_>>(), wanted.collect::<VecDeque<_>>());
    while let Some(package) = open.pop_front() {
        for needed in depends(context, &package).await? {
            // Only libraries are needed to run the programs; the rest sets up a system service.
            let used = needed.starts_with("lib") || parts.contains(&&*needed);
            if used && !packages.contains(&needed) && !is_installed(context, &needed).await {
                packages.insert(needed.clone());
                open.push_back(needed);
            }
        }
    }
    Ok(packages)
}

async fn depends(context: &Context, package: &str) -> Result<Vec<String>, Failure> {
    let ask = Command::new("apt-cache").args(["depends", "--no-recommends", "--no-suggests", "--no-conflicts"]);
    let ask = ask.args(["--no-breaks", "--no-replaces", "--no-enhances", package]).env("LC_ALL", "C").timeout(TIMEOUT);
    let told =
        context.capture(ask).await.map_err(|failure| failure.with_hint("fetch the package lists: apt-get update"))?;
    let names = told.lines().filter_map(|line| line.trim().trim_start_matches('|').strip_prefix("Depends: "));
    Ok(names.filter(|name| !name.starts_with('<')).map(str::to_owned).collect())
}

async fn is_installed(context: &Context, package: &str) -> bool {
    let ask = Command::new("dpkg-query").args(["--show", "--showformat=${Status}", package]).timeout(TIMEOUT);
    context.capture(ask).await.is_ok_and(|status| status.ends_with("ok installed"))
}

/// The folders below `root` that hold shared libraries.
fn library_folders(root: &Path) -> Vec<PathBuf> {
    // Some packages of Debian 12 still have theirs in /lib, which is a link only once they are installed.
    let inside = ["usr/lib", "lib"].into_iter().flat_map(|lib| fs::read_dir(root.join(lib)));
    let inside = inside.flatten().flatten().map(|entry| entry.path());
    let holds = |folder: &PathBuf| {
        let mut files = fs::read_dir(folder).into_iter().flatten().flatten();
        files.any(|file| file.file_name().to_string_lossy().contains(".so"))
    };
    let mut folders: Vec<PathBuf> = inside.filter(|path| path.is_dir() && holds(path)).collect();
    folders.sort();
    folders
}

fn programs(bin: &Path, libraries: Vec<PathBuf>) -> Result<PostgresPrograms, Failure> {
    let mut command = std::process::Command::new(bin.join("postgres"));
    if !libraries.is_empty() {
        let path = libraries.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(":");
        command.env("LD_LIBRARY_PATH", path);
    }
    let told =
        command.arg("--version").output().map_err(|error| files::failure("run", &bin.join("postgres"), &error))?;
    // postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    let version = told.split_whitespace().nth(2).map(str::to_owned);
    let version = version.ok_or_else(|| {
        Failure::new(Persistence::Permanent, format!("understand the version of {}: `{}`", bin.display(), told.trim()))
    })?;
    Ok(PostgresPrograms { bin: bin.to_owned(), libraries, version })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_to_what_was_unpacked_or_is_installed() {
        let root = tempfile::tempdir().unwrap();
        let (there, links) = (root.path().join("usr/share/there"), root.path().join("usr/lib/links"));
        fs::create_dir_all(&there).unwrap();
        fs::create_dir_all(&links).unwrap();
        for (link, target) in [
            ("absolute", "/usr/share/there"),
            ("relative", "../../share/there"),
            ("installed", "../../../etc/passwd"),
            ("nowhere", "../nowhere"),
        ] {
            std::os::unix::fs::symlink(target, links.join(link)).unwrap();
        }
        mend_links(root.path(), root.path()).unwrap();
        let target = |link: &str| fs::read_link(links.join(link)).unwrap();
        assert_eq!((target("absolute"), target("relative")), (there.clone(), there));
        assert_eq!(target("installed"), Path::new("/etc/passwd"));
        assert_eq!(target("nowhere"), Path::new("../nowhere"));
    }

    #[test]
    fn libraries_are_found_wherever_a_package_has_them() {
        let root = tempfile::tempdir().unwrap();
        for file in ["usr/lib/arch/libpq.so.5", "lib/arch/libkeyutils.so.1", "usr/lib/postgresql/15/bin/postgres"] {
            let file = root.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "").unwrap();
        }
        assert_eq!(library_folders(root.path()), ["lib/arch", "usr/lib/arch"].map(|folder| root.path().join(folder)));
    }
}
