//! What is reached from other machines: nothing, or what the configuration exposes, by TLS and with a login.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::embedded::{CleanUp, stand};
use crate::program::Stand;

const UNTIL: [&str; 3] = ["run", "--until", "CLOUD-3.4"];

/// The status that a request is answered by.
fn status(args: &[&str], url: &str) -> String {
    let asked = Command::new("curl").args(["-s", "-o", "/dev/null", "-w", "%{http_code}"]).args(args).arg(url).output();
    String::from_utf8(asked.unwrap().stdout).unwrap()
}

fn password(state: &Path) -> String {
    let secrets: Value = serde_json::from_slice(&std::fs::read(state.join("secrets.json")).unwrap()).unwrap();
    secrets["secrets"]["gateway-password"]["value"].as_str().unwrap().to_owned()
}

fn configure(stand: &Stand, base: &str, more: &str) {
    std::fs::write(stand.path().join("config.yaml"), format!("{base}{more}")).unwrap();
}

#[test]
#[ignore = "brings up MLflow and the models' proxy for real: make e2e"]
fn other_machines_reach_what_is_exposed_and_nothing_else() {
    let (stand, state) = stand("taskrun-e2e-gate", "");
    let _clean = CleanUp(&stand);
    let base = std::fs::read_to_string(stand.path().join("config.yaml")).unwrap();
    stand.ok(&UNTIL);
    let url = stand.ok(&["output", "CLOUD-3.3", "tracking_url"]).out;
    let port = url.trim().rsplit(':').next().unwrap().to_owned();
    let exposed = format!("https://127.0.0.2:{port}/health");
    assert_eq!(status(&["-k"], &exposed), "000", "nothing is exposed");

    configure(&stand, &base, "expose: {address: 127.0.0.2, names: [cloud.test]}\n");
    let told = stand.ok(&UNTIL).err;
    assert!(told.contains(&format!("https://127.0.0.2:{port}")) && told.contains("gateway-password"), "{told}");
    let certificate = state.join("services/gateway/ca.pem").display().to_string();
    let login = format!("operator:{}", password(&state));
    let trusted = ["--cacert", &*certificate];
    assert_eq!(status(&trusted, &exposed), "401");
    assert_eq!(status(&[&trusted[..], &["-u", &login]].concat(), &exposed), "200");
    assert_eq!(status(&[&trusted[..], &["-u", "operator:wrong"]].concat(), &exposed), "401");
    // By its name, and not by plain HTTP.
    let resolve = format!("cloud.test:{port}:127.0.0.2");
    let named = format!("https://cloud.test:{port}/health");
    assert_eq!(status(&[&trusted[..], &["-u", &login, "--resolve", &resolve]].concat(), &named), "200");
    assert_eq!(status(&["-u", &login], &exposed.replace("https:", "http:")), "000");
    // Another site's page does not get in with the login that the browser knows.
    let search = format!("https://127.0.0.2:{port}/api/2.0/mlflow/experiments/search");
    let post = ["-u", &*login, "-H", "content-type: application/json", "-d", "{\"max_results\": 1}"];
    let of = |origin: &str| status(&[&trusted[..], &post[..], &["-H", &format!("Origin: {origin}")]].concat(), &search);
    assert_eq!(
        (of(&format!("https://127.0.0.2:{port}")), of("https://evil.test")),
        ("200".to_owned(), "403".to_owned())
    );
    // Whoever guesses waits.
    let guess = || status(&[&trusted[..], &["-u", "operator:guess"]].concat(), &exposed);
    assert!((0..60).any(|_| guess() == "429"));
    assert!(stand.ok(&UNTIL).err.contains("nothing to do"));

    // A certificate that cannot be used is told, and what was exposed stays.
    let empty = stand.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    let empty = empty.display();
    let tls = format!("expose: {{address: 127.0.0.2, tls: {{certificate: {empty}, key: {empty}}}}}\n");
    configure(&stand, &base, &tls);
    let refused = stand.run(&UNTIL);
    assert_eq!(refused.code, Some(1), "{}", refused.err);
    assert!(refused.err.contains("empty.pem") && refused.err.contains("expose.tls.certificate"), "{}", refused.err);
    assert_ne!(status(&trusted, &exposed), "000");

    // An address that this machine does not have.
    configure(&stand, &base, "expose: {address: 192.0.2.7}\n");
    let refused = stand.run(&UNTIL);
    assert_eq!(refused.code, Some(2), "{}", refused.err);
    assert!(refused.err.contains("192.0.2.7"), "{}", refused.err);

    configure(&stand, &base, "");
    stand.ok(&UNTIL);
    assert_eq!(status(&["-k"], &exposed), "000", "nothing is exposed any more");
    assert!(!state.join("services/gateway").exists());
}
