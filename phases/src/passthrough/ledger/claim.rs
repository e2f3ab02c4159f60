//! A claim while its machine is being started.

use super::Ledger;
use super::claims::Taken;
use super::error::LedgerError;
use crate::cluster::PciAddress;

/// Devices that a machine owns while this process starts it.
///
/// Once the machine runs, [`keep`](Self::keep) it; if it could not be started, [roll it back](Self::roll_back). Where
/// that is unclear, such as when the hypervisor did not answer in time, keep it: the next
/// [reconcile](Ledger::reconcile) frees what does not run. A claim that is dropped is rolled back. One that neither happened to because the process was killed is settled by the next
/// [reconcile](Ledger::reconcile): by whether the machine runs.
#[derive(Debug)]
#[must_use = "it is rolled back when it is dropped"]
pub struct Claim {
    ledger: Ledger,
    devices: Vec<PciAddress>,
    node: String,
    taken: Option<Taken>,
}

impl Claim {
    pub(super) fn new(ledger: Ledger, devices: &[PciAddress], node: &str, taken: Option<Taken>) -> Self {
        Self { ledger, devices: devices.to_vec(), node: node.to_owned(), taken }
    }

    /// The devices.
    pub fn devices(&self) -> &[PciAddress] {
        &self.devices
    }

    /// The machine runs, and owns the devices until it is stopped.
    ///
    /// # Errors
    /// The ledger cannot be written: the machine owns its devices nevertheless, and the next
    /// [reconcile](Ledger::reconcile) writes that down. Or [`LedgerError::Lost`].
    pub fn keep(mut self) -> Result<(), LedgerError> {
        let Some(taken) = self.taken.take() else { return Ok(()) };
        let kept = self.ledger.change(|claims| claims.keep(&taken))?;
        kept.map_err(|held| LedgerError::Lost { node: self.node.clone(), held })
    }

    /// The machine was not started: gives back exactly what this claim newly took.
    ///
    /// # Errors
    /// The ledger cannot be written; it is left to a [reconcile](Ledger::reconcile) after the end of this process.
    pub fn roll_back(mut self) -> Result<(), LedgerError> {
        self.give_back()
    }

    fn give_back(&mut self) -> Result<(), LedgerError> {
        match self.taken.take() {
            Some(taken) => self.ledger.change(|claims| claims.give_back(&taken)),
            None => Ok(()),
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Err(error) = self.give_back() {
            let error = error.to_string();
            tracing::warn!(node = self.node, error, "failed to give back the devices of a machine that did not start");
        }
    }
}
