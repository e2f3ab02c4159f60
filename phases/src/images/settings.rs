//! What is wanted of images.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::{Checksum, Config, GpuDriverConfig, ImageConfig, ImageSource};

/// The folder of Debian's official cloud images.
const OFFICIAL: &str = "https://cloud.debian.org/images/cloud/trixie/latest";
/// The one that is built upon.
const OFFICIAL_NAME: &str = "debian-13-genericcloud-amd64.qcow2";
/// The checksums beside it.
const OFFICIAL_SUMS: &str = "SHA512SUMS";

/// What the tasks that build images read of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageSettings {
    /// What the configuration says of images.
    pub image: ImageConfig,
    /// Whether KVM is used where it works.
    pub kvm: bool,
    /// An image that nodes begin with in place of one that is built.
    pub given: Option<PathBuf>,
    /// Whether a worker of the cluster is a virtual machine with a GPU.
    pub gpu: bool,
}

/// What is built upon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The newest official image; its checksum is fetched as well.
    Official {
        /// Where it is fetched from.
        url: String,
        /// Where the checksums of all images of the folder are.
        sums: String,
    },
    /// It is fetched, and known.
    Url {
        /// Where it is fetched from.
        url: String,
        /// What it must be.
        checksum: Checksum,
    },
    /// It is here already.
    File(PathBuf),
}

impl ImageSettings {
    /// Those of a configuration.
    pub fn new(config: &Config) -> Self {
        let cluster = config.cluster();
        let gpu = cluster.as_ref().is_some_and(|cluster| cluster.virtual_machines().any(|(_, vm)| vm.has_gpu()));
        let virtualization = cluster.and_then(|cluster| cluster.virtualization);
        let kvm = virtualization.as_ref().is_none_or(|wanted| wanted.hardware.kvm);
        let given = virtualization.and_then(|wanted| wanted.base_image);
        Self { image: config.image(), kvm, given, gpu }
    }

    /// What is built upon.
    pub fn source(&self) -> Source {
        match self.image.source.as_ref().and_then(|source| source.source()) {
            Some(ImageSource::Url { url, checksum }) => Source::Url { url, checksum },
            Some(ImageSource::File(path)) => Source::File(path),
            None => Source::Official {
                url: format!("{OFFICIAL}/{OFFICIAL_NAME}"),
                sums: format!("{OFFICIAL}/{OFFICIAL_SUMS}"),
            },
        }
    }

    /// The size of images as a machine sees it, in bytes.
    pub fn virtual_size(&self) -> u64 {
        u64::from(self.image.size_gib) << 30
    }

    /// How long a machine may take from its start until it answers by SSH.
    pub fn boot_timeout(&self) -> Duration {
        Duration::from_secs(u64::from(self.image.boot_minutes) * 60)
    }

    /// How long building one image may take.
    pub fn build_timeout(&self) -> Duration {
        Duration::from_secs(u64::from(self.image.build_minutes) * 60)
    }

    /// The NVIDIA driver.
    pub fn driver(&self) -> GpuDriverConfig {
        self.image.gpu_driver
    }
}
