//! The exporters: services that tell Prometheus the figures of something else.

use std::collections::BTreeMap;
use std::path::Path;

use taskrun_engine::secret::SecretRef;

use super::task_exporter;
use crate::config::ExternalDatabaseConfig;
use crate::outputs::{Machine, MonitoringPrograms};
use crate::platform::{Health, Local, Metrics, SecretEnv, SecretFiles, Service};
use crate::tools::postgres::MONITORING_ROLE;

/// A service that tells metrics on a port.
pub(super) fn exporter(machine: &Machine, name: &str, port: u16, command: Vec<String>, health: Health) -> Service {
    Service {
        name: name.to_owned(),
        command,
        env: BTreeMap::new(),
        secret_env: BTreeMap::new(),
        secret_files: SecretFiles::default(),
        dir: machine.service_dir(name),
        endpoints: [("metrics".to_owned(), format!("http://127.0.0.1:{port}/metrics"))].into(),
        health,
        metrics: vec![Metrics::of_port(name, port)],
        login: None,
        stop_signal: "TERM".to_owned(),
        stop_seconds: 10,
    }
}

/// The exporter of PostgreSQL's figures; it waits for a database that is not there yet. `external` is one that is not this
/// environment's, and the password of its owner.
pub(super) fn postgres_exporter(
    name: &str,
    machine: &Machine,
    programs: &MonitoringPrograms,
    external: Option<(&ExternalDatabaseConfig, SecretRef)>,
) -> Service {
    let ports = machine.ports;
    let command = vec![
        programs.postgres_exporter.display().to_string(),
        format!("--web.listen-address=127.0.0.1:{}", ports.database_exporter),
    ];
    let socket = machine.sockets.join("postgres");
    let source = format!(
        "user={MONITORING_ROLE} host={} port={} dbname=postgres sslmode=disable",
        socket.display(),
        ports.database
    );
    let health = Health::Http(format!("http://127.0.0.1:{}", ports.database_exporter));
    let service = exporter(machine, name, ports.database_exporter, command, health);
    let service = Service { metrics: vec![Metrics::of_port("postgres", ports.database_exporter)], ..service };
    let variable = "DATA_SOURCE_NAME".to_owned();
    match external {
        None => Service { env: [(variable, source)].into(), ..service },
        Some((database, secret)) => {
            let source = SecretEnv { secret, template: Some(database.url()) };
            Service { secret_env: [(variable, source)].into(), ..service }
        }
    }
}

/// The exporter of the tasks' states: this very program.
pub(super) fn tasks_exporter(name: &str, machine: &Machine, local: &Local) -> Service {
    let port = machine.ports.task_exporter;
    let program = local.own_program().display().to_string();
    let home = machine.home.display().to_string();
    let command = vec![program, task_exporter::VERB.to_owned(), home, port.to_string()];
    let health = Health::Http(format!("http://127.0.0.1:{port}/metrics"));
    let service = exporter(machine, name, port, command, health);
    Service { metrics: vec![Metrics::of_port("taskrun", port)], ..service }
}

/// The file systems that are no disks: those that node exporter leaves out by itself, but for overlays.
const NO_DISKS: &str = "^(autofs|binfmt_misc|bpf|cgroup2?|configfs|debugfs|devpts|devtmpfs|fusectl|hugetlbfs|iso9660|mqueue|nsfs|proc|procfs|pstore|rpc_pipefs|securityfs|selinuxfs|squashfs|sysfs|tracefs)$";

/// A node exporter.
pub(crate) fn node_exporter(name: &str, port: u16, folder: &Path, programs: &MonitoringPrograms) -> Service {
    let url = format!("http://127.0.0.1:{port}");
    let mut command = vec![
        programs.node_exporter.display().to_string(),
        format!("--web.listen-address=127.0.0.1:{port}"),
        // Debian's looks for a folder of files and a system bus, which need not be there.
        "--no-collector.textfile".to_owned(),
        "--no-collector.systemd".to_owned(),
    ];
    // In a container the root is often an overlay, and there is no other disk; elsewhere overlays are other containers'.
    if nix::sys::statfs::statfs("/").is_ok_and(|root| root.filesystem_type() == nix::sys::statfs::OVERLAYFS_SUPER_MAGIC)
    {
        command.push(format!("--collector.filesystem.fs-types-exclude={NO_DISKS}"));
    }
    Service {
        name: name.to_owned(),
        command,
        env: BTreeMap::new(),
        secret_env: BTreeMap::new(),
        secret_files: SecretFiles::default(),
        dir: folder.to_owned(),
        endpoints: [("metrics".to_owned(), format!("{url}/metrics"))].into(),
        health: Health::Http(url),
        metrics: vec![Metrics::of_port("node", port)],
        login: None,
        stop_signal: "TERM".to_owned(),
        stop_seconds: 10,
    }
}
