//! The disk images that virtual machines begin with.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use taskrun_engine::graph::Fault;

/// How the disk images of CLOUD-1.1 and CLOUD-1.2 are built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ImageConfig {
    /// The cloud image of Debian 13 that is built upon; by default the official one.
    pub source: Option<ImageSourceConfig>,
    /// Debian packages that are installed besides those that every node needs; none by default.
    pub packages: Vec<String>,
    /// The size of the image as a machine sees it, in GiB: 4 to 1024, 10 by default. Disks of machines are made of it and
    /// may be larger, not smaller.
    #[schemars(range(min = 4, max = 1024))]
    pub size_gib: u32,
    /// Whether building shows no window; true by default.
    pub headless: bool,
    /// How long the machine that an image is built in may take from its start until it answers by SSH, in minutes: 1 to
    /// 240, 20 by default, which is enough where processors are emulated.
    #[schemars(range(min = 1, max = 240))]
    pub boot_minutes: u32,
    /// How long building one image may take, in minutes: 5 to 1440, 120 by default.
    #[schemars(range(min = 5, max = 1440))]
    pub build_minutes: u32,
    /// The NVIDIA driver in the image of GPU workers.
    pub gpu_driver: GpuDriverConfig,
}

/// A disk image to build upon: either `url` with one checksum, or `path`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ImageSourceConfig {
    /// Where it is fetched from, by http or https.
    pub url: Option<String>,
    /// The SHA-256 of what is fetched, 64 hexadecimal digits.
    pub sha256: Option<String>,
    /// The SHA-512 of what is fetched, 128 hexadecimal digits.
    pub sha512: Option<String>,
    /// A qcow2 image that is here already; an absolute path.
    pub path: Option<PathBuf>,
}

/// The NVIDIA driver in the image of GPU workers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GpuDriverConfig {
    /// The kernel modules; `open` by default.
    pub flavour: DriverFlavour,
    /// Who packaged it; `debian` by default.
    pub source: DriverSource,
}

/// The kernel modules of the NVIDIA driver.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DriverFlavour {
    /// The open ones: for GPUs of the generation Turing (2018) and newer.
    #[default]
    Open,
    /// The proprietary ones: for older GPUs.
    Proprietary,
}

/// Who packaged the NVIDIA driver.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DriverSource {
    /// Debian, in its section non-free.
    #[default]
    Debian,
    /// NVIDIA, in its own package repository.
    Nvidia,
}

/// What an image is built upon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageSource {
    /// It is fetched.
    Url {
        /// From where.
        url: String,
        /// What it must be.
        checksum: Checksum,
    },
    /// It is here already.
    File(PathBuf),
}

/// The checksum of a file, in lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checksum {
    /// SHA-256.
    Sha256(String),
    /// SHA-512.
    Sha512(String),
}

impl Default for ImageConfig {
    fn default() -> Self {
        Self {
            source: None,
            packages: Vec::new(),
            size_gib: 10,
            headless: true,
            boot_minutes: 20,
            build_minutes: 120,
            gpu_driver: GpuDriverConfig::default(),
        }
    }
}

impl ImageSourceConfig {
    /// What is meant; nothing if it does not say, which is a fault.
    pub fn source(&self) -> Option<ImageSource> {
        match (&self.url, &self.path, &self.sha256, &self.sha512) {
            (None, Some(path), None, None) => Some(ImageSource::File(path.clone())),
            (Some(url), None, sha256, sha512) => {
                let sha256 = sha256.as_ref().map(|digits| Checksum::Sha256(digits.to_ascii_lowercase()));
                let sha512 = sha512.as_ref().map(|digits| Checksum::Sha512(digits.to_ascii_lowercase()));
                let checksum = match (sha256, sha512) {
                    (Some(checksum), None) | (None, Some(checksum)) => checksum,
                    _ => return None,
                };
                Some(ImageSource::Url { url: url.clone(), checksum })
            }
            _ => None,
        }
    }

    fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        if self.source().is_none() {
            let message = "it is either `url` with one of `sha256` and `sha512`, or `path` alone";
            faults.push(("", message.to_owned()));
        }
        if let Some(url) = &self.url
            && !url::Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https"))
        {
            faults.push(("url", "it is not a URL that begins with http:// or https://".to_owned()));
        }
        for (field, digits, length) in [("sha256", &self.sha256, 64), ("sha512", &self.sha512, 128)] {
            if let Some(digits) = digits
                && (digits.len() != length || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
            {
                faults.push((field, format!("it is not {length} hexadecimal digits")));
            }
        }
        if self.path.as_ref().is_some_and(|path| !path.is_absolute()) {
            faults.push(("path", "it is not an absolute path".to_owned()));
        }
        faults
    }
}

impl ImageConfig {
    /// What is wrong with it; paths begin behind `image`.
    pub(super) fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        for (field, value, least, most) in [
            ("size_gib", self.size_gib, 4, 1024),
            ("boot_minutes", self.boot_minutes, 1, 240),
            ("build_minutes", self.build_minutes, 5, 1440),
        ] {
            if !(least..=most).contains(&value) {
                faults.push(Fault::new([field], format!("{value} is not between {least} and {most}")));
            }
        }
        for (at, name) in self.packages.iter().enumerate().filter(|(_, name)| !is_package(name)) {
            faults.push(Fault::new(["packages", &at.to_string()], format!("`{name}` is not the name of a package")));
        }
        for (field, message) in self.source.iter().flat_map(ImageSourceConfig::faults) {
            let path = ["source", field].into_iter().filter(|part| !part.is_empty());
            faults.push(Fault::new(path, message));
        }
        faults
    }
}

/// The names that Debian's policy allows.
fn is_package(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() >= 2 && name.starts_with(plain) && name.chars().all(|c| plain(c) || matches!(c, '+' | '-' | '.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(source: ImageSourceConfig) -> String {
        let image = ImageConfig { source: Some(source), ..ImageConfig::default() };
        image.faults().into_iter().map(|fault| fault.path.join(".")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_source_is_one_of_two() {
        let url = Some("https://images.example.org/debian.qcow2".to_owned());
        let (short, long) = (Some("AB".repeat(32)), Some("cd".repeat(64)));
        let source = |url: &Option<String>, sha256: &Option<String>, sha512: &Option<String>, path: Option<&str>| {
            let (url, sha256, sha512) = (url.clone(), sha256.clone(), sha512.clone());
            ImageSourceConfig { url, sha256, sha512, path: path.map(PathBuf::from) }
        };
        let fetched = source(&url, &short, &None, None);
        assert_eq!(told(fetched.clone()), "");
        let checksum = Checksum::Sha256("ab".repeat(32));
        assert_eq!(fetched.source(), Some(ImageSource::Url { url: url.clone().unwrap(), checksum }));
        assert_eq!(told(source(&url, &None, &long, None)), "");
        assert_eq!(told(source(&None, &None, &None, Some("/images/d.qcow2"))), "");
        assert_eq!(told(source(&url, &None, &None, None)), "source");
        assert_eq!(told(source(&url, &short, &long, None)), "source");
        assert_eq!(told(source(&url, &short, &None, Some("/d"))), "source");
        assert_eq!(told(source(&None, &short, &None, Some("/d"))), "source");
        assert_eq!(told(source(&url, &long, &None, None)), "source.sha256");
        assert_eq!(told(source(&None, &None, &None, Some("d.qcow2"))), "source.path");
    }

    #[test]
    fn ranges_and_names_are_checked() {
        let packages = ["htop", "g++", "Vim", "-y"].map(str::to_owned).to_vec();
        let image =
            ImageConfig { size_gib: 3, boot_minutes: 0, build_minutes: 1441, packages, ..ImageConfig::default() };
        let places: Vec<String> = image.faults().into_iter().map(|fault| fault.path.join(".")).collect();
        assert_eq!(places, ["size_gib", "boot_minutes", "build_minutes", "packages.2", "packages.3"]);
        assert!(ImageConfig::default().faults().is_empty());
    }
}
