//! The database of a backup: dumped as of one instant, restored in one transaction.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use taskrun_engine::process::{Cancel, Command, Discard};

use super::Site;
use super::error::{BackupError, disk};
use super::manifest::{Dump, hex};
use crate::tools::postgres::Snapshot;

/// How long dumping or restoring may take.
const TIMEOUT: Duration = Duration::from_secs(6 * 3600);

/// Takes away all that is the owner's, also what the dump does not know, such as the tables of a newer schema.
const EMPTY: &str = include_str!("../../assets/postgres/empty.sql");

/// What the database refers to: bucket and the beginning of keys, and what refers to it.
pub(super) struct Reference {
    pub(super) bucket: String,
    pub(super) prefix: String,
    pub(super) by: String,
}

/// The tables of the database as its owner sees them now, whatever others write.
pub(super) async fn snapshot(site: &Site) -> Result<Snapshot, BackupError> {
    Ok(Snapshot::hold(&site.database.login(&site.password)).await?)
}

/// Dumps what `snapshot` sees into `file`.
pub(super) async fn dump(site: &Site, snapshot: &Snapshot, file: &Path) -> Result<Dump, BackupError> {
    let command = program(site, "pg_dump")
        .arg(format!("--snapshot={}", snapshot.id()))
        .args(["--format=custom", "--no-owner", "--no-privileges", "--file"])
        .arg(file);
    run("dump the database", command).await?;
    let (size, sha256) = digest(file)?;
    let (rows, schema) = (snapshot.rows().await?, snapshot.mlflow_schema().await?);
    Ok(Dump { size, sha256, server: site.database.version.clone(), schema, rows })
}

/// What the database's model versions and logged models refer to in the object store.
pub(super) async fn references(snapshot: &Snapshot, artifacts: &str) -> Result<Vec<Reference>, BackupError> {
    let found = snapshot.mlflow_artifacts().await?;
    Ok(found
        .into_iter()
        .filter_map(|(by, uri)| {
            let (bucket, prefix) = match uri.strip_prefix("mlflow-artifacts:/") {
                Some(path) => (artifacts, path),
                None => uri.strip_prefix("s3://")?.split_once('/')?,
            };
            let prefix = prefix.trim_matches('/').to_owned() + "/";
            Some(Reference { bucket: bucket.to_owned(), prefix, by })
        })
        .collect())
}

/// Puts the dump in `file` in the place of all tables, in one transaction: it is done wholly or not at all.
pub(super) async fn restore(site: &Site, file: &Path) -> Result<(), BackupError> {
    std::fs::create_dir_all(&site.temporary).map_err(disk("make", &site.temporary))?;
    let scripts = tempfile::Builder::new().prefix("restore-").tempdir_in(&site.temporary);
    let scripts = scripts.map_err(disk("write into", &site.temporary))?;
    let (empty, fill) = (scripts.path().join("empty.sql"), scripts.path().join("fill.sql"));
    std::fs::write(&empty, EMPTY).map_err(disk("write", &empty))?;
    let write = Command::new(site.programs.program("pg_restore"))
        // The schema's objects, and neither itself nor the extensions, which are the superuser's.
        .args(["--schema=public", "--no-owner", "--no-privileges", "--file"])
        .arg(&fill)
        .arg(file);
    run("read the dump", site.programs.with_libraries(write).dir("/").timeout(TIMEOUT)).await?;
    let restore = program(site, "psql")
        .args(["--no-psqlrc", "--quiet", "--single-transaction", "--set=ON_ERROR_STOP=1", "--output=/dev/null"])
        .arg("--file")
        .arg(&empty)
        .arg("--file")
        .arg(&fill);
    run("restore the database", restore).await
}

/// A program that logs in as the owner of the database.
fn program(site: &Site, name: &str) -> Command {
    site.database.command(&site.programs, name, &site.password).timeout(TIMEOUT)
}

async fn run(what: &'static str, command: Command) -> Result<(), BackupError> {
    let ran = tokio::task::spawn_blocking(move || {
        command.run(&Cancel::new(), &mut Discard).and_then(|exit| exit.check(&command).map(|_| ()))
    });
    let failed = |source: taskrun_engine::process::CommandError| {
        let tail = source.tail().unwrap_or_default().trim().to_owned();
        BackupError::Program { what, tail, source }
    };
    match ran.await {
        Ok(ran) => ran.map_err(failed),
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

/// The size and SHA-256 of a file.
fn digest(file: &Path) -> Result<(u64, String), BackupError> {
    let failed = || disk("read", file);
    let mut opened = File::open(file).map_err(failed())?;
    let (mut hash, mut size, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 20]);
    loop {
        match opened.read(&mut buffer).map_err(failed())? {
            0 => return Ok((size, hex(&hash.finalize()))),
            count => {
                hash.update(&buffer[..count]);
                size += count as u64;
            }
        }
    }
}
