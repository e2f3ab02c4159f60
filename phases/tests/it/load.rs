//! `taskrun bench` against a second tool on the same address.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::program::Stand;

/// Requests a second, and for how many seconds.
const RATE: u32 = 100;
const SECONDS: u32 = 20;

/// A server whose answers take 10, 11, … 49 ms, in turn; its URL.
fn serve() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let turn = Arc::new(AtomicU64::new(0));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let turn = Arc::clone(&turn);
            std::thread::spawn(move || answer(stream, &turn));
        }
    });
    url
}

fn answer(mut stream: TcpStream, turn: &AtomicU64) {
    let _ = stream.set_nodelay(true);
    let (mut request, mut byte) = (Vec::new(), [0; 1024]);
    while let Ok(read @ 1..) = stream.read(&mut byte) {
        request.extend_from_slice(&byte[..read]);
        if request.ends_with(b"\r\n\r\n") {
            request.clear();
            std::thread::sleep(Duration::from_millis(10 + turn.fetch_add(1, Ordering::Relaxed) % 40));
            if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_err() {
                return;
            }
        }
    }
}

/// Rate, and the 50th, 95th and 99th percentile of the latency in milliseconds.
type Told = [f64; 4];

fn ours(stand: &Stand, url: &str) -> Told {
    let (rate, duration) = (RATE.to_string(), format!("{SECONDS}s"));
    let args = ["bench", "--url", url, "--rate", &rate, "--duration", &duration, "--arrivals", "constant", "--json"];
    let report: Value = serde_json::from_str(&stand.ok(&args).out).unwrap();
    let figure = |path: &str| report.pointer(path).and_then(Value::as_f64).unwrap();
    ["/rate", "/latency/p50", "/latency/p95", "/latency/p99"].map(|path| figure(&format!("/figures{path}")))
}

fn vegeta(program: &Path, url: &str) -> Told {
    let attack = [&format!("-rate={RATE}"), &format!("-duration={SECONDS}s"), "-timeout=5s"].map(String::from);
    let mut attack =
        Command::new(program).arg("attack").args(attack).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    attack.stdin.take().unwrap().write_all(format!("GET {url}\n").as_bytes()).unwrap();
    let report = Command::new(program).args(["report", "-type=json"]).stdin(attack.stdout.take().unwrap()).output();
    assert!(attack.wait().unwrap().success());
    let report: Value = serde_json::from_slice(&report.unwrap().stdout).unwrap();
    let figure = |path: &str| report.pointer(path).and_then(Value::as_f64).unwrap();
    let latency = |percentile: &str| figure(&format!("/latencies/{percentile}")) / 1e6;
    [figure("/rate"), latency("50th"), latency("95th"), latency("99th")]
}

#[test]
#[ignore = "builds vegeta with the Go on PATH, and wants a quiet machine: make e2e"]
fn a_second_tool_finds_the_same_figures() {
    let folder = tempfile::tempdir().unwrap();
    let built = Command::new("go")
        .args(["install", "github.com/tsenart/vegeta/v12@v12.12.0"])
        .env("GOBIN", folder.path())
        .env("GOFLAGS", "-modcacherw")
        .output();
    let Ok(built) = built else {
        #[expect(clippy::print_stderr, reason = "a skipped test has to say so")]
        {
            eprintln!("SKIPPED: there is no Go on PATH");
        }
        return;
    };
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let stand = Stand::new("{version: 1, tasks: {a: {run: 'true'}}}");
    let url = serve();
    // Somebody else may have used the machine: the nearest of three pairs counts.
    let mut worst = f64::INFINITY;
    let mut pairs = Vec::new();
    for _ in 0..3 {
        let pair = (ours(&stand, &url), vegeta(&folder.path().join("vegeta"), &url));
        let apart = pair.0.iter().zip(&pair.1).map(|(one, other)| (one / other - 1.0).abs()).fold(0.0, f64::max);
        pairs.push(pair);
        worst = worst.min(apart);
        if worst <= 0.05 {
            return;
        }
    }
    panic!("rate, P50, P95, P99 are {:.1} % apart: {pairs:?}", worst * 100.0);
}
