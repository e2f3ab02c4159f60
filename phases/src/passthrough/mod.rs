//! Devices of the host that virtual machines get: what there is, what stands in the way, and who owns which.
//!
//! A device may stand in the configurations of several clusters; one running machine owns it. [`sysfs`] reads what the
//! host has, [`group`] says what must go together, [`preflight`] what stands in the way before anything starts, and
//! the [`ledger`] remembers who owns what. It is one for the whole host.
//!
//! A machine is started like this:
//!
//! ```no_run
//! # use taskrun_phases::cluster::PciAddress;
//! # use taskrun_phases::hypervisor::{Hypervisor, HypervisorError};
//! # use taskrun_phases::passthrough::ledger::{Ledger, Owner, seen_by, users};
//! # fn start(h: &dyn Hypervisor, uri: &str, owner: &Owner, devices: &[PciAddress])
//! # -> Result<(), Box<dyn std::error::Error>> {
//! let ledger = Ledger::of_host()?;
//! for notice in ledger.reconcile(seen_by(h, uri))?.notices() { /* say it */ }
//! let claim = ledger.claim(owner, devices)?; // `devices` is what `whole_group` returned.
//! if let Some((device, other)) = users(&h.domains()?, &owner.domain_uuid, devices).first() {
//!     return Err(format!("{device} is in use by {}, which was started without taskrun", other.name).into());
//! }
//! match h.start_domain(&owner.node) {
//!     Ok(()) | Err(HypervisorError::TimedOut { .. }) => claim.keep()?,
//!     Err(error) => {
//!         claim.roll_back()?; // Dropping it does the same, without telling of errors.
//!         return Err(error.into());
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! and stopped like this: turn it off, see that it is off, then [`Ledger::release`](ledger::Ledger::release).

pub mod describe;
pub mod group;
pub mod ledger;
mod names;
pub mod preflight;
pub mod sysfs;
#[cfg(test)]
mod testing;
