//! NVML, NVIDIA's library for managing GPUs, as far as the installed driver brings it
//! (<https://docs.nvidia.com/deploy/nvml-api/>).

use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml, cuda_driver_version_major, cuda_driver_version_minor};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::outputs::{Accelerators, Gpu};

/// Why there is no GPU to use, as one would say it: `no NVIDIA driver is installed`.
///
/// # Errors
/// That reason.
pub fn open() -> Result<Nvml, String> {
    usable(Nvml::init())
}

fn usable(nvml: Result<Nvml, NvmlError>) -> Result<Nvml, String> {
    let nvml = nvml.map_err(|error| match error {
        NvmlError::LibloadingError(_) | NvmlError::LibraryNotFound => "no NVIDIA driver is installed".to_owned(),
        NvmlError::DriverNotLoaded => "the NVIDIA driver is installed and its module is not loaded".to_owned(),
        other => format!("the NVIDIA driver does not answer: {other}"),
    })?;
    match nvml.device_count() {
        Ok(0) => Err("no NVIDIA GPU is in this machine".to_owned()),
        Ok(_) => Ok(nvml),
        Err(error) => Err(format!("the NVIDIA driver does not list its GPUs: {error}")),
    }
}

/// The GPUs of this machine; those partitioned by MIG by their instances.
///
/// # Errors
/// A device does not answer.
pub fn accelerators(nvml: &Nvml, slots: u32) -> Result<Accelerators, NvmlError> {
    let cuda = nvml.sys_cuda_driver_version()?;
    let mut devices = Vec::new();
    for index in 0..nvml.device_count()? {
        let device = nvml.device_by_index(index)?;
        let instances = instances(&device)?;
        if instances.is_empty() {
            devices.push(gpu(&device, index, false, slots)?);
        }
        for instance in instances {
            devices.push(gpu(&instance, index, true, slots)?);
        }
    }
    Ok(Accelerators {
        driver: nvml.sys_driver_version()?,
        cuda: format!("{}.{}", cuda_driver_version_major(cuda), cuda_driver_version_minor(cuda)),
        devices,
    })
}

fn gpu(device: &Device<'_>, index: u32, mig: bool, slots: u32) -> Result<Gpu, NvmlError> {
    let memory_mib = device.memory_info()?.total >> 20;
    Ok(Gpu { index, uuid: device.uuid()?, name: device.name()?, memory_mib, mig, slots })
}

/// The MIG instances of a device; none where MIG is off or unknown to the device.
fn instances<'nvml>(device: &Device<'nvml>) -> Result<Vec<Device<'nvml>>, NvmlError> {
    const ENABLED: u32 = 1;
    match device.mig_mode() {
        Ok(mode) if mode.current == ENABLED => {}
        Ok(_) | Err(NvmlError::NotSupported | NvmlError::FailedToLoadSymbol(_)) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    }
    let mut instances = Vec::new();
    for index in 0..device.mig_device_count()? {
        match device.mig_device_by_index(index) {
            Ok(instance) => instances.push(instance),
            // Numbers may be left out.
            Err(NvmlError::NotFound) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(instances)
}

/// The labels of a GPU's series, as NVIDIA's DCGM exporter has them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
#[expect(non_snake_case, reason = "the label's name is the exporter's")]
struct Labels {
    gpu: u32,
    UUID: String,
    modelName: String,
}

/// The figures of all GPUs, by the names that NVIDIA's DCGM exporter gives them
/// (<https://docs.nvidia.com/datacenter/dcgm/latest/gpu-telemetry/dcgm-exporter.html>), so that dashboards and alerts are
/// the same on every platform. A figure that a device does not tell is left out.
///
/// # Errors
/// A device is gone.
pub fn metrics(nvml: &Nvml) -> Result<Registry, NvmlError> {
    const MIB: u64 = 1 << 20;
    let mut registry = Registry::default();
    let mut family = |name: &str, help: &str| {
        let family = Family::<Labels, Gauge<f64, std::sync::atomic::AtomicU64>>::default();
        registry.register(name, help, family.clone());
        family
    };
    let utilisation = family("DCGM_FI_DEV_GPU_UTIL", "GPU utilization (in %)");
    let memory_utilisation = family("DCGM_FI_DEV_MEM_COPY_UTIL", "Memory utilization (in %)");
    let used = family("DCGM_FI_DEV_FB_USED", "Framebuffer memory used (in MiB)");
    let free = family("DCGM_FI_DEV_FB_FREE", "Framebuffer memory free (in MiB)");
    let temperature = family("DCGM_FI_DEV_GPU_TEMP", "GPU temperature (in C)");
    let power = family("DCGM_FI_DEV_POWER_USAGE", "Power draw (in W)");
    for index in 0..nvml.device_count()? {
        let device = nvml.device_by_index(index)?;
        let labels = Labels { gpu: index, UUID: device.uuid()?, modelName: device.name()? };
        let set = |family: &Family<Labels, Gauge<f64, _>>, value: Result<f64, NvmlError>| {
            if let Ok(value) = value {
                family.get_or_create(&labels).set(value);
            }
        };
        let rates = device.utilization_rates();
        set(&utilisation, rates.as_ref().map(|rates| f64::from(rates.gpu)).map_err(|_| NvmlError::NotSupported));
        set(&memory_utilisation, rates.map(|rates| f64::from(rates.memory)));
        let memory = device.memory_info();
        set(&used, memory.as_ref().map(|memory| (memory.used / MIB) as f64).map_err(|_| NvmlError::NotSupported));
        set(&free, memory.map(|memory| (memory.free / MIB) as f64));
        set(&temperature, device.temperature(TemperatureSensor::Gpu).map(f64::from));
        set(&power, device.power_usage().map(|milliwatts| f64::from(milliwatts) / 1000.0));
    }
    Ok(registry)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use super::*;

    /// Loads the stand-in for NVIDIA's library, compiled with these options.
    fn stand_in(options: &[&str]) -> (tempfile::TempDir, Result<Nvml, NvmlError>) {
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("libnvidia-ml.so.1");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/assets/nvml.c");
        let mut compile = Command::new("cc");
        compile.args(["-shared", "-fPIC", "-Wall", "-Werror", "-o"]).arg(&library).args(options).arg(source);
        assert!(compile.status().unwrap().success());
        let nvml = Nvml::builder().lib_path(library.as_os_str()).init();
        (folder, nvml)
    }

    #[test]
    fn a_gpu_is_divided_into_slots() {
        let (_folder, nvml) = stand_in(&[]);
        let found = accelerators(&nvml.unwrap(), 4).unwrap();
        assert_eq!((&*found.driver, &*found.cuda), ("570.86.15", "12.8"));
        let slots: Vec<_> = found.slots().map(|(gpu, mib)| (gpu.uuid.clone(), mib)).collect();
        assert_eq!(slots, vec![("GPU-0".to_owned(), 20 * 1024); 4]);
    }

    #[test]
    fn a_partitioned_gpu_is_its_instances() {
        let (_folder, nvml) = stand_in(&["-DMIG"]);
        let found = accelerators(&nvml.unwrap(), 1).unwrap();
        let instances: Vec<_> = found.devices.iter().map(|gpu| (&*gpu.uuid, gpu.mig, gpu.memory_mib)).collect();
        assert_eq!(instances, [("MIG-1", true, 10 * 1024), ("MIG-3", true, 10 * 1024)]);
    }

    #[test]
    fn what_a_device_does_not_tell_is_left_out() {
        let (_folder, nvml) = stand_in(&[]);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &metrics(&nvml.unwrap()).unwrap()).unwrap();
        crate::testing::snapshot("gpu-metrics", &text);
    }

    #[test]
    fn without_a_gpu_the_reason_is_told() {
        let (_folder, none) = stand_in(&["-DDEVICES=0"]);
        assert_eq!(usable(none).unwrap_err(), "no NVIDIA GPU is in this machine");
        let (_folder, unloaded) = stand_in(&["-DUNLOADED"]);
        assert_eq!(usable(unloaded).unwrap_err(), "the NVIDIA driver is installed and its module is not loaded");
        let absent = Nvml::builder().lib_path("/nonexistent/libnvidia-ml.so.1".as_ref()).init();
        assert_eq!(usable(absent).unwrap_err(), "no NVIDIA driver is installed");
    }
}
