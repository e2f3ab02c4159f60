//! The hypervisor that libvirt is.
//!
//! Names are looked up anew in each call, so nothing here goes stale when somebody else changes what there is.

mod domains;
mod import;
mod networks;
mod storage;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use taskrun_engine::task::Drift;
use virt::connect::Connect;
use virt::error::{Error, ErrorNumber};

use super::spec::{DomainSpec, NetworkSpec, PoolSpec, VolumeSpec};
use super::xml::XmlError;
use super::{
    DomainFacts, HostFacts, Hypervisor, HypervisorError, Lease, NetworkFacts, PoolFacts, ShutDown, VolumeFacts,
};

/// A connection to libvirt, made anew when the one that was there broke.
pub struct Libvirt {
    uri: String,
    session: Mutex<Arc<Session>>,
}

/// A connection that is closed with the value.
struct Session(Connect);

impl Drop for Session {
    fn drop(&mut self) {
        // Where it fails there is nothing left to be closed.
        let _ = self.0.close();
    }
}

impl Session {
    fn open(uri: &str) -> Result<Arc<Self>, HypervisorError> {
        // libvirt would print each error to stderr as well.
        virt::error::clear_error_callback();
        let opened = Connect::open(Some(uri));
        opened
            .map(|connection| Arc::new(Self(connection)))
            .map_err(|error| HypervisorError::Connect { uri: uri.to_owned(), message: error.message().to_owned() })
    }

    fn is_alive(&self) -> bool {
        self.0.is_alive().unwrap_or(false)
    }

    /// The error for `what`.
    fn refused(&self, what: impl Into<String>, error: &Error) -> HypervisorError {
        let passes = matches!(
            error.code(),
            ErrorNumber::Rpc
                | ErrorNumber::OperationTimeout
                | ErrorNumber::ResourceBusy
                | ErrorNumber::AgentUnresponsive
                | ErrorNumber::AgentUnsynced
        );
        let message = match error.message() {
            "" => error.code().to_string(),
            message => message.to_owned(),
        };
        HypervisorError::Refused { what: what.into(), message, transient: passes || !self.is_alive() }
    }
}

impl Libvirt {
    /// Connects to `uri`, such as `qemu:///system`.
    ///
    /// # Errors
    /// Nobody listens there, or not to us.
    pub fn connect(uri: &str) -> Result<Self, HypervisorError> {
        Ok(Self { uri: uri.to_owned(), session: Mutex::new(Session::open(uri)?) })
    }

    fn session(&self) -> Result<Arc<Session>, HypervisorError> {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        if !session.is_alive() {
            *session = Session::open(&self.uri)?;
        }
        Ok(session.clone())
    }
}

/// What was found, or nothing if the error is that it does not exist.
fn unless_absent<T>(found: Result<T, Error>) -> Result<Option<T>, Error> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) => match error.code() {
            ErrorNumber::NoDomain
            | ErrorNumber::NoNetwork
            | ErrorNumber::NoStoragePool
            | ErrorNumber::NoStorageVolume => Ok(None),
            _ => Err(error),
        },
    }
}

/// Whether the call came too late or too early: the thing is in the other state already.
fn is_other_state(error: &Error) -> bool {
    error.code() == ErrorNumber::OperationInvalid
}

fn unreadable(what: impl Into<String>) -> impl FnOnce(XmlError) -> HypervisorError {
    let what = what.into();
    move |error| HypervisorError::refused(what, error)
}

fn version(number: u32) -> String {
    format!("{}.{}.{}", number / 1_000_000, number / 1000 % 1000, number % 1000)
}

impl Hypervisor for Libvirt {
    fn host(&self) -> Result<HostFacts, HypervisorError> {
        let session = self.session()?;
        let ask = || {
            let node = session.0.get_node_info()?;
            let kind = session.0.get_type()?;
            Ok(HostFacts {
                libvirt: version(session.0.get_lib_version()?),
                hypervisor: format!("{kind} {}", version(session.0.get_hyp_version()?)),
                cpus: node.cpus,
                memory_mib: node.memory / 1024,
                kvm_offered: session.0.get_capabilities()?.contains("type='kvm'"),
            })
        };
        ask().map_err(|error| session.refused("ask about the host", &error))
    }

    fn network(&self, name: &str) -> Result<Option<NetworkFacts>, HypervisorError> {
        self.network_facts(name)
    }

    fn networks(&self) -> Result<Vec<NetworkFacts>, HypervisorError> {
        self.all_networks()
    }

    fn network_drift(&self, spec: &NetworkSpec) -> Result<Vec<Drift>, HypervisorError> {
        self.live_network_drift(spec)
    }

    fn define_network(&self, spec: &NetworkSpec) -> Result<(), HypervisorError> {
        self.set_network(spec)
    }

    fn start_network(&self, name: &str) -> Result<(), HypervisorError> {
        self.activate_network(name)
    }

    fn remove_network(&self, name: &str) -> Result<(), HypervisorError> {
        self.undefine_network(name)
    }

    fn leases(&self, network: &str) -> Result<Vec<Lease>, HypervisorError> {
        self.network_leases(network)
    }

    fn pool(&self, name: &str) -> Result<Option<PoolFacts>, HypervisorError> {
        self.pool_facts(name)
    }

    fn define_pool(&self, spec: &PoolSpec) -> Result<(), HypervisorError> {
        self.set_pool(spec)
    }

    fn remove_pool(&self, name: &str) -> Result<(), HypervisorError> {
        self.undefine_pool(name)
    }

    fn volumes(&self, pool: &str) -> Result<Vec<VolumeFacts>, HypervisorError> {
        self.volume_facts(pool)
    }

    fn create_volume(&self, pool: &str, spec: &VolumeSpec) -> Result<(), HypervisorError> {
        self.make_volume(pool, spec)
    }

    fn import_volume(&self, pool: &str, name: &str, file: &Path) -> Result<(), HypervisorError> {
        self.upload(pool, name, file)
    }

    fn remove_volume(&self, pool: &str, name: &str) -> Result<(), HypervisorError> {
        self.delete_volume(pool, name)
    }

    fn domains(&self) -> Result<Vec<DomainFacts>, HypervisorError> {
        self.all_domains()
    }

    fn domain(&self, name: &str) -> Result<Option<DomainFacts>, HypervisorError> {
        self.domain_facts(name)
    }

    fn drift(&self, spec: &DomainSpec) -> Result<Vec<Drift>, HypervisorError> {
        self.definition_drift(spec)
    }

    fn define_domain(&self, spec: &DomainSpec) -> Result<(), HypervisorError> {
        self.set_domain(spec)
    }

    fn start_domain(&self, name: &str) -> Result<(), HypervisorError> {
        self.power_on(name)
    }

    fn shut_down_domain(&self, name: &str, way: ShutDown) -> Result<(), HypervisorError> {
        self.ask_to_end(name, way)
    }

    fn turn_off_domain(&self, name: &str) -> Result<(), HypervisorError> {
        self.power_off(name)
    }

    fn remove_domain(&self, name: &str) -> Result<(), HypervisorError> {
        self.undefine_domain(name)
    }
}

#[cfg(test)]
mod tests;
