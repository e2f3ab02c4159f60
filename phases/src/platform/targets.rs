//! What Prometheus scrapes: a file of targets for each service, in the format of its file-based service discovery
//! (<https://prometheus.io/docs/prometheus/latest/configuration/configuration/#file_sd_config>).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use taskrun_engine::outcome::Failure;

use super::service::{Metrics, Service};
use crate::tools::files;

/// The folder of the files, in the state folder. Prometheus watches it.
pub fn folder(home: &Path) -> PathBuf {
    home.join("targets")
}

/// Writes the targets of a service below `home`; Prometheus sees the old ones or the new ones, and never a part.
pub(crate) fn write(home: &Path, service: &Service) -> Result<(), Failure> {
    if service.metrics.is_empty() {
        return remove(home, &service.name);
    }
    let (folder, file) = (folder(home), file(home, &service.name));
    let targets = service.metrics.iter().map(|metrics| target(&service.name, metrics)).collect::<Value>();
    let new = file.with_extension("new");
    // Whatever the umask: Prometheus reads them as the service user.
    let readable = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
    fs::create_dir_all(&folder)
        .and_then(|()| readable(&folder, 0o755))
        .map_err(|error| files::failure("make", &folder, &error))?;
    fs::write(&new, format!("{targets:#}\n"))
        .and_then(|()| readable(&new, 0o644))
        .and_then(|()| fs::rename(&new, &file))
        .map_err(|error| files::failure("write", &file, &error))
}

/// Removes the targets of a service; that there are none is fine.
pub(super) fn remove(home: &Path, name: &str) -> Result<(), Failure> {
    files::remove(&file(home, name))
}

fn file(home: &Path, name: &str) -> PathBuf {
    folder(home).join(format!("{name}.json"))
}

fn target(service: &str, metrics: &Metrics) -> Value {
    let mut labels = json!({"job": metrics.job, "service": service, "__metrics_path__": metrics.path});
    for (name, value) in &metrics.labels {
        labels[name] = json!(value);
    }
    json!({"targets": [metrics.address], "labels": labels})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_names_job_service_and_path() {
        let metrics = Metrics::of_port("minio", 9000).at("/minio/v2/metrics/cluster");
        let expected = json!({
            "targets": ["127.0.0.1:9000"],
            "labels": {"job": "minio", "service": "minio", "__metrics_path__": "/minio/v2/metrics/cluster"}
        });
        assert_eq!(target("minio", &metrics), expected);
    }
}
