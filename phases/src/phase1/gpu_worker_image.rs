//! CLOUD-1.2 on real nodes: the disk image of GPU workers: that of every node with the NVIDIA driver, and neither CUDA's
//! toolkit nor DCGM.
//!
//! Without a virtual machine that gets a GPU the task is skipped. Proof: those of the base image, with the modules built
//! for the kernel that is installed and held, nvidia-smi there and nouveau kept out.

use async_trait::async_trait;
use taskrun_engine::context::{Context, View};
use taskrun_engine::outcome::Failure;
use taskrun_engine::task::{Applied, Earlier, Footprint, Made, Probe, Problem, Proof, Read, Task, Traces};

use super::base_image::{assets, common_proof, disk_image, present, probe, record_of, remove_images};
use crate::config::Config;
use crate::images::build::build;
use crate::images::recipe::{self, Recipe};
use crate::images::settings::ImageSettings;
use crate::images::source::SourceFile;
use crate::images::{self, check};
use crate::outputs::{GpuBase, NodeBase};

/// The name of the image.
const NAME: &str = "cloud-gpu-worker";

/// How large it may be, in 10^9 bytes.
const LIMIT_GB: u64 = 6;

/// The task.
pub struct GpuWorkerImageTask {
    settings: ImageSettings,
}

impl GpuWorkerImageTask {
    /// The task for a configuration.
    pub fn new(config: &Config) -> Self {
        Self { settings: ImageSettings { given: None, ..ImageSettings::new(config) } }
    }
}

#[async_trait]
impl Task for GpuWorkerImageTask {
    type Settings = ImageSettings;
    type Output = GpuBase;

    fn settings(&self) -> &ImageSettings {
        &self.settings
    }

    fn reads(&self) -> Vec<Read> {
        vec![Read::of::<NodeBase>()]
    }

    fn assets(&self) -> Vec<(&'static str, &'static [u8])> {
        assets(&[recipe::DRIVER, recipe::CLEAN_UP, recipe::DESCRIBE, recipe::NATIVE])
    }

    fn footprint(&self) -> Footprint {
        Footprint { download_mib: 700, disk_mib: 9216 }
    }

    async fn relevant(&self, _view: &View) -> Result<(), String> {
        match self.settings.gpu {
            true => Ok(()),
            false => Err("no virtual machine of the cluster gets a GPU".to_owned()),
        }
    }

    async fn check(&self, _view: &View) -> Vec<Problem> {
        images::missing_programs()
    }

    async fn probe(&self, _view: &View, made: &Made<Self>) -> Probe {
        probe(made.output.image.as_ref()).await
    }

    async fn apply(&self, context: &Context, _earlier: &Earlier<Self>) -> Result<Applied<GpuBase>, Failure> {
        let base = context.output::<NodeBase>()?;
        let base = present(base.image.as_ref())?.clone();
        let checksum = format!("sha256:{}", base.sha256);
        let source = SourceFile { origin: base.path.display().to_string(), path: base.path, checksum };
        let recipe = Recipe::gpu_worker(&self.settings, source);
        let built = build(context, &recipe, &self.settings, &images::folder(context.state_dir())).await?;
        let driver = built.record.description.driver().unwrap_or_default();
        let drivers = [(NAME.to_owned(), driver)].into();
        Ok(Applied::complete(GpuBase { image: Some(disk_image(&built)), drivers }))
    }

    fn proofs(&self) -> &'static [Proof] {
        const PROOFS: &[Proof] = &[
            Proof::quick("the image is the one that was built"),
            Proof::safe("Packer finds no fault in the template"),
            Proof::safe("qemu-img finds no fault in the image"),
            Proof::safe("it is smaller than 6 GB, and was built within 20 minutes"),
            Proof::safe("it has the driver for the kernel that is held, nouveau is kept out, and no toolkit is there"),
            Proof::safe("two clones boot with cloud-init to SSH, with machine ids and host keys of their own"),
        ];
        PROOFS
    }

    async fn prove(&self, proof: &str, view: &View, output: &GpuBase) -> Result<(), Failure> {
        let image = present(output.image.as_ref())?;
        let record = record_of(image)?;
        match common_proof(proof, view, &self.settings, image, &record, LIMIT_GB).await {
            Some(proved) => proved,
            None => {
                let faults = [record.description.faults_of_base(), record.description.faults_of_driver()].concat();
                check::none("use the image for GPU workers", &faults)
            }
        }
    }

    async fn destroy(&self, context: &Context, _made: &Traces<Self>) -> Result<(), Failure> {
        remove_images(context.state_dir(), NAME)
    }
}
