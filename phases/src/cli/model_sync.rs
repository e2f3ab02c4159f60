//! `taskrun model sync`: a model from the training side to the object store and MLflow's registry.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytesize::ByteSize;
use clap::{Arg, ArgAction, ArgMatches, Command};
use reqwest::StatusCode;
use serde_json::json;
use taskrun_engine::cli::{CliError, Session, exit, print};

use crate::outputs::{ObjectStore, Tracking};
use crate::phase6::{APPLICATION, BUCKET};
use crate::tools::mlflow::Mlflow;
use crate::transfer::register::{Lineage, Registered, host, register};
use crate::transfer::{Request, Store, Summary, TransferError, check_name, parse_rate, progress, state_folder, sync};

/// How many files are named.
const NAMED: usize = 10;

/// The verb's command line.
pub(crate) fn command() -> Command {
    let flag = |name: &'static str, help: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue).help(help);
    Command::new("sync")
        .about("Send a model to the object store and register it")
        .long_about(
            "Send a model to the object store and register it.\n\n\
             Only what differs is sent; a sync that was cut off, also in the middle of a file, is taken up again. \
             Files that are gone here stay in the store unless --delete is given.",
        )
        .arg(
            Arg::new("source")
                .required(true)
                .value_name("SOURCE")
                .value_parser(clap::value_parser!(PathBuf))
                .help("The folder of the model, or a single file"),
        )
        .arg(Arg::new("name").long("name").value_name("NAME").help("The model's name [default: that of the folder]"))
        .arg(
            Arg::new("bandwidth")
                .long("bandwidth")
                .value_name("RATE")
                .value_parser(|text: &str| parse_rate(text))
                .help("Send at most so much each second, such as 50MiB"),
        )
        .arg(Arg::new("run").long("run").value_name("RUN_ID").help("The MLflow run that made the model"))
        .arg(flag("delete", "Delete objects that have no file here"))
        .arg(flag("verify", "Read all files and objects again instead of comparing sizes, times and tags"))
        .arg(flag("follow-links", "Follow links that lead out of SOURCE"))
        .arg(flag("no-register", "Do not register the model in MLflow"))
        .arg(flag("dry-run", "Only say what would be done"))
        .arg(flag("json", "Print JSON"))
}

/// Runs the verb.
///
/// # Errors
/// There is no object store or MLflow yet, another sync of the model is under way (exit code 3), the source cannot be
/// sent, or a server refuses.
pub(crate) async fn sync_model(args: &ArgMatches, session: &Session) -> Result<u8, CliError> {
    let request = request(args, session)?;
    let checkpoint = session.read()?;
    let found: Option<ObjectStore> = session.output(&checkpoint);
    let store = store(&found.ok_or_else(|| missing("object store", "CLOUD-3.1"))?, session)?;
    let wanted = !args.get_flag("no-register") && !request.dry_run;
    let tracking: Option<Tracking> = wanted.then(|| session.output(&checkpoint)).flatten();
    if wanted && tracking.is_none() {
        return Err(missing("MLflow", "CLOUD-3.3"));
    }
    let told = |error: TransferError| told(&request.model, &error);
    let registry = match &tracking {
        Some(tracking) => Some(Mlflow::new(&tracking.tracking_url).map_err(|error| told(error.into()))?),
        None => None,
    };
    let run = args.get_one::<String>("run").cloned();
    if let (Some(mlflow), Some(run)) = (&registry, &run) {
        // MLflow takes the name of a run that is not there.
        mlflow.run(run).await.map_err(|error| match error.status() {
            Some(StatusCode::NOT_FOUND) => CliError::usage(format!("MLflow has no run {run}")),
            _ => told(error.into()),
        })?;
    }
    let progress = Arc::from(progress::on_stderr());
    let summary = sync(&request, &store, progress, Arc::new(|| false)).await.map_err(told)?;
    let registered = match registry {
        None => None,
        Some(mlflow) => {
            let source = std::path::absolute(&request.source).unwrap_or_else(|_| request.source.clone());
            let lineage = Lineage { source, host: host(), run };
            let registered = register(&mlflow, &store, &request.model, &summary, &lineage).await;
            Some(registered.map_err(|error| told(error.into()))?)
        }
    };
    print(&match args.get_flag("json") {
        true => format!("{:#}\n", describe(&request, &summary, registered.as_ref())),
        false => report(&request, &summary, registered.as_ref()),
    })?;
    Ok(exit::OK)
}

fn request(args: &ArgMatches, session: &Session) -> Result<Request, CliError> {
    let source = args.get_one::<PathBuf>("source").cloned().unwrap_or_default();
    let model = match args.get_one::<String>("name") {
        Some(name) => name.clone(),
        None => own_name(&source),
    };
    check_name(&model).map_err(|error| told(&model, &error))?;
    Ok(Request {
        source,
        model,
        state_dir: state_folder(&session.state),
        bandwidth: args.get_one("bandwidth").copied(),
        delete: args.get_flag("delete"),
        verify: args.get_flag("verify"),
        follow_links: args.get_flag("follow-links"),
        dry_run: args.get_flag("dry-run"),
    })
}

/// What a folder is called, also one that is named as `.`.
fn own_name(source: &Path) -> String {
    let source = std::fs::canonicalize(source).unwrap_or_else(|_| source.to_owned());
    source.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The bucket of models, opened with the key of the training side.
fn store(output: &ObjectStore, session: &Session) -> Result<Store, CliError> {
    let key = output.keys.get(APPLICATION);
    let secret = key.and_then(|key| session.world.secrets.present(&key.secret.name.to_string()));
    let (Some(key), Some((_, secret))) = (key, secret) else {
        return Err(CliError::new(
            exit::FAILED,
            format!("the application `{APPLICATION}` has no key of the object store"),
        )
        .with_hint("let it be made: taskrun run CLOUD-3.1"));
    };
    let s3 = output.client(&key.id, &secret);
    let s3 = s3.map_err(|error| CliError::caused(exit::FAILED, "reach the object store", &error))?;
    Ok(Store { s3, bucket: BUCKET.to_owned() })
}

fn missing(what: &str, task: &str) -> CliError {
    CliError::new(exit::FAILED, format!("there is no {what} yet"))
        .with_hint(format!("bring it up: taskrun run --until {task}"))
}

fn told(model: &str, error: &TransferError) -> CliError {
    let code = match error {
        TransferError::Name { .. } | TransferError::Source(_) => exit::USAGE,
        TransferError::Locked { .. } => exit::LOCKED,
        TransferError::State { .. } => exit::STATE,
        _ => exit::FAILED,
    };
    let told = CliError::caused(code, format!("sync the model {model}"), error);
    match error.hint() {
        Some(hint) => told.with_hint(hint),
        None => told,
    }
}

fn describe(request: &Request, summary: &Summary, registered: Option<&Registered>) -> serde_json::Value {
    let sent: std::collections::BTreeMap<_, _> =
        summary.sent.iter().map(|(path, reason)| (path, reason.to_string())).collect();
    json!({
        "version": 1,
        "model": request.model,
        "uri": summary.uri,
        "digest": summary.digest,
        "files": summary.files,
        "bytes": summary.bytes,
        "dry_run": request.dry_run,
        "sent": sent,
        "sent_bytes": summary.sent_bytes,
        "resumed_bytes": summary.resumed_bytes,
        "deleted": summary.deleted,
        "extra": summary.extra,
        "seconds": summary.took.as_secs_f64(),
        "registered": registered.map(|registered| json!({"version": registered.version, "new": registered.new})),
    })
}

fn report(request: &Request, summary: &Summary, registered: Option<&Registered>) -> String {
    let (files, bytes) = (count(summary.files, "file"), ByteSize(summary.bytes));
    let mut out = format!("{}: {files}, {bytes}, {}\n", request.model, summary.uri);
    for (path, reason) in summary.sent.iter().take(NAMED) {
        out.push_str(&format!("  {path}: {reason}\n"));
    }
    if summary.sent.len() > NAMED {
        out.push_str(&format!("  and {} more\n", summary.sent.len() - NAMED));
    }
    let (sent, bytes) = (count(summary.sent.len(), "file"), ByteSize(summary.sent_bytes));
    let resumed = match summary.resumed_bytes {
        0 => String::new(),
        resumed => format!(" ({} more were there from before)", ByteSize(resumed)),
    };
    out.push_str(&match (summary.sent.is_empty(), request.dry_run) {
        (true, _) => "nothing to send\n".to_owned(),
        (false, true) => format!("would send {sent}, {bytes}\n"),
        (false, false) => format!("sent {sent}, {bytes}{resumed}, in {:.1} s\n", summary.took.as_secs_f64()),
    });
    if !summary.deleted.is_empty() {
        let word = if request.dry_run { "would delete" } else { "deleted" };
        out.push_str(&format!("{word} {} without a file\n", count(summary.deleted.len(), "object")));
    }
    if !summary.extra.is_empty() {
        out.push_str(&format!("left {} without a file; see --delete\n", count(summary.extra.len(), "object")));
    }
    if let Some(Registered { version, new }) = registered {
        let word = if *new { "registered as" } else { "is still" };
        out.push_str(&format!("{word} version {version} of {} in MLflow\n", request.model));
    }
    out
}

/// `1 file`, `2 files`.
fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::transfer::plan::Reason;

    #[test]
    fn a_sync_is_told() {
        let request = Request {
            source: "m".into(),
            model: "m".to_owned(),
            state_dir: "s".into(),
            bandwidth: None,
            delete: false,
            verify: false,
            follow_links: false,
            dry_run: false,
        };
        let mut summary = Summary {
            uri: "s3://models/m".to_owned(),
            files: 20,
            bytes: 3 << 30,
            sent: (0..12).map(|number| (format!("{number:02}"), Reason::New)).collect(),
            sent_bytes: 1 << 30,
            resumed_bytes: 1 << 29,
            extra: vec!["old".to_owned()],
            took: Duration::from_millis(2500),
            ..Summary::default()
        };
        let mut told = report(&request, &summary, Some(&Registered { version: "2".to_owned(), new: true }));
        summary.sent.clear();
        told.push_str("---\n");
        told.push_str(&report(&request, &summary, Some(&Registered { version: "2".to_owned(), new: false })));
        summary.deleted = std::mem::take(&mut summary.extra);
        summary.sent.insert("one".to_owned(), Reason::Damaged);
        told.push_str("---\n");
        told.push_str(&report(&Request { dry_run: true, delete: true, ..request }, &summary, None));
        crate::testing::snapshot("model-sync", &told);
    }
}
