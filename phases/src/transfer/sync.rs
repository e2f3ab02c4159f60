//! A sync: passes over the files until the store has them all, then the manifest.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use sha2::{Digest, Sha256};

use super::limit::Limiter;
use super::manifest::{Entries, Manifest, ManifestError};
use super::pass::{Pass, for_all};
use super::plan::{Action, Object, Plan, Reason};
use super::read::joined;
use super::scan::scan;
use super::state::State;
use super::upload::Sender;
use super::{Progress, Stop, Store, TransferError};
use crate::tools::s3::{Payload, S3Error, Upload};

/// After so many passes a source that still changes is given up.
const PASSES: usize = 5;

/// How many objects are deleted at once.
pub(super) const DELETIONS: usize = 16;

/// How long writing the manifest may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// What is to be sent, and how.
#[derive(Debug, Clone)]
pub struct Request {
    /// A folder, or a single file.
    pub source: PathBuf,
    /// The model's name.
    pub model: String,
    /// Where the sync remembers how far it has come.
    pub state_dir: PathBuf,
    /// The most bytes that are sent each second.
    pub bandwidth: Option<u64>,
    /// Whether objects without a file are deleted.
    pub delete: bool,
    /// Whether files and objects are read again instead of being judged by size, time and entity tag.
    pub verify: bool,
    /// Whether links that lead out of the source are followed.
    pub follow_links: bool,
    /// Whether it is only told what would be done.
    pub dry_run: bool,
}

/// What a sync has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Where the model is: `s3://BUCKET/NAME`.
    pub uri: String,
    /// The [digest](Manifest::digest) of the manifest.
    pub digest: String,
    /// The files of the model.
    pub files: usize,
    /// Their size in bytes.
    pub bytes: u64,
    /// The files that were sent, each with why.
    pub sent: BTreeMap<String, Reason>,
    /// The bytes that were sent.
    pub sent_bytes: u64,
    /// The bytes of these files that the store had from an upload that was cut off.
    pub resumed_bytes: u64,
    /// The objects that were deleted.
    pub deleted: Vec<String>,
    /// The objects without a file that were left.
    pub extra: Vec<String>,
    /// The time that it took.
    pub took: Duration,
}

/// Makes the store have what the source has.
///
/// # Errors
/// See [`TransferError`]. What was sent stays, and the next sync goes on from there.
pub async fn sync(
    request: &Request,
    store: &Store,
    progress: Arc<dyn Progress>,
    stop: Stop,
) -> Result<Summary, TransferError> {
    let start = Instant::now();
    check_name(&request.model)?;
    let state = State::open(&request.state_dir, &request.model)?;
    let limiter = request.bandwidth.map(|rate| Arc::new(Limiter::new(rate)));
    let sender = Sender::new(store.clone(), request.model.clone(), limiter, progress, stop);
    let summary = Summary { uri: store.uri(&request.model), ..Summary::default() };
    let mut sync = Sync { request, state, sender, stored: None, summary };
    sync.stored = sync.stored_manifest().await?;
    sync.run().await?;
    sync.summary.took = start.elapsed();
    Ok(sync.summary)
}

/// Whether a model may have this name.
///
/// # Errors
/// It may not.
pub fn check_name(name: &str) -> Result<(), TransferError> {
    let valid = (1..=64).contains(&name.len())
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
        // The objects of such a model would lie below the manifest of another one.
        && !name.ends_with(&Manifest::key(""));
    if valid { Ok(()) } else { Err(TransferError::Name { name: name.to_owned() }) }
}

/// A sync under way.
struct Sync<'a> {
    request: &'a Request,
    state: State,
    sender: Sender,
    /// The manifest that was in the store when the sync began or, once it is written, is there now.
    stored: Option<Stored>,
    summary: Summary,
}

/// A manifest that was found in the store.
struct Stored {
    manifest: Manifest,
    /// It is not there any more.
    withdrawn: bool,
}

impl Sync<'_> {
    async fn run(&mut self) -> Result<(), TransferError> {
        let mut sent = self.state.sent.clone();
        for pass in 0..PASSES {
            let plan = self.plan(&sent, pass == 0).await?;
            if self.request.dry_run {
                self.foretell(plan);
                return Ok(());
            }
            let verify = self.request.verify && pass == 0;
            if plan.is_settled() && !verify {
                return self.finish(plan).await;
            }
            let pass = Pass { sender: &self.sender, state: &self.state };
            let examined = pass.examine(&plan.files, verify).await?;
            sent.extend(examined.same);
            if !plan.in_the_way.is_empty() && !self.request.delete {
                return Err(TransferError::InTheWay { path: plan.in_the_way[0].clone() });
            }
            let touched = examined.different.iter().map(|(file, _)| &file.path).chain(&plan.in_the_way);
            self.withdraw_manifest(touched).await?;
            self.delete(&plan.in_the_way).await?;
            let pass = Pass { sender: &self.sender, state: &self.state };
            for done in pass.send(&examined.different).await? {
                self.summary.sent_bytes += done.entry.size - done.resumed;
                self.summary.resumed_bytes += done.resumed;
                self.summary.sent.insert(done.path.clone(), done.reason);
                sent.insert(done.path, done.entry);
            }
        }
        let plan = self.plan(&sent, false).await?;
        if plan.is_settled() {
            return self.finish(plan).await;
        }
        let mut unsettled = plan.files.into_iter().filter(|(_, action)| !matches!(action, Action::Keep(_)));
        match unsettled.next() {
            Some((file, Action::Send(Reason::Damaged | Reason::Missing | Reason::Unknown))) => {
                Err(TransferError::Unkept { path: file.path })
            }
            first => {
                let path = first.map(|(file, _)| file.path).unwrap_or_default();
                Err(TransferError::Restless { path, others: unsettled.count() })
            }
        }
    }

    /// Looks at both sides.
    async fn plan(&self, sent: &Entries, first: bool) -> Result<Plan, TransferError> {
        if (self.sender.stop)() {
            return Err(TransferError::Stopped);
        }
        let Request { source, model, follow_links, .. } = self.request.clone();
        let prefix = format!("{model}/");
        let length = prefix.len();
        let scanning = tokio::task::spawn_blocking(move || scan(&source, follow_links, length));
        let Store { s3, bucket } = &self.sender.store;
        let listed = self.sender.patience.with(|| s3.list_all(bucket, &prefix)).await;
        let found = joined(scanning.await)??;
        if first {
            for path in &found.special {
                self.sender.progress.note(&format!("left out {}: it is no file", path.display()));
            }
            for path in &found.checkpoints {
                self.sender.progress.note(&format!("left out {}: it is a checkpoint", path.display()));
            }
        }
        let objects = listed?
            .into_iter()
            .map(|(key, object)| (key[length..].to_owned(), Object { size: object.size, etag: object.etag }));
        let none = Entries::new();
        let stored = self.stored.as_ref().map_or(&none, |stored| &stored.manifest.files);
        Ok(Plan::new(found.files, &[sent, &self.state.last, stored], &objects.collect()))
    }

    /// Says what would be done.
    fn foretell(&mut self, plan: Plan) {
        self.summary.files = plan.files.len();
        for (file, action) in plan.files {
            self.summary.bytes += file.size;
            let reason = match action {
                Action::Send(reason) => reason,
                Action::Compare(_) => Reason::Changed,
                Action::Keep(_) => continue,
            };
            self.summary.sent_bytes += file.size;
            self.summary.sent.insert(file.path, reason);
        }
        *(if self.request.delete { &mut self.summary.deleted } else { &mut self.summary.extra }) = plan.extra;
    }

    /// The manifest in the store, the first thing that is asked for: a store that does not answer is not waited for. One that is damaged is removed: it would be believed.
    async fn stored_manifest(&self) -> Result<Option<Stored>, TransferError> {
        let Store { s3, bucket } = &self.sender.store;
        let key = Manifest::key(&self.request.model);
        let json = match s3.get(bucket, &key).await {
            Ok(json) => json,
            Err(S3Error::Refused { status: StatusCode::NOT_FOUND, code, .. }) if code != "NoSuchBucket" => {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        match Manifest::from_json(&json) {
            Ok(manifest) => Ok(Some(Stored { manifest, withdrawn: false })),
            Err(source @ ManifestError::Version { .. }) => Err(TransferError::Manifest { key, source }),
            Err(error) => {
                self.sender.progress.note(&format!("{key} is written anew: {error}"));
                if !self.request.dry_run {
                    self.sender.patience.with(|| s3.delete(bucket, &key)).await?;
                }
                Ok(None)
            }
        }
    }

    /// Takes the manifest out of the store if it names an object that is `touched`.
    async fn withdraw_manifest(&mut self, touched: impl Iterator<Item = &String>) -> Result<(), TransferError> {
        let mut touched = touched;
        let Some(stored) = self.stored.as_mut().filter(|stored| !stored.withdrawn) else { return Ok(()) };
        if !touched.any(|path| stored.manifest.files.contains_key(path)) {
            return Ok(());
        }
        // What it says of the other objects still counts, also for a sync after a kill.
        self.state.remember(&to_json(&stored.manifest)?)?;
        let Store { s3, bucket } = &self.sender.store;
        let key = Manifest::key(&self.request.model);
        self.sender.patience.with(|| s3.delete(bucket, &key)).await?;
        stored.withdrawn = true;
        Ok(())
    }

    /// Writes the manifest, and takes away what is left over.
    async fn finish(&mut self, plan: Plan) -> Result<(), TransferError> {
        let kept = plan.files.into_iter().filter_map(|(file, action)| match action {
            Action::Keep(entry) => Some((file.path, entry)),
            _ => None,
        });
        let manifest = Manifest { model: self.request.model.clone(), files: kept.collect() };
        self.summary.digest = manifest.digest();
        self.summary.files = manifest.files.len();
        self.summary.bytes = manifest.bytes();
        let json = to_json(&manifest)?;
        let Store { s3, bucket } = &self.sender.store;
        let key = Manifest::key(&self.request.model);
        if self.stored.as_ref().is_none_or(|stored| stored.withdrawn || stored.manifest != manifest) {
            let sha256 = Sha256::digest(&json).into();
            let payload = || Payload { body: json.clone().into(), length: json.len() as u64, patience: PATIENCE };
            self.sender.patience.with(|| s3.put_checked(bucket, &key, payload(), &sha256)).await?;
        }
        for (path, ids) in self.state.uploads() {
            for id in ids {
                let upload = Upload { bucket: bucket.clone(), key: format!("{}/{path}", self.request.model), id };
                self.sender.patience.with(|| s3.abort_upload(&upload)).await?;
            }
        }
        if self.request.delete {
            self.delete(&plan.extra).await?;
        } else {
            self.summary.extra = plan.extra;
        }
        self.state.finish(&json)
    }

    async fn delete(&mut self, paths: &[String]) -> Result<(), TransferError> {
        let Store { s3, bucket } = &self.sender.store;
        let (model, patience) = (&self.request.model, &self.sender.patience);
        let delete = |path: &String| {
            let key = format!("{model}/{path}");
            async move { patience.with(|| s3.delete(bucket, &key)).await.map_err(TransferError::from) }
        };
        for_all(paths, DELETIONS, delete).await?;
        self.summary.deleted.extend_from_slice(paths);
        Ok(())
    }
}

fn to_json(manifest: &Manifest) -> Result<Vec<u8>, TransferError> {
    manifest.to_json().map_err(|source| TransferError::Manifest { key: Manifest::key(&manifest.model), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_models_are_keys_file_names_and_names_in_the_registry() {
        for good in ["tiny", "Llama-3.1_8B", "7b"] {
            check_name(good).unwrap();
        }
        let long = "a".repeat(65);
        for bad in ["", ".", "..", "-a", "a b", "a/b", "ä", &long, "tiny.manifest.json"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
