//! The proof of CLOUD-6.1: a small model of its own is sent, damaged in the store, and sent again.

use std::path::Path;
use std::sync::Arc;

use taskrun_engine::outcome::{Failure, Persistence};

use super::model_transfer::{failure, take_away};
use crate::tools::files;
use crate::tools::mlflow::Mlflow;
use crate::transfer::plan::Reason;
use crate::transfer::progress::Lines;
use crate::transfer::register::{DIGEST, Lineage, host, register};
use crate::transfer::{Request, Stop, Store, Summary, TransferError, state_folder, sync};

/// The proof's model.
pub(super) const MODEL: &str = "taskrun-proof-transfer";

/// So large that it is sent in parts.
const WEIGHTS: usize = 17 << 20;

/// Makes the proof, and takes away what it made and what one that was killed has left.
pub(super) async fn prove(store: &Store, mlflow: &Mlflow, state: &Path, stop: Stop) -> Result<(), Failure> {
    let (folder, memory) = (state.join("tmp").join(MODEL), state_folder(state));
    let away = async || {
        files::remove(&folder)?;
        take_away(store, mlflow, MODEL, &memory).await.map_err(|error| failure(MODEL, error))
    };
    away().await?;
    let proved = prove_in(store, mlflow, &folder, &memory, stop).await;
    away().await?;
    proved
}

async fn prove_in(store: &Store, mlflow: &Mlflow, folder: &Path, memory: &Path, stop: Stop) -> Result<(), Failure> {
    let weights: Vec<u8> = (0..WEIGHTS).map(|at| (at * 31 % 251) as u8).collect();
    let written = std::fs::create_dir_all(folder.join("layers"))
        .and_then(|()| std::fs::write(folder.join("config.json"), "{}"))
        .and_then(|()| std::fs::write(folder.join("layers/weights.bin"), &weights));
    written.map_err(|error| files::failure("write", folder, &error))?;
    let request = Request {
        source: folder.to_owned(),
        model: MODEL.to_owned(),
        state_dir: memory.to_owned(),
        bandwidth: None,
        delete: false,
        verify: false,
        follow_links: false,
        dry_run: false,
    };
    let again = || sync(&request, store, Arc::new(Lines::new(|_: &str| ())), Arc::clone(&stop));
    let first = again().await.map_err(told)?;
    expect(first.sent.len() == 2, "send the two files of a new model", &first)?;
    let second = again().await.map_err(told)?;
    expect(second.sent.is_empty(), "send nothing the second time", &second)?;
    let key = format!("{MODEL}/config.json");
    store.s3.put(&store.bucket, &key, b"[]".to_vec()).await.map_err(|error| told(error.into()))?;
    let third = again().await.map_err(told)?;
    let mended = third.sent.iter().map(|(path, reason)| (&**path, *reason)).eq([("config.json", Reason::Damaged)]);
    expect(mended, "send the damaged object again, and nothing else", &third)?;
    for (path, bytes) in [("config.json", &b"{}"[..]), ("layers/weights.bin", &weights)] {
        let read = store.s3.get(&store.bucket, &format!("{MODEL}/{path}")).await.map_err(|error| told(error.into()))?;
        if read != bytes {
            return Err(Failure::permanent(format!("read {path} of a model back as it was sent")));
        }
    }
    let lineage = Lineage { source: folder.to_owned(), host: host(), run: None };
    for (new, sent) in [(true, &first), (false, &third)] {
        let registered = register(mlflow, store, MODEL, sent, &lineage).await.map_err(|error| told(error.into()))?;
        if registered.new != new || registered.version != "1" {
            return Err(Failure::permanent(format!("register one version of one model: {registered:?}")));
        }
    }
    let versions = mlflow.versions(MODEL).await.map_err(|error| told(error.into()))?;
    match versions.first() {
        Some(version) if version.source == first.uri && version.tag(DIGEST) == Some(&first.digest) => Ok(()),
        other => Err(Failure::permanent(format!("find {} in the registry: it has {other:?}", first.uri))),
    }
}

fn expect(holds: bool, what: &str, summary: &Summary) -> Result<(), Failure> {
    let sent: Vec<String> = summary.sent.iter().map(|(path, reason)| format!("{path} ({reason})")).collect();
    if holds { Ok(()) } else { Err(Failure::permanent(format!("{what}: it sent {}", sent.join(", ")))) }
}

fn told(error: TransferError) -> Failure {
    match error {
        TransferError::Stopped => Failure::cancelled(),
        error if error.is_transient() => Failure::caused(Persistence::Transient, "make the proof", &error),
        error => Failure::caused(Persistence::Permanent, "make the proof", &error),
    }
}
