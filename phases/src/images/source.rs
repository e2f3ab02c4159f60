//! The image that is built upon: fetched and checked, or given.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use reqwest::header::{CONTENT_RANGE, RANGE};
use sha2::{Digest, Sha256, Sha512};
use taskrun_engine::context::View;
use taskrun_engine::outcome::{Failure, Persistence};

use super::settings::Source;
use crate::config::Checksum;
use crate::tools::{cache, files, http};

/// How often progress is told.
const TOLD: Duration = Duration::from_secs(5);

/// How long a server may be silent.
const SILENCE: Duration = Duration::from_secs(60);

/// What a qcow2 image begins with.
const MAGIC: [u8; 4] = *b"QFI\xfb";

/// A source that is here and is what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// The file.
    pub path: PathBuf,
    /// Where it is from: a URL or a path.
    pub origin: String,
    /// Its checksum: `sha256:` or `sha512:` and the digits.
    pub checksum: String,
}

/// Fetches the source if it is not here, and checks it.
///
/// # Errors
/// It cannot be fetched, is another one than it should be, or is no qcow2 image.
pub async fn obtain(view: &View, source: &Source) -> Result<SourceFile, Failure> {
    let (url, checksum) = match source {
        Source::File(path) => {
            let checksum = format!("sha256:{}", digest(&Wanted::Sha256, path.clone()).await?);
            let found = SourceFile { path: path.clone(), origin: path.display().to_string(), checksum };
            return is_qcow2(found);
        }
        Source::Url { url, checksum } => (url.clone(), checksum.clone()),
        Source::Official { url, sums } => (url.clone(), official(url, sums).await?),
    };
    let (wanted, digits) = match checksum {
        Checksum::Sha256(digits) => (Wanted::Sha256, digits),
        Checksum::Sha512(digits) => (Wanted::Sha512, digits),
    };
    let name = format!("{}.qcow2", &digits[..digits.len().min(32)]);
    let folder = cache::folder()?.join(cache::IMAGES);
    let (path, partial) = (folder.join(&name), folder.join(format!("{name}.partial")));
    let found = SourceFile { path: path.clone(), origin: url.clone(), checksum: format!("{}:{digits}", wanted.name()) };
    if path.is_file() && digest(&wanted, path.clone()).await? == digits {
        return is_qcow2(found);
    }
    fs::create_dir_all(&folder).map_err(|error| files::failure("make", &folder, &error))?;
    download(view, &url, &partial).await?;
    let is = digest(&wanted, partial.clone()).await?;
    if is != digits {
        files::remove(&partial)?;
        let message = format!("fetch {url}: its {} is {is}, not {digits}", wanted.name().to_uppercase());
        return Err(Failure::permanent(message).with_hint("correct the checksum in the configuration, or the address"));
    }
    fs::rename(&partial, &path).map_err(|error| files::failure("keep", &path, &error))?;
    is_qcow2(found)
}

enum Wanted {
    Sha256,
    Sha512,
}

impl Wanted {
    fn name(&self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }
}

fn is_qcow2(found: SourceFile) -> Result<SourceFile, Failure> {
    let mut magic = [0; 4];
    let read = File::open(&found.path).and_then(|mut file| file.read_exact(&mut magic));
    match read {
        Ok(()) if magic == MAGIC => Ok(found),
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(files::failure("read", &found.path, &error)),
        _ => Err(Failure::permanent(format!("build upon {}: it is no qcow2 image", found.origin))
            .with_hint("convert it: qemu-img convert -O qcow2 OLD NEW")),
    }
}

/// The SHA-512 of the image at `url` by the list of checksums at `sums`.
async fn official(url: &str, sums: &str) -> Result<Checksum, Failure> {
    let failed = |error: reqwest::Error| fetch_failure(sums, &error);
    let client = http::client(sums).timeout(SILENCE).build().map_err(failed)?;
    let answer = client.get(sums).send().await.and_then(reqwest::Response::error_for_status).map_err(failed)?;
    let list = answer.text().await.map_err(failed)?;
    let name = url.rsplit('/').next().unwrap_or(url);
    sum_of(&list, name).ok_or_else(|| Failure::permanent(format!("find the checksum of {name} in {sums}")))
}

/// The SHA-512 of a file by a list as sha512sum writes it.
fn sum_of(list: &str, name: &str) -> Option<Checksum> {
    let mut lines = list.lines().filter_map(|line| line.split_once([' ', '\t']));
    let (digits, _) = lines.find(|(_, file)| file.trim_start().trim_start_matches('*') == name)?;
    (digits.len() == 128 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .then(|| Checksum::Sha512(digits.to_ascii_lowercase()))
}

/// Fetches `url` into `partial`, behind what is there of it.
async fn download(view: &View, url: &str, partial: &Path) -> Result<(), Failure> {
    let failed = |error: reqwest::Error| fetch_failure(url, &error);
    let written = |error: io::Error| files::failure("write", partial, &error);
    let client = http::client(url).read_timeout(SILENCE).build().map_err(failed)?;
    let there = fs::metadata(partial).map_or(0, |found| found.len());
    let request = client.get(url);
    let request = if there > 0 { request.header(RANGE, format!("bytes={there}-")) } else { request };
    let mut answer = request.send().await.map_err(failed)?;
    if answer.status() == StatusCode::RANGE_NOT_SATISFIABLE && there > 0 {
        // It is complete already, or another file: its checksum tells.
        return Ok(());
    }
    answer = answer.error_for_status().map_err(failed)?;
    let begin = format!("bytes {there}-");
    let range = answer.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
    let goes_on =
        answer.status() == StatusCode::PARTIAL_CONTENT && range.is_some_and(|range| range.starts_with(&begin));
    let mut file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(!goes_on)
        .append(goes_on)
        .open(partial)
        .map_err(written)?;
    let mut done = if goes_on { there } else { 0 };
    let all = answer.content_length().map(|rest| rest + done);
    view.say(format!("fetching {url}{}", if goes_on { format!(", from {done} bytes on") } else { String::new() }));
    let mut told = Instant::now();
    while let Some(chunk) = answer.chunk().await.map_err(failed)? {
        file.write_all(&chunk).map_err(written)?;
        done += chunk.len() as u64;
        if told.elapsed() >= TOLD {
            told = Instant::now();
            let of = all.map(|all| format!(" of {}", all >> 20)).unwrap_or_default();
            view.say(format!("fetched {}{of} MiB", done >> 20));
            // What is here stays; a later attempt goes on behind it.
            view.safe_point()?;
        }
    }
    file.sync_all().map_err(written)
}

fn fetch_failure(url: &str, error: &reqwest::Error) -> Failure {
    let permanent = error.status().is_some_and(|status| status.is_client_error());
    let persistence = if permanent { Persistence::Permanent } else { Persistence::Transient };
    Failure::caused(persistence, format!("fetch {url}"), error)
        .with_hint("without a way to it, name an image that is here: `image.source.path`")
}

async fn digest(wanted: &Wanted, path: PathBuf) -> Result<String, Failure> {
    match wanted {
        Wanted::Sha256 => hash::<Sha256>(path).await,
        Wanted::Sha512 => hash::<Sha512>(path).await,
    }
}

/// The SHA-256 of a file.
///
/// # Errors
/// It cannot be read.
pub async fn sha256(path: &Path) -> Result<String, Failure> {
    hash::<Sha256>(path.to_owned()).await
}

async fn hash<D: Digest + Send + 'static>(path: PathBuf) -> Result<String, Failure>
where
    sha2::digest::Output<D>: AsRef<[u8]>,
{
    let read = {
        let path = path.clone();
        move || -> io::Result<String> {
            let (mut file, mut hasher) = (File::open(path)?, D::new());
            let mut buffer = vec![0; 1 << 20];
            loop {
                match file.read(&mut buffer)? {
                    0 => break,
                    count => hasher.update(&buffer[..count]),
                }
            }
            Ok(hasher.finalize().as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
        }
    };
    let read = tokio::task::spawn_blocking(read).await.unwrap_or_else(|error| Err(io::Error::other(error)));
    read.map_err(|error| files::failure("read", &path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_found_by_name() {
        let digits = "AB".repeat(64);
        let list = format!("{}  debian-13-generic-amd64.qcow2\n{digits}  image.qcow2\nshort  other\n", "0".repeat(128));
        assert_eq!(sum_of(&list, "image.qcow2"), Some(Checksum::Sha512(digits.to_lowercase())));
        assert_eq!(sum_of(&list, "other"), None);
        assert_eq!(sum_of(&list, "qcow2"), None);
    }
}
