//! Sending one file: whole if it is small, else in parts, of which those that the store already has are left out.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use md5::{Digest, Md5};
use reqwest::Body;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::limit::Limiter;
use super::manifest::{Entry, hex};
use super::patience::Patience;
use super::read::{Chunk, MEMORY, MIB, Memory, blocking, joined, read_parts, read_whole};
use super::scan::LocalFile;
use super::state::State;
use super::{Progress, Stop, Store, TransferError};
use crate::tools::s3::{Part, Payload, S3Error, Upload};

/// How long a request may take, apart from the time that its bytes need.
const PATIENCE: Duration = Duration::from_secs(120);

/// A slower connection than this, in bytes each second, counts as a broken one.
const CRAWL: u64 = 128 << 10;

/// How many bytes pass the bandwidth limit at once.
const SLICE: usize = 64 << 10;

/// Sends files of one model.
pub(super) struct Sender {
    pub(super) store: Store,
    pub(super) model: String,
    pub(super) limiter: Option<Arc<Limiter>>,
    pub(super) progress: Arc<dyn Progress>,
    pub(super) stop: Stop,
    /// Asks the store again where that may help.
    pub(super) patience: Arc<Patience>,
    memory: Memory,
}

/// What became of a file.
#[derive(Debug)]
pub(super) enum Sent {
    /// The store has it.
    Whole {
        /// What is known of it now.
        entry: Entry,
        /// How many of its bytes the store already had.
        resumed: u64,
    },
    /// It changed while it was read, or its upload went away: it must be looked at again.
    Again,
}

impl Sender {
    pub(super) fn new(
        store: Store,
        model: String,
        limiter: Option<Arc<Limiter>>,
        progress: Arc<dyn Progress>,
        stop: Stop,
    ) -> Self {
        let patience = Arc::new(Patience::new(Arc::clone(&progress)));
        let memory = Memory::new(limiter.as_ref().map(|limiter| limiter.rate()));
        Self { store, model, limiter, progress, stop, patience, memory }
    }

    /// Sends a small file.
    pub(super) async fn send_whole(&self, file: &LocalFile) -> Result<Sent, TransferError> {
        let _room = self.memory.room(file.size).await;
        let Some((bytes, entry, sha256)) = blocking(file, read_whole).await? else { return Ok(Sent::Again) };
        let key = self.key(file);
        let put = || async {
            let payload = self.payload(bytes.clone());
            self.store.s3.put_checked(&self.store.bucket, &key, payload, &sha256).await
        };
        let etag = self.patience.with(put).await?;
        self.progress.sent(entry.size);
        Ok(Sent::Whole { entry: Entry { etag, ..entry }, resumed: 0 })
    }

    /// Sends a large file in parts.
    pub(super) async fn send_parts(&self, file: &LocalFile, state: &State) -> Result<Sent, TransferError> {
        let (upload, there) = self.take_up(file, state).await?;
        let (chunks, mut read) = mpsc::channel(1);
        let memory = self.memory.clone();
        let reader = {
            let file = file.clone();
            tokio::task::spawn_blocking(move || read_parts(&file, &there, &memory, &chunks))
        };
        let (mut parts, mut resumed, mut sending) = (Vec::new(), 0, JoinSet::new());
        let mut failed = None;
        while let Some(chunk) = read.recv().await {
            match chunk {
                Chunk::Had(part, crc32c) => {
                    resumed += part.size;
                    self.progress.sent(part.size);
                    parts.push((part, crc32c));
                }
                Chunk::New { number, bytes, crc32c, room } => {
                    let (upload, store, limiter) = (upload.clone(), self.store.clone(), self.limiter.clone());
                    let (progress, patience) = (Arc::clone(&self.progress), Arc::clone(&self.patience));
                    sending.spawn(async move {
                        let size = bytes.len() as u64;
                        let put = || {
                            let payload = payload(bytes.clone(), limiter.as_ref());
                            store.s3.put_part(&upload, number, payload, crc32c)
                        };
                        let part = patience.with(put).await?;
                        progress.sent(size);
                        drop(room);
                        Ok((part, crc32c))
                    });
                }
            }
            while let Some(done) = sending.try_join_next() {
                collect(done, &mut parts, &mut failed);
            }
            if (self.stop)() {
                failed.get_or_insert(TransferError::Stopped);
            }
            if failed.is_some() {
                break;
            }
        }
        // The reader ends when nobody takes its parts any more; what is being sent is let go to its end.
        drop(read);
        while let Some(done) = sending.join_next().await {
            collect(done, &mut parts, &mut failed);
        }
        let read = joined(reader.await)?;
        match failed {
            Some(TransferError::Store(error)) if error.code() == "NoSuchUpload" => return Ok(Sent::Again),
            Some(error) => return Err(error),
            None => {}
        }
        let Some(entry) = read? else {
            self.store.s3.abort_upload(&upload).await?;
            return Ok(Sent::Again);
        };
        self.complete(file, &upload, parts, entry, state).await.map(|sent| match sent {
            Sent::Whole { entry, .. } => Sent::Whole { entry, resumed },
            Sent::Again => Sent::Again,
        })
    }

    /// The newest upload that the store still knows, with its parts; else a new one.
    async fn take_up(&self, file: &LocalFile, state: &State) -> Result<(Upload, Vec<Part>), TransferError> {
        let (bucket, key) = (self.store.bucket.clone(), self.key(file));
        for id in state.uploads_of(&file.path).into_iter().rev() {
            let upload = Upload { bucket: bucket.clone(), key: key.clone(), id };
            if let Some(parts) = self.patience.with(|| self.store.s3.parts(&upload)).await? {
                return Ok((upload, parts));
            }
        }
        let upload = self.patience.with(|| self.store.s3.begin_upload(&bucket, &key)).await?;
        state.began(&file.path, &upload.id)?;
        Ok((upload, Vec::new()))
    }

    async fn complete(
        &self,
        file: &LocalFile,
        upload: &Upload,
        mut parts: Vec<(Part, u32)>,
        entry: Entry,
        state: &State,
    ) -> Result<Sent, TransferError> {
        parts.sort_unstable_by_key(|(part, _)| part.number);
        if let Some(etag) = etag_of_parts(&parts) {
            // A kill between the store's finishing and our hearing of it is no reason to send everything again.
            state.sent(&file.path, &Entry { etag, ..entry.clone() })?;
        }
        match self.patience.with(|| self.store.s3.complete_upload(upload, &parts)).await {
            Ok(etag) => Ok(Sent::Whole { entry: Entry { etag, ..entry }, resumed: 0 }),
            // It may have been finished by a request whose answer was lost: the listing will tell.
            Err(error) if matches!(error.code(), "NoSuchUpload" | "InvalidPart") => Ok(Sent::Again),
            Err(error) => Err(error.into()),
        }
    }

    /// The key of a file's object.
    pub(super) fn key(&self, file: &LocalFile) -> String {
        format!("{}/{}", self.model, file.path)
    }

    fn payload(&self, bytes: Bytes) -> Payload {
        payload(bytes, self.limiter.as_ref())
    }
}

fn collect(
    done: Result<Result<(Part, u32), S3Error>, tokio::task::JoinError>,
    parts: &mut Vec<(Part, u32)>,
    failed: &mut Option<TransferError>,
) {
    match joined(done) {
        Ok(Ok(part)) => parts.push(part),
        Ok(Err(error)) => _ = failed.get_or_insert(error.into()),
        Err(error) => _ = failed.get_or_insert(error),
    }
}

/// Bytes on their way, at the rate of the limit.
fn payload(bytes: Bytes, limiter: Option<&Arc<Limiter>>) -> Payload {
    let length = bytes.len() as u64;
    let Some(limiter) = limiter else {
        let patience = PATIENCE + Duration::from_secs(length / CRAWL);
        return Payload { body: bytes.into(), length, patience };
    };
    // Everything else that is in memory may have to pass before.
    let patience = PATIENCE + Duration::from_secs(MEMORY * MIB / limiter.rate().min(CRAWL));
    let limiter = Arc::clone(limiter);
    let slices = stream::unfold(bytes, move |mut left| {
        let limiter = Arc::clone(&limiter);
        async move {
            if left.is_empty() {
                return None;
            }
            let slice = left.split_to(left.len().min(SLICE));
            limiter.pass(slice.len() as u64).await;
            Some((Ok::<_, io::Error>(slice), left))
        }
    });
    Payload { body: Body::wrap_stream(slices), length, patience }
}

/// The entity tag that S3 gives to an object of these parts, if theirs are MD5s.
fn etag_of_parts(parts: &[(Part, u32)]) -> Option<String> {
    let mut hash = Md5::new();
    for (part, _) in parts {
        let digits = (part.etag.len() == 32).then_some(part.etag.as_bytes())?;
        for pair in digits.chunks(2) {
            let byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
            hash.update([byte]);
        }
    }
    Some(format!("{}-{}", hex(&hash.finalize()), parts.len()))
}
