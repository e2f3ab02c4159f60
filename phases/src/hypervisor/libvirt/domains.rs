//! Domains.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use taskrun_engine::task::Drift;
use virt::domain::Domain;
use virt::error::{Error, ErrorNumber};
use virt::sys;

use super::{Libvirt, Session, is_other_state, unless_absent, unreadable};
use crate::hypervisor::spec::DomainSpec;
use crate::hypervisor::{DomainFacts, DomainState, HypervisorError, ShutDown, xml};

/// What goes with a definition: memory that was saved, the names of snapshots, and the variables of the firmware.
const ALL: sys::virDomainUndefineFlagsValues = sys::VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | sys::VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | sys::VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    | sys::VIR_DOMAIN_UNDEFINE_NVRAM;

impl Libvirt {
    pub(super) fn all_domains(&self) -> Result<Vec<DomainFacts>, HypervisorError> {
        let session = self.session()?;
        let all = session.0.list_all_domains(0).map_err(|error| session.refused("list the domains", &error))?;
        all.iter().filter_map(|domain| facts(&session, domain).transpose()).collect()
    }

    pub(super) fn domain_facts(&self, name: &str) -> Result<Option<DomainFacts>, HypervisorError> {
        let session = self.session()?;
        match find(&session, name)? {
            Some(domain) => facts(&session, &domain),
            None => Ok(None),
        }
    }

    pub(super) fn definition_drift(&self, spec: &DomainSpec) -> Result<Vec<Drift>, HypervisorError> {
        let session = self.session()?;
        let domain = existing(&session, &spec.name)?;
        drift(&session, &domain, spec)
    }

    pub(super) fn set_domain(&self, spec: &DomainSpec) -> Result<(), HypervisorError> {
        let what = format!("define {}", spec.name);
        let session = self.session()?;
        let refused = |error: Error| session.refused(what.clone(), &error);
        let there = find(&session, &spec.name)?;
        // A definition that is right stays as libvirt completed it, with the places of devices.
        let domain = match there {
            Some(domain) if drift(&session, &domain, spec)?.is_empty() => return Ok(()),
            Some(domain) => define(&session, spec, Some(domain.get_uuid_string().map_err(refused)?))?,
            None => define(&session, spec, None)?,
        };
        if domain.get_autostart().map_err(refused)? != spec.auto_start {
            domain.set_autostart(spec.auto_start).map_err(refused)?;
        }
        Ok(())
    }

    pub(super) fn power_on(&self, name: &str) -> Result<(), HypervisorError> {
        let session = self.session()?;
        let domain = existing(&session, name)?;
        let start = || {
            let state = domain.get_state()?.0;
            if state == sys::VIR_DOMAIN_PAUSED {
                return domain.resume().map(drop);
            }
            if domain.is_active()? {
                return Ok(());
            }
            match domain.create() {
                Err(error) if is_other_state(&error) && domain.is_active()? => Ok(()),
                done => done.map(drop),
            }
        };
        start().map_err(|error| session.refused(format!("start {name}"), &error))
    }

    pub(super) fn ask_to_end(&self, name: &str, way: ShutDown) -> Result<(), HypervisorError> {
        let session = self.session()?;
        let domain = existing(&session, name)?;
        let (flag, by) = match way {
            ShutDown::Acpi => (sys::VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN, "by its power button"),
            ShutDown::Agent => (sys::VIR_DOMAIN_SHUTDOWN_GUEST_AGENT, "by its guest agent"),
        };
        let ask = || match domain.shutdown_flags(flag) {
            Err(error) if is_other_state(&error) && !domain.is_active()? => Ok(()),
            done => done.map(drop),
        };
        ask().map_err(|error| session.refused(format!("shut {name} down {by}"), &error))
    }

    pub(super) fn power_off(&self, name: &str) -> Result<(), HypervisorError> {
        let session = self.session()?;
        let Some(domain) = find(&session, name)? else { return Ok(()) };
        turn_off(&domain).map_err(|error| session.refused(format!("turn {name} off"), &error))
    }

    pub(super) fn undefine_domain(&self, name: &str) -> Result<(), HypervisorError> {
        let session = self.session()?;
        let Some(domain) = find(&session, name)? else { return Ok(()) };
        let remove = || {
            turn_off(&domain)?;
            match domain.undefine_flags(ALL) {
                // Not every driver knows all that may go with it.
                Err(error) if matches!(error.code(), ErrorNumber::InvalidArg | ErrorNumber::ArgumentUnsupported) => {
                    domain.undefine()
                }
                done => done,
            }
        };
        unless_absent(remove()).map(drop).map_err(|error| session.refused(format!("remove {name}"), &error))
    }
}

fn find(session: &Session, name: &str) -> Result<Option<Domain>, HypervisorError> {
    unless_absent(Domain::lookup_by_name(&session.0, name))
        .map_err(|error| session.refused(format!("look for {name}"), &error))
}

fn existing(session: &Session, name: &str) -> Result<Domain, HypervisorError> {
    find(session, name)?.ok_or_else(|| HypervisorError::refused(format!("look for {name}"), "no domain is called so"))
}

/// Turns a domain off at once; one that is gone or off is no error.
fn turn_off(domain: &Domain) -> Result<(), Error> {
    if !unless_absent(domain.is_active())?.unwrap_or(false) {
        return Ok(());
    }
    match unless_absent(domain.destroy()) {
        Err(error) if is_other_state(&error) && !domain.is_active()? => Ok(()),
        done => done.map(drop),
    }
}

fn define(session: &Session, spec: &DomainSpec, uuid: Option<String>) -> Result<Domain, HypervisorError> {
    let what = format!("define {}", spec.name);
    let wanted = xml::domain::Domain::of(spec, uuid, takes_direct_io(&spec.disk));
    let text = wanted.to_xml().map_err(unreadable(what.clone()))?;
    Domain::define_xml_flags(&session.0, &text, sys::VIR_DOMAIN_DEFINE_VALIDATE)
        .map_err(|error| session.refused(what, &error))
}

/// Whether the file system of a disk takes calls past the host's page cache.
fn takes_direct_io(disk: &Path) -> bool {
    OpenOptions::new().read(true).custom_flags(nix::libc::O_DIRECT).open(disk).is_ok()
}

/// The definition that its next start takes.
fn definition(session: &Session, domain: &Domain, name: &str) -> Result<xml::domain::Domain, HypervisorError> {
    let what = format!("look at {name}");
    let text = domain.get_xml_desc(sys::VIR_DOMAIN_XML_INACTIVE);
    let text = text.map_err(|error| session.refused(what.clone(), &error))?;
    xml::read(&text).map_err(unreadable(what))
}

fn drift(session: &Session, domain: &Domain, spec: &DomainSpec) -> Result<Vec<Drift>, HypervisorError> {
    let found = definition(session, domain, &spec.name)?;
    let mut drift = xml::domain_drift(&xml::domain::Domain::of(spec, None, false), &found);
    let auto_start = domain.get_autostart();
    let auto_start = auto_start.map_err(|error| session.refused(format!("look at {}", spec.name), &error))?;
    if auto_start != spec.auto_start {
        drift.push(Drift::new("started with the host", spec.auto_start, auto_start));
    }
    Ok(drift)
}

/// Nothing if it went meanwhile.
fn facts(session: &Session, domain: &Domain) -> Result<Option<DomainFacts>, HypervisorError> {
    let ask = || {
        let name = domain.get_name()?;
        let text = domain.get_xml_desc(sys::VIR_DOMAIN_XML_INACTIVE)?;
        Ok((name, text, domain.get_uuid_string()?, domain.get_state()?.0, domain.get_autostart()?))
    };
    let asked = unless_absent(ask()).map_err(|error| session.refused("look at a domain", &error))?;
    let Some((name, text, uuid, state, auto_start)) = asked else { return Ok(None) };
    let definition: xml::domain::Domain = xml::read(&text).map_err(unreadable(format!("look at {name}")))?;
    let (owner, devices) = (definition.owner().map(str::to_owned), definition.devices.of_host());
    Ok(Some(DomainFacts { name, uuid, state: self::state(state), auto_start, owner, devices }))
}

fn state(state: sys::virDomainState) -> DomainState {
    match state {
        sys::VIR_DOMAIN_PAUSED | sys::VIR_DOMAIN_PMSUSPENDED => DomainState::Paused,
        sys::VIR_DOMAIN_SHUTDOWN => DomainState::ShuttingDown,
        sys::VIR_DOMAIN_SHUTOFF => DomainState::ShutOff,
        sys::VIR_DOMAIN_CRASHED => DomainState::Crashed,
        _ => DomainState::Running,
    }
}
