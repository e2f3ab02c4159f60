//! `taskrun backup` and `taskrun restore`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use serde_json::json;
use taskrun_engine::checkpoint::Checkpoint;
use taskrun_engine::cli::{CliError, Session, exit, print, say};

use super::cloud::platform;
use crate::backup::record::{Remembered, What};
use crate::backup::{self, BackupError, Manifest, Site};
use crate::outputs::{BaseRuntime, Database, ObjectStore, Tracking};
use crate::phase3::mlflow;
use crate::platform::{Local, healthy};
use crate::transfer::Progress;
use crate::transfer::progress::Lines;

/// How long MLflow may take to stop or to start.
const SERVICE_TIMEOUT: Duration = Duration::from_secs(120);

/// The verb's command line.
pub(crate) fn backup_command() -> Command {
    Command::new("backup")
        .about("Copy the database and all buckets into a new folder, consistent with each other")
        .arg(
            Arg::new("folder")
                .required(true)
                .value_name("FOLDER")
                .value_parser(value_parser!(PathBuf))
                .help("Where backups go, best on another disk; what is in an older one there is linked, not copied"),
        )
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print JSON"))
}

/// The verb's command line.
pub(crate) fn restore_command() -> Command {
    let flag = |name: &'static str, help: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue).help(help);
    Command::new("restore")
        .about("Bring the database and the buckets to the state of a backup")
        .arg(
            Arg::new("backup")
                .required(true)
                .value_name("BACKUP")
                .value_parser(value_parser!(PathBuf))
                .help("The folder that `taskrun backup` told"),
        )
        .arg(flag("replace", "Also where there is data; what the backup does not have is deleted"))
        .arg(flag("check", "Only see whether the backup is as it was written"))
}

/// Runs `backup`.
///
/// # Errors
/// There is nothing to back up yet, or it cannot be copied.
pub(crate) async fn backup(args: &ArgMatches, session: &Session) -> Result<u8, CliError> {
    let folder = args.get_one::<PathBuf>("folder").cloned().unwrap_or_default();
    let folder = std::path::absolute(&folder).unwrap_or(folder);
    let checkpoint = session.read()?;
    let site = site(session, &checkpoint)?;
    let tracking: Option<Tracking> = session.output(&checkpoint);
    let artifacts = tracking.map_or_else(|| mlflow::BUCKET.to_owned(), |tracking| tracking.artifact_bucket);
    let failed = |error: &BackupError| told("take a backup", error);
    let taken = backup::take(&site, &folder, &artifacts, &Lines::new(|line: &str| say(line))).await;
    let taken = taken.map_err(|error| failed(&error))?;
    let newest = Remembered { folder: taken.folder.clone(), taken: taken.manifest.taken };
    What::Newest.write(&session.state, &newest).map_err(|error| failed(&error))?;
    taken.manifest.lacking.iter().for_each(|lack| say(format!("warning: {lack}")));
    let Manifest { objects, database, .. } = &taken.manifest;
    print(&match args.get_flag("json") {
        true => format!(
            "{:#}\n",
            json!({
                "version": 1,
                "folder": taken.folder,
                "taken": taken.manifest.taken,
                "objects": objects.len(),
                "bytes": taken.manifest.bytes(),
                "rows": database.rows.values().sum::<i64>(),
                "lacking": taken.manifest.lacking,
            })
        ),
        false => format!(
            "{}\n{} objects, {}, and {} rows as of {}\n",
            taken.folder.display(),
            objects.len(),
            ByteSize(taken.manifest.bytes()),
            database.rows.values().sum::<i64>(),
            taken.manifest.taken,
        ),
    })?;
    Ok(exit::OK)
}

/// Runs `restore`.
///
/// # Errors
/// The backup is damaged, there is data that may not be replaced, or something refuses.
pub(crate) async fn restore(args: &ArgMatches, session: &Session) -> Result<u8, CliError> {
    let folder = args.get_one::<PathBuf>("backup").cloned().unwrap_or_default();
    let folder = std::fs::canonicalize(&folder).unwrap_or(folder);
    let failed = |error: &BackupError| told("restore the backup", error);
    let progress: Arc<dyn Progress> = Arc::new(Lines::new(|line: &str| say(line)));
    let manifest = verified(&folder, &progress).await.map_err(|error| failed(&error))?;
    let Manifest { objects, taken, environment, .. } = &manifest;
    if args.get_flag("check") {
        print(&format!(
            "{} is whole: {environment} as of {taken}, {} objects, {}\n",
            folder.display(),
            objects.len(),
            ByteSize(manifest.bytes())
        ))?;
        return Ok(exit::OK);
    }
    let (_lock, notices) = session.lock()?;
    notices.iter().for_each(say);
    let checkpoint = session.read()?;
    let site = site(session, &checkpoint)?;
    let this = Remembered { folder: folder.clone(), taken: manifest.taken };
    // What a killed one has left is no data of the environment's own.
    let replace = args.get_flag("replace") || What::Restoring.read(&session.state).as_ref() == Some(&this);
    let found = backup::look(&site).await.map_err(|error| failed(&error))?;
    if !replace {
        found.refuse().map_err(|error| failed(&error))?;
    }
    What::Restoring.write(&session.state, &this).map_err(|error| failed(&error))?;
    let local = platform(session, &checkpoint)?;
    stop(&local).await?;
    let restored = backup::restore(&site, &folder, &manifest, &*progress).await;
    let started = start(&local).await;
    let restored = restored.map_err(|error| failed(&error))?;
    What::Restoring.forget(&session.state).map_err(|error| failed(&error))?;
    // It has all that is there now, whenever it was taken.
    let newest = Remembered { taken: jiff::Timestamp::now(), ..this };
    What::Newest.write(&session.state, &newest).map_err(|error| failed(&error))?;
    started?;
    print(&format!(
        "restored {environment} as of {taken}: {} objects sent, {} there already, {} deleted; all compared\n",
        restored.sent,
        objects.len() - restored.sent,
        restored.deleted
    ))?;
    let tracking: Option<Tracking> = session.output(&checkpoint);
    if tracking.is_some_and(|tracking| tracking.schema != manifest.database.schema) {
        say("the backup has the schema of another version of MLflow; see that it is brought up: taskrun resume");
    }
    Ok(exit::OK)
}

async fn verified(folder: &Path, progress: &Arc<dyn Progress>) -> Result<Manifest, BackupError> {
    let (folder, progress) = (folder.to_owned(), Arc::clone(progress));
    match tokio::task::spawn_blocking(move || backup::verify(&folder, &*progress)).await {
        Ok(verified) => verified,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

fn site(session: &Session, checkpoint: &Checkpoint) -> Result<Site, CliError> {
    let missing = |what: &str| {
        CliError::new(exit::FAILED, format!("there is no {what} yet"))
            .with_hint("bring it up: taskrun run --until CLOUD-3.3")
    };
    let runtime: BaseRuntime = session.output(checkpoint).ok_or_else(|| missing("runtime"))?;
    let store: ObjectStore = session.output(checkpoint).ok_or_else(|| missing("object store"))?;
    let database: Database = session.output(checkpoint).ok_or_else(|| missing("database"))?;
    let (environment, temporary) = (&session.identity.environment, session.state.join("tmp"));
    Site::new(environment, runtime.postgres, &store, database, &session.world.secrets, temporary)
        .map_err(|error| told("reach the data", &error))
}

/// Stops MLflow, which would go on with what it remembers of the database.
async fn stop(local: &Local) -> Result<(), CliError> {
    local.supervisor().stop(mlflow::SERVICE).await.map_err(|error| {
        CliError::caused(exit::FAILED, "stop MLflow", &error).with_hint("bring the platform up: taskrun resume")
    })?;
    let stopped = async {
        while local.state(mlflow::SERVICE).await.ok().flatten().is_some_and(|state| state.pid.is_some()) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let waited = tokio::time::timeout(SERVICE_TIMEOUT, stopped).await;
    waited.map_err(|_| CliError::new(exit::FAILED, format!("MLflow does not stop within {SERVICE_TIMEOUT:?}")))
}

async fn start(local: &Local) -> Result<(), CliError> {
    let mend = "let it bring the schema up to date: taskrun run --force CLOUD-3.3";
    local
        .supervisor()
        .start(mlflow::SERVICE)
        .await
        .map_err(|error| CliError::caused(exit::FAILED, "start MLflow again", &error).with_hint(mend))?;
    let services = local.services();
    let Some(service) = services.iter().find(|service| service.name == mlflow::SERVICE) else { return Ok(()) };
    let serves = async {
        while healthy(&service.health).await.is_err() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(SERVICE_TIMEOUT, serves).await.map_err(|_| {
        CliError::new(exit::FAILED, format!("MLflow does not serve the restored data within {SERVICE_TIMEOUT:?}"))
            .with_hint(mend)
    })
}

fn told(what: &str, error: &BackupError) -> CliError {
    let code = match error {
        BackupError::NoBackup { .. } | BackupError::Newer { .. } => exit::USAGE,
        BackupError::Busy { .. } => exit::LOCKED,
        _ => exit::FAILED,
    };
    let told = CliError::caused(code, what, error);
    match error.hint() {
        Some(hint) => told.with_hint(hint),
        None => told,
    }
}
