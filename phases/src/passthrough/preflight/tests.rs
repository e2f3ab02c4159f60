//! Made-up hosts, and what is told of them.

use std::os::unix::fs::symlink;

use super::super::testing::{Pci, Tree, wanted};
use super::*;

fn told_of(tree: &Tree, machines: &[(&str, &[Passthrough], bool)]) -> Vec<String> {
    let machines: Vec<Candidate> =
        machines.iter().map(|&(node, devices, auto_start)| Candidate { node, devices, auto_start }).collect();
    let problems = problems(&tree.sysfs(), &machines);
    assert!(problems.iter().all(|problem| problem.hint.is_some()), "{problems:?}");
    problems.into_iter().map(|problem| format!("{}; {}", problem.message, problem.hint.unwrap())).collect()
}

/// The one thing that is told of a machine with these devices.
fn only(tree: &Tree, devices: &[Passthrough]) -> String {
    let mut told = told_of(tree, &[("w1", devices, true)]);
    assert_eq!(told.len(), 1, "{told:#?}");
    told.remove(0)
}

#[test]
fn a_host_that_is_ready_has_no_problem() {
    let tree = Tree::with_a_gpu();
    let said = Passthrough { iommu_group: Some(14), vendor_id: Some("0x10DE".into()), ..wanted("65:00.0") };
    assert_eq!(told_of(&tree, &[("w1", &[said], true), ("w2", &[], true)]), [""; 0]);
}

#[test]
fn a_host_without_devices_to_give_needs_no_iommu() {
    assert_eq!(told_of(&Tree::new(), &[("w1", &[], true)]), [""; 0]);
}

#[test]
fn a_host_without_iommu_and_module_is_told_once() {
    let tree = Tree::new();
    tree.add(Pci::gpu("0000:65:00.0"));
    tree.add(Pci::gpu("0000:66:00.0"));
    let told = told_of(&tree, &[("w1", &[wanted("65:00.0")], true), ("w2", &[wanted("66:00.0")], true)]);
    assert_eq!(told.len(), 2, "{told:#?}");
    assert!(told[0].contains("no IOMMU") && told[0].contains("intel_iommu=on") && told[0].contains("firmware setup"));
    assert!(told[1].contains("no module vfio-pci") && told[1].contains("modprobe vfio-pci"));
}

#[test]
fn a_device_that_is_not_there_is_looked_for_elsewhere() {
    let tree = Tree::with_a_gpu();
    let told = only(&tree, &[wanted("17:00.0")]);
    assert_eq!(
        told,
        "there is no PCI device 0000:17:00.0 for w1; such a device is at 0000:65:00.0: correct `pci_address`"
    );
    let other = Passthrough { device_id: Some("1eb8".to_owned()), ..wanted("17:00.0") };
    assert!(only(&tree, &[other]).contains("lspci -Dnn"));
}

#[test]
fn ids_kind_and_group_must_be_those_of_the_configuration() {
    let tree = Tree::with_a_gpu();
    let ids = Passthrough { device_id: Some("2204".to_owned()), ..wanted("65:00.0") };
    assert_eq!(
        only(&tree, &[ids]),
        "0000:65:00.0 of w1 has the device_id 2684, not 2204: it is NVIDIA GPU [10de:2684]; \
         set `device_id: \"2684\"` if that is the device, else correct `pci_address`: lspci -Dnn"
    );
    let nonsense = Passthrough { vendor_id: Some("nvidia".to_owned()), ..wanted("65:00.0") };
    assert!(only(&tree, &[nonsense]).contains("has the vendor_id 10de, not nvidia"));
    let group = Passthrough { iommu_group: Some(2), ..wanted("65:00.0") };
    assert!(only(&tree, &[group]).contains("is in IOMMU group 14, not 2; set `iommu_group: 14`"));
    let audio = Passthrough { device_id: Some("22ba".to_owned()), ..wanted("65:00.1") };
    assert!(only(&tree, &[wanted("65:00.0"), audio]).contains("is said to be a GPU and is NVIDIA audio device"));
    let bridge = Passthrough { kind: DeviceKind::Other, vendor_id: None, device_id: None, ..wanted("64:00.0") };
    assert!(only(&tree, &[wanted("65:00.0"), bridge]).contains("is a bridge, which cannot be passed"));
}

#[test]
fn a_group_with_a_device_of_the_host_is_not_viable() {
    let tree = Tree::with_a_gpu();
    tree.add(Pci { group: Some(14), ..Pci::disk("0000:66:00.0") });
    let told = only(&tree, &[wanted("65:00.0")]);
    assert!(
        told.starts_with(
            "IOMMU group 14 of 0000:65:00.0 also has 0000:66:00.0 (Samsung NVMe disk [144d:a80a], held by the driver \
             nvme), so it cannot go to w1; put the card into another slot"
        ),
        "{told}"
    );
}

#[test]
fn a_gpu_that_the_host_uses_is_told_and_an_idle_one_is_not() {
    let tree = Tree::new();
    tree.write("sys/module/vfio_pci/refcnt", "0\n");
    tree.add(Pci { driver: Some("nvidia"), group: Some(1), ..Pci::gpu("0000:65:00.0") });
    let gpu = [wanted("65:00.0")];
    assert_eq!(told_of(&tree, &[("w1", &gpu, true)]), [""; 0], "libvirt binds it to vfio-pci");
    tree.write("proc/driver/nvidia/gpus/0000:65:00.0/information", "Model: \t\t X\nDevice Minor: \t 1\n");
    let opens = |pid: u32, name: &str, file: &str| {
        tree.write(&format!("proc/{pid}/comm"), &format!("{name}\n"));
        std::fs::create_dir(tree.path(&format!("proc/{pid}/fd"))).unwrap();
        symlink(file, tree.path(&format!("proc/{pid}/fd/3"))).unwrap();
    };
    opens(70, "python3", "/dev/nvidia0");
    opens(71, "ollama", "/dev/nvidiactl");
    assert_eq!(told_of(&tree, &[("w1", &gpu, true)]), [""; 0], "they use another one");
    opens(72, "python3", "/dev/nvidia1");
    assert_eq!(
        only(&tree, &gpu),
        "0000:65:00.0 of w1 is in use on this host by python3 (pid 72): NVIDIA GPU [10de:2684]; \
         stop what uses it: nvidia-smi names it"
    );
    opens(9, "nvidia-persiste", "/dev/nvidia1");
    let told = only(&tree, &gpu);
    assert!(told.contains("nvidia-persiste (pid 9), python3 (pid 72)") && told.contains("systemctl stop"), "{told}");
}

#[test]
fn the_display_of_the_host_is_not_given_away() {
    for (driver, problems) in [("nouveau", 1), ("vfio-pci", 0)] {
        let tree = Tree::new();
        tree.write("sys/module/vfio_pci/refcnt", "0\n");
        tree.add(Pci { driver: Some(driver), group: Some(1), boot_vga: true, ..Pci::gpu("0000:65:00.0") });
        let told = told_of(&tree, &[("w1", &[wanted("65:00.0")], true)]);
        assert_eq!(told.len(), problems, "{told:#?}");
        assert!(told.iter().all(|told| told.contains("display of this host, held by the driver nouveau")
            && told.contains("vfio-pci.ids=10de:2684")));
    }
}

#[test]
fn two_machines_that_start_together_do_not_share() {
    let tree = Tree::with_a_gpu();
    let gpu = [wanted("65:00.0")];
    assert_eq!(told_of(&tree, &[("w1", &gpu, true), ("w2", &gpu, false)]), [""; 0]);
    let told = told_of(&tree, &[("w1", &gpu, true), ("w2", &gpu, true)]);
    assert_eq!(
        told,
        ["0000:65:00.0 is given to w1 and w2, which are both started with the cluster; set `auto_start: false` for \
          all but one of them, and start them in turn: taskrun vm start NODE"]
    );
    tree.add(Pci { group: Some(14), driver: Some("vfio-pci"), ..Pci::gpu("0000:66:00.0") });
    let told = told_of(&tree, &[("w1", &gpu, true), ("w2", &[wanted("66:00.0")], true)]);
    let group = "devices of IOMMU group 14 are given to w1 and w2; a group goes to one machine";
    assert!(told.iter().any(|told| told.starts_with(group)), "{told:#?}");
    assert_eq!(told.len(), 3, "each group is not viable, either: {told:#?}");
}
