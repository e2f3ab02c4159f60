//! Speed beside rclone and s5cmd: the same files to the same MinIO, one after the other, in alternating order.
//!
//! `BENCH_PAIRS` says how often each is measured (5 by default), `BENCH_MIB` how large the large file is (2048), and
//! `BENCH_FILES` how many small files there are (10000, of 4 KiB). Tools that are not on PATH are left out. Everyone
//! sends from the page cache; ours also hashes each file, asks the store what has arrived and writes a manifest.

#[path = "../tests/it/minio.rs"]
mod minio;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use minio::{KEY, Minio, REGION};
use taskrun_phases::tools::s3::S3;
use taskrun_phases::transfer::{Progress, Request, Store, sync};

const BUCKET: &str = "models";

/// How the others are called, with `{source}`, `{target}` and `{endpoint}`.
const OTHERS: [(&str, &str); 2] = [
    (
        "rclone",
        "rclone copy --transfers 32 --checkers 32 --s3-chunk-size 16Mi --s3-upload-concurrency 8 {source} s:{target}",
    ),
    ("s5cmd", "s5cmd --log error --endpoint-url {endpoint} cp {source}/ s3://{target}/"),
];

struct Quiet;

impl Progress for Quiet {
    fn begin(&self, _what: &'static str, _files: usize, _bytes: u64) {}
    fn sent(&self, _bytes: u64) {}
    fn file(&self) {}
    fn note(&self, _text: &str) {}
}

fn main() -> std::io::Result<()> {
    if let [_, flag, endpoint, source, model, state] = &*std::env::args().collect::<Vec<_>>()
        && flag == "--send"
    {
        return send(endpoint, source.into(), model, state.into());
    }
    // `cargo test --benches` calls us too, and is not meant.
    if !std::env::args().any(|arg| arg == "--bench") {
        return Ok(());
    }
    let setting = |name: &str, default: usize| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let pairs = setting("BENCH_PAIRS", 5);
    let folder = tempfile::Builder::new().prefix("taskrun-bench").tempdir_in("/var/tmp")?;
    let minio = Minio::start(folder.path().join("data"));
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(client(&minio.endpoint).create_bucket(BUCKET)).unwrap();
    let sources = [
        ("one file", large_file(folder.path(), setting("BENCH_MIB", 2048))?),
        ("small files", small_files(folder.path(), setting("BENCH_FILES", 10_000))?),
    ];
    let mut out = std::io::stdout();
    for (what, source) in sources {
        let mut times: Vec<Vec<f64>> = vec![Vec::new(); 1 + OTHERS.len()];
        for round in 0..pairs {
            let mut order: Vec<usize> = (0..times.len()).collect();
            order.rotate_left(round % times.len());
            for tool in order {
                if let Some(seconds) = measure(tool, &minio, &source, folder.path())? {
                    times[tool].push(seconds);
                }
                let _ = std::fs::remove_dir_all(minio.data.join(BUCKET).join("bench"));
            }
        }
        writeln!(out, "{what}: taskrun {:.2} s", median(times[0].clone()))?;
        for ((name, _), theirs) in OTHERS.iter().zip(&times[1..]) {
            if theirs.is_empty() {
                writeln!(out, "  {name} is not on PATH")?;
                continue;
            }
            let ratio = median(times[0].iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect());
            let verdict = if ratio <= 1.0 { "met" } else { "missed" };
            writeln!(out, "  {name} {:.2} s, ratio {ratio:.2}: {verdict}", median(theirs.clone()))?;
        }
    }
    Ok(())
}

fn client(endpoint: &str) -> S3 {
    S3::new(endpoint, REGION, KEY.0, KEY.1).unwrap()
}

/// What the process that is measured does.
fn send(endpoint: &str, source: PathBuf, model: &str, state_dir: PathBuf) -> std::io::Result<()> {
    let store = Store { s3: client(endpoint), bucket: BUCKET.to_owned() };
    let request = Request {
        source,
        model: model.to_owned(),
        state_dir,
        bandwidth: None,
        delete: false,
        verify: false,
        follow_links: false,
        dry_run: false,
    };
    let sent = sync(&request, &store, Arc::new(Quiet), Arc::new(|| false));
    let sent = tokio::runtime::Runtime::new()?.block_on(sent).map_err(std::io::Error::other)?;
    assert_eq!(sent.sent.len(), sent.files);
    Ok(())
}

/// The seconds that a tool takes, if it is there.
fn measure(tool: usize, minio: &Minio, source: &Path, folder: &Path) -> std::io::Result<Option<f64>> {
    let state = folder.join("state");
    let _ = std::fs::remove_dir_all(&state);
    let mut command = match tool.checked_sub(1) {
        None => {
            let mut command = Command::new(std::env::current_exe()?);
            command.args(["--send", &minio.endpoint]).arg(source).arg("bench").arg(&state);
            command
        }
        Some(other) => {
            let (source, target) = (source.display().to_string(), format!("{BUCKET}/bench"));
            let fill = |word: &str| {
                word.replace("{source}", &source).replace("{target}", &target).replace("{endpoint}", &minio.endpoint)
            };
            let mut words = OTHERS[other].1.split(' ').map(fill);
            let mut command = Command::new(words.next().unwrap_or_default());
            command.args(words);
            command
        }
    };
    command
        // Everything is on loopback; rclone refuses to begin where this is set.
        .env_remove("AWS_CA_BUNDLE")
        .env("AWS_ACCESS_KEY_ID", KEY.0)
        .env("AWS_SECRET_ACCESS_KEY", KEY.1)
        .env("AWS_REGION", REGION)
        .envs([("RCLONE_CONFIG_S_TYPE", "s3"), ("RCLONE_CONFIG_S_PROVIDER", "Minio")])
        .envs([("RCLONE_CONFIG_S_ENDPOINT", &*minio.endpoint), ("RCLONE_CONFIG_S_ENV_AUTH", "true")])
        .envs([("RCLONE_CONFIG_S_NO_CHECK_BUCKET", "true"), ("RCLONE_CONFIG", "")])
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let start = Instant::now();
    match command.status() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
        Ok(status) => {
            assert!(status.success(), "{command:?}: {status}");
            let took = start.elapsed();
            // What one tool has left to be written back is no burden of the next one.
            let _ = Command::new("sync").status();
            std::thread::sleep(Duration::from_millis(500));
            Ok(Some(took.as_secs_f64()))
        }
    }
}

fn large_file(folder: &Path, mebibytes: usize) -> std::io::Result<PathBuf> {
    let folder = folder.join("large");
    std::fs::create_dir(&folder)?;
    let mut file = std::fs::File::create(folder.join("weights.bin"))?;
    let mut random = Random(1);
    for _ in 0..mebibytes {
        file.write_all(&random.bytes(1 << 20))?;
    }
    Ok(folder)
}

fn small_files(folder: &Path, count: usize) -> std::io::Result<PathBuf> {
    let folder = folder.join("small");
    let mut random = Random(2);
    for number in 0..count {
        let part = folder.join(format!("{:03}", number / 100));
        std::fs::create_dir_all(&part)?;
        std::fs::write(part.join(format!("{number:06}.json")), random.bytes(4096))?;
    }
    Ok(folder)
}

/// xorshift: bytes that nobody can compress, the same each time.
struct Random(u64);

impl Random {
    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            bytes.extend_from_slice(&(mixed ^ (mixed >> 27)).to_le_bytes());
        }
        bytes.truncate(count);
        bytes
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
