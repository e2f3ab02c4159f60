//! Networks.

use std::ffi::CStr;

use serde::Serialize;
use taskrun_engine::task::Drift;
use virt::error::{Error, ErrorNumber};
use virt::network::Network;
use virt::sys;

use super::{Libvirt, Session, is_other_state, unless_absent, unreadable};
use crate::hypervisor::spec::NetworkSpec;
use crate::hypervisor::{HypervisorError, Lease, NetworkFacts, xml};

impl Libvirt {
    pub(super) fn network_facts(&self, name: &str) -> Result<Option<NetworkFacts>, HypervisorError> {
        let session = self.session()?;
        let ask = || match find(&session, name)? {
            Some(network) => unless_absent(facts(&network)),
            None => Ok(None),
        };
        ask().map_err(|error| session.refused(format!("look at the network {name}"), &error))
    }

    pub(super) fn all_networks(&self) -> Result<Vec<NetworkFacts>, HypervisorError> {
        let session = self.session()?;
        let ask = || {
            let all = session.0.list_all_networks(0)?;
            all.iter().filter_map(|network| unless_absent(facts(network)).transpose()).collect::<Result<_, Error>>()
        };
        ask().map_err(|error| session.refused("list the networks", &error))
    }

    pub(super) fn live_network_drift(&self, spec: &NetworkSpec) -> Result<Vec<Drift>, HypervisorError> {
        let what = format!("look at the network {}", spec.name);
        let Some(there) = self.network_facts(&spec.name)? else {
            return Err(HypervisorError::refused(what, "there is none"));
        };
        let found: xml::network::Network = xml::read(&there.xml).map_err(unreadable(what))?;
        let mut drift = xml::network::Network::of(spec, None).drift(&found, true);
        if !there.auto_start {
            drift.push(Drift::new("started with the host", true, false));
        }
        Ok(drift)
    }

    pub(super) fn set_network(&self, spec: &NetworkSpec) -> Result<(), HypervisorError> {
        let what = format!("define the network {}", spec.name);
        let session = self.session()?;
        let refused = |error: Error| session.refused(what.clone(), &error);
        let there = find(&session, &spec.name).map_err(refused)?;
        let uuid = there.as_ref().map(Network::get_uuid_string).transpose().map_err(refused)?;
        let wanted = xml::network::Network::of(spec, uuid);
        let define = || -> Result<Network, HypervisorError> {
            let text = wanted.to_xml().map_err(unreadable(what.clone()))?;
            Network::define_xml(&session.0, &text).map_err(refused)
        };
        let network = match there {
            Some(network) => {
                // Only an active one has another definition besides the one that it runs with.
                let active = network.is_active().map_err(refused)?;
                let flags = if active { sys::VIR_NETWORK_XML_INACTIVE } else { 0 };
                let text = match network.get_xml_desc(flags) {
                    // A driver that keeps one definition only knows no flags.
                    Err(error) if error.code() == ErrorNumber::InvalidArg => network.get_xml_desc(0),
                    text => text,
                };
                let text = text.map_err(refused)?;
                let found = xml::read(&text).map_err(unreadable(what.clone()))?;
                if wanted.drift(&found, true).is_empty() { network } else { define()? }
            }
            None => define()?,
        };
        if !network.get_autostart().map_err(refused)? {
            network.set_autostart(true).map_err(refused)?;
        }
        if network.is_active().map_err(refused)? {
            let live = xml::read(&network.get_xml_desc(0).map_err(refused)?).map_err(unreadable(what.clone()))?;
            // Anything else is taken over when the network is started again.
            if wanted.drift(&live, false).is_empty() {
                for (command, section, text) in updates(&wanted, &live).map_err(unreadable(what.clone()))? {
                    network
                        .update(command, section, -1, &text, sys::VIR_NETWORK_UPDATE_AFFECT_LIVE)
                        .map_err(refused)?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn activate_network(&self, name: &str) -> Result<(), HypervisorError> {
        let session = self.session()?;
        let start = || {
            let network = Network::lookup_by_name(&session.0, name)?;
            if network.is_active()? {
                return Ok(());
            }
            match network.create() {
                Err(error) if is_other_state(&error) && network.is_active()? => Ok(()),
                done => done.map(drop),
            }
        };
        start().map_err(|error| session.refused(format!("start the network {name}"), &error))
    }

    pub(super) fn undefine_network(&self, name: &str) -> Result<(), HypervisorError> {
        let session = self.session()?;
        let remove = |network: &Network| {
            if network.is_active()? {
                match network.destroy() {
                    Err(error) if !is_other_state(&error) => return Err(error),
                    _ => {}
                }
            }
            network.undefine()
        };
        let done = find(&session, name).and_then(|network| match network {
            Some(network) => unless_absent(remove(&network)).map(drop),
            None => Ok(()),
        });
        done.map_err(|error| session.refused(format!("remove the network {name}"), &error))
    }

    pub(super) fn network_leases(&self, name: &str) -> Result<Vec<Lease>, HypervisorError> {
        let session = self.session()?;
        let ask = || match find(&session, name)? {
            Some(network) if network.is_active()? => leases(&network),
            _ => Ok(Vec::new()),
        };
        ask().map_err(|error| session.refused(format!("list the leases of the network {name}"), &error))
    }
}

fn find(session: &Session, name: &str) -> Result<Option<Network>, Error> {
    unless_absent(Network::lookup_by_name(&session.0, name))
}

fn facts(network: &Network) -> Result<NetworkFacts, Error> {
    Ok(NetworkFacts {
        name: network.get_name()?,
        // An error if it has none.
        bridge: network.get_bridge_name().ok(),
        active: network.is_active()?,
        auto_start: network.get_autostart()?,
        xml: network.get_xml_desc(0)?,
    })
}

type Update = (sys::virNetworkUpdateCommand, sys::virNetworkUpdateSection, String);

/// The updates that make the reservations and names of `live` those of `wanted`: first what goes, then what comes.
fn updates(wanted: &xml::network::Network, live: &xml::network::Network) -> Result<Vec<Update>, xml::XmlError> {
    fn changes<T: Serialize + PartialEq>(
        section: sys::virNetworkUpdateSection,
        wanted: &[T],
        live: &[T],
    ) -> Result<Vec<Update>, xml::XmlError> {
        let gone = live.iter().filter(|host| !wanted.contains(host));
        let new = wanted.iter().filter(|host| !live.contains(host));
        let gone = gone.map(|host| Ok((sys::VIR_NETWORK_UPDATE_COMMAND_DELETE, section, xml::write(host)?)));
        let new = new.map(|host| Ok((sys::VIR_NETWORK_UPDATE_COMMAND_ADD_LAST, section, xml::write(host)?)));
        gone.chain(new).collect()
    }
    let mut all = changes(sys::VIR_NETWORK_SECTION_IP_DHCP_HOST, &wanted.reservations(), &live.reservations())?;
    all.extend(changes(sys::VIR_NETWORK_SECTION_DNS_HOST, &wanted.names(), &live.names())?);
    Ok(all)
}

/// The leases of an active network; those of other kinds than IPv4 are left out.
fn leases(network: &Network) -> Result<Vec<Lease>, Error> {
    let mut list: *mut sys::virNetworkDHCPLeasePtr = std::ptr::null_mut();
    // SAFETY: the network is valid while it is borrowed; libvirt puts a list of its own into `list`.
    let count = unsafe { sys::virNetworkGetDHCPLeases(network.as_ptr(), std::ptr::null(), &raw mut list, 0) };
    let Ok(count) = usize::try_from(count) else { return Err(Error::last_error()) };
    if list.is_null() {
        return Ok(Vec::new());
    }
    let mut leases = Vec::new();
    for index in 0..count {
        // SAFETY: the list has `count` leases, whose texts end with NUL or are null; each is freed once, after its use.
        unsafe {
            let lease = *list.add(index);
            let text = |text: *const std::ffi::c_char| {
                (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
            };
            let mac = text((*lease).mac).and_then(|mac| mac.parse().ok());
            let address = text((*lease).ipaddr).and_then(|address| address.parse().ok());
            if let (Some(mac), Some(address)) = (mac, address) {
                leases.push(Lease { mac, address, host_name: text((*lease).hostname) });
            }
            sys::virNetworkDHCPLeaseFree(lease);
        }
    }
    // SAFETY: libvirt made the list by malloc, and asks its user to free it.
    unsafe { nix::libc::free(list.cast()) };
    Ok(leases)
}
