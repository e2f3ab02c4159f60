//! Model serving with real servers: scaled, rolled, killed, broken, taken away, while requests come.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::embedded::{CleanUp, json, kill, pid_of, stand};
use crate::program::{Said, Stand};

/// How long anything may take here, on a machine that other tests share.
const PATIENCE: Duration = Duration::from_secs(120);

/// Clients that ask one model again and again, as fast as it answers.
struct Load {
    stop: Arc<AtomicBool>,
    tally: Arc<Mutex<Tally>>,
    clients: Vec<std::thread::JoinHandle<()>>,
}

/// What the clients were told.
#[derive(Debug, Default, Clone)]
struct Tally {
    /// How often each answer came: models differ in theirs.
    answers: BTreeMap<String, u32>,
    failures: Vec<String>,
}

impl Load {
    fn start(url: &str, clients: usize) -> Self {
        let (stop, tally) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Tally::default())));
        let client = |_| {
            let (stop, tally, url) = (Arc::clone(&stop), Arc::clone(&tally), url.to_owned());
            std::thread::spawn(move || ask_until(&stop, &tally, &url))
        };
        let clients = (0..clients).map(client).collect();
        Self { stop, tally, clients }
    }

    fn tally(&self) -> Tally {
        self.tally.lock().unwrap().clone()
    }

    fn end(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.into_iter().for_each(|client| client.join().unwrap());
        Arc::into_inner(self.tally).unwrap().into_inner().unwrap()
    }
}

fn ask_until(stop: &AtomicBool, tally: &Mutex<Tally>, url: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
    let body = json!({"inputs": [{"name": "x", "datatype": "FP64", "shape": [1, 4], "data": [5.1, 3.5, 1.4, 0.2]}]});
    let ask = || async {
        let answer = http.post(url).json(&body).send().await.map_err(|error| format!("{error:?}"))?;
        let (status, text) = (answer.status(), answer.text().await.map_err(|error| format!("{error:?}"))?);
        let told: Value = serde_json::from_str(&text).map_err(|_| format!("{status}: {text}"))?;
        told.pointer("/outputs/0/data/0").map(Value::to_string).ok_or(format!("{status}: {text}"))
    };
    while !stop.load(Ordering::Relaxed) {
        let said = runtime.block_on(ask());
        let mut tally = tally.lock().unwrap();
        match said {
            Ok(answer) => *tally.answers.entry(answer).or_default() += 1,
            Err(failure) => tally.failures.push(failure),
        }
    }
}

fn wait_for(what: &str, mut there: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !there() {
        assert!(begin.elapsed() < PATIENCE, "{what} never came");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The state of a model.
fn model(stand: &Stand, name: &str) -> Value {
    let models = json(stand, &["model", "list", "--json"]);
    models["models"].as_array().unwrap().iter().find(|one| one["service"]["name"] == name).cloned().unwrap_or_default()
}

fn reason(model: &Value) -> &str {
    model["conditions"][0]["reason"].as_str().unwrap_or_default()
}

/// Trains the classifier of the proof with the runtime's own script; the URI of what MLflow keeps.
fn train(stand: &Stand, variant: u32) -> String {
    let runtime = json(stand, &["output", "CLOUD-1.2", "--json"]);
    let text = |field: &str| runtime[field].as_str().unwrap().to_owned();
    let output = Command::new(Path::new(&text("environment")).join("bin/python"))
        .args(["-I", &format!("{}/iris.py", text("server")), "irises", &variant.to_string()])
        .env("MLFLOW_TRACKING_URI", stand.run(&["output", "CLOUD-3.3", "tracking_url"]).out.trim())
        .env("HOME", stand.path())
        .current_dir(stand.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // MLflow itself says something too.
    let told = String::from_utf8(output.stdout).unwrap();
    let told: Value = serde_json::from_str(told.lines().last().unwrap()).unwrap();
    told["uri"].as_str().unwrap().to_owned()
}

/// The value of a metric of the controller, for a model.
fn metric(stand: &Stand, name: &str) -> f64 {
    let url = stand.run(&["output", "CLOUD-3.4", "controller_metrics_url"]).out.trim().to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let text = runtime.block_on(async { reqwest::get(&url).await.unwrap().text().await.unwrap() });
    let line = text.lines().find(|line| line.starts_with(&format!("{name}{{model=\"iris\"")));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).rsplit(' ').next().unwrap().parse().unwrap()
}

fn deploy(stand: &Stand, uri: &str, more: &[&str]) -> Said {
    let args = ["model", "deploy", "iris", uri, "--max", "3", "--target-concurrency", "2", "--stable-window", "10s"];
    stand.run(&[&args[..], more].concat())
}

#[test]
#[ignore = "brings up MinIO, PostgreSQL, MLflow and model serving for real: make e2e"]
fn models_are_served_whatever_happens() {
    let (stand, state) = stand("taskrun-e2e-serve", "");
    let _clean = CleanUp(&stand);
    stand.ok(&["run", "CLOUD-3.4"]);
    let (first, second) = (train(&stand, 1), train(&stand, 50));
    assert_eq!(deploy(&stand, &first, &[]).code, Some(0));
    let address = stand.run(&["output", "CLOUD-3.4", "inference_url"]).out.trim().to_owned();
    let url = format!("{address}/v2/models/iris/infer");

    // More load is more replicas, less is fewer, and no request is lost on the way.
    let load = Load::start(&url, 6);
    wait_for("the third replica", || model(&stand, "iris")["ready"] == 3);
    assert_eq!(metric(&stand, "taskrun_serving_replicas_desired"), 3.0);
    let told = load.end();
    assert_eq!((told.answers.len(), &told.failures), (1, &vec![]), "{told:?}");
    wait_for("the last replica to be alone", || {
        let model = model(&stand, "iris");
        model["ready"] == 1 && model["desired"] == 1
    });
    assert!(metric(&stand, "taskrun_serving_scale_events_total") >= 1.0);

    // Another version takes over without a gap, also when the controller dies again and again meanwhile.
    let load = Load::start(&url, 2);
    assert_eq!(deploy(&stand, &second, &["--no-wait"]).code, Some(0));
    for _ in 0..4 {
        std::thread::sleep(Duration::from_millis(1700));
        kill(pid_of(&stand, "inference-controller"));
    }
    wait_for("the second revision", || {
        let model = model(&stand, "iris");
        model["revision"] == 2 && reason(&model) == "Serving"
    });
    wait_for("its answers", || load.tally().answers.len() == 2);
    wait_for("the end of the first", || {
        !json(&stand, &["cloud", "status", "--json"]).to_string().contains("model-iris-1-")
    });
    let told = load.end();
    assert_eq!((told.answers.len(), &told.failures), (2, &vec![]), "{told:?}");

    // What a killed replica did not answer is answered by another one.
    assert_eq!(deploy(&stand, &second, &["--min", "2"]).code, Some(0));
    wait_for("two replicas", || model(&stand, "iris")["ready"].as_u64() >= Some(2));
    let load = Load::start(&url, 2);
    let services = json(&stand, &["cloud", "status", "--json"])["services"].clone();
    let replica = services.as_object().unwrap().keys().find(|name| name.starts_with("model-iris-")).unwrap().clone();
    kill(pid_of(&stand, &replica));
    wait_for("the killed replica to be missed", || model(&stand, "iris")["ready"].as_u64() < Some(2));
    wait_for("the killed replica to be back", || model(&stand, "iris")["ready"].as_u64() >= Some(2));
    let told = load.end();
    assert_eq!(told.failures, Vec::<String>::new());

    // A killed proxy is back soon, with the replicas as they were.
    let before = pid_of(&stand, "inference-proxy");
    kill(before);
    let begin = Instant::now();
    let load = Load::start(&url, 1);
    wait_for("an answer", || !load.tally().answers.is_empty());
    assert!(begin.elapsed() < Duration::from_secs(20), "the proxy was away for {:?}", begin.elapsed());
    load.end();

    // A version that is not there is told as such, and the old one goes on.
    let refused = deploy(&stand, "models:/no-such-model/1", &["--min", "2"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains("ModelLoadFailed") && refused.err.contains("no-such-model"), "{}", refused.err);
    assert_eq!(reason(&model(&stand, "iris")), "ModelLoadFailed");
    std::fs::write(stand.path().join("rows.json"), "[[5.1, 3.5, 1.4, 0.2]]").unwrap();
    let answer = stand.ok(&["model", "predict", "iris", "rows.json"]).out;
    assert!(answer.contains("\"datatype\":\"FP64\""), "{answer}");

    // A name that nobody has, and a GPU that is not there.
    let unknown = stand.run(&["model", "predict", "no-such", "rows.json"]);
    assert!(unknown.code == Some(2) && unknown.err.contains("there are: iris"), "{}", unknown.err);
    let gpu = deploy(&stand, &first, &["--gpu-slots", "1"]);
    assert!(gpu.code == Some(2) && gpu.err.contains("need 3, and there are 0"), "{}", gpu.err);

    // Nothing is left of a deleted model.
    stand.ok(&["model", "delete", "iris"]);
    let there = ["-name", "runtime", "-prune", "-o", "-name", "*iris-*", "-print"];
    let left = Command::new("find").arg(&state).args(there).output().unwrap().stdout;
    assert_eq!(String::from_utf8_lossy(&left), "");
    assert!(!json(&stand, &["cloud", "status", "--json"]).to_string().contains("model-iris"));

    // And nothing of serving, if it is taken away with a model on it.
    assert_eq!(deploy(&stand, &first, &[]).code, Some(0));
    stand.ok(&["destroy", "--yes", "CLOUD-3.4"]);
    let marks =
        format!("grep -lE 'TASKRUN_SERVICE={}/(model-|inference-)' /proc/[0-9]*/environ 2>/dev/null", state.display());
    let marked = Command::new("sh").args(["-c", &marks]).output().unwrap().stdout;
    assert!(marked.is_empty(), "{}", String::from_utf8_lossy(&marked));
    assert!(!state.join("serving").exists() && !state.join("services/serving").exists());
}
