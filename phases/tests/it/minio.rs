//! An object store of a test's own.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The root key.
pub(crate) const KEY: (&str, &str) = ("taskrun-test", "taskrun-test-secret");

/// The region that requests are signed for.
pub(crate) const REGION: &str = "us-east-1";

/// A MinIO server with a folder of its own; it ends with the value.
pub(crate) struct Minio {
    /// Where it answers.
    pub(crate) endpoint: String,
    /// Where its objects are.
    pub(crate) data: PathBuf,
    /// Host and port.
    pub(crate) address: String,
    /// The process.
    pub(crate) server: Child,
}

impl Minio {
    /// Starts a server on `data` and waits until it serves.
    pub(crate) fn start(data: PathBuf) -> Self {
        // Someone else may take the port before the server does: then another one is tried.
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let address = format!("127.0.0.1:{port}");
            let server = spawn(&data, &address);
            let mut minio = Self { endpoint: format!("http://{address}"), data: data.clone(), address, server };
            if minio.serves() {
                return minio;
            }
        }
        panic!("MinIO does not start");
    }

    /// Waits until it serves; it does not if it ends.
    pub(crate) fn serves(&mut self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            if self.server.try_wait().unwrap().is_some() {
                return false;
            }
            if ready(&self.address) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        false
    }
}

impl Drop for Minio {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Whether its health endpoint answers well.
fn ready(address: &str) -> bool {
    use std::io::{Read as _, Write as _};
    let Ok(mut stream) = std::net::TcpStream::connect(address) else { return false };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
    let request = format!("GET /minio/health/ready HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let mut answer = [0; 16];
    stream.write_all(request.as_bytes()).is_ok()
        && stream.read(&mut answer).is_ok()
        && answer.starts_with(b"HTTP/1.1 200")
}

/// Starts a server on `data`.
pub(crate) fn spawn(data: &std::path::Path, address: &str) -> Child {
    std::fs::create_dir_all(data).unwrap();
    Command::new(program())
        .args(["server", "--quiet", "--address", address])
        .arg(data)
        .env("MINIO_ROOT_USER", KEY.0)
        .env("MINIO_ROOT_PASSWORD", KEY.1)
        .env("MINIO_BROWSER", "off")
        .env("MINIO_UPDATE", "off")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The server that CLOUD-1.1 has built on this machine.
fn program() -> PathBuf {
    let cache = std::env::var_os("TASKRUN_CACHE_DIR").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/taskrun"))).unwrap();
    let version = taskrun_phases::tools::go_build::MINIO.version;
    let path = cache.join("minio").join(version).join("minio");
    assert!(path.exists(), "there is no {}: build it by `taskrun run --until CLOUD-1.1`", path.display());
    path
}
