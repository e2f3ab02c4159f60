//! Grafana: its programs, fetched and checked, and a client of its HTTP API.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::StatusCode;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use taskrun_engine::context::Context;
use taskrun_engine::outcome::{Failure, Persistence};
use taskrun_engine::process::Command;

use super::{cache, files, http};
use crate::config::ArchiveConfig;
use crate::phase0::find_program;

/// The version that is fetched.
pub const VERSION: &str = "12.0.2";

/// The published checksums of its archives, by the machine's architecture and by the archive's name for it.
const CHECKSUMS: [(&str, &str, &str); 2] = [
    ("x86_64", "amd64", "c1755b4da918edfd298d5c8d5f1ffce35982ad10e1640ec356570cfb8c34b3e8"),
    ("aarch64", "arm64", "bc0b186458cc91e2f96a06ecff2b3b4033b1a6ffd2449817e2a430a0b4ae4f12"),
];

/// How long fetching 190 MB may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(600);

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A Grafana.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    /// The program.
    pub program: PathBuf,
    /// The folder of what it shows, its "home path".
    pub home: PathBuf,
}

impl Installation {
    /// The Grafana in the folder that the user named, or the one on PATH.
    pub fn installed(given: Option<&Path>) -> Option<Self> {
        if let Some(home) = given {
            return Self::inside(home);
        }
        let program = find_program("grafana")?;
        let beside = program.parent().and_then(Path::parent).map(Path::to_owned);
        let home = [Some(PathBuf::from("/usr/share/grafana")), beside].into_iter().flatten();
        home.into_iter().find(|home| home.join("public").is_dir()).map(|home| Self { program, home })
    }

    /// The Grafana that was unpacked in `home`.
    pub fn inside(home: &Path) -> Option<Self> {
        let program = home.join("bin").join("grafana");
        (program.is_file() && home.join("public").is_dir()).then(|| Self { program, home: home.to_owned() })
    }
}

/// The makers' own archive for this machine, if there is one.
pub fn official() -> Option<ArchiveConfig> {
    let (_, name, sha256) = CHECKSUMS.into_iter().find(|(machine, ..)| *machine == std::env::consts::ARCH)?;
    let url = format!("https://dl.grafana.com/oss/release/grafana-{VERSION}.linux-{name}.tar.gz");
    Some(ArchiveConfig { url, sha256: sha256.to_owned() })
}

/// Fetches an archive, or takes it from the cache, checks it, and unpacks it into `target`.
///
/// # Errors
/// It cannot be fetched, or is another one.
pub async fn fetch(context: &Context, archive: &ArchiveConfig, target: &Path) -> Result<(), Failure> {
    let folder = cache::folder()?.join(cache::GRAFANA);
    let (kept, new) = (folder.join(format!("{}.tar.gz", archive.sha256)), folder.join("new"));
    if checksum(&kept).is_none_or(|found| !found.eq_ignore_ascii_case(&archive.sha256)) {
        std::fs::create_dir_all(&folder).map_err(|error| files::failure("make", &folder, &error))?;
        context.say(format!("fetching {}", archive.url));
        let curl = Command::new("curl").args(["--fail", "--silent", "--show-error", "--location", "--proto"]);
        let curl = curl.args(["=http,https", "--connect-timeout", "5", "--output"]).arg(&new).arg(&archive.url);
        context.command(curl.timeout(FETCH_TIMEOUT)).await?;
        match checksum(&new) {
            Some(found) if found.eq_ignore_ascii_case(&archive.sha256) => {}
            found => {
                files::remove(&new)?;
                let found = found.unwrap_or_else(|| "nothing".to_owned());
                let ArchiveConfig { url, sha256 } = archive;
                return Err(Failure::permanent(format!("find SHA-256 {sha256} of {url}: it is {found}")));
            }
        }
        std::fs::rename(&new, &kept).map_err(|error| files::failure("keep", &kept, &error))?;
    }
    let unpacked = target.with_extension("new");
    files::remove(&unpacked)?;
    files::remove(target)?;
    std::fs::create_dir_all(&unpacked).map_err(|error| files::failure("make", &unpacked, &error))?;
    let tar = Command::new("tar").args(["--extract", "--gzip", "--strip-components=1", "--no-same-owner", "--file"]);
    context.command(tar.arg(&kept).arg("--directory").arg(&unpacked).timeout(FETCH_TIMEOUT)).await?;
    std::fs::rename(&unpacked, target).map_err(|error| files::failure("name", target, &error))
}

/// The SHA-256 of a file; nothing if it cannot be read.
fn checksum(file: &Path) -> Option<String> {
    let mut hasher = Sha256::new();
    std::io::copy(&mut File::open(file).ok()?, &mut HashWriter(&mut hasher)).ok()?;
    Some(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

struct HashWriter<'a>(&'a mut Sha256);

impl std::io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The HTTP API, as a user of it.
pub struct Grafana {
    http: reqwest::Client,
    url: String,
    user: String,
    password: String,
}

#[derive(Deserialize)]
struct Found {
    uid: String,
}

#[derive(Deserialize)]
struct Health {
    status: String,
    #[serde(default)]
    message: String,
}

impl Grafana {
    /// The server at `url`.
    ///
    /// # Errors
    /// The HTTP client cannot be made.
    pub fn new(url: &str, user: &str, password: &str) -> Result<Self, Failure> {
        let http = http::client(url).timeout(TIMEOUT).build().map_err(|error| failure(&error))?;
        Ok(Self { http, url: url.to_owned(), user: user.to_owned(), password: password.to_owned() })
    }

    /// Whether the login is taken.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn knows_us(&self) -> Result<bool, Failure> {
        let answer = self.get("/api/user").await?;
        Ok(answer.status() != StatusCode::UNAUTHORIZED)
    }

    /// The ids of the dashboards with this tag.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn dashboards(&self, tag: &str) -> Result<Vec<String>, Failure> {
        let answer = self.get(&format!("/api/search?type=dash-db&tag={tag}")).await?;
        let found: Vec<Found> = read(answer).await?;
        Ok(found.into_iter().map(|found| found.uid).collect())
    }

    /// Whether a datasource answers, or what it says.
    ///
    /// # Errors
    /// The server refuses; what the datasource says.
    pub async fn check_datasource(&self, uid: &str) -> Result<(), Failure> {
        let health: Health = read(self.get(&format!("/api/datasources/uid/{uid}/health")).await?).await?;
        match &*health.status {
            "OK" => Ok(()),
            _ => Err(Failure::transient(format!("reach Prometheus from Grafana: {}", health.message))),
        }
    }

    async fn get(&self, path: &str) -> Result<reqwest::Response, Failure> {
        let request = self.http.get(format!("{}{path}", self.url)).basic_auth(&self.user, Some(&self.password));
        request.send().await.map_err(|error| failure(&error))
    }
}

async fn read<T: serde::de::DeserializeOwned>(answer: reqwest::Response) -> Result<T, Failure> {
    let answer = answer.error_for_status().map_err(|error| failure(&error))?;
    answer.json().await.map_err(|error| failure(&error))
}

fn failure(error: &reqwest::Error) -> Failure {
    let transient = error.is_connect() || error.is_timeout() || error.status().is_some_and(|s| s.is_server_error());
    let persistence = if transient { Persistence::Transient } else { Persistence::Permanent };
    Failure::caused(persistence, "ask Grafana", error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_the_contents() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "abc").unwrap();
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(checksum(file.path()).as_deref(), Some(known));
        assert_eq!(checksum(Path::new("/nowhere")), None);
    }

    #[test]
    fn a_grafana_has_its_program_and_its_pages() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(home.path().join("bin")).unwrap();
        std::fs::write(home.path().join("bin/grafana"), "").unwrap();
        assert_eq!(Installation::inside(home.path()), None);
        std::fs::create_dir(home.path().join("public")).unwrap();
        assert_eq!(Installation::inside(home.path()).unwrap().home, home.path());
    }
}
