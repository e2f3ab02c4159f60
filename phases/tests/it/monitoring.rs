//! Monitoring: what is scraped, what fires, who hears of it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use taskrun_phases::phase4::task_exporter;
use taskrun_phases::tools::ports::any_free;
use taskrun_phases::tools::prometheus::{Alert, Prometheus, Sample, alerts};

use crate::embedded::{CleanUp, json, stand};
use crate::program::{Stand, wait_for};

/// How long an alert may take to fire, to arrive and to resolve, with samples every three seconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// Ends a process when the test ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs `future` to its end.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// A monitoring that runs.
pub(crate) struct Watched {
    prometheus: Prometheus,
    alertmanager: String,
}

impl Watched {
    pub(crate) fn new(stand: &Stand) -> Self {
        let output = json(stand, &["output", "CLOUD-4.1", "--json"]);
        let prometheus = Prometheus::new(output["prometheus_url"].as_str().unwrap()).unwrap();
        Self { prometheus, alertmanager: output["alertmanager_url"].as_str().unwrap().to_owned() }
    }

    /// The series of an expression; none while Prometheus does not answer.
    pub(crate) fn query(&self, expression: &str) -> Vec<Sample> {
        block_on(self.prometheus.query(expression)).unwrap_or_default()
    }

    /// The alerts of this name at Alertmanager.
    pub(crate) fn firing(&self, name: &str) -> Vec<Alert> {
        let all = block_on(alerts(&self.alertmanager, None)).unwrap();
        all.into_iter().filter(|alert| alert.labels["alertname"] == name).collect()
    }

    /// Waits until `there` says so.
    pub(crate) fn wait(&self, what: &str, mut there: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !there(self) {
            assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

/// Takes what Alertmanager sends to a webhook.
fn webhook() -> (u16, Arc<Mutex<Vec<serde_json::Value>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, heard) = (listener.local_addr().unwrap().port(), Arc::new(Mutex::new(Vec::new())));
    let all = Arc::clone(&heard);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream);
            let (mut line, mut length) = (String::new(), 0);
            while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
                if let Some((name, value)) = line.split_once(": ")
                    && name.eq_ignore_ascii_case("content-length")
                {
                    length = value.trim().parse().unwrap();
                }
                line.clear();
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            all.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            reader.into_inner().write_all(answer).unwrap();
        }
    });
    (port, heard)
}

/// The body of a GET, with its status line.
fn get(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn the_journal_is_told_as_metrics_while_runs_go_on() {
    let stand = Stand::new(
        "version: 1\ntasks:\n  good: {run: 'true'}\n  bad: {run: 'exit 3'}\n  slow: {run: 'until [ -e go ]; do sleep 0.05; done'}\n",
    );
    let port = any_free().unwrap();
    let state = stand.state().display().to_string();
    let mut exporter = Command::new(env!("CARGO_BIN_EXE_taskrun"));
    exporter.args([task_exporter::VERB, &state, &port.to_string()]).stderr(Stdio::null());
    let _exporter = Running(exporter.spawn().unwrap());
    wait_for(|| TcpStream::connect(("127.0.0.1", port)).is_ok());

    // Before the first run there is nothing to tell.
    let before = get(port, "/metrics");
    assert!(before.starts_with("HTTP/1.0 200") && !before.contains("task=\""), "{before}");

    let mut run = stand.command(&["run", "--keep-going"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let says = |line: &str| get(port, "/metrics").lines().any(|present| present == line);
    wait_for(|| says("taskrun_task_state{task=\"slow\",state=\"running\"} 1") && says("taskrun_run_active 1.0"));
    std::fs::write(stand.path().join("go"), "").unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(1));

    let after = get(port, "/metrics");
    for line in [
        "taskrun_task_state{task=\"good\",state=\"succeeded\"} 1",
        "taskrun_task_state{task=\"good\",state=\"failed\"} 0",
        "taskrun_task_state{task=\"bad\",state=\"failed\"} 1",
        "taskrun_task_state{task=\"slow\",state=\"succeeded\"} 1",
        "taskrun_task_attempts{task=\"good\"} 1",
        "taskrun_run_active 0.0",
        "taskrun_run_number 1.0",
        "taskrun_run_exit_code 1.0",
    ] {
        assert!(after.lines().any(|present| present == line), "{line} is not in {after}");
    }
    assert!(after.contains("taskrun_task_duration_seconds{task=\"slow\"}"), "{after}");
    assert!(!after.contains("taskrun_task_duration_seconds{task=\"bad\"}"), "only a success has a duration: {after}");

    // A journal that cannot be read is said to be so, and is no reason to end.
    std::fs::write(stand.state().join("journal"), "no journal").unwrap();
    let damaged = get(port, "/metrics");
    assert!(damaged.starts_with("HTTP/1.0 503"), "{damaged}");
}

#[test]
#[ignore = "brings up Prometheus, Alertmanager, MinIO and PostgreSQL for real, and stops them: make e2e"]
fn a_stopped_service_fires_its_alert_which_arrives_and_resolves() {
    let (port, heard) = webhook();
    // The exporter takes two seconds to say that there is no database.
    let more = format!(
        "monitoring: {{interval: 3, alerts: {{hold: 1}}, receivers: {{webhook: 'http://127.0.0.1:{port}/'}}}}\n"
    );
    let (stand, state) = stand("taskrun-e2e-mon", &more);
    let _clean = CleanUp(&stand);
    stand.ok(&["run", "CLOUD-4.1", "CLOUD-3.1", "CLOUD-3.2"]);
    assert!(stand.ok(&["resume"]).err.contains("nothing to do"));

    // What came after it is scraped too, as itself and as a part of this cluster.
    let watched = Watched::new(&stand);
    for job in ["minio", "postgres", "prometheus", "alertmanager", "node", "taskrun"] {
        let up = format!("up{{job=\"{job}\", cluster=\"cloud\"}} == 1");
        watched.wait(&format!("{job} is up"), |watched| !watched.query(&up).is_empty());
    }
    watched.wait("the database is seen", |watched| !watched.query("pg_up == 1").is_empty());
    let settings = watched.query("pg_settings_max_connections");
    assert_eq!(settings.iter().map(Sample::value).collect::<Vec<_>>(), [100.0]);
    assert_eq!(watched.query("taskrun_task_state{task=\"CLOUD-3.2\", state=\"succeeded\"} == 1").len(), 1);
    let firing = block_on(alerts(&watched.alertmanager, None)).unwrap();
    let names: Vec<&str> = firing.iter().map(|alert| &*alert.labels["alertname"]).collect();
    assert_eq!(names, ["Watchdog"], "nothing else is wrong: {firing:?}");

    // A stopped service is told, and it alone; then that it is back.
    stand.ok(&["cloud", "stop", "minio"]);
    watched.wait("ServiceDown of minio", |watched| !watched.firing("ServiceDown").is_empty());
    let down: Vec<String> = watched.firing("ServiceDown").iter().map(|alert| alert.labels["job"].clone()).collect();
    assert_eq!(down, ["minio"]);
    let told = |status: &str, alert: &str| {
        let heard = heard.lock().unwrap();
        heard.iter().flat_map(|message| message["alerts"].as_array().unwrap()).any(|found| {
            found["status"] == status
                && found["labels"]["alertname"] == alert
                && found["annotations"]["action"].is_string()
        })
    };
    watched.wait("the webhook hears of it", |_| told("firing", "ServiceDown"));
    stand.ok(&["cloud", "start", "minio"]);
    watched.wait("ServiceDown resolves", |watched| watched.firing("ServiceDown").is_empty());
    watched.wait("the webhook hears of that", |_| told("resolved", "ServiceDown"));

    // A database that takes no connections is told by its exporter, which goes on.
    stand.ok(&["cloud", "stop", "postgres"]);
    watched.wait("DatabaseDown", |watched| !watched.firing("DatabaseDown").is_empty());
    assert!(watched.firing("ServiceDown").is_empty());
    stand.ok(&["cloud", "start", "postgres"]);
    watched.wait("DatabaseDown resolves", |watched| watched.firing("DatabaseDown").is_empty());
    assert!(!told("firing", "Watchdog"), "what always fires is nobody's business");

    // A changed threshold is taken over without a restart.
    let started = "process_start_time_seconds{job=\"prometheus\"}";
    let before: Vec<f64> = watched.query(started).iter().map(Sample::value).collect();
    change(&stand, "alerts: {hold: 1}", "alerts: {hold: 1, disk_free_percent: 100}");
    stand.ok(&["run", "CLOUD-4.1"]);
    watched.wait("DiskAlmostFull", |watched| !watched.firing("DiskAlmostFull").is_empty());
    assert_eq!(watched.query(started).iter().map(Sample::value).collect::<Vec<_>>(), before);

    // Samples that are gone are lost, and that is said.
    stand.ok(&["cloud", "stop", "prometheus"]);
    std::fs::remove_dir_all(state.join("services/prometheus/data")).unwrap();
    let refused = stand.run(&["run", "CLOUD-4.1"]);
    assert_eq!(refused.code, Some(1), "{}", refused.err);
    assert!(refused.err.contains("no samples") && refused.err.contains("--accept-data-loss"), "{}", refused.err);
    stand.ok(&["run", "CLOUD-4.1", "--accept-data-loss"]);

    // A rule that Prometheus does not take fails the task, and what runs goes on with the old ones.
    std::fs::write(state.join("services/prometheus/rules/broken.yml"), "groups: [{name: x, rules: [{}]}]\n").unwrap();
    let refused = stand.run(&["run", "CLOUD-4.1", "--force", "CLOUD-4.1"]);
    assert_eq!(refused.code, Some(1), "{}", refused.err);
    assert!(refused.err.contains("prometheus to take its configuration"), "{}", refused.err);
    assert_eq!(watched.query("vector(1)").len(), 1);
    std::fs::remove_file(state.join("services/prometheus/rules/broken.yml")).unwrap();
    stand.ok(&["resume"]);

    stand.ok(&["destroy", "CLOUD-4.1", "--yes"]);
    for gone in ["services/prometheus", "services/alertmanager", "runtime/prometheus", "targets/prometheus.json"] {
        assert!(!state.join(gone).exists(), "{gone} is left");
    }
    assert!(state.join("targets/minio.json").exists());
}

/// Writes the configuration with something else in the place of something.
fn change(stand: &Stand, from: &str, to: &str) {
    let file = stand.path().join("config.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains(from));
    std::fs::write(&file, text.replace(from, to)).unwrap();
}

#[test]
fn the_rules_name_only_what_is_tested() {
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/monitoring");
    let read = |name: &str| std::fs::read_to_string(assets.join(name)).unwrap();
    let (rules, tests) = (read("alerts.yml"), read("alerts_test.yml"));
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 10);
    for alert in alerts.iter().filter(|alert| **alert != "Watchdog") {
        assert!(tests.contains(&format!("alertname: {alert}\n")), "no unit test has {alert} fire");
    }
}
