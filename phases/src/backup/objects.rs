//! The objects of a backup: copied, each bytes once, and put back.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt as _;

use super::Site;
use super::error::{BackupError, disk};
use super::manifest::{Manifest, Object, blob, hex};
use crate::tools::s3::{Listed, Payload, S3, S3Error};
use crate::transfer::Progress;

/// How many objects are copied at once.
const AT_ONCE: usize = 8;

/// How long copying an object may take.
const PATIENCE: Duration = Duration::from_secs(3600);

/// The size of the parts that large objects are put back in.
const PART: u64 = 64 << 20;

/// The objects of all buckets, by bucket and key.
pub(super) async fn list(site: &Site) -> Result<BTreeMap<(String, String), Listed>, BackupError> {
    let mut all = BTreeMap::new();
    for (bucket, s3) in &site.buckets {
        let listed = s3.list_all(bucket, "").await?;
        all.extend(listed.into_iter().map(|(key, object)| ((bucket.clone(), key), object)));
    }
    Ok(all)
}

/// Copies all objects into the backup that is made in `folder`; what `before` has already is linked.
pub(super) async fn copy(
    site: &Site,
    folder: &Path,
    before: Option<(&Path, &Manifest)>,
    progress: &dyn Progress,
) -> Result<Vec<Object>, BackupError> {
    let listed = list(site).await?;
    let known: BTreeMap<(&str, &str), &Object> = before
        .iter()
        .flat_map(|(_, manifest)| &manifest.objects)
        .map(|object| ((object.bucket.as_str(), object.key.as_str()), object))
        .collect();
    progress.begin("copy", listed.len(), listed.values().map(|object| object.size).sum());
    let copies: Vec<BoxFuture<'_, _>> = listed
        .iter()
        .map(|((bucket, key), listed)| {
            let same = |object: &&Object| object.etag == listed.etag && object.size == listed.size;
            let known = known.get(&(bucket.as_str(), key.as_str())).copied().filter(same);
            let linked = known.zip(before).filter(|(object, (old, _))| link(object, old, folder).unwrap_or(false));
            async move {
                let copied = match linked {
                    Some((object, _)) => Some(object.clone()),
                    None => fetch(site.bucket(bucket)?, bucket, key, folder).await?,
                };
                if copied.is_none() {
                    progress.note(&format!("{bucket}/{key} was deleted meanwhile, and is left out"));
                }
                progress.sent(listed.size);
                progress.file();
                Ok::<_, BackupError>(copied)
            }
            .boxed()
        })
        .collect();
    let copied: Vec<Option<Object>> = stream::iter(copies).buffered(AT_ONCE).try_collect().await?;
    Ok(copied.into_iter().flatten().collect())
}

/// Links the bytes of an object out of an older backup; whether they are there, with their size.
fn link(object: &Object, old: &Path, new: &Path) -> std::io::Result<bool> {
    let (from, to) = (object.file(old), object.file(new));
    if fs::metadata(&from)?.len() != object.size {
        return Ok(false);
    }
    fs::create_dir_all(to.parent().unwrap_or(new))?;
    match fs::hard_link(from, &to) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(true),
    }
}

/// Copies an object; nothing if there is none any more.
async fn fetch(s3: &S3, bucket: &str, key: &str, folder: &Path) -> Result<Option<Object>, BackupError> {
    let mut answer = match s3.open(bucket, key, PATIENCE).await {
        Err(S3Error::Refused { status, .. }) if status.as_u16() == 404 => return Ok(None),
        answer => answer?,
    };
    // Of what is read, and not of what was listed: it may have been written anew since.
    let etag = answer.headers().get(reqwest::header::ETAG).and_then(|tag| tag.to_str().ok()).unwrap_or_default();
    let etag = etag.trim_matches('"').to_owned();
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(disk("write into", folder))?;
    let (mut hash, mut size) = (Sha256::new(), 0);
    let transport = |source: reqwest::Error| S3Error::Transport {
        what: format!("read {bucket}/{key}"),
        source: source.without_url(),
    };
    while let Some(bytes) = answer.chunk().await.map_err(transport)? {
        hash.update(&bytes);
        size += bytes.len() as u64;
        file.write_all(&bytes).map_err(disk("write", file.path()))?;
    }
    let sha256 = hex(&hash.finalize());
    let target = blob(folder, &sha256);
    let place = target.parent().unwrap_or(folder);
    fs::create_dir_all(place).map_err(disk("make", place))?;
    file.as_file().sync_all().map_err(disk("write", file.path()))?;
    file.persist(&target).map_err(|error| disk("write", &target)(error.error))?;
    Ok(Some(Object { bucket: bucket.to_owned(), key: key.to_owned(), size, sha256, etag }))
}

/// Puts the objects of the backup in `folder` back.
pub(super) async fn put_back(
    site: &Site,
    folder: &Path,
    objects: &[Object],
    progress: &dyn Progress,
) -> Result<(), BackupError> {
    progress.begin("send", objects.len(), objects.iter().map(|object| object.size).sum());
    let puts: Vec<BoxFuture<'_, _>> = objects
        .iter()
        .map(|object| {
            async move {
                put(site.bucket(&object.bucket)?, object, &object.file(folder)).await?;
                progress.sent(object.size);
                progress.file();
                Ok::<_, BackupError>(())
            }
            .boxed()
        })
        .collect();
    stream::iter(puts).buffer_unordered(AT_ONCE).try_collect().await
}

async fn put(s3: &S3, object: &Object, file: &PathBuf) -> Result<(), BackupError> {
    let mut opened = tokio::fs::File::open(file).await.map_err(disk("read", file))?;
    let Object { bucket, key, size, .. } = object;
    let read = async |opened: &mut tokio::fs::File, count: u64| {
        let mut bytes = Vec::new();
        opened.take(count).read_to_end(&mut bytes).await.map_err(disk("read", file))?;
        Ok::<_, BackupError>(bytes)
    };
    let payload = |bytes: Vec<u8>| Payload { length: bytes.len() as u64, body: bytes.into(), patience: PATIENCE };
    if *size <= PART {
        let bytes = read(&mut opened, PART).await?;
        let sum = Sha256::digest(&bytes).into();
        s3.put_checked(bucket, key, payload(bytes), &sum).await?;
        return Ok(());
    }
    let upload = s3.begin_upload(bucket, key).await?;
    let sent = async {
        let mut parts = Vec::new();
        // S3 allows 10,000 parts.
        let part = PART.max(size.div_ceil(10_000));
        for number in 1..=size.div_ceil(part) {
            let bytes = read(&mut opened, part).await?;
            let sum = crc32c::crc32c(&bytes);
            let number = u16::try_from(number).unwrap_or(u16::MAX);
            parts.push((s3.put_part(&upload, number, payload(bytes), sum).await?, sum));
        }
        s3.complete_upload(&upload, &parts).await?;
        Ok(())
    };
    let sent = sent.await;
    if sent.is_err() {
        s3.abort_upload(&upload).await?;
    }
    sent
}

/// Reads every object of the backup in the store, and tells the first that is not as it was backed up.
pub(super) async fn compare(site: &Site, objects: &[Object], progress: &dyn Progress) -> Result<(), BackupError> {
    progress.begin("compare", objects.len(), objects.iter().map(|object| object.size).sum());
    let compares: Vec<BoxFuture<'_, _>> = objects
        .iter()
        .map(|object| {
            async move {
                let Object { bucket, key, sha256, .. } = object;
                let transport = |source: reqwest::Error| S3Error::Transport {
                    what: format!("read {bucket}/{key}"),
                    source: source.without_url(),
                };
                let mut answer = site.bucket(bucket)?.open(bucket, key, PATIENCE).await?;
                let mut hash = Sha256::new();
                while let Some(bytes) = answer.chunk().await.map_err(transport)? {
                    hash.update(&bytes);
                }
                progress.sent(object.size);
                progress.file();
                match hex(&hash.finalize()) == *sha256 {
                    true => Ok(()),
                    false => Err(BackupError::Differs { found: format!("{bucket}/{key} has another SHA-256") }),
                }
            }
            .boxed()
        })
        .collect();
    stream::iter(compares).buffer_unordered(AT_ONCE).try_collect().await
}
