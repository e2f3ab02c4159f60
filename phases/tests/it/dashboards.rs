//! Dashboards: what they show, and Grafana where it can be had.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::embedded::{CleanUp, json, stand};
use crate::program::{Stand, wait_for};

/// Packs the stand-in for Grafana as its makers do.
fn pack(folder: &Path) -> PathBuf {
    let (top, archive) = (folder.join("grafana-v0"), folder.join("grafana.tar.gz"));
    std::fs::create_dir_all(top.join("bin")).unwrap();
    std::fs::create_dir_all(top.join("public")).unwrap();
    let program = top.join("bin/grafana");
    std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/assets/grafana.py"), &program).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut tar = Command::new("tar");
    tar.args(["--create", "--gzip", "--file"]).arg(&archive).arg("--directory").arg(folder).arg("grafana-v0");
    assert!(tar.status().unwrap().success());
    archive
}

fn sha256(file: &Path) -> String {
    let told = Command::new("sha256sum").arg(file).output().unwrap().stdout;
    String::from_utf8(told).unwrap().split_whitespace().next().unwrap().to_owned()
}

/// Serves one file to everybody who asks.
fn serve(file: &Path) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, contents) = (listener.local_addr().unwrap().port(), std::fs::read(file).unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            let length = contents.len();
            let kind = "text/plain; version=0.0.4";
            let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n");
            write!(stream, "{head}Connection: close\r\n\r\n").unwrap();
            stream.write_all(&contents).unwrap();
        }
    });
    port
}

/// Says where Grafana is to be fetched from.
fn fetch_from(stand: &Stand, port: u16, sha256: &str) {
    let file = stand.path().join("config.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    let kept = text.lines().filter(|line| !line.starts_with("dashboards:")).collect::<Vec<_>>().join("\n");
    let archive = format!("{{url: 'http://127.0.0.1:{port}/grafana.tar.gz', sha256: '{sha256}'}}");
    std::fs::write(&file, format!("{kept}\ndashboards: {{archive: {archive}}}\n")).unwrap();
}

#[test]
#[ignore = "brings up the monitoring and what it shows for real: make e2e"]
fn grafana_is_fetched_and_checked_and_shows_the_dashboards() {
    let (stand, state) = stand("taskrun-e2e-dash", "monitoring: {interval: 2}\n");
    let _clean = CleanUp(&stand);
    let packed = tempfile::tempdir().unwrap();
    let archive = pack(packed.path());
    let port = serve(&archive);

    // Where it cannot be had the task is degraded, and what comes after it goes on.
    let nobody = { TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port() };
    fetch_from(&stand, nobody, &sha256(&archive));
    let degraded = stand.ok(&["run", "CLOUD-6.2"]);
    for expected in ["degraded CLOUD-4.2: Grafana: it could not be fetched", "tools.grafana", "--force CLOUD-4.2"] {
        assert!(degraded.err.contains(expected), "{expected} is not in {}", degraded.err);
    }
    for name in ["cluster", "gpu", "inference", "mlflow", "tasks", "sides"] {
        assert!(state.join("services/grafana/dashboards").join(name).with_extension("json").is_file(), "{name}");
    }

    // Another archive than the one that was asked for is not used.
    fetch_from(&stand, port, &"0".repeat(64));
    let degraded = stand.ok(&["run", "CLOUD-4.2"]);
    assert!(degraded.err.contains("find SHA-256 0000") && degraded.err.contains(&sha256(&archive)), "{}", degraded.err);
    assert!(!state.join("runtime/grafana").exists());

    // The right one is unpacked and runs; its proofs see the dashboards and the datasource.
    fetch_from(&stand, port, &sha256(&archive));
    let ran = stand.ok(&["run", "CLOUD-4.2"]);
    assert!(
        ran.err.contains("where Grafana runs, it has the dashboards") && !ran.err.contains("degraded"),
        "{}",
        ran.err
    );
    let output = json(&stand, &["output", "CLOUD-4.2", "--json"]);
    assert_eq!(output["uids"].as_array().unwrap().len(), 5);
    let opened = stand.ok(&["open", "grafana"]);
    assert_eq!(opened.out.trim(), output["grafana"]["url"].as_str().unwrap());
    assert!(opened.err.contains("user admin, password: taskrun secret show dashboards-password"), "{}", opened.err);

    // The figures of a busy NVIDIA H200, as this program's exporter told them, fill the panels that were empty.
    let empty = |stand: &Stand| stand.ok(&["logs", "CLOUD-4.2"]).out.contains("is empty: there is no GPU");
    assert!(empty(&stand));
    let figures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/assets/h200.metrics");
    let labels = "{\"job\": \"gpu\", \"service\": \"gpu-exporter\"}";
    let target = format!("[{{\"targets\": [\"127.0.0.1:{}\"], \"labels\": {labels}}}]", serve(&figures));
    std::fs::write(state.join("targets/gpu-exporter.json"), target).unwrap();
    let prometheus = stand.ok(&["open", "prometheus"]).out;
    let query = format!("{}/api/v1/query?query=DCGM_FI_DEV_GPU_UTIL", prometheus.trim().trim_end_matches('/'));
    wait_for(|| {
        let told = Command::new("curl").args(["--silent", &query]).output().unwrap().stdout;
        String::from_utf8_lossy(&told).contains("NVIDIA H200")
    });
    stand.ok(&["run", "CLOUD-4.2", "--force", "CLOUD-4.2"]);
    assert!(!empty(&stand), "{}", stand.ok(&["logs", "CLOUD-4.2"]).out);

    // A new password is taken over by a Grafana that has its own already.
    stand.ok(&["secret", "rotate", "dashboards-password"]);
    stand.ok(&["run", "CLOUD-4.2"]);
    stand.ok(&["destroy", "CLOUD-4.2", "--yes"]);
    for gone in ["services/grafana", "runtime/grafana", "targets/grafana.json"] {
        assert!(!state.join(gone).exists(), "{gone} is left");
    }
}

#[test]
#[ignore = "fetches Grafana's own types from PyPI: make e2e"]
fn grafanas_own_types_know_all_that_the_dashboards_say() {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    let environment = folder.path().join("env");
    let run = |command: &mut Command| {
        let done = command.output().unwrap();
        let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
        (done.status.success(), said)
    };
    let (made, said) = run(Command::new("python3").args(["-m", "venv"]).arg(&environment));
    assert!(made, "{said}");
    let python = environment.join("bin/python");
    let sdk = "grafana-foundation-sdk==1769699998!10.1.0";
    let (installed, said) = run(Command::new(&python).args(["-m", "pip", "install", "--quiet", sdk]));
    assert!(installed, "{said}");
    let check = |files: &[PathBuf]| {
        run(Command::new(&python).arg(crate_folder.join("tests/assets/dashboard_round_trip.py")).args(files))
    };
    let dashboards = std::fs::read_dir(crate_folder.join("assets/dashboards")).unwrap();
    let dashboards: Vec<PathBuf> = dashboards.map(|file| file.unwrap().path()).collect();
    assert_eq!(dashboards.len(), 6);
    let (known, said) = check(&dashboards);
    assert!(known, "{said}");

    // What they do not know is found.
    let text = std::fs::read_to_string(&dashboards[0]).unwrap();
    let misspelt = folder.path().join("misspelt.json");
    std::fs::write(&misspelt, text.replacen("\"legendFormat\"", "\"legendFormt\"", 1)).unwrap();
    let (known, said) = check(&[misspelt]);
    assert!(!known && said.contains("legendFormt"), "{said}");
}
