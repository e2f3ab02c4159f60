//! The host's devices that machines get: whole IOMMU groups, each with one owner.

use taskrun_engine::outcome::{Failure, Persistence};

use super::layout::Layout;
use crate::cluster::{Passthrough, PciAddress};
use crate::hypervisor::patient::Patient;
use crate::hypervisor::{DomainFacts, Hypervisor, HypervisorError};
use crate::passthrough::group::whole_group;
use crate::passthrough::ledger::{self, Claim, Ledger, LedgerError, Owner, seen_by};
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
        Ok(Self { ledger: Ledger::of_host().map_err(failure)?, sysfs: Sysfs::host() })
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
        let owned = self.ledger.owners().map_err(failure)?;
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
            let domains = hypervisor.domains()?;
            let users = ledger::users(&domains, &owner.domain_uuid, &devices);
            let known = ledger.owners();
            let stranger = users.into_iter().find(|(device, domain)| {
                let claimed = known.as_ref().is_ok_and(|known| known.iter().any(|owned| owned.device == *device));
                !claimed && domain.owner.is_none()
            });
            Ok(match stranger {
                Some((device, domain)) => Err(foreign_user(&owner.node, device, &domain.name)),
                None => Ok(ledger.claim(&owner, &devices)),
            })
        };
        let claimed = hypervisor.call(&format!("find out who has the devices of {}", domain.name), claim).await;
        claimed.map_err(HypervisorError::into_failure)??.map_err(failure)
    }

    /// Frees what a machine that is off owns.
    pub(super) fn release(&self, domain: &DomainFacts) -> Result<(), Failure> {
        self.ledger.release(&domain.uuid).map(drop).map_err(failure)
    }
}

fn foreign_user(node: &str, device: PciAddress, domain: &str) -> Failure {
    Failure::permanent(format!("start {node}: {domain}, which was not started by taskrun, has {device}"))
        .with_hint(format!("shut that machine down: virsh shutdown {domain}"))
}

pub(super) fn failure(error: LedgerError) -> Failure {
    let persistence = if error.is_transient() { Persistence::Transient } else { Persistence::Permanent };
    let failure = Failure::caused(persistence, "see to who owns which device", &error);
    match error.hint() {
        Some(hint) => failure.with_hint(hint),
        None => failure,
    }
}
