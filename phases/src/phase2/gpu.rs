//! CLOUD-2.2: the NVIDIA GPUs of this machine, divided into slots for services, and an exporter of their figures.
//!
//! Without a GPU the task is skipped, and what comes after it works on the processor. Proof: the exporter, run as the
//! service user, tells the figures of every device; so services can use them too.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use async_trait::async_trait;
use taskrun_engine::context::{Context, View};
use taskrun_engine::outcome::{Failure, Persistence};
use taskrun_engine::task::{Applied, Drift, Earlier, Made, Probe, Problem, Proof, Read, Task, Traces};

use crate::config::{Config, GpuConfig};
use crate::outputs::{Accelerators, Machine, Platform};
use crate::platform::{Health, Local, Metrics, SecretFiles, Service};
use crate::tools::{exporter, files, nvml};

/// The hidden verb that the exporter is started by.
pub const VERB: &str = "export-gpus";

/// The service's name.
const SERVICE: &str = "gpu-exporter";

/// The task.
pub struct GpuTask {
    settings: GpuConfig,
}

impl GpuTask {
    /// The task for a configuration.
    pub fn new(config: &Config) -> Self {
        Self { settings: config.gpu }
    }

    async fn look(&self) -> Result<Result<Accelerators, String>, Failure> {
        let slots = self.settings.slots;
        let look = move || nvml::accelerators(&nvml::open()?, slots).map_err(|error| error.to_string());
        tokio::task::spawn_blocking(look)
            .await
            .map_err(|error| Failure::caused(Persistence::Permanent, "ask the NVIDIA driver", &error))
    }
}

fn service(local: &Local, machine: &Machine) -> Service {
    let port = machine.ports.gpu_exporter;
    let program = local.own_program().display().to_string();
    Service {
        name: SERVICE.to_owned(),
        command: vec![program, VERB.to_owned(), port.to_string()],
        env: BTreeMap::new(),
        secret_env: BTreeMap::new(),
        secret_files: SecretFiles::default(),
        dir: machine.service_dir(SERVICE),
        endpoints: [("metrics".to_owned(), format!("http://127.0.0.1:{port}/metrics"))].into(),
        health: Health::Http(format!("http://127.0.0.1:{port}/healthz")),
        metrics: vec![Metrics::of_port("gpu", port)],
        login: None,
        stop_signal: "TERM".to_owned(),
        stop_seconds: 5,
    }
}

/// Serves the figures of the GPUs on a port: what [`VERB`] does.
pub fn export(port: &str) -> ExitCode {
    exporter::main(async {
        let port = port.parse().map_err(|_| std::io::Error::other(format!("`{port}` is no port")))?;
        exporter::serve(port, || async {
            let look = || nvml::metrics(&nvml::open()?).map_err(|error| error.to_string());
            tokio::task::spawn_blocking(look).await.map_err(|error| error.to_string())?
        })
        .await
    })
}

#[async_trait]
impl Task for GpuTask {
    type Settings = GpuConfig;
    type Output = Accelerators;

    fn settings(&self) -> &GpuConfig {
        &self.settings
    }

    fn reads(&self) -> Vec<Read> {
        vec![Read::of::<Machine>(), Read::of::<Platform>()]
    }

    async fn relevant(&self, _view: &View) -> Result<(), String> {
        let look = tokio::task::spawn_blocking(|| nvml::open().map(|_| ()));
        look.await.map_err(|error| error.to_string())?
    }

    async fn check(&self, _view: &View) -> Vec<Problem> {
        match Path::new("/dev/nvidiactl").exists() || nvml::open().is_err() {
            true => Vec::new(),
            false => vec![Problem::new("the NVIDIA driver has no device files", "make them: nvidia-modprobe -u -c 0")],
        }
    }

    async fn probe(&self, view: &View, made: &Made<Self>) -> Probe {
        let found = match self.look().await {
            Ok(Ok(found)) => found,
            Ok(Err(why)) => return Probe::Missing(why),
            Err(failure) => return Probe::CannotTell(failure.to_string()),
        };
        let described = |accelerators: &Accelerators| {
            let devices = accelerators.devices.iter().map(|gpu| format!("{} {}", gpu.name, gpu.uuid));
            (accelerators.driver.clone(), devices.collect::<Vec<_>>().join(", "))
        };
        let ((driver, devices), (recorded_driver, recorded_devices)) = (described(&found), described(&made.output));
        let drifts = [("driver", recorded_driver, driver), ("devices", recorded_devices, devices)];
        let drifts = drifts.into_iter().filter(|(_, recorded, found)| recorded != found);
        let drifts: Vec<Drift> = drifts.map(|(name, recorded, found)| Drift::new(name, recorded, found)).collect();
        if !drifts.is_empty() {
            return Probe::Drifted(drifts);
        }
        match view.output::<Machine>().and_then(|machine| Ok((Local::new(&machine)?, machine))) {
            Ok((local, machine)) => local.probe(&service(&local, &machine)).await,
            Err(failure) => Probe::CannotTell(failure.to_string()),
        }
    }

    async fn apply(&self, context: &Context, _earlier: &Earlier<Self>) -> Result<Applied<Accelerators>, Failure> {
        let machine: Machine = context.output()?;
        let found = self.look().await?.map_err(Failure::permanent)?;
        for gpu in &found.devices {
            context.say(format!("{}: {}, {} MiB, {} slots", gpu.uuid, gpu.name, gpu.memory_mib, gpu.slots));
        }
        let local = Local::new(&machine)?;
        let service = service(&local, &machine);
        files::service_folder(&service.dir, &machine.service_user, 0o700)?;
        local.ensure(context, &service).await?;
        Ok(Applied::complete(found))
    }

    fn proofs(&self) -> &'static [Proof] {
        const PROOFS: &[Proof] = &[Proof::quick("the service user sees every device")];
        PROOFS
    }

    async fn prove(&self, _proof: &str, view: &View, output: &Accelerators) -> Result<(), Failure> {
        let machine: Machine = view.output()?;
        let url = format!("http://127.0.0.1:{}/metrics", machine.ports.gpu_exporter);
        let failed = |error: reqwest::Error| Failure::caused(Persistence::Transient, "read the GPUs' figures", &error);
        let answer = reqwest::get(&url).await.map_err(failed)?;
        let status = answer.status();
        let text = answer.text().await.map_err(failed)?;
        if !status.is_success() {
            let why = format!("read the GPUs' figures as {}: {}", machine.service_user.name, text.trim());
            return Err(Failure::permanent(why).with_hint("let that user open /dev/nvidia*: see ls -l /dev/nvidia*"));
        }
        let memory = |index: u32| {
            let start = format!("DCGM_FI_DEV_FB_FREE{{gpu=\"{index}\"");
            text.lines().any(|line| line.starts_with(&start))
        };
        match output.devices.iter().find(|gpu| !memory(gpu.index)) {
            Some(gpu) => Err(Failure::permanent(format!("read the figures of {} ({})", gpu.name, gpu.uuid))),
            None => Ok(()),
        }
    }

    async fn destroy(&self, context: &Context, _made: &Traces<Self>) -> Result<(), Failure> {
        if let Ok(machine) = context.output::<Machine>() {
            Local::new(&machine)?.remove(context, SERVICE).await?;
        }
        files::remove(&context.state_dir().join("services").join(SERVICE))
    }
}
