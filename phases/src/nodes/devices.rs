//! The host's devices that machines get: whole IOMMU groups, each with one owner.

use taskrun_engine::outcome::{Failure, Persistence};

use super::layout::Layout;
use crate::cluster::{Passthrough, PciAddress};
use crate::hypervisor::patient::Patient;
use crate::hypervisor::{DomainFacts, Hypervisor, HypervisorError};
use crate::passthrough::group::whole_group;
use crate::passthrough::ledger::{self, Claim, Ledger, Owner, seen_by};
use crate::passthrough::sysfs::Sysfs;

/// The devices of a host, and who owns them.
#[derive(Debug, Clone)]
pub struct Devices {
    ledger: Ledger,
    sysfs: Sysfs,
}

impl Devices {
    /// Those of this host.
    ///
    /// # Errors
    /// There is no folder for the ledger.
    pub fn of_host() -> Result<Self, Failure> {
        Ok(Self { ledger: Ledger::of_host()?, sysfs: Sysfs::host() })
    }

    /// Those that `sysfs` has, owned as `ledger` says.
    pub fn new(ledger: Ledger, sysfs: Sysfs) -> Self {
        Self { ledger, sysfs }
    }

    /// What a machine must get so that groups stay whole.
    ///
    /// # Errors
    /// A device is not there, or cannot be given away.
    pub(super) fn whole_groups(&self, node: &str, wanted: &[Passthrough]) -> Result<Vec<PciAddress>, Failure> {
        whole_group(&self.sysfs, wanted).map_err(|error| {
            let hint = error.hint();
            Failure::caused(Persistence::Permanent, format!("find the devices of {node}"), &error).with_hint(hint)
        })
    }

    /// Who owns each of these devices: the node, with its cluster where that is another one.
    pub(super) fn owners(
        &self,
        layout: &Layout<'_>,
        wanted: &[Passthrough],
    ) -> Result<Vec<(PciAddress, Option<String>)>, Failure> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let owned = self.ledger.owners()?;
        let name = |owner: &Owner| match owner.state_dir == layout.state {
            true => owner.node.clone(),
            false => format!("{}/{}", owner.cluster, owner.node),
        };
        let owner = |device: &Passthrough| {
            let found = owned.iter().find(|owned| owned.device == device.address);
            (device.address, found.map(|found| name(&found.owner)))
        };
        Ok(wanted.iter().map(owner).collect())
    }

    /// Makes a machine the owner of devices, once what belonged to machines that have died is free again.
    pub(super) async fn claim(
        &self,
        hypervisor: &Patient,
        layout: &Layout<'_>,
        options: &[String],
        domain: &DomainFacts,
        devices: &[PciAddress],
    ) -> Result<Claim, Failure> {
        let uri = layout.virtualization.uri.clone();
        let name = ledger::OwnerName {
            environment: layout.environment,
            cluster: &layout.cluster.name,
            node: &domain.name,
            domain_uuid: &domain.uuid,
            uri: &uri,
        };
        let owner = Owner::new(name, options.to_vec(), layout.state.to_owned())
            .map_err(|error| Failure::caused(Persistence::Permanent, "read the id of this boot", &error))?;
        let (ledger, devices) = (self.ledger.clone(), devices.to_vec());
        let claim = move |hypervisor: &dyn Hypervisor| {
            if devices.is_empty() {
                return Ok(Ok(ledger.claim(&owner, &devices)));
            }
            if let Err(error) = ledger.reconcile(seen_by(hypervisor, &uri)) {
                return Ok(Ok(Err(error)));
            }
            let claim = ledger.claim(&owner, &devices);
            // Machines that were started without the ledger are not in it. A claim that is not returned goes back.
            let domains = hypervisor.domains()?;
            let stranger = ledger::users(&domains, &owner.domain_uuid, &devices).into_iter().next();
            Ok(match (claim, stranger) {
                (Ok(_), Some((device, domain))) => Err(foreign_user(&owner.node, device, &domain.name)),
                (claim, _) => Ok(claim),
            })
        };
        let claimed = hypervisor.call(&format!("find out who has the devices of {}", domain.name), claim).await;
        Ok(claimed.map_err(HypervisorError::into_failure)???)
    }

    /// Frees what a machine that is off owns.
    pub(super) fn release(&self, domain: &DomainFacts) -> Result<(), Failure> {
        self.ledger.release(&domain.uuid)?;
        Ok(())
    }
}

fn foreign_user(node: &str, device: PciAddress, domain: &str) -> Failure {
    Failure::permanent(format!("start {node}: {domain}, which was not started by taskrun, has {device}"))
        .with_hint(format!("shut that machine down: virsh shutdown {domain}"))
}

#[cfg(all(test, feature = "libvirt"))]
mod tests {
    use super::*;
    use crate::cluster::{Cluster, NetworkMode, Node};
    use crate::config;
    use crate::hypervisor::{DomainState, Libvirt};
    use crate::nodes::layout::HostTraits;
    use crate::passthrough::testing::{Tree, wanted};

    const GPU: &str = "0000:65:00.0";

    /// A cluster of one machine with a GPU, in an environment of the same name.
    fn cluster(name: &str) -> Cluster {
        let text = format!(
            "{{version: 1, name: {name}, clusters: {{cloud: {{name: {name}, network: {{subnet: 192.168.200.0/24, bridge: br}},
              control_plane: {{cpu_cores: 1, memory_gb: 2, disk_gb: 10, ip: 192.168.200.5}},
              worker_nodes: [{{cpu_cores: 1, memory_gb: 2, disk_gb: 10, ip: DHCP, pcie_passthrough: {{enabled: true,
                devices: [{{pci_address: '{GPU}', device_type: gpu}}]}}}}],
              kubernetes_config: {{cni: calico, ingress: nginx, storage_class: local-path}}}}}}}}"
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let loaded = config::load(file.path(), true).map_err(|error| error.render()).unwrap();
        let cluster = loaded.config.cluster().unwrap();
        assert_eq!(cluster.virtualization.as_ref().unwrap().network.mode, NetworkMode::Nat);
        cluster
    }

    /// A host with a GPU and its audio function in one group, and a hypervisor that both clusters use.
    struct Host {
        _files: (Tree, tempfile::TempDir, tempfile::NamedTempFile),
        devices: Devices,
        hypervisor: Patient,
    }

    impl Host {
        fn new() -> Self {
            let (tree, ledger) = (Tree::with_a_gpu(), tempfile::tempdir().unwrap());
            let node = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(node.path(), "<node><memory>33554432</memory></node>").unwrap();
            let libvirt = Libvirt::connect(&format!("test://{}", node.path().display())).unwrap();
            let devices = Devices::new(Ledger::at(ledger.path()), tree.sysfs());
            Self { devices, hypervisor: Patient::new(libvirt), _files: (tree, ledger, node) }
        }

        /// Defines a cluster's GPU worker as CLOUD-0.1 does.
        async fn define(&self, layout: &Layout<'_>, node: &Node) -> DomainFacts {
            let machine = node.virtual_machine().unwrap();
            let devices = self.devices.whole_groups(&node.name, &[wanted(GPU)]).unwrap();
            assert_eq!(devices.len(), 2, "the audio function goes with it");
            let host = HostTraits { kvm: false, cpus: 8 };
            let spec = layout.domain(node, machine, std::path::Path::new("/pool"), host, devices);
            assert!(!spec.auto_start, "libvirt asks nobody who owns a device");
            let name = node.name.clone();
            let define = move |h: &dyn Hypervisor| {
                h.define_domain(&spec)?;
                Ok(h.domain(&name)?.unwrap())
            };
            self.hypervisor.call("define", define).await.unwrap()
        }

        /// Starts a machine as `vm start` does.
        async fn start(&self, layout: &Layout<'_>, domain: &DomainFacts) -> Result<(), Failure> {
            let options = ["--config".to_owned(), format!("/{}.yaml", layout.environment)];
            let devices = self.devices.whole_groups(&domain.name, &[wanted(GPU)])?;
            let claim = self.devices.claim(&self.hypervisor, layout, &options, domain, &devices).await?;
            self.hypervisor.start_domain(&domain.name).await.map_err(HypervisorError::into_failure)?;
            Ok(claim.keep()?)
        }

        async fn off(&self, domain: &DomainFacts) {
            let name = domain.name.clone();
            self.hypervisor.call("off", move |h| h.turn_off_domain(&name)).await.unwrap();
        }

        async fn state(&self, domain: &DomainFacts) -> DomainState {
            let name = domain.name.clone();
            self.hypervisor.call("look", move |h| h.domain(&name)).await.unwrap().unwrap().state
        }

        fn owner(&self, layout: &Layout<'_>) -> Option<String> {
            self.devices.owners(layout, &[wanted(GPU)]).unwrap().remove(0).1
        }
    }

    #[tokio::test]
    async fn of_two_clusters_that_share_a_gpu_one_running_machine_owns_it() {
        let host = Host::new();
        let (hpc, cloud) = (cluster("hpc"), cluster("cloud"));
        let (states, worker) = (["/state/hpc", "/state/cloud"].map(std::path::Path::new), "gpu-worker-01");
        let hpc_layout = Layout::new(&hpc, "hpc", states[0]).unwrap();
        let cloud_layout = Layout::new(&cloud, "cloud", states[1]).unwrap();
        let hpc_worker = host.define(&hpc_layout, hpc.node(&format!("hpc-{worker}")).unwrap()).await;
        let cloud_worker = host.define(&cloud_layout, cloud.node(&format!("cloud-{worker}")).unwrap()).await;
        assert_eq!(host.owner(&cloud_layout), None);

        // Who comes second is told who owns it and how to stop that one, and is not started.
        host.start(&hpc_layout, &hpc_worker).await.unwrap();
        assert_eq!(host.owner(&cloud_layout).unwrap(), "hpc/hpc-gpu-worker-01");
        let refused = host.start(&cloud_layout, &cloud_worker).await.unwrap_err();
        let told = format!("{refused} {:?}", refused.causes);
        assert!(told.contains("hpc-gpu-worker-01") && told.contains(GPU), "{told}");
        assert!(refused.hint.unwrap().contains("--config /hpc.yaml vm stop hpc-gpu-worker-01"));
        assert_eq!(host.state(&cloud_worker).await, DomainState::ShutOff);

        // Stopping the one that owns nothing frees nothing of the other's.
        host.devices.release(&cloud_worker).unwrap();
        assert_eq!(host.owner(&hpc_layout).unwrap(), "hpc-gpu-worker-01");
        host.off(&hpc_worker).await;
        host.devices.release(&hpc_worker).unwrap();
        host.start(&cloud_layout, &cloud_worker).await.unwrap();
        assert_eq!(host.owner(&hpc_layout).unwrap(), "cloud/cloud-gpu-worker-01");

        // A machine that dies without anybody's doing is noticed by who wants its device.
        host.off(&cloud_worker).await;
        host.start(&hpc_layout, &hpc_worker).await.unwrap();
        assert_eq!(host.owner(&hpc_layout).unwrap(), "hpc-gpu-worker-01");

        // A start that fails gives back what it had taken.
        host.off(&hpc_worker).await;
        host.devices.release(&hpc_worker).unwrap();
        let gone = DomainFacts { name: "not-defined".to_owned(), ..cloud_worker.clone() };
        host.start(&cloud_layout, &gone).await.unwrap_err();
        assert_eq!(host.owner(&cloud_layout), None);
        host.start(&hpc_layout, &hpc_worker).await.unwrap();
    }
}
