//! What an image is made from, and the key of all that.

use std::collections::BTreeMap;

use serde_json::json;
use taskrun_engine::fingerprint::Digest;

use super::packer;
use super::settings::ImageSettings;
use super::source::SourceFile;
use crate::config::{DriverFlavour, DriverSource};

/// The scripts, by name.
pub const INSTALL: (&str, &str) = ("install.sh", include_str!("../../assets/images/install.sh"));
/// Installs the NVIDIA driver.
pub const DRIVER: (&str, &str) = ("install-driver.sh", include_str!("../../assets/images/install-driver.sh"));
/// Removes what clones would share.
pub const CLEAN_UP: (&str, &str) = ("clean-up.sh", include_str!("../../assets/images/clean-up.sh"));
/// Tells what is in an image.
pub const DESCRIBE: (&str, &str) = ("describe.sh", include_str!("../../assets/images/describe.sh"));
/// Runs scripts in a disk image that is not booted.
pub const NATIVE: (&str, &str) = ("native.sh", include_str!("../../assets/images/native.sh"));

/// The kernel's package: with the drivers of real devices, which may be passed through.
const KERNEL: &str = "linux-image-amd64";

/// What an image is made from.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// Its name: `cloud-base`.
    pub name: &'static str,
    /// What is built upon.
    pub source: SourceFile,
    /// The script that installs.
    pub install: (&'static str, &'static str),
    /// What that script is given.
    pub environment: BTreeMap<String, String>,
    /// The size of the image as a machine sees it, in bytes.
    pub virtual_size: u64,
}

impl Recipe {
    /// The image of every node.
    pub fn base(settings: &ImageSettings, source: SourceFile) -> Self {
        let environment = [("KERNEL", KERNEL.to_owned()), ("PACKAGES", settings.image.packages.join(" "))];
        Self {
            name: "cloud-base",
            source,
            install: INSTALL,
            environment: owned(environment),
            virtual_size: settings.virtual_size(),
        }
    }

    /// The image of GPU workers, upon that of every node.
    pub fn gpu_worker(settings: &ImageSettings, base: SourceFile) -> Self {
        let driver = settings.driver();
        let flavour = match driver.flavour {
            DriverFlavour::Open => "open",
            DriverFlavour::Proprietary => "proprietary",
        };
        let source = match driver.source {
            DriverSource::Debian => "debian",
            DriverSource::Nvidia => "nvidia",
        };
        let environment = [("SOURCE", source.to_owned()), ("FLAVOUR", flavour.to_owned()), ("PACKAGES", String::new())];
        Self {
            name: "cloud-gpu-worker",
            source: base,
            install: DRIVER,
            environment: owned(environment),
            virtual_size: settings.virtual_size(),
        }
    }

    /// An image that is there already, in place of that of every node.
    pub fn given(source: SourceFile) -> Self {
        Self { name: "cloud-base", source, install: ("", ""), environment: BTreeMap::new(), virtual_size: 0 }
    }

    /// The scripts that run inside the image, and the one that runs them natively.
    pub fn scripts(&self) -> [(&'static str, &'static str); 4] {
        [self.install, CLEAN_UP, DESCRIBE, NATIVE]
    }

    /// The key: another one means another image. Where the source comes from and which programs build it does not count.
    pub fn key(&self) -> Digest {
        Digest::of_json(&json!({
            "name": self.name,
            "source": self.source.checksum,
            "scripts": self.scripts(),
            "templates": [packer::TEMPLATE, packer::PLUGINS],
            "environment": self.environment,
            "virtual_size": self.virtual_size,
        }))
    }
}

fn owned<const N: usize>(pairs: [(&str, String); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::{Config, GpuDriverConfig};

    fn settings() -> ImageSettings {
        ImageSettings { kvm: true, gpu: true, ..ImageSettings::new(&Config::default()) }
    }

    fn source() -> SourceFile {
        let (path, origin) = ("/images/debian.qcow2".into(), "https://example.org/debian.qcow2".to_owned());
        SourceFile { path, origin, checksum: "sha256:00".to_owned() }
    }

    #[test]
    fn the_key_changes_with_each_input() {
        let with = |change: &dyn Fn(&mut ImageSettings)| {
            let mut settings = settings();
            change(&mut settings);
            settings
        };
        let base = |settings: &ImageSettings| Recipe::base(settings, source()).key();
        let gpu = |settings: &ImageSettings| Recipe::gpu_worker(settings, source()).key();
        let mut recipe = Recipe::base(&settings(), source());
        recipe.install.1 = "other";
        let keys = [
            base(&settings()),
            gpu(&settings()),
            recipe.key(),
            base(&with(&|settings| settings.image.packages.push("jq".to_owned()))),
            base(&with(&|settings| settings.image.size_gib += 1)),
            gpu(&with(&|settings| settings.image.size_gib += 1)),
            gpu(&with(&|settings| settings.image.gpu_driver.flavour = DriverFlavour::Proprietary)),
            gpu(&with(&|settings| settings.image.gpu_driver.source = DriverSource::Nvidia)),
            Recipe::base(&settings(), SourceFile { checksum: "sha256:01".to_owned(), ..source() }).key(),
        ];
        assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len());
    }

    #[test]
    fn the_key_changes_with_nothing_else() {
        let key = Recipe::base(&settings(), source()).key();
        let mut others = settings();
        others.kvm = false;
        others.gpu = false;
        others.image.headless = !others.image.headless;
        others.image.boot_minutes += 1;
        others.image.build_minutes += 1;
        others.image.gpu_driver = GpuDriverConfig { flavour: DriverFlavour::Proprietary, source: DriverSource::Nvidia };
        let elsewhere = SourceFile { path: "/elsewhere".into(), origin: "/elsewhere".to_owned(), ..source() };
        assert_eq!(Recipe::base(&others, elsewhere).key(), key);
    }
}
