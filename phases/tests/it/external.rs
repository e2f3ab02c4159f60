//! Servers that are there already, on another machine: PostgreSQL and MinIO, both with TLS.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::backup::{backup, models, send};
use crate::embedded::{CleanUp, json, stand};
use crate::other_host::{Certificate, OtherHost};
use crate::program::{Stand, wait_for};

/// The owner of the database, and the password, which has all that URLs and SQL hold special.
const USER: &str = "tracking";
const PASSWORD: &str = "p:a/s@s%'w ö&rd";

/// The key of the object store.
const KEY: (&str, &str) = ("external-key", "external-key-secret");

/// Who the servers run as.
const NOBODY: &str = "--reuid=65534";

/// PostgreSQL and MinIO on another machine.
struct Servers {
    host: OtherHost,
    ca: PathBuf,
    bin: PathBuf,
    folder: PathBuf,
}

impl Servers {
    fn start(stand: &Stand) -> Self {
        let runtime: Value = json(stand, &["output", "CLOUD-1.1"]);
        let program = |pointer: &str| PathBuf::from(runtime.pointer(pointer).unwrap().as_str().unwrap());
        let (bin, minio) = (program("/postgres/bin"), program("/minio/path"));
        let folder = stand.path().join("elsewhere");
        let certs = folder.join("certs");
        fs::create_dir_all(&certs).unwrap();
        let host = OtherHost::new();
        let Certificate { key, certificate, ca } = host.certificate(&folder);
        fs::copy(&key, certs.join("private.key")).unwrap();
        fs::copy(&certificate, certs.join("public.crt")).unwrap();
        give(&folder);
        let mut servers = Self { host, ca, bin, folder };
        let data = servers.folder.join("data");
        servers.as_nobody("initdb", &["--username=postgres", "--auth=trust", "--pgdata", text(&data)]);
        let hba = format!(
            "local all postgres trust\nhostssl {USER} {USER} all scram-sha-256\nhostssl other {USER} all scram-sha-256\n\
             hostssl nowhere {USER} all scram-sha-256\n"
        );
        fs::write(data.join("pg_hba.conf"), hba).unwrap();
        let settings = [
            format!("listen_addresses={}", servers.host.address),
            format!("unix_socket_directories={}", servers.folder.display()),
            "ssl=on".to_owned(),
            format!("ssl_key_file={}", key.display()),
            format!("ssl_cert_file={}", certificate.display()),
        ];
        let postgres = servers.bin.join("postgres").display().to_string();
        let mut args: Vec<String> =
            [NOBODY, "--regid=65534", "--clear-groups", &postgres, "-D", text(&data)].map(str::to_owned).to_vec();
        args.extend(settings.iter().flat_map(|setting| ["-c".to_owned(), setting.clone()]));
        servers.host.start(Path::new("setpriv"), &args, &[]);
        let ready = servers.bin.join("pg_isready");
        let asked = ["-q", "-h", text(&servers.folder)];
        wait_for(|| servers.host.command(&ready).args(asked).status().unwrap().success());
        servers.sql("postgres", &format!("CREATE ROLE {USER} LOGIN PASSWORD '{}'", PASSWORD.replace('\'', "''")));
        // It may log in to this one, and make nothing in it.
        servers.sql("postgres", "CREATE DATABASE other");
        servers.sql("other", "REVOKE CREATE ON SCHEMA public FROM PUBLIC");

        let address = format!("{}:9000", servers.host.address);
        let args = ["server", "--quiet", "--certs-dir", text(&certs), "--address", &address];
        let args =
            args.iter().map(|arg| (*arg).to_owned()).chain([servers.folder.join("objects").display().to_string()]);
        let variables = [("MINIO_ROOT_USER", KEY.0), ("MINIO_ROOT_PASSWORD", KEY.1), ("MINIO_UPDATE", "off")];
        servers.host.start(&minio, &args.collect::<Vec<_>>(), &variables);
        wait_for(|| servers.host.listens(9000));
        servers
    }

    /// Runs one of PostgreSQL's programs there; what it prints.
    fn as_nobody(&self, program: &str, args: &[&str]) -> String {
        let mut command = self.host.command(Path::new("setpriv"));
        command.args([NOBODY, "--regid=65534", "--clear-groups"]).arg(self.bin.join(program)).args(args);
        let ran = command.current_dir("/").output().unwrap();
        assert!(ran.status.success(), "{program}: {}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8(ran.stdout).unwrap().trim().to_owned()
    }

    fn sql(&self, database: &str, statement: &str) -> String {
        let socket = text(&self.folder);
        self.as_nobody("psql", &["-X", "-At", "-h", socket, "-U", "postgres", "-d", database, "-c", statement])
    }

    fn database(&self, name: &str, ca: &Path) -> String {
        let fields = format!("host: {}, name: {name}, user: {USER}, password: db", self.host.address);
        format!("database: {{{fields}, ca: {}}}", ca.display())
    }

    fn objects(&self) -> String {
        let fields = format!("endpoint: 'https://{}:9000', access_key: {}, secret_key: s3", self.host.address, KEY.0);
        format!("object_store: {{{fields}, ca: {}}}", self.ca.display())
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Gives a folder to the user of the servers, who alone reads keys.
fn give(folder: &Path) {
    use std::os::unix::fs::{PermissionsExt as _, chown};
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            give(&path);
        } else {
            chown(&path, Some(65534), Some(65534)).unwrap();
            let mode = if path.ends_with("ca.pem") { 0o644 } else { 0o600 };
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
    }
    chown(folder, Some(65534), Some(65534)).unwrap();
}

/// Adds to the configuration, in place of what was added before.
fn configure(stand: &Stand, plain: &str, more: &[String]) {
    let external = more.iter().map(|part| format!("  {part}\n")).collect::<String>();
    let secrets = "secrets: {db: {file: db.secret}, s3: {file: s3.secret}}\n";
    fs::write(stand.path().join("config.yaml"), format!("{plain}external:\n{external}{secrets}")).unwrap();
}

fn fails(stand: &Stand, code: i32, told: &[&str]) {
    let said = stand.run(&["run", "--until", "CLOUD-3.3"]);
    assert_eq!(said.code, Some(code), "{}", said.err);
    for words in told {
        assert!(said.err.contains(words), "`{words}` is not said: {}", said.err);
    }
}

#[test]
#[ignore = "makes a network of its own (root), and in it a PostgreSQL and a MinIO; then MLflow for real: make e2e"]
fn servers_of_ones_own_are_used_and_left_as_they_are() {
    let (stand, state) = stand("taskrun-e2e-ext", "");
    let _clean = CleanUp(&stand);
    let plain = fs::read_to_string(stand.path().join("config.yaml")).unwrap();
    // First with the servers of the environment, and data in them.
    stand.ok(&["run", "--until", "CLOUD-3.3"]);
    send(&stand, "tiny", 4);
    let backups = stand.path().join("backups");
    let taken = backup(&stand, &backups);

    let servers = Servers::start(&stand);
    let secret = |name: &str, value: &str| fs::write(stand.path().join(name), value).unwrap();
    secret("s3.secret", KEY.1);
    secret("db.secret", PASSWORD);

    // Each thing that may be wrong is told with its remedy, before anything is touched.
    let ca = servers.ca.clone();
    configure(&stand, &plain, &[servers.database("nowhere", &ca)]);
    fails(&stand, 2, &["database \"nowhere\" does not exist", "CREATE DATABASE \"nowhere\" OWNER \"tracking\""]);
    let other_ca = stand.path().join("other.pem");
    fs::write(&other_ca, "no certificate").unwrap();
    configure(&stand, &plain, &[servers.database(USER, &other_ca)]);
    fails(&stand, 2, &["read the certificates in", "there is none in it"]);
    configure(&stand, &plain, &[servers.database(USER, &stand.path().join("gone.pem"))]);
    fails(&stand, 2, &["external.database.ca: there is no"]);
    let stranger = OtherHost::new();
    let strange = stand.path().join("strange");
    fs::create_dir(&strange).unwrap();
    let strange_ca = stranger.certificate(&strange).ca;
    drop(stranger);
    configure(&stand, &plain, &[servers.database(USER, &strange_ca)]);
    fails(&stand, 2, &["use the database at", "invalid peer certificate", "that vouches for its certificate as `ca`"]);
    secret("db.secret", "wrong-password");
    configure(&stand, &plain, &[servers.database(USER, &ca)]);
    fails(&stand, 2, &["password authentication failed", "correct the secret `db`"]);
    secret("db.secret", PASSWORD);
    configure(&stand, &plain, &[servers.database("other", &ca)]);
    fails(&stand, 1, &["may make tables and schemas in other: it may not", "ALTER DATABASE"]);
    servers.sql("postgres", &format!("CREATE DATABASE {USER} OWNER {USER}"));
    secret("s3.secret", "wrong-key-secret");
    configure(&stand, &plain, &[servers.database(USER, &ca), servers.objects()]);
    fails(&stand, 1, &["correct the secret `s3` of the key external-key"]);
    secret("s3.secret", KEY.1);

    // Everything right: they take the place of the others, empty at first, and get the data by a backup.
    stand.ok(&["run", "--until", "CLOUD-3.3"]);
    let status = json(&stand, &["cloud", "status", "--json"]);
    let services: Vec<&String> = status["services"].as_object().unwrap().keys().collect();
    assert_eq!(services, ["mlflow"]);
    assert!(models(&stand).is_empty());
    stand.ok(&["restore", text(&taken)]);
    assert_eq!(models(&stand), ["tiny"]);
    let rows = || servers.sql(USER, "SELECT count(*) FROM registered_models");
    assert_eq!(rows(), "1");
    send(&stand, "more", 2);
    assert_eq!(rows(), "2");
    backup(&stand, &backups);
    let kept = stand.run(&["run", "--until", "CLOUD-3.3"]);
    assert!(kept.code == Some(0) && kept.err.contains("nothing to do"), "{}", kept.err);
    let proved = stand.run(&["test", "deployment"]);
    let both = proved.out + &proved.err;
    assert!(both.contains("rows survive dump and restore") && both.contains(" 0 failed"), "{both}");

    // The network goes away and comes back.
    servers.host.link("down");
    let down = stand.run(&["resume"]);
    assert!(down.code != Some(0) && down.err.contains(&servers.host.address), "{:?} {}", down.code, down.err);
    servers.host.link("up");
    wait_for(|| servers.host.listens(5432));
    stand.ok(&["resume"]);
    assert_eq!(models(&stand).len(), 2);

    // No password is told, and destroying takes nothing of theirs away.
    for value in [PASSWORD, KEY.1, "p%3Aa"] {
        let search = ["-rlF", "--exclude-dir=runtime", value];
        let files = std::process::Command::new("grep").args(search).arg(&state).output().unwrap().stdout;
        let files = String::from_utf8(files).unwrap();
        assert!(files.lines().all(|file| file.ends_with("/secrets.json")), "{files}");
    }
    let said = stand.ok(&["destroy", "--yes"]);
    assert!(said.err.contains("stays as it is") && said.err.contains("stay as they are"), "{}", said.err);
    assert_eq!(rows(), "2");
    assert!(servers.folder.join("objects/models").is_dir());
    assert_eq!(servers.sql(USER, "SELECT count(*) FROM pg_namespace WHERE nspname = 'taskrun_proof'"), "0");
}

/// A Prometheus and an Alertmanager on this machine that somebody else has set up, with a login.
struct TheirMonitoring {
    folder: PathBuf,
    ports: [u16; 2],
    processes: Vec<std::process::Child>,
}

impl Drop for TheirMonitoring {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// The password of their login, and how they know it.
const LOGIN: &str = "hpc-password-1";
const BCRYPT: &str = "$2b$10$abcdefghijklmnopqrstuujJwhtFWdUgggMiLSWcxjfmxFid.1WkG";

impl TheirMonitoring {
    fn start(stand: &Stand) -> Self {
        let outputs = json(stand, &["output", "CLOUD-4.1"]);
        let program = |name: &str| outputs["programs"][name].as_str().unwrap().to_owned();
        let folder = stand.path().join("theirs");
        fs::create_dir(&folder).unwrap();
        let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut theirs = Self { folder, ports: [free(), free()], processes: Vec::new() };
        let path = |name: &str| theirs.folder.join(name).display().to_string();
        fs::write(path("web.yml"), format!("basic_auth_users: {{reader: '{BCRYPT}'}}\n")).unwrap();
        let alertmanager = "route: {receiver: none}\nreceivers: [{name: none}]\n";
        fs::write(path("alertmanager.yml"), alertmanager).unwrap();
        theirs.configure("");
        give(&theirs.folder);
        let [prometheus, alerts] = theirs.ports;
        let servers = [
            vec![
                program("prometheus"),
                format!("--config.file={}", path("prometheus.yml")),
                format!("--web.config.file={}", path("web.yml")),
                format!("--storage.tsdb.path={}", path("data")),
                format!("--web.listen-address=127.0.0.1:{prometheus}"),
            ],
            vec![
                program("alertmanager"),
                format!("--config.file={}", path("alertmanager.yml")),
                format!("--web.config.file={}", path("web.yml")),
                format!("--storage.path={}", path("alerts")),
                format!("--web.listen-address=127.0.0.1:{alerts}"),
                "--cluster.listen-address=".to_owned(),
            ],
        ];
        for command in servers {
            let mut process = std::process::Command::new("setpriv");
            process.args([NOBODY, "--regid=65534", "--clear-groups"]).args(command).current_dir("/");
            let quiet = std::process::Stdio::null;
            theirs.processes.push(process.stdout(quiet()).stderr(quiet()).spawn().unwrap());
        }
        for port in theirs.ports {
            wait_for(|| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        }
        theirs
    }

    /// Their own configuration, with rules and jobs added.
    fn configure(&self, more: &str) {
        let login = format!("basic_auth: {{username: reader, password: {LOGIN}}}");
        let config = format!(
            "global: {{scrape_interval: 2s, evaluation_interval: 2s}}\n\
             alerting: {{alertmanagers: [{{{login}, static_configs: [{{targets: ['127.0.0.1:{}']}}]}}]}}\n{more}",
            self.ports[1]
        );
        fs::write(self.folder.join("prometheus.yml"), config).unwrap();
    }

    fn reload(&self) {
        let pid = nix::unistd::Pid::from_raw(self.processes[0].id().try_into().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::SIGHUP).unwrap();
    }
}

#[test]
#[ignore = "brings up the monitoring for real, and then a Prometheus and an Alertmanager of its own: make e2e"]
fn a_prometheus_of_ones_own_is_told_what_to_do() {
    let (stand, state) = stand("taskrun-e2e-prom", "monitoring: {interval: 2}\n");
    let _clean = CleanUp(&stand);
    let plain = fs::read_to_string(stand.path().join("config.yaml")).unwrap();
    stand.ok(&["run", "CLOUD-4.1"]);
    let theirs = TheirMonitoring::start(&stand);
    let configure = |password: &str| {
        let [prometheus, alerts] = theirs.ports.map(|port| format!("http://127.0.0.1:{port}"));
        let login = "login: {user: reader, password: prom}";
        let external = format!("external: {{prometheus: {{url: '{prometheus}', alertmanager: '{alerts}', {login}}}}}");
        let secrets = "secrets: {prom: {file: prom.secret}}";
        fs::write(stand.path().join("prom.secret"), password).unwrap();
        fs::write(stand.path().join("config.yaml"), format!("{plain}{external}\n{secrets}\n")).unwrap();
    };
    let fails = |words: &[&str]| {
        let said = stand.run(&["run", "CLOUD-4.1"]);
        assert_eq!(said.code, Some(1), "{}", said.err);
        for words in words {
            assert!(said.err.contains(words), "`{words}` is not said: {}", said.err);
        }
    };
    configure("not-their-password");
    fails(&["401", "Unauthorized"]);
    // What they have to add is told, with its place.
    configure(LOGIN);
    let file = state.join("services/prometheus/prometheus.yml");
    fails(&["rules in", "add to its configuration the `rule_files`", text(&file), "systemctl reload"]);

    // They add it, and are asked to let it be read.
    let whole = fs::read_to_string(&file).unwrap();
    let rules = whole.lines().find(|line| line.starts_with("rule_files:")).unwrap();
    let jobs = &whole[whole.find("scrape_configs:").unwrap()..];
    theirs.configure(&format!("{rules}\n{jobs}"));
    fails(&["the Prometheus to take the rules"]);
    theirs.reload();
    stand.ok(&["run", "CLOUD-4.1"]);
    let status = json(&stand, &["cloud", "status", "--json"]);
    let services = status["services"].as_object().unwrap();
    assert!(!services.contains_key("prometheus") && !services.contains_key("alertmanager"), "{services:?}");
    assert!(services.contains_key("node-exporter"));
    let kept = stand.run(&["run", "CLOUD-4.1"]);
    assert!(kept.code == Some(0) && kept.err.contains("nothing to do"), "{}", kept.err);

    // Another threshold is not taken for granted.
    let config = fs::read_to_string(stand.path().join("config.yaml")).unwrap();
    let other =
        config.replace("monitoring: {interval: 2}", "monitoring: {interval: 2, alerts: {disk_free_percent: 7}}");
    fs::write(stand.path().join("config.yaml"), other).unwrap();
    std::thread::sleep(std::time::Duration::from_secs(1));
    fails(&["it has not read", "since it was changed"]);
    theirs.reload();
    stand.ok(&["resume"]);

    stand.ok(&["destroy", "--yes"]);
    for port in theirs.ports {
        assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    }
}
