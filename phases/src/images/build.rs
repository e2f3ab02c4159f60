//! Building an image, unless it is there.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Deserialize;
use taskrun_engine::context::View;
use taskrun_engine::outcome::{Failure, Persistence};
use taskrun_engine::process::Command;

use super::accelerator::Accelerator;
use super::description::Description;
use super::packer::{Packer, Variables};
use super::recipe::Recipe;
use super::record::{Record, Stamp, Way};
use super::seed::{Seed, SeedNetwork, write_seed};
use super::settings::ImageSettings;
use super::{QEMU, check, native, recipe, source};
use crate::tools::{files, ssh};

/// Who logs in while an image is built; removed in the end.
const BUILD_USER: &str = "taskrun-build";

/// How long looking at an image may take.
const LOOK: Duration = Duration::from_secs(600);

/// Variables by which this machine reaches package servers.
const PROXIES: [&str; 6] = ["http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"];

/// An image that is there.
#[derive(Debug, Clone, PartialEq)]
pub struct Built {
    /// The folder of its files.
    pub folder: PathBuf,
    /// What is known of it.
    pub record: Record,
}

impl Built {
    /// The image's file.
    pub fn image(&self) -> PathBuf {
        self.record.image(&self.folder)
    }
}

/// The image of `recipe` below `images`: the one that is there, if it is intact, or a new one.
///
/// What a killed build left goes away first; nothing but a whole image is ever where images are looked for.
///
/// # Errors
/// A tool fails, the disk is full, or the run was asked to stop.
pub async fn build(view: &View, recipe: &Recipe, settings: &ImageSettings, images: &Path) -> Result<Built, Failure> {
    let folder = images.join(recipe.key().to_string());
    let work = work_folder(images, recipe.name);
    files::remove(&work)?;
    if let Some(record) =
        Record::read(&folder).filter(|record| record.key == recipe.key() && record.name == recipe.name)
    {
        if record.is_intact(&folder).await? {
            view.say(format!("{} is there already, {}", record.image(&folder).display(), record.way.told()));
            return Ok(Built { folder, record });
        }
        view.say(format!("{} was changed since it was built: it is built anew", record.image(&folder).display()));
    }
    fs::create_dir_all(&work).map_err(|error| files::failure("make", &work, &error))?;
    let made = Work { view, recipe, settings, folder: &work, parts: BTreeMap::new() }.build().await;
    let built = match made {
        Ok(()) => keep(&work.join("result"), &folder),
        Err(failure) => Err(with_room(failure, &work)),
    };
    files::remove(&work)?;
    built?;
    let record = Record::read(&folder).ok_or_else(|| Failure::permanent("read the record that was just written"))?;
    Ok(Built { folder, record })
}

/// A given image in place of one that is built: looked at by booting it, and recorded like the others. The file stays
/// where it is.
///
/// # Errors
/// It is no image, or does not boot to SSH.
pub async fn adopt(view: &View, recipe: &Recipe, settings: &ImageSettings, images: &Path) -> Result<Built, Failure> {
    let folder = images.join(recipe.key().to_string());
    let work = work_folder(images, recipe.name);
    files::remove(&work)?;
    let path = &recipe.source.path;
    if let Some(record) = Record::read(&folder).filter(|record| record.way == Way::Given)
        && record.is_intact(&folder).await?
    {
        return Ok(Built { folder, record });
    }
    let result = work.join("result");
    fs::create_dir_all(&result).map_err(|error| files::failure("make", &result, &error))?;
    let (began, start) = (jiff::Timestamp::now(), Instant::now());
    let failed = |error| files::failure("read", path, &error);
    let accelerator = Accelerator::find(view, settings.kvm).await?;
    let mut told = check::boot_clones(view, path, accelerator, settings.boot_timeout(), 1).await?;
    let record = Record {
        format: Record::FORMAT,
        name: recipe.name.to_owned(),
        key: recipe.key(),
        way: Way::Given,
        accelerator,
        source: recipe.source.origin.clone(),
        source_checksum: recipe.source.checksum.clone(),
        environment: BTreeMap::new(),
        tools: BTreeMap::new(),
        sha256: source::sha256(path).await?,
        virtual_size_bytes: virtual_size(view, path).await?,
        size_bytes: fs::metadata(path).map_err(failed)?.len(),
        began,
        seconds: start.elapsed().as_secs(),
        parts: BTreeMap::new(),
        description: told.pop().unwrap_or_default(),
        stamp: Stamp::of(path).map_err(failed)?,
    };
    std::os::unix::fs::symlink(path, record.image(&result)).map_err(failed)?;
    record.write(&result)?;
    keep(&result, &folder)?;
    files::remove(&work)?;
    Ok(Built { folder, record })
}

/// The folder of a build under way; of each image at most one is.
pub fn work_folder(images: &Path, name: &str) -> PathBuf {
    images.join(format!(".{name}.work"))
}

/// Puts a finished folder in its place, durably.
fn keep(result: &Path, folder: &Path) -> Result<(), Failure> {
    files::remove(folder)?;
    let parent = folder.parent().unwrap_or(Path::new("."));
    let renamed = File::open(result).and_then(|open| open.sync_all()).and_then(|()| fs::rename(result, folder));
    let kept = renamed.and_then(|()| File::open(parent)?.sync_all());
    kept.map_err(|error| files::failure("keep", folder, &error))
}

/// Says so where the disk is full: programs say it in many ways.
fn with_room(failure: Failure, folder: &Path) -> Failure {
    let free = nix::sys::statvfs::statvfs(folder).map(|disk| disk.blocks_available() * disk.fragment_size());
    match free {
        Ok(free) if free < 64 << 20 => {
            let hint = format!("the disk of {} is full: make room, then go on: taskrun resume", folder.display());
            failure.with_hint(hint)
        }
        _ => failure,
    }
}

/// A build under way.
struct Work<'a> {
    view: &'a View,
    recipe: &'a Recipe,
    settings: &'a ImageSettings,
    folder: &'a Path,
    parts: BTreeMap<String, u64>,
}

impl Work<'_> {
    async fn build(mut self) -> Result<(), Failure> {
        let (began, start) = (jiff::Timestamp::now(), Instant::now());
        let packer = Packer::find(self.view).await?;
        self.write_scripts()?;
        let allowed = self.settings.kvm;
        let accelerator = Accelerator::find(self.view, allowed).await?;
        self.part("choose how machines run", start);
        let way = self.way(accelerator);
        self.view.say(format!("{}: {}", self.recipe.name, way.told()));
        let source = match way {
            Way::Native => self.install_natively().await?,
            Way::Booted | Way::Given => self.recipe.source.path.clone(),
        };
        self.view.safe_point()?;
        let booting = Instant::now();
        self.boot(&packer, accelerator, way, &source).await?;
        self.part("packer build", booting);
        files::remove(&self.folder.join("disk.raw"))?;
        self.view.safe_point()?;
        self.write_record(&packer, accelerator, way, began, start).await
    }

    fn way(&self, accelerator: Accelerator) -> Way {
        match (accelerator, native::obstacle()) {
            (Accelerator::Kvm, _) => Way::Booted,
            (Accelerator::Tcg, None) => Way::Native,
            (Accelerator::Tcg, Some((why, hint))) => {
                let slow = "everything happens in an emulated machine, which takes hours";
                self.view.say(format!("{slow}: {why}; hint: {hint}"));
                Way::Booted
            }
        }
    }

    fn write_scripts(&self) -> Result<(), Failure> {
        let folder = self.scripts();
        fs::create_dir_all(&folder).map_err(|error| files::failure("make", &folder, &error))?;
        self.recipe.scripts().into_iter().try_for_each(|(name, text)| files::public_file(&folder.join(name), text))
    }

    fn scripts(&self) -> PathBuf {
        self.folder.join("scripts")
    }

    async fn install_natively(&mut self) -> Result<PathBuf, Failure> {
        let disk = self.folder.join("disk.raw");
        let start = Instant::now();
        let size = self.recipe.virtual_size;
        let partition = native::lay_out(self.view, &self.recipe.source.path, &disk, size).await?;
        self.part("lay out the disk", start);
        self.view.safe_point()?;
        let start = Instant::now();
        let scripts = [self.recipe.install.0, recipe::DESCRIBE.0, recipe::CLEAN_UP.0];
        let (environment, timeout) = (&self.recipe.environment, self.settings.build_timeout());
        native::run(self.view, &disk, partition, &self.scripts(), &scripts, environment, timeout).await?;
        self.part("install natively", start);
        Ok(disk)
    }

    /// Lets Packer boot `source`, install there what is not yet, clean up, and keep the disk.
    async fn boot(&self, packer: &Packer, accelerator: Accelerator, way: Way, source: &Path) -> Result<(), Failure> {
        let (key, public) = ssh::ensure_key(self.view, &self.folder.join("ssh")).await?;
        let seed = Seed {
            instance_id: format!("build-{}", self.recipe.key()),
            host_name: self.recipe.name.to_owned(),
            user: BUILD_USER.to_owned(),
            authorized_keys: vec![public],
            network: SeedNetwork::Dhcp,
        };
        let iso = self.folder.join("seed.iso");
        write_seed(self.view, &seed, &iso).await?;
        let install = match way {
            Way::Booted => vec![self.recipe.install.0.to_owned()],
            Way::Native | Way::Given => Vec::new(),
        };
        let proxies = PROXIES.into_iter().filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?)));
        let environment = self.recipe.environment.clone().into_iter().chain(proxies);
        let cpus = std::thread::available_parallelism().map_or(1, |count| count.get().min(4));
        let variables = Variables {
            name: format!("{}.qcow2", self.recipe.name),
            disk_size: format!("{}M", self.recipe.virtual_size >> 20),
            user: BUILD_USER.to_owned(),
            install,
            environment: environment.map(|(name, value)| format!("{name}={value}")).collect(),
            cpus: u32::try_from(cpus).unwrap_or(1),
            boot_timeout: format!("{}m", self.settings.image.boot_minutes),
            headless: self.settings.image.headless,
            ..Variables::of(self.folder, source, key, accelerator)
        };
        let template = self.folder.join("template");
        packer.prepare(self.view, &template, &variables).await?;
        packer.validate(self.view, &template).await?;
        let built = packer.build(self.view, &template, self.settings.build_timeout()).await;
        built.map_err(|failure| self.with_console(failure, &variables.console))
    }

    /// A machine that does not answer tells why on its console.
    fn with_console(&self, failure: Failure, console: &Path) -> Failure {
        if failure.persistence == Persistence::Cancelled {
            return failure;
        }
        let said = last_lines(console, 15);
        self.view.say(format!("the last lines of the machine's console:\n{said}"));
        match failure.hint {
            Some(_) => failure,
            None => failure.with_hint(
                "the machine's console is at the end of the task's log; a longer time to boot: `image.boot_minutes`",
            ),
        }
    }

    async fn write_record(
        &mut self,
        packer: &Packer,
        accelerator: Accelerator,
        way: Way,
        began: jiff::Timestamp,
        start: Instant,
    ) -> Result<(), Failure> {
        let checking = Instant::now();
        let result = self.folder.join("result");
        fs::create_dir_all(&result).map_err(|error| files::failure("make", &result, &error))?;
        let name = format!("{}.qcow2", self.recipe.name);
        let (packed, image) = (self.folder.join("packed").join(&name), result.join(&name));
        fs::rename(&packed, &image).map_err(|error| files::failure("find what Packer made,", &packed, &error))?;
        files::open_up(&image)?;
        let synced = File::open(&image).and_then(|file| file.sync_all());
        synced.map_err(|error| files::failure("keep", &image, &error))?;
        let report = self.folder.join("report");
        let report = fs::read_to_string(&report).map_err(|error| files::failure("read", &report, &error))?;
        let (described, virtual_size) = (Description::read(&report)?, virtual_size(self.view, &image).await?);
        let (sha256, stamp) = (source::sha256(&image).await?, Stamp::of(&image));
        let stamp = stamp.map_err(|error| files::failure("read", &image, &error))?;
        let size_bytes = fs::metadata(&image).map_err(|error| files::failure("read", &image, &error))?.len();
        self.part("checksum", checking);
        let record = Record {
            format: Record::FORMAT,
            name: self.recipe.name.to_owned(),
            key: self.recipe.key(),
            way,
            accelerator,
            source: self.recipe.source.origin.clone(),
            source_checksum: self.recipe.source.checksum.clone(),
            environment: self.recipe.environment.clone(),
            tools: self.tools(packer).await?,
            sha256,
            virtual_size_bytes: virtual_size,
            size_bytes,
            began,
            seconds: start.elapsed().as_secs(),
            parts: self.parts.clone(),
            description: described,
            stamp,
        };
        record.write(&result)?;
        let mib = size_bytes >> 20;
        self.view.say(format!("{name}: {mib} MiB, {} s, kernel {}", record.seconds, record.description.kernel));
        Ok(())
    }

    async fn tools(&self, packer: &Packer) -> Result<BTreeMap<String, String>, Failure> {
        let told = self.view.capture(Command::new(QEMU).arg("--version").timeout(LOOK)).await?;
        let qemu = told.lines().next().unwrap_or_default().trim_start_matches("QEMU emulator version ").to_owned();
        let tools =
            [("packer", packer.version.clone()), ("qemu", qemu), ("taskrun", env!("CARGO_PKG_VERSION").to_owned())];
        Ok(tools.into_iter().map(|(name, version)| (name.to_owned(), version)).collect())
    }

    fn part(&mut self, name: &str, start: Instant) {
        let seconds = start.elapsed().as_secs();
        self.view.say(format!("{name}: {seconds} s"));
        self.parts.insert(name.to_owned(), seconds);
    }
}

/// The last lines of a file, as far as it is text.
pub(super) fn last_lines(path: &Path, count: usize) -> String {
    let said = fs::read(path).unwrap_or_default();
    let said = String::from_utf8_lossy(&said).replace('\r', "");
    let lines: Vec<&str> = said.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[derive(Deserialize)]
struct Information {
    #[serde(rename = "virtual-size")]
    virtual_size: u64,
}

/// The size of an image as a machine sees it, in bytes.
async fn virtual_size(view: &View, image: &Path) -> Result<u64, Failure> {
    let look = Command::new("qemu-img").args(["info", "--output=json"]).arg(image).timeout(LOOK);
    let told = view.capture(look).await?;
    let told: Information = serde_json::from_str(&told)
        .map_err(|error| Failure::caused(Persistence::Permanent, "understand qemu-img", &error))?;
    Ok(told.virtual_size)
}
