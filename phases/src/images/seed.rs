//! The seed of a machine: what cloud-init reads at its first boot (NoCloud), as a small ISO 9660 image.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use taskrun_engine::context::View;
use taskrun_engine::fingerprint::Digest;
use taskrun_engine::outcome::Failure;
use taskrun_engine::process::Command;
use taskrun_engine::task::Problem;

use crate::cluster::MacAddress;
use crate::phase0::find_program;
use crate::tools::files;

/// The name of the file system, by which cloud-init finds it.
const LABEL: &str = "CIDATA";

/// How long making an image of a few kilobytes may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Where the application's name stands in an ISO 9660 image, in bytes from its start, and how long it is.
const APPLICATION: (u64, usize) = (16 * 2048 + 574, 128);

/// What a machine is told at its first boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seed {
    /// Says which machine this is: cloud-init sets up anew what boots with another id.
    pub instance_id: String,
    /// The host name.
    pub host_name: String,
    /// Who may log in, and use sudo without a password.
    pub user: String,
    /// The keys that open it, as lines of an `authorized_keys` file. There is no password.
    pub authorized_keys: Vec<String>,
    /// How it gets its address.
    pub network: SeedNetwork,
}

/// How a machine gets its address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SeedNetwork {
    /// By DHCP, on its first network device.
    Dhcp,
    /// It is told.
    Static {
        /// The network device.
        mac: MacAddress,
        /// The address, with the size of its network: `192.168.200.10/24`.
        address: Ipv4Net,
        /// The way to other networks.
        gateway: Option<Ipv4Addr>,
        /// Servers that names are looked up at.
        dns_servers: Vec<Ipv4Addr>,
    },
}

impl Seed {
    /// What cloud-init does with the machine.
    pub fn user_data(&self) -> String {
        let user = json!({
            "name": self.user,
            "shell": "/bin/bash",
            "sudo": "ALL=(ALL) NOPASSWD:ALL",
            "lock_passwd": true,
            "ssh_authorized_keys": self.authorized_keys,
        });
        let config = json!({
            "hostname": self.host_name,
            // Only the machine's own line: what others add to the file is theirs.
            "manage_etc_hosts": "localhost",
            "users": [user],
            "ssh_pwauth": false,
            "disable_root": true,
            "ssh_deletekeys": true,
            "growpart": {"mode": "auto", "devices": ["/"]},
            "resize_rootfs": true,
        });
        // JSON is YAML.
        format!("#cloud-config\n{config:#}\n")
    }

    /// Who the machine is.
    pub fn meta_data(&self) -> String {
        let data = json!({"instance-id": self.instance_id, "local-hostname": self.host_name});
        format!("{data:#}\n")
    }

    /// The network; nothing for DHCP, which is what cloud-init does by itself, whatever the device is called.
    pub fn network_config(&self) -> Option<String> {
        let SeedNetwork::Static { mac, address, gateway, dns_servers } = &self.network else { return None };
        let mut device = json!({
            "match": {"macaddress": mac},
            "set-name": "eth0",
            "addresses": [address],
            "nameservers": {"addresses": dns_servers},
        });
        if let Some(gateway) = gateway {
            device["routes"] = json!([{"to": "default", "via": gateway}]);
        }
        Some(format!("{:#}\n", json!({"version": 2, "ethernets": {"eth0": device}})))
    }

    fn files(&self) -> Vec<(&'static str, String)> {
        let files = [("user-data", self.user_data()), ("meta-data", self.meta_data())];
        files.into_iter().chain(self.network_config().map(|text| ("network-config", text))).collect()
    }

    /// What the image says of itself: another seed says something else.
    fn mark(&self) -> String {
        let files: Vec<Value> = self.files().into_iter().map(|(name, text)| json!([name, text])).collect();
        format!("TASKRUN {}", Digest::of_json(&Value::from(files))).to_uppercase()
    }
}

/// Writes `seed` as an image to the file `iso`, which is replaced in one go; an image of the same seed stays.
///
/// # Errors
/// No program that makes such images is installed, or the disk refuses.
pub async fn write_seed(view: &View, seed: &Seed, iso: &Path) -> Result<(), Failure> {
    if mark_of(iso).as_deref() == Some(&seed.mark()) {
        return Ok(());
    }
    let work = Work::begin(seed, iso)?;
    view.command(work.command()?).await?;
    work.finish(iso)
}

/// What is missing to make seeds, if something is.
pub fn missing_program() -> Option<Problem> {
    let hint = "apt-get install xorriso";
    find_maker().is_none().then(|| Problem::new("none of `xorriso`, `genisoimage` and `mkisofs` is on PATH", hint))
}

/// The arguments that make each of them understand the same options.
const MAKERS: [(&str, &[&str]); 3] = [("xorriso", &["-as", "mkisofs"]), ("genisoimage", &[]), ("mkisofs", &[])];

fn find_maker() -> Option<(PathBuf, &'static [&'static str])> {
    MAKERS.into_iter().find_map(|(name, args)| Some((find_program(name)?, args)))
}

/// An image under way.
struct Work {
    folder: PathBuf,
    partial: PathBuf,
    mark: String,
}

impl Work {
    /// Lays out the files; what a killed attempt left goes away.
    fn begin(seed: &Seed, iso: &Path) -> Result<Self, Failure> {
        let beside = |ending: &str| {
            let name = iso.file_name().unwrap_or_default().to_string_lossy();
            iso.with_file_name(format!(".{name}.{ending}"))
        };
        let work = Self { folder: beside("files"), partial: beside("partial"), mark: seed.mark() };
        files::remove(&work.folder)?;
        files::remove(&work.partial)?;
        fs::create_dir_all(&work.folder).map_err(|error| files::failure("make", &work.folder, &error))?;
        for (name, text) in seed.files() {
            files::public_file(&work.folder.join(name), &text)?;
        }
        Ok(work)
    }

    fn command(&self) -> Result<Command, Failure> {
        let (program, args) = find_maker().ok_or_else(|| {
            let problem = missing_program();
            let (message, hint) = problem.map(|problem| (problem.message, problem.hint)).unwrap_or_default();
            Failure::permanent(format!("make {}: {message}", self.partial.display()))
                .with_hint(hint.unwrap_or_default())
        })?;
        let command = Command::new(program).args(args).args(["-quiet", "-volid", LABEL, "-joliet", "-rock"]);
        Ok(command.args(["-appid", &self.mark, "-output"]).arg(&self.partial).arg(&self.folder).timeout(TIMEOUT))
    }

    fn finish(self, iso: &Path) -> Result<(), Failure> {
        let keep = || File::open(&self.partial)?.sync_all().and_then(|()| fs::rename(&self.partial, iso));
        keep().map_err(|error| files::failure("write", iso, &error))?;
        files::remove(&self.folder)
    }
}

/// What the image says of itself, if there is one.
fn mark_of(iso: &Path) -> Option<String> {
    let (start, length) = APPLICATION;
    let mut text = vec![0; length];
    let mut file = File::open(iso).ok()?;
    file.seek(SeekFrom::Start(start)).ok()?;
    file.read_exact(&mut text).ok()?;
    Some(String::from_utf8(text).ok()?.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use taskrun_engine::process::{Cancel, Discard};

    use super::*;
    use crate::testing::snapshot;

    fn seed() -> Seed {
        Seed {
            instance_id: "cloud-control-plane-1".to_owned(),
            host_name: "cloud-control-plane".to_owned(),
            user: "operator".to_owned(),
            authorized_keys: vec!["ssh-ed25519 AAAA x: \"y\"".to_owned()],
            network: SeedNetwork::Dhcp,
        }
    }

    fn with_address() -> Seed {
        let network = SeedNetwork::Static {
            mac: "52:54:00:12:34:56".parse().unwrap(),
            address: "192.168.200.10/24".parse().unwrap(),
            gateway: Some("192.168.200.1".parse().unwrap()),
            dns_servers: vec!["192.168.200.1".parse().unwrap()],
        };
        Seed { network, ..seed() }
    }

    #[test]
    fn cloud_init_is_told_who_the_machine_is_and_who_may_enter() {
        let shown = with_address().files().into_iter().map(|(name, text)| format!("--- {name}\n{text}"));
        snapshot("seed", &shown.collect::<String>());
        assert_eq!(seed().network_config(), None);
    }

    #[test]
    fn each_part_of_a_seed_tells_it_from_others() {
        let mut others = vec![seed(), with_address()];
        others.push(Seed { instance_id: "2".to_owned(), ..seed() });
        others.push(Seed { host_name: "other".to_owned(), ..seed() });
        others.push(Seed { user: "other".to_owned(), ..seed() });
        others.push(Seed { authorized_keys: Vec::new(), ..seed() });
        let marks: std::collections::BTreeSet<String> = others.iter().map(Seed::mark).collect();
        assert_eq!(marks.len(), others.len());
    }

    #[test]
    fn an_image_says_which_seed_it_is_of_and_holds_the_files() {
        let folder = tempfile::tempdir().unwrap();
        let iso = folder.path().join("seed.iso");
        assert_eq!(mark_of(&iso), None);
        let work = Work::begin(&seed(), &iso).unwrap();
        // Where no such program is installed, what it would have made cannot be looked at.
        let Ok(command) = work.command() else { return };
        command.run(&Cancel::new(), &mut Discard).unwrap().check(&command).unwrap();
        work.finish(&iso).unwrap();
        assert_eq!(mark_of(&iso), Some(seed().mark()));
        let image = fs::read(&iso).unwrap();
        let holds = |text: &str| image.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(holds(&seed().user_data()) && holds(&seed().meta_data()));
        assert_eq!(&image[16 * 2048 + 40..16 * 2048 + 46], LABEL.as_bytes());
        assert_eq!(fs::metadata(&iso).unwrap().mode() & 0o044, 0o044);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "something is left over");
    }
}
