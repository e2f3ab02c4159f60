//! The proofs of images.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use taskrun_engine::context::View;
use taskrun_engine::outcome::{Failure, Persistence};
use taskrun_engine::process::Command;

use super::accelerator::{Accelerator, quote};
use super::build::last_lines;
use super::description::{Description, faults_of_clones};
use super::record::{Record, Way};
use super::seed::{Seed, SeedNetwork, write_seed};
use super::{QEMU, recipe};
use crate::tools::scratch::Scratch;
use crate::tools::ssh::{self, Script, SshError, SshErrorKind, SshTarget};
use crate::tools::{files, ports};

/// How long checking an image may take.
const CHECK: Duration = Duration::from_secs(600);
/// How long an emulated machine may take to tell what is in it.
const DESCRIBE: Duration = Duration::from_secs(600);
/// How long a build may take where machines are not emulated.
const BUILD: Duration = Duration::from_secs(20 * 60);
/// How many clones are compared.
const CLONES: usize = 2;
/// Who logs in to a clone.
const USER: &str = "clone";

/// Checks the structure of an image.
///
/// # Errors
/// It is damaged, or takes place that it does not use.
pub async fn structure(view: &View, image: &Path) -> Result<(), Failure> {
    view.command(Command::new("qemu-img").arg("check").arg(image).timeout(CHECK)).await.map(drop)
}

/// Checks that an image is smaller than `limit_gb` (10^9 bytes), and was built soon enough.
///
/// # Errors
/// It is not. Where machines are emulated, time does not count.
pub fn size_and_time(view: &View, record: &Record, limit_gb: u64) -> Result<(), Failure> {
    let time = Duration::from_secs(record.seconds);
    view.say(format!("{} MB, built in {time:?}: {}", record.size_bytes / 1_000_000, record.way.told()));
    if record.size_bytes >= limit_gb * 1_000_000_000 {
        let message = format!("keep {} below {limit_gb} GB: it has {} bytes", record.name, record.size_bytes);
        return Err(Failure::permanent(message).with_hint("take packages out of `image.packages`"));
    }
    if record.accelerator == Accelerator::Kvm && record.way == Way::Booted && time > BUILD {
        let message = format!("build {} within {BUILD:?}: it took {time:?}", record.name);
        return Err(Failure::permanent(message).with_hint("see its record for the time of each part"));
    }
    Ok(())
}

/// Fails with what is wrong, if something is.
///
/// # Errors
/// There are faults.
pub fn none(what: &str, faults: &[String]) -> Result<(), Failure> {
    match faults {
        [] => Ok(()),
        faults => Err(Failure::permanent(format!("{what}: {}", faults.join("; ")))),
    }
}

/// Boots two clones at the same time and compares what they tell of themselves.
///
/// # Errors
/// One does not answer by SSH within `boot`, or they share what they must not.
pub async fn clones(view: &View, image: &Path, accelerator: Accelerator, boot: Duration) -> Result<(), Failure> {
    let told = boot_clones(view, image, accelerator, boot, CLONES).await?;
    none("tell clones apart", &faults_of_clones(&told))?;
    let faults: Vec<String> = told.iter().flat_map(Description::faults_of_base).collect();
    none("boot clones of the image", &faults)
}

/// Boots `count` machines at the same time, each on a disk on top of the image and with a seed of its own, and asks each
/// what it is. The image is not changed, and nothing stays.
///
/// # Errors
/// One does not answer by SSH within `boot`.
pub async fn boot_clones(
    view: &View,
    image: &Path,
    accelerator: Accelerator,
    boot: Duration,
    count: usize,
) -> Result<Vec<Description>, Failure> {
    let scratch = Scratch::new(view, "clones", None)?;
    let (key, public) = ssh::ensure_key(view, scratch.folder()).await?;
    let clones = (1..=count).map(|number| Clone {
        view,
        image,
        accelerator,
        boot,
        name: format!("clone-{number}"),
        folder: scratch.folder().join(number.to_string()),
        key: key.clone(),
        public: public.clone(),
    });
    let clones: Vec<Clone> = clones.collect();
    // All of them to their ends: a machine must not outlive its folder.
    let told = join_all(clones.iter().map(Clone::run)).await;
    let told = told.into_iter().collect::<Result<Vec<Description>, Failure>>()?;
    for (clone, described) in clones.iter().zip(&told) {
        let keys = described.host_keys.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
        view.say(format!("{}: machine id {}, host keys {keys}", clone.name, described.machine_id));
        if !described.failed.is_empty() {
            view.say(format!("{}: these units failed: {:?}", clone.name, described.failed));
        }
    }
    Ok(told)
}

/// A machine that is there for a proof.
struct Clone<'a> {
    view: &'a View,
    image: &'a Path,
    accelerator: Accelerator,
    boot: Duration,
    name: String,
    folder: PathBuf,
    key: PathBuf,
    public: String,
}

impl Clone<'_> {
    /// Boots it, asks it what it is, and turns it off.
    async fn run(&self) -> Result<Description, Failure> {
        fs::create_dir_all(&self.folder).map_err(|error| files::failure("make", &self.folder, &error))?;
        let seed = Seed {
            instance_id: self.name.clone(),
            host_name: self.name.clone(),
            user: USER.to_owned(),
            authorized_keys: vec![self.public.clone()],
            network: SeedNetwork::Dhcp,
        };
        write_seed(self.view, &seed, &self.seed()).await?;
        let overlay = Command::new("qemu-img").args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"]);
        self.view.command(overlay.arg(self.image).arg(self.disk()).timeout(CHECK)).await?;
        let port =
            ports::any_free().map_err(|error| Failure::caused(Persistence::Transient, "find a free port", &error))?;
        let ended = AtomicBool::new(false);
        let machine = async {
            let ran = self.view.command(self.machine(port)).await;
            ended.store(true, Ordering::Relaxed);
            ran
        };
        let talk = async {
            let told = self.talk(port, &ended).await;
            self.turn_off();
            told
        };
        let (ran, told) = tokio::join!(machine, talk);
        match (ran, told) {
            (_, Ok(told)) => Ok(told),
            // A machine that could not even start tells more than that nobody answers.
            (Err(failure), Err(_)) => Err(failure),
            (Ok(_), Err(failure)) => Err(failure),
        }
    }

    fn seed(&self) -> PathBuf {
        self.folder.join("seed.iso")
    }

    fn disk(&self) -> PathBuf {
        self.folder.join("disk.qcow2")
    }

    fn console(&self) -> PathBuf {
        self.folder.join("console.log")
    }

    fn pid(&self) -> PathBuf {
        self.folder.join("pid")
    }

    fn machine(&self, port: u16) -> Command {
        Command::new(QEMU)
            .args(["-nodefaults", "-display", "none", "-accel", self.accelerator.as_str(), "-m", "1024"])
            .args(["-cpu", self.accelerator.cpu(), "-smp", "2", "-device", "virtio-rng-pci"])
            .arg("-drive")
            .arg(format!("file={},if=virtio,format=qcow2,cache=unsafe", quote(&self.disk())))
            .arg("-drive")
            .arg(format!("file={},if=virtio,format=raw,readonly=on", quote(&self.seed())))
            .args(["-netdev", &format!("user,id=net,hostfwd=tcp:127.0.0.1:{port}-:22")])
            .args(["-device", "virtio-net-pci,netdev=net", "-serial"])
            .arg(format!("file:{}", self.console().display()))
            .arg("-pidfile")
            .arg(self.pid())
            .timeout(self.boot + 2 * DESCRIBE)
    }

    async fn talk(&self, port: u16, ended: &AtomicBool) -> Result<Description, Failure> {
        let target = SshTarget {
            address: "127.0.0.1".to_owned(),
            port,
            user: USER.to_owned(),
            key: Some(self.key.clone()),
            known_hosts: self.folder.join("known_hosts"),
        };
        let start = Instant::now();
        loop {
            match target.wait_until_up(self.view, Duration::from_secs(5)).await {
                Ok(()) => break,
                Err(error) => {
                    let patient = matches!(error.kind(), SshErrorKind::NotUp { .. });
                    if !patient || ended.load(Ordering::Relaxed) || start.elapsed() >= self.boot {
                        return Err(self.silent(error.into_failure()));
                    }
                }
            }
        }
        self.view.say(format!("{} answers by SSH {} s after its start", self.name, start.elapsed().as_secs()));
        let script = Script::new(recipe::DESCRIBE.1).sudo(true).timeout(DESCRIBE);
        let told = target.run_script(self.view, &script).await.map_err(SshError::into_failure)?;
        Description::read(&told)
    }

    fn silent(&self, failure: Failure) -> Failure {
        let said = last_lines(&self.console(), 15);
        self.view.say(format!("the last lines of the console of {}:\n{said}", self.name));
        failure.with_hint("the machine's console is at the end of the task's log")
    }

    /// There is nothing on its disk that anybody wants.
    fn turn_off(&self) {
        super::accelerator::end(&self.pid());
    }
}
