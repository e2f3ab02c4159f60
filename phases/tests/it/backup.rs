//! `taskrun backup` and `taskrun restore` with real servers, and upgrades with data in them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::embedded::{CleanUp, json, stand};
use crate::program::{Said, Stand};

/// A stand with MLflow, in which there is a model with its file.
fn with_a_model(user: &str, more: &str) -> (Stand, PathBuf) {
    let (stand, state) = stand(user, more);
    stand.ok(&["run", "--until", "CLOUD-3.3"]);
    send(&stand, "tiny", 8);
    (stand, state)
}

/// Sends a model with files of that many MiB together.
pub(crate) fn send(stand: &Stand, name: &str, mib: usize) {
    let folder = stand.path().join(name);
    std::fs::create_dir(&folder).unwrap();
    for part in 0..mib {
        let bytes: Vec<u8> = (0..1 << 20).map(|at| ((at * 31 + part * 7) % 251) as u8).collect();
        std::fs::write(folder.join(format!("{part}.bin")), bytes).unwrap();
    }
    stand.ok(&["model", "sync", name]);
}

pub(crate) fn models(stand: &Stand) -> Vec<String> {
    let url = stand.ok(&["output", "CLOUD-3.3", "tracking_url"]).out;
    let url = format!("{}/api/2.0/mlflow/registered-models/search", url.trim());
    let answer = Command::new("curl").args(["-sf", &url]).output().unwrap();
    let answer: Value = serde_json::from_slice(&answer.stdout).unwrap();
    let models = answer["registered_models"].as_array().cloned().unwrap_or_default();
    models.iter().map(|model| model["name"].as_str().unwrap().to_owned()).collect()
}

pub(crate) fn backup(stand: &Stand, folder: &Path) -> PathBuf {
    let taken: Value = serde_json::from_str(&stand.ok(&["backup", text(folder), "--json"]).out).unwrap();
    PathBuf::from(taken["folder"].as_str().unwrap())
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn refused(stand: &Stand, args: &[&str], code: i32) -> String {
    let Said { err, code: found, .. } = stand.run(args);
    assert_eq!(found, Some(code), "{err}");
    err
}

/// The whole backups, and what else is in the folder.
fn entries(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name != ".lock").collect();
    names.sort();
    names
}

fn flip_a_byte(file: &Path) -> impl FnOnce() {
    let whole = std::fs::read(file).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    std::fs::write(file, flipped).unwrap();
    let file = file.to_owned();
    move || std::fs::write(file, whole).unwrap()
}

fn first_object(backup: &Path) -> PathBuf {
    let folder = std::fs::read_dir(backup.join("objects")).unwrap().next().unwrap().unwrap().path();
    std::fs::read_dir(folder).unwrap().next().unwrap().unwrap().path()
}

#[test]
#[ignore = "brings up MinIO, PostgreSQL and MLflow for real: make e2e"]
fn a_backup_brings_everything_back_on_a_fresh_state_folder() {
    let (stand, state) = with_a_model("taskrun-e2e-backup", "");
    let _clean = CleanUp(&stand);
    let folder = stand.path().join("backups");
    let whole = backup(&stand, &folder);
    assert!(stand.ok(&["restore", text(&whole), "--check"]).out.contains("is whole"));
    let err = refused(&stand, &["restore", text(&whole)], 1);
    assert!(err.contains("not empty") && err.contains("--replace"), "{err}");

    // The second one links what the first has.
    let second = backup(&stand, &folder);
    let of = |backup: &Path| std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(backup).unwrap());
    let object = first_object(&whole);
    assert_eq!(of(&object), of(&second.join(object.strip_prefix(&whole).unwrap())));

    // Damage is found before anything is changed.
    let damaged = [first_object(&whole), whole.join("database.dump"), whole.join("manifest.json")];
    for file in damaged {
        let mend = flip_a_byte(&file);
        let err = refused(&stand, &["restore", text(&whole), "--replace"], 1);
        assert!(err.contains("damaged") && err.contains(file.file_name().unwrap().to_str().unwrap()), "{err}");
        mend();
    }
    let err = refused(&stand, &["restore", text(&folder)], 2);
    assert!(err.contains("manifest.json"), "{err}");

    // What came after the backup goes with --replace.
    send(&stand, "later", 1);
    assert_eq!(models(&stand), ["later", "tiny"]);
    stand.ok(&["restore", text(&whole), "--replace"]);
    assert_eq!(models(&stand), ["tiny"]);
    let data = state.join("services/minio/data/models");
    assert!(data.join("tiny").exists() && !data.join("later/0.bin").exists());

    // Everything is lost; the restore is killed, and goes on without another word.
    stand.ok(&["destroy", "--yes"]);
    assert!(!state.join("services").exists());
    let err = refused(&stand, &["backup", text(&folder)], 1);
    assert!(err.contains("taskrun run --until CLOUD-3.3"), "{err}");
    stand.ok(&["run", "--until", "CLOUD-3.3"]);
    assert!(models(&stand).is_empty());
    for moment in [60, 250, 600] {
        let mut restore = stand.command(&["restore", text(&whole)]);
        let mut restore = restore.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(moment));
        restore.kill().unwrap();
        restore.wait().unwrap();
    }
    let said = stand.ok(&["restore", text(&whole)]);
    assert!(said.out.contains("all compared"), "{}", said.out);
    assert_eq!(models(&stand), ["tiny"]);
    let verified = json(&stand, &["model", "sync", "tiny", "--verify", "--json"]);
    assert_eq!((&verified["sent_bytes"], &verified["registered"]["new"]), (&0.into(), &false.into()));
    let again = stand.ok(&["run", "--until", "CLOUD-3.3"]);
    assert!(again.err.contains("nothing to do"), "{}", again.err);
}

#[test]
#[ignore = "brings up MinIO, PostgreSQL and MLflow for real, and mounts a small disk: make e2e"]
fn a_backup_that_fails_is_no_backup() {
    let (stand, state) = with_a_model("taskrun-e2e-backup-2", "");
    let _clean = CleanUp(&stand);
    let folder = stand.path().join("backups");
    std::fs::create_dir(&folder).unwrap();

    // Killed in the middle.
    for moment in [30, 120, 200] {
        let mut taking = stand.command(&["backup", text(&folder)]);
        let mut taking = taking.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(moment));
        taking.kill().unwrap();
        let ended = taking.wait().unwrap().success();
        assert!(ended || entries(&folder).iter().all(|name| name.starts_with('.')), "{:?}", entries(&folder));
    }
    let whole = backup(&stand, &folder);
    assert!(entries(&folder).iter().all(|name| !name.starts_with('.')), "what was begun is gone");
    assert!(whole.starts_with(&folder));
    // A machine may be quicker than the kill.
    let all = entries(&folder);

    // On a full disk.
    let small = stand.path().join("small");
    std::fs::create_dir(&small).unwrap();
    let mount = format!("mount -t tmpfs -o size=3m tmpfs {0} && exec \"$@\"", small.display());
    let taking = stand.command(&["backup", text(&small)]);
    let mut child = Command::new("unshare");
    child.args(["--mount", "sh", "-c", &mount, "sh"]).arg(taking.get_program()).args(taking.get_args());
    for (name, value) in taking.get_envs() {
        match value {
            Some(value) => child.env(name, value),
            None => child.env_remove(name),
        };
    }
    let output = child.current_dir(stand.path()).output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("No space left") && err.contains("make room"), "{err}");

    // With a database that does not know the password, and with none.
    let port = json(&stand, &["output", "CLOUD-3.2", "port", "--json"]).as_u64().unwrap();
    psql(&state, port, "postgres", "ALTER ROLE mlflow PASSWORD 'another'");
    let err = refused(&stand, &["backup", text(&folder)], 1);
    assert!(err.contains("password authentication failed"), "{err}");
    stand.ok(&["run", "--until", "CLOUD-3.3", "--force", "CLOUD-3.2"]);
    stand.ok(&["cloud", "stop", "postgres"]);
    let err = refused(&stand, &["backup", text(&folder)], 1);
    assert!(err.contains("taskrun cloud status"), "{err}");
    stand.ok(&["cloud", "stop", "minio"]);
    stand.ok(&["cloud", "start", "postgres"]);
    let err = refused(&stand, &["backup", text(&folder)], 1);
    assert!(err.contains("taskrun cloud status"), "{err}");
    let nobody = refused(&stand, &["backup", "/proc/nowhere"], 1);
    assert!(nobody.contains("/proc/nowhere"), "{nobody}");
    assert_eq!(entries(&folder).into_iter().filter(|name| !name.starts_with('.')).collect::<Vec<_>>(), all);
}

fn psql(state: &Path, port: u64, database: &str, statement: &str) -> String {
    let socket = state.join("run/postgres").display().to_string();
    let psql = Command::new("psql")
        .args(["-h", &socket, "-p", &port.to_string(), "-U", "postgres", "-d", database, "-Atqc", statement])
        .output()
        .unwrap();
    assert!(psql.status.success(), "{}", String::from_utf8_lossy(&psql.stderr));
    String::from_utf8(psql.stdout).unwrap().trim().to_owned()
}

#[test]
#[ignore = "brings up MinIO, PostgreSQL and MLflow for real, and fetches an older MLflow: make e2e"]
fn the_schema_of_an_older_mlflow_is_upgraded_only_with_a_backup() {
    let (stand, state) = with_a_model("taskrun-e2e-schema", "");
    let _clean = CleanUp(&stand);
    let port = json(&stand, &["output", "CLOUD-3.2", "port", "--json"]).as_u64().unwrap();
    let schema = |stand: &Stand| {
        stand.ok(&["output", "CLOUD-3.3", "version"]);
        psql(&state, port, "mlflow", "SELECT version_num FROM alembic_version")
    };
    let newest = schema(&stand);

    // The database as an older MLflow has left it, with an experiment in it.
    stand.ok(&["cloud", "stop", "mlflow"]);
    psql(&state, port, "postgres", "DROP DATABASE mlflow WITH (FORCE)");
    psql(&state, port, "postgres", "CREATE DATABASE mlflow OWNER mlflow");
    for extension in ["uuid-ossp", "pg_stat_statements"] {
        psql(&state, port, "mlflow", &format!("CREATE EXTENSION \"{extension}\""));
    }
    let older = stand.path().join("older");
    uv(&stand, &["venv", "--quiet", text(&older)]);
    let python = older.join("bin/python");
    uv(
        &stand,
        &["pip", "install", "--quiet", "--python", text(&python), "mlflow-skinny==2.22.1", "sqlalchemy<2.1", "alembic"],
    );
    uv(
        &stand,
        &["pip", "install", "--quiet", "--python", text(&python), "mlflow==2.22.1", "psycopg2-binary", "setuptools<81"],
    );
    let secrets = std::fs::read(state.join("secrets.json")).unwrap();
    let secrets: Value = serde_json::from_slice(&secrets).unwrap();
    let password = secrets["secrets"]["database-password"]["value"].as_str().unwrap();
    let script =
        "import mlflow, os; mlflow.set_tracking_uri(os.environ['URI']); mlflow.create_experiment('from before')";
    let ran = Command::new(&python)
        .args(["-c", script])
        .env("URI", format!("postgresql://mlflow:{password}@127.0.0.1:{port}/mlflow"))
        .current_dir(stand.path())
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let before = psql(&state, port, "mlflow", "SELECT version_num FROM alembic_version");
    assert_ne!(before, newest);

    let err = refused(&stand, &["run", "--until", "CLOUD-3.3", "--force", "CLOUD-3.3"], 1);
    assert!(err.contains("there is no backup of it") && err.contains("taskrun backup FOLDER"), "{err}");
    assert!(err.contains(&before) && err.contains(&newest), "{err}");
    assert_eq!(psql(&state, port, "mlflow", "SELECT version_num FROM alembic_version"), before, "nothing was changed");

    let whole = backup(&stand, &stand.path().join("backups"));
    stand.ok(&["resume"]);
    assert_eq!(schema(&stand), newest);
    let kept = "SELECT count(*) FROM experiments WHERE name = 'from before'";
    assert_eq!(psql(&state, port, "mlflow", kept), "1");

    // And back, and up again.
    let told = stand.ok(&["restore", text(&whole), "--replace"]).err;
    assert!(told.contains("taskrun resume"), "{told}");
    stand.ok(&["resume"]);
    assert_eq!((schema(&stand), psql(&state, port, "mlflow", kept)), (newest, "1".to_owned()));
}

/// Runs the `uv` that the product uses.
fn uv(stand: &Stand, args: &[&str]) {
    let uv = json(stand, &["output", "CLOUD-1.1", "uv", "--json"]);
    let ran = Command::new(uv["path"].as_str().unwrap()).args(args).env_remove("VIRTUAL_ENV").output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

/// The programs of PostgreSQL 16, as a package of Python brings them.
fn postgres_16(stand: &Stand, folder: &Path) -> PathBuf {
    uv(stand, &["pip", "install", "--quiet", "--no-deps", "--target", text(folder), "pgserver==0.1.4"]);
    // The service user reads them.
    let ran = Command::new("chmod").args(["-R", "a+rX", text(folder)]).status().unwrap();
    assert!(ran.success());
    folder.join("pgserver/pginstall/bin")
}

#[test]
#[ignore = "brings up MinIO, PostgreSQL 15 and MLflow for real, and fetches PostgreSQL 16: make e2e"]
fn the_data_of_an_older_postgresql_is_upgraded_only_with_a_backup() {
    if !Path::new("/usr/lib/postgresql/15/bin/postgres").exists() {
        #[expect(clippy::print_stderr, reason = "a skipped test has to say so")]
        {
            eprintln!("SKIPPED: PostgreSQL 15 is not installed here");
        }
        return;
    }
    let (stand, state) = with_a_model("taskrun-e2e-pg", "database: {extensions: []}\n");
    let _clean = CleanUp(&stand);
    let port = json(&stand, &["output", "CLOUD-3.2", "port", "--json"]).as_u64().unwrap();
    let newer = postgres_16(&stand, &stand.path().join("newer"));
    let config = std::fs::read_to_string(stand.path().join("config.yaml")).unwrap();
    let with_16 = format!("{config}tools: {{postgres: {}}}\n", newer.display());
    std::fs::write(stand.path().join("config.yaml"), &with_16).unwrap();

    let err = refused(&stand, &["run", "--until", "CLOUD-3.3"], 1);
    assert!(err.contains("PostgreSQL 15") && err.contains("there is no backup of it"), "{err}");
    assert_eq!(models(&stand), ["tiny"], "the older one serves on");

    backup(&stand, &stand.path().join("backups"));
    // A server that was killed leaves work in its log.
    let pid = std::fs::read_to_string(state.join("services/postgres/data/postmaster.pid")).unwrap();
    crate::embedded::kill(pid.lines().next().unwrap().parse().unwrap());
    stand.ok(&["resume"]);
    assert_eq!(psql(&state, port, "mlflow", "SHOW server_version"), "16.2");
    assert_eq!(models(&stand), ["tiny"]);
    let older = std::fs::read_to_string(state.join("services/postgres/data.15/PG_VERSION")).unwrap();
    assert_eq!(older.trim(), "15");
    let verified = json(&stand, &["model", "sync", "tiny", "--verify", "--json"]);
    assert_eq!((&verified["sent_bytes"], &verified["registered"]["new"]), (&0.into(), &false.into()));

    // There is no way down.
    std::fs::write(stand.path().join("config.yaml"), &config).unwrap();
    let err = refused(&stand, &["run", "--until", "CLOUD-3.3"], 1);
    assert!(err.contains("data of version 16") && err.contains("tools.postgres"), "{err}");
    std::fs::write(stand.path().join("config.yaml"), &with_16).unwrap();
    stand.ok(&["run", "--until", "CLOUD-3.3"]);
    assert_eq!(models(&stand), ["tiny"]);
}
