//! CLOUD-1.1 on real nodes: the disk image that every virtual machine begins with, built by Packer.
//!
//! Debian 13 with cloud-init, NetworkManager and what Kubespray wants of a host; neither Kubernetes nor a container
//! runtime. Proof: two clones boot with cloud-init to SSH and differ in machine id and host keys; the image is sound, small
//! enough, and holds what it should and nothing that it should not.

use std::path::Path;

use async_trait::async_trait;
use taskrun_engine::context::{Context, View};
use taskrun_engine::outcome::Failure;
use taskrun_engine::task::{Applied, Earlier, Made, Probe, Problem, Proof, Task, Traces};

use crate::config::Config;
use crate::images::build::{Built, adopt, build, work_folder};
use crate::images::packer::Packer;
use crate::images::recipe::{self, Recipe};
use crate::images::record::{self, Record};
use crate::images::settings::{ImageSettings, Source};
use crate::images::{self, check, description, packer, source};
use crate::outputs::{DiskImage, NodeBase};
use crate::tools::files;

/// The name of the image.
const NAME: &str = "cloud-base";

/// How large it may be, in 10^9 bytes.
const LIMIT_GB: u64 = 3;

/// The task.
pub struct BaseImageTask {
    settings: ImageSettings,
}

impl BaseImageTask {
    /// The task for a configuration.
    pub fn new(config: &Config) -> Self {
        // Nothing of the driver is in this image.
        let mut settings = ImageSettings { gpu: false, ..ImageSettings::new(config) };
        settings.image.gpu_driver = Default::default();
        Self { settings }
    }
}

#[async_trait]
impl Task for BaseImageTask {
    type Settings = ImageSettings;
    type Output = NodeBase;

    fn settings(&self) -> &ImageSettings {
        &self.settings
    }

    fn assets(&self) -> Vec<(&'static str, &'static [u8])> {
        let scripts = [recipe::INSTALL, recipe::CLEAN_UP, recipe::DESCRIBE, recipe::NATIVE];
        assets(&scripts)
    }

    fn footprint(&self) -> taskrun_engine::task::Footprint {
        taskrun_engine::task::Footprint { download_mib: 600, disk_mib: 4096 }
    }

    async fn check(&self, _view: &View) -> Vec<Problem> {
        let mut problems = images::missing_programs();
        if let Source::File(path) = self.settings.source()
            && !path.is_file()
        {
            let message = format!("image.source.path: there is no {}", path.display());
            problems.push(Problem::new(message, "correct the configuration"));
        }
        problems
    }

    async fn probe(&self, _view: &View, made: &Made<Self>) -> Probe {
        probe(made.output.image.as_ref()).await
    }

    async fn apply(&self, context: &Context, _earlier: &Earlier<Self>) -> Result<Applied<NodeBase>, Failure> {
        let folder = images::folder(context.state_dir());
        let built = match &self.settings.given {
            Some(path) => {
                let source = source::obtain(context, &Source::File(path.clone())).await?;
                adopt(context, &Recipe::given(source), &self.settings, &folder).await?
            }
            None => {
                let source = source::obtain(context, &self.settings.source()).await?;
                context.safe_point()?;
                build(context, &Recipe::base(&self.settings, source), &self.settings, &folder).await?
            }
        };
        let image = disk_image(&built);
        let systems = [(NAME.to_owned(), image.os.clone())].into();
        let packages = description::REQUIRED.map(str::to_owned).to_vec();
        Ok(Applied::complete(NodeBase { image: Some(image), systems, packages }))
    }

    fn proofs(&self) -> &'static [Proof] {
        const PROOFS: &[Proof] = &[
            Proof::quick("the image is the one that was built"),
            Proof::safe("Packer finds no fault in the template"),
            Proof::safe("qemu-img finds no fault in the image"),
            Proof::safe("it is smaller than 3 GB, and was built within 20 minutes"),
            Proof::safe("it has what every node needs, and neither Kubernetes nor a container runtime"),
            Proof::safe("two clones boot with cloud-init to SSH, with machine ids and host keys of their own"),
        ];
        PROOFS
    }

    async fn prove(&self, proof: &str, view: &View, output: &NodeBase) -> Result<(), Failure> {
        let image = present(output.image.as_ref())?;
        let record = record_of(image)?;
        match common_proof(proof, view, &self.settings, image, &record, LIMIT_GB).await {
            Some(proved) => proved,
            None => check::none("use the image for nodes", &record.description.faults_of_base()),
        }
    }

    async fn destroy(&self, context: &Context, _made: &Traces<Self>) -> Result<(), Failure> {
        remove_images(context.state_dir(), NAME)
    }
}

/// The files that decide what an image becomes.
pub(super) fn assets(scripts: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static [u8])> {
    let files = scripts.iter().copied().chain([packer::TEMPLATE, packer::PLUGINS]);
    files.map(|(name, text)| (name, text.as_bytes())).collect()
}

/// The image of an output, which one of this task has.
pub(super) fn present(image: Option<&DiskImage>) -> Result<&DiskImage, Failure> {
    image.ok_or_else(|| {
        Failure::permanent("find the image: this was made for given hosts")
            .with_hint("run it again: taskrun run CLOUD-1")
    })
}

/// What dependents are told of an image.
pub(super) fn disk_image(built: &Built) -> DiskImage {
    let record = &built.record;
    DiskImage {
        path: built.image(),
        sha256: record.sha256.clone(),
        format: "qcow2".to_owned(),
        virtual_size_bytes: record.virtual_size_bytes,
        size_bytes: record.size_bytes,
        kernel: record.description.kernel.clone(),
        os: record.description.os.clone(),
        record: built.folder.join(record::FILE),
        key: record.key.to_string(),
    }
}

pub(super) async fn probe(image: Option<&DiskImage>) -> Probe {
    let Some(image) = image else { return Probe::Missing("there is no image".to_owned()) };
    let folder = image.path.parent().unwrap_or(Path::new("/"));
    match Record::read(folder) {
        None => Probe::Missing(format!("no record of a build in {}", folder.display())),
        Some(record) => match record.is_intact(folder).await {
            Ok(true) => Probe::Holds,
            Ok(false) => Probe::Missing(format!("{} is gone or was changed", image.path.display())),
            Err(failure) => Probe::CannotTell(failure.to_string()),
        },
    }
}

pub(super) fn record_of(image: &DiskImage) -> Result<Record, Failure> {
    let folder = image.path.parent().unwrap_or(Path::new("/"));
    Record::read(folder).ok_or_else(|| {
        Failure::permanent(format!("read the record of a build in {}", folder.display()))
            .with_hint("build the image again: taskrun run --force")
    })
}

/// Makes a proof that all images share; nothing if it is none of them.
pub(super) async fn common_proof(
    proof: &str,
    view: &View,
    settings: &ImageSettings,
    image: &DiskImage,
    record: &Record,
    limit_gb: u64,
) -> Option<Result<(), Failure>> {
    let folder = image.path.parent().unwrap_or(Path::new("/"));
    Some(match proof {
        "the image is the one that was built" => match record.is_intact(folder).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Failure::permanent(format!("{} is gone or was changed", image.path.display()))),
            Err(failure) => Err(failure),
        },
        "Packer finds no fault in the template" => validate(view, record, image).await,
        "qemu-img finds no fault in the image" => check::structure(view, &image.path).await,
        "two clones boot with cloud-init to SSH, with machine ids and host keys of their own" => {
            check::clones(view, &image.path, record.accelerator, settings.boot_timeout()).await
        }
        other if other.starts_with("it is smaller than") => check::size_and_time(view, record, limit_gb),
        _ => return None,
    })
}

async fn validate(view: &View, record: &Record, image: &DiskImage) -> Result<(), Failure> {
    let scratch = crate::tools::scratch::Scratch::new(view, "packer", None)?;
    let packer = Packer::find(view).await?;
    let variables = packer::Variables::for_validation(view, scratch.folder(), &image.path, record.accelerator).await?;
    let template = scratch.folder().join("template");
    packer.prepare(view, &template, &variables).await?;
    packer.validate(view, &template).await
}

/// Removes all images called `name`, and what is half made of one.
pub(super) fn remove_images(state: &Path, name: &str) -> Result<(), Failure> {
    let images = images::folder(state);
    files::remove(&work_folder(&images, name))?;
    for entry in std::fs::read_dir(&images).into_iter().flatten().flatten() {
        let folder = entry.path();
        if folder.join(format!("{name}.qcow2")).exists() {
            files::remove(&folder)?;
        }
    }
    // The other image may still be there.
    let _ = std::fs::remove_dir(&images);
    Ok(())
}
