//! The definition of a domain.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::devices::Devices;
use super::{Amount, Empty, Text, XmlError, named_by, write};
use crate::hypervisor::spec::DomainSpec;

/// The namespace of what stands in the metadata.
const NAMESPACE: &str = "urn:taskrun:domain";
/// The version of what stands there.
const FORMAT: u32 = 1;
/// The namespace of arguments for QEMU.
const QEMU_NAMESPACE: &str = "http://libvirt.org/schemas/domain/qemu/1.0";
/// The room for memory-mapped devices that OVMF sets aside above 4 GiB, in MiB: enough for GPUs of 80 GB.
const MMIO_WINDOW_MIB: u64 = 256 * 1024;

/// A domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "domain")]
pub struct Domain {
    /// `kvm`, or `qemu` where the processor is emulated.
    #[serde(rename = "@type")]
    pub kind: String,
    /// Only where QEMU gets arguments.
    #[serde(rename = "@xmlns:qemu", default, skip_serializing_if = "Option::is_none")]
    pub qemu_namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Its id; libvirt gives one to who has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// What is ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Metadata>,
    /// Memory.
    pub memory: Amount,
    /// What its memory is of.
    #[serde(rename = "memoryBacking", default, skip_serializing_if = "Option::is_none")]
    pub memory_backing: Option<MemoryBacking>,
    /// Virtual processors.
    pub vcpu: Text<u32>,
    /// Where they run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cputune: Option<CpuTune>,
    /// What starts it.
    pub os: Os,
    /// What the machine has.
    #[serde(default)]
    pub features: Features,
    /// The model of processors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Cpu>,
    /// What follows when its operating system ends, reboots and crashes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_crash: Option<String>,
    /// Its devices.
    pub devices: Devices,
    /// Arguments for QEMU.
    #[serde(
        rename(serialize = "qemu:commandline", deserialize = "commandline"),
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub qemu: Option<QemuCommandLine>,
}

/// What a definition says for programs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// What taskrun says.
    #[serde(
        rename(serialize = "taskrun:domain", deserialize = "domain"),
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub ours: Option<Ours>,
}

/// What taskrun says in a definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ours {
    /// [`NAMESPACE`]
    #[serde(rename = "@xmlns:taskrun", default)]
    pub namespace: String,
    /// The environment that it is made for.
    #[serde(rename = "@owner")]
    pub owner: String,
    /// The version of this element.
    #[serde(rename = "@format")]
    pub format: u32,
}

/// What memory is of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryBacking {
    /// Huge pages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hugepages: Option<Empty>,
}

/// Where virtual processors run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuTune {
    /// One by one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vcpupin: Vec<VcpuPin>,
}

/// Where one virtual processor runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VcpuPin {
    /// Which.
    #[serde(rename = "@vcpu")]
    pub vcpu: u32,
    /// Processors of the host, such as `2` or `0-3`.
    #[serde(rename = "@cpuset")]
    pub cpuset: String,
}

/// What starts a domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Os {
    /// `efi` where libvirt chooses an OVMF; nothing with SeaBIOS.
    #[serde(rename = "@firmware", default, skip_serializing_if = "Option::is_none")]
    pub firmware: Option<String>,
    /// The machine.
    #[serde(rename = "type")]
    pub machine: MachineType,
    /// What the firmware must have or lack.
    #[serde(rename = "firmware", default, skip_serializing_if = "Option::is_none")]
    pub features: Option<FirmwareFeatures>,
    /// The firmware, where it is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loader: Option<Loader>,
    /// What is booted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub boot: Vec<Boot>,
}

named_by!(
    /// What is booted: `hd`, the disk.
    Boot,
    "@dev"
);

/// A firmware by its file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loader {
    /// `pflash` or `rom`.
    #[serde(rename = "@type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
}

/// A type of machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineType {
    /// `x86_64`
    #[serde(rename = "@arch")]
    pub arch: String,
    /// `q35`, or with the version that libvirt put in, `pc-q35-7.2`.
    #[serde(rename = "@machine", default)]
    pub machine: String,
    /// `hvm`
    #[serde(rename = "$text")]
    pub kind: String,
}

/// What a firmware must have or lack.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirmwareFeatures {
    /// One by one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub feature: Vec<FirmwareFeature>,
}

/// Something that a firmware must have or lack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirmwareFeature {
    /// `yes` or `no`
    #[serde(rename = "@enabled")]
    pub enabled: String,
    /// `secure-boot` or `enrolled-keys`
    #[serde(rename = "@name")]
    pub name: String,
}

/// What a machine has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Features {
    /// A power button, among others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acpi: Option<Empty>,
    /// The interrupt controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apic: Option<Empty>,
}

/// The model of processors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpu {
    /// `host-passthrough`, `host-model`, `maximum` (all that the emulator can) or `custom`.
    #[serde(rename = "@mode", default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// How a custom one must fit the host: `exact`.
    #[serde(rename = "@match", default, skip_serializing_if = "Option::is_none")]
    pub fit: Option<String>,
    /// The name of a custom one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<CpuModel>,
    /// How they are arranged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology: Option<Topology>,
}

/// A model of processors by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuModel {
    /// `forbid`: no other one in its place.
    #[serde(rename = "@fallback", default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<String>,
    /// The name.
    #[serde(rename = "$text")]
    pub name: String,
}

/// How processors are arranged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    /// Sockets.
    #[serde(rename = "@sockets")]
    pub sockets: u32,
    /// Cores of each.
    #[serde(rename = "@cores")]
    pub cores: u32,
    /// Threads of each.
    #[serde(rename = "@threads")]
    pub threads: u32,
}

/// Arguments for QEMU.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QemuCommandLine {
    /// One by one.
    #[serde(rename(serialize = "qemu:arg", deserialize = "arg"), default, skip_serializing_if = "Vec::is_empty")]
    pub arg: Vec<QemuArg>,
}

named_by!(
    /// An argument for QEMU.
    QemuArg,
    "@value"
);

impl Domain {
    /// What is wanted, for a domain that has the id `uuid` if it is there already.
    ///
    /// With `direct_io` the disk is read and written past the host's page cache, which its file system must allow.
    pub fn of(spec: &DomainSpec, uuid: Option<String>, direct_io: bool) -> Self {
        // OVMF's own window is too small for GPUs; libvirt has no word for it.
        let window = (spec.uefi && !spec.devices.is_empty()).then(|| QemuCommandLine {
            arg: vec![
                QemuArg::new("-fw_cfg"),
                QemuArg::new(format!("name=opt/ovmf/X-PciMmio64Mb,string={MMIO_WINDOW_MIB}")),
            ],
        });
        let ours = Ours { namespace: NAMESPACE.to_owned(), owner: spec.owner.clone(), format: FORMAT };
        let pins = spec.pinning.iter().zip(0..).map(|(cpu, vcpu)| VcpuPin { vcpu, cpuset: cpu.to_string() });
        Self {
            kind: if spec.kvm { "kvm" } else { "qemu" }.to_owned(),
            qemu_namespace: window.is_some().then(|| QEMU_NAMESPACE.to_owned()),
            name: spec.name.clone(),
            uuid,
            metadata: Some(Metadata { ours: Some(ours) }),
            memory: Amount::mib(spec.memory_mib),
            memory_backing: spec.hugepages.then_some(MemoryBacking { hugepages: Some(Empty {}) }),
            vcpu: Text { value: spec.cpus },
            cputune: (!spec.pinning.is_empty()).then(|| CpuTune { vcpupin: pins.collect() }),
            os: Os::of(spec.uefi),
            features: Features { acpi: Some(Empty {}), apic: Some(Empty {}) },
            cpu: Some(Cpu::of(spec)),
            on_crash: Some("destroy".to_owned()),
            devices: Devices::of(spec, direct_io),
            qemu: window,
        }
    }

    /// As XML.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn to_xml(&self) -> Result<String, XmlError> {
        write(self)
    }

    /// The environment that it was made for, if taskrun made it.
    pub fn owner(&self) -> Option<&str> {
        Some(&self.metadata.as_ref()?.ours.as_ref()?.owner)
    }
}

impl Os {
    fn of(uefi: bool) -> Self {
        let lacks = |name: &str| FirmwareFeature { enabled: "no".to_owned(), name: name.to_owned() };
        let features = FirmwareFeatures { feature: vec![lacks("secure-boot")] };
        Self {
            firmware: uefi.then(|| "efi".to_owned()),
            machine: MachineType { arch: "x86_64".to_owned(), machine: "q35".to_owned(), kind: "hvm".to_owned() },
            features: uefi.then_some(features),
            loader: None,
            boot: vec![Boot::new("hd")],
        }
    }

    /// Whether an OVMF starts the domain, chosen by libvirt or named.
    pub fn is_uefi(&self) -> bool {
        self.firmware.as_deref() == Some("efi")
            || self.loader.as_ref().is_some_and(|loader| loader.kind.as_deref() == Some("pflash"))
    }
}

impl Cpu {
    fn of(spec: &DomainSpec) -> Self {
        let (mode, model) = match spec.cpu_model.as_str() {
            _ if !spec.kvm => ("maximum", None),
            mode @ ("host-passthrough" | "host-model" | "maximum") => (mode, None),
            name => ("custom", Some(CpuModel { fallback: Some("forbid".to_owned()), name: name.to_owned() })),
        };
        Self {
            mode: Some(mode.to_owned()),
            fit: model.is_some().then(|| "exact".to_owned()),
            model,
            topology: Some(Topology { sockets: 1, cores: spec.cpus, threads: 1 }),
        }
    }

    /// Its mode, or the name of a custom one.
    pub fn model(&self) -> Option<&str> {
        match (&self.mode, &self.model) {
            (Some(mode), _) if mode != "custom" => Some(mode),
            (_, model) => model.as_ref().map(|model| model.name.as_str()),
        }
    }
}

/// The path as libvirt writes it.
pub(super) fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
