//! What the controller works with: written by CLOUD-3.4, read at the controller's start.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::SERVICE;
use crate::outputs::{Accelerators, AccessKey, Machine, ModelRuntime, ObjectStore};

/// The surroundings of the controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setup {
    /// The machine.
    pub machine: Machine,
    /// The file with the secrets.
    pub secrets: PathBuf,
    /// What replicas run.
    pub runtime: ModelRuntime,
    /// The Python with PyTorch and transformers, which may not be there.
    pub causal_lm_python: PathBuf,
    /// Where models in buckets are.
    pub store: ObjectStore,
    /// The key of replicas.
    pub key: AccessKey,
    /// Where registered models are.
    pub tracking_url: String,
    /// The GPUs, if there are any.
    pub accelerators: Option<Accelerators>,
    /// The proxy's program.
    pub haproxy: PathBuf,
    /// Folders for LD_LIBRARY_PATH.
    pub libraries: Vec<PathBuf>,
}

impl Setup {
    /// The folder of what is wanted and what is.
    pub fn folder(&self) -> PathBuf {
        self.machine.home.join("serving")
    }

    /// The file of this.
    pub fn file(&self) -> PathBuf {
        self.folder().join("controller.json")
    }

    /// The folder of models that replicas have fetched; it belongs to the service user.
    pub fn models(&self) -> PathBuf {
        self.machine.service_dir(SERVICE).join("models")
    }

    /// The proxy's configuration.
    pub fn proxy_file(&self) -> PathBuf {
        self.machine.service_dir(super::PROXY).join("haproxy.cfg")
    }

    /// The folder of the socket of the proxy's runtime API.
    pub fn proxy_sockets(&self) -> PathBuf {
        self.machine.sockets.join("haproxy")
    }

    /// The value of LD_LIBRARY_PATH for the proxy.
    pub fn library_path(&self) -> String {
        self.libraries.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(":")
    }

    /// The address of all models.
    pub fn inference_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.machine.ports.inference)
    }

    /// The UUIDs of the devices, each as often as it has slots.
    pub(super) fn gpu_slots(&self) -> Vec<String> {
        self.accelerators.iter().flat_map(|all| all.slots().map(|(gpu, _)| gpu.uuid.clone())).collect()
    }

    /// The share of a device's memory that the holder of these slots may use: 0 without slots.
    pub(super) fn gpu_share(&self, held: &[String]) -> f64 {
        let Some(first) = held.first() else { return 0.0 };
        let devices = self.accelerators.iter().flat_map(|all| &all.devices);
        let slots = devices.filter(|gpu| gpu.uuid == *first).map(|gpu| gpu.slots).next().unwrap_or(1);
        let here = held.iter().filter(|uuid| *uuid == first).count();
        here as f64 / f64::from(slots)
    }
}

/// GPU slots for one more replica: `wanted` of `all` that are not in `held`, on as few devices as possible.
pub(super) fn allocate(all: &[String], held: &[String], wanted: u32) -> Option<Vec<String>> {
    let mut free = all.to_vec();
    for uuid in held {
        if let Some(at) = free.iter().position(|one| one == uuid) {
            free.remove(at);
        }
    }
    let wanted = wanted as usize;
    let of = |uuid: &String| free.iter().filter(|one| *one == uuid).count();
    // The fullest device that still has room leaves the emptier ones to who needs more.
    let best = free.iter().filter(|uuid| of(uuid) >= wanted).min_by_key(|uuid| of(uuid)).cloned();
    match best {
        _ if wanted == 0 => Some(Vec::new()),
        Some(uuid) => Some(vec![uuid; wanted]),
        None if free.len() >= wanted => {
            free.sort_by_key(|uuid| std::cmp::Reverse(all.iter().filter(|one| *one == uuid).count()));
            free.truncate(wanted);
            Some(free)
        }
        None => None,
    }
}

/// Reads the file of a setup.
///
/// # Errors
/// It cannot be read or understood.
pub(super) fn read(file: &Path) -> std::io::Result<Setup> {
    let named = |error: std::io::Error| std::io::Error::new(error.kind(), format!("{}: {error}", file.display()));
    serde_json::from_slice(&std::fs::read(file).map_err(named)?).map_err(|error| named(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uuids(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn slots_are_given_once_and_on_one_device_if_possible() {
        let all = uuids("a a a b b");
        assert_eq!(allocate(&all, &[], 0), Some(Vec::new()));
        // `b` is the smaller one: `a` still has room for three.
        assert_eq!(allocate(&all, &[], 2), Some(uuids("b b")));
        assert_eq!(allocate(&all, &uuids("b b"), 3), Some(uuids("a a a")));
        assert_eq!(allocate(&all, &uuids("a a b"), 2).map(|given| given.len()), Some(2));
        assert_eq!(allocate(&all, &uuids("a a b"), 3), None);
        assert_eq!(allocate(&[], &[], 1), None);
    }
}
