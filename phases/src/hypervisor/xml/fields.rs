//! What two definitions of a domain are compared by.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use taskrun_engine::task::Drift;

use super::devices::{Devices, GUEST_AGENT, Interface};
use super::domain::Domain;

/// Where `found` differs from `wanted`, field by field, in the words of people.
///
/// Only what a definition made here says is compared: what libvirt added by itself is no difference.
pub fn domain_drift(wanted: &Domain, found: &Domain) -> Vec<Drift> {
    let (wanted, found) = (fields(wanted), fields(found));
    let names: BTreeSet<_> = wanted.keys().chain(found.keys()).collect();
    let value = |of: &BTreeMap<String, Value>, name| of.get(name).cloned().unwrap_or(Value::Null);
    let pairs = names.into_iter().map(|name| (name, value(&wanted, name), value(&found, name)));
    pairs
        .filter(|(_, wanted, found)| wanted != found)
        .map(|(name, wanted, found)| Drift::new(name, wanted, found))
        .collect()
}

fn fields(domain: &Domain) -> BTreeMap<String, Value> {
    let pinning: BTreeMap<String, &str> = domain
        .cputune
        .iter()
        .flat_map(|tune| &tune.vcpupin)
        .map(|pin| (format!("pinning of processor {}", pin.vcpu), pin.cpuset.as_str()))
        .collect();
    let memory = match domain.memory.in_kib() {
        Some(kib) if kib % 1024 == 0 => format!("{} MiB", kib / 1024),
        Some(kib) => format!("{kib} KiB"),
        None => format!("{} {}", domain.memory.value, domain.memory.unit.as_deref().unwrap_or_default()),
    };
    let hugepages = domain.memory_backing.as_ref().is_some_and(|backing| backing.hugepages.is_some());
    let emulated = if domain.kind == "qemu" { "emulation" } else { &domain.kind };
    let mut fields = BTreeMap::from([
        ("processors".to_owned(), json!(domain.vcpu.value)),
        ("memory".to_owned(), json!(memory)),
        ("run by".to_owned(), json!(emulated)),
        ("processor model".to_owned(), json!(domain.cpu.as_ref().and_then(|cpu| cpu.model()))),
        ("huge pages".to_owned(), json!(hugepages)),
        ("firmware".to_owned(), json!(if domain.os.is_uefi() { "UEFI" } else { "BIOS" })),
        ("machine".to_owned(), json!(chipset(&domain.os.machine.machine))),
        ("owner".to_owned(), json!(domain.owner())),
    ]);
    fields.extend(pinning.into_iter().map(|(name, cpuset)| (name, json!(cpuset))));
    fields.extend(devices(&domain.devices));
    fields
}

fn devices(devices: &Devices) -> BTreeMap<String, Value> {
    let mut fields = BTreeMap::new();
    for disk in &devices.disk {
        let file = disk.source.as_ref().and_then(|source| source.file.as_deref());
        fields.insert(format!("disk {}", disk.target.dev), json!(file));
    }
    for (interface, number) in devices.interface.iter().zip(1..) {
        let mac = interface.mac.as_ref().map(|mac| mac.value.as_str());
        fields.insert(format!("network device {number}"), json!(connection(interface)));
        fields.insert(format!("address of network device {number}"), json!(mac));
    }
    let log = devices.serial.first().and_then(|serial| serial.log.as_ref()).map(|log| log.file.as_str());
    fields.insert("log of the serial console".to_owned(), json!(log));
    let agent = devices.channel.iter().filter_map(|channel| channel.target.as_ref()?.name.as_deref());
    fields.insert("channel of the guest agent".to_owned(), json!(agent.into_iter().any(|name| name == GUEST_AGENT)));
    let of_host: Vec<_> = devices.of_host().iter().map(ToString::to_string).collect();
    fields.insert("devices of the host".to_owned(), json!(of_host.join(" ")));
    fields
}

fn connection(interface: &Interface) -> Option<String> {
    let source = interface.source.as_ref()?;
    let network = source.network.as_ref().map(|name| format!("network {name}"));
    network.or_else(|| source.bridge.as_ref().map(|name| format!("bridge {name}")))
}

/// The kind of a machine: `q35` for `pc-q35-7.2`, as libvirt writes what it was told as `q35`.
fn chipset(machine: &str) -> &str {
    if machine.contains("q35") { "q35" } else { machine }
}
