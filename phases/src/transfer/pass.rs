//! One pass of a sync: files are compared where they may be the same, and sent where they are not.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use sha2::{Digest, Sha256};

use super::TransferError;
use super::manifest::{Entry, hex};
use super::plan::{Action, Reason};
use super::read::{digest, is_small};
use super::scan::LocalFile;
use super::state::State;
use super::upload::{Sender, Sent};
use crate::tools::s3::S3Error;

/// How many small files are sent at once.
const SMALL: usize = 32;

/// How many large files are sent at once.
const LARGE: usize = 2;

/// How many files are read at once to be compared.
const COMPARED: usize = 8;

/// How long reading an object again may take.
const READING: Duration = Duration::from_secs(3600);

/// How long to wait before an object is read a second time.
const PAUSE: Duration = Duration::from_secs(1);

/// One pass over the files.
pub(super) struct Pass<'a> {
    pub(super) sender: &'a Sender,
    pub(super) state: &'a State,
}

/// What a closer look has told.
#[derive(Default)]
pub(super) struct Examined {
    /// What is known of the files that need not be sent, by path.
    pub(super) same: Vec<(String, Entry)>,
    /// The files that are to be sent.
    pub(super) different: Vec<(LocalFile, Reason)>,
}

/// A file that was sent.
pub(super) struct Done {
    pub(super) path: String,
    pub(super) reason: Reason,
    pub(super) entry: Entry,
    /// How many of its bytes the store already had.
    pub(super) resumed: u64,
}

impl Pass<'_> {
    /// Reads the files that may have changed or, to `verify`, all of them with their objects.
    pub(super) async fn examine(&self, files: &[(LocalFile, Action)], verify: bool) -> Result<Examined, TransferError> {
        let mut examined = Examined::default();
        let mut doubtful = Vec::new();
        for (file, action) in files {
            match action {
                Action::Send(reason) => examined.different.push((file.clone(), *reason)),
                Action::Compare(entry) => doubtful.push((file, entry)),
                Action::Keep(entry) if verify => doubtful.push((file, entry)),
                Action::Keep(_) => {}
            }
        }
        if doubtful.is_empty() {
            return Ok(examined);
        }
        self.sender.progress.begin("compare", doubtful.len(), doubtful.iter().map(|(file, _)| file.size).sum());
        let compare = |(file, entry)| self.compare(file, entry, verify);
        for (file, told) in for_all(doubtful, COMPARED, compare).await? {
            match told {
                Ok(entry) => examined.same.push((file.path.clone(), entry)),
                Err(reason) => examined.different.push((file.clone(), reason)),
            }
        }
        Ok(examined)
    }

    /// What is known of a file now, or why it must be sent.
    async fn compare<'f>(
        &self,
        file: &'f LocalFile,
        entry: &Entry,
        verify: bool,
    ) -> Result<(&'f LocalFile, Result<Entry, Reason>), TransferError> {
        self.go_on()?;
        let told = if digest(file).await?.is_none_or(|digest| digest != entry.sha256) {
            Err(Reason::Changed)
        } else if verify && !self.object_is(file, &entry.sha256).await? {
            Err(Reason::Damaged)
        } else {
            let entry = Entry { mtime: file.mtime, ..entry.clone() };
            self.state.sent(&file.path, &entry)?;
            Ok(entry)
        };
        self.sender.progress.sent(file.size);
        self.sender.progress.file();
        Ok((file, told))
    }

    /// Whether the object of a file has this SHA-256. One that cannot be read to its end has not: it is rather sent
    /// again than waited for.
    async fn object_is(&self, file: &LocalFile, sha256: &str) -> Result<bool, TransferError> {
        let key = self.sender.key(file);
        let mut told = self.object_digest(&key).await;
        if told.as_ref().is_err_and(S3Error::is_transient) {
            tokio::time::sleep(PAUSE).await;
            told = self.object_digest(&key).await;
        }
        match told {
            Ok(digest) => Ok(digest == sha256),
            Err(error) if error.is_forbidden() => Err(error.into()),
            Err(_) => Ok(false),
        }
    }

    async fn object_digest(&self, key: &str) -> Result<String, S3Error> {
        let store = &self.sender.store;
        let mut answer = store.s3.open(&store.bucket, key, READING).await?;
        let mut hash = Sha256::new();
        let failed = |source: reqwest::Error| S3Error::Transport {
            what: format!("read {}/{key}", store.bucket),
            source: source.without_url(),
        };
        while let Some(bytes) = answer.chunk().await.map_err(failed)? {
            hash.update(&bytes);
        }
        Ok(hex(&hash.finalize()))
    }

    /// Sends files. What changes meanwhile is left to the next pass.
    pub(super) async fn send(&self, files: &[(LocalFile, Reason)]) -> Result<Vec<Done>, TransferError> {
        if files.is_empty() {
            return Ok(Vec::new());
        }
        self.sender.progress.begin("send", files.len(), files.iter().map(|(file, _)| file.size).sum());
        let (small, large): (Vec<_>, Vec<_>) = files.iter().partition(|(file, _)| is_small(file.size));
        let send = |one: &'_ (LocalFile, Reason)| self.send_one(one.0.clone(), one.1);
        let (small, large) = tokio::join!(for_all(small, SMALL, send), for_all(large, LARGE, send));
        Ok(small?.into_iter().chain(large?).flatten().collect())
    }

    async fn send_one(&self, file: LocalFile, reason: Reason) -> Result<Option<Done>, TransferError> {
        self.go_on()?;
        let sent = match is_small(file.size) {
            true => self.sender.send_whole(&file).await?,
            false => self.sender.send_parts(&file, self.state).await?,
        };
        let Sent::Whole { entry, resumed } = sent else { return Ok(None) };
        self.state.sent(&file.path, &entry)?;
        self.sender.progress.file();
        Ok(Some(Done { path: file.path, reason, entry, resumed }))
    }

    fn go_on(&self) -> Result<(), TransferError> {
        if (self.sender.stop)() { Err(TransferError::Stopped) } else { Ok(()) }
    }
}

/// Does `work` on all items, so many at once. After an error what was begun goes to its end and nothing more begins.
pub(super) async fn for_all<I, T, R, F>(items: I, limit: usize, work: impl Fn(T) -> F) -> Result<Vec<R>, TransferError>
where
    I: IntoIterator<Item = T>,
    F: Future<Output = Result<R, TransferError>>,
{
    let mut items = items.into_iter();
    let (mut going, mut done, mut failed) = (FuturesUnordered::new(), Vec::new(), None);
    loop {
        while failed.is_none() && going.len() < limit {
            let Some(item) = items.next() else { break };
            going.push(work(item));
        }
        match going.next().await {
            None => return failed.map_or(Ok(done), Err),
            Some(Ok(result)) => done.push(result),
            Some(Err(error)) => _ = failed.get_or_insert(error),
        }
    }
}
