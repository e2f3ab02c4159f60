//! Devices of the host that virtual machines get: what there is, what stands in the way, and who owns which.
//!
//! A device may stand in the configurations of several clusters; one running machine owns it. [`sysfs`] reads what the
//! host has, [`group`] says what must go together, [`preflight`] what stands in the way before anything starts, and
//! the [`ledger`] remembers who owns what. It is one for the whole host.
//!
//! A machine is started like this, with the domains of all clusters in view:
//!
//! ```no_run
//! # use taskrun_phases::cluster::Passthrough;
//! # use taskrun_phases::hypervisor::{Hypervisor, HypervisorError};
//! # use taskrun_phases::passthrough::group::whole_group;
//! # use taskrun_phases::passthrough::ledger::{Ledger, Owner, seen_by};
//! # use taskrun_phases::passthrough::sysfs::Sysfs;
//! # fn start(h: &dyn Hypervisor, uri: &str, owner: &Owner, wanted: &[Passthrough])
//! # -> Result<(), Box<dyn std::error::Error>> {
//! let devices = whole_group(&Sysfs::host(), wanted)?;
//! let ledger = Ledger::of_host()?;
//! ledger.reconcile(seen_by(h, uri))?;
//! let claim = ledger.claim(owner, &devices)?;
//! h.start_domain(&owner.node)?; // If this fails, the claim is given back when it is dropped.
//! claim.keep()?;
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
