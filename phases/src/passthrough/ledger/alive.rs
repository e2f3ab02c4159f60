//! Whether the machines of owners run, as a hypervisor sees it.

use std::cell::OnceCell;

use super::claims::{Alive, Owner};
use crate::cluster::PciAddress;
use crate::hypervisor::{DomainFacts, DomainState, Hypervisor};

/// What tells a hypervisor from the others of this host: its URI, and for a `session` the user whose it is.
pub fn identity(uri: &str) -> String {
    let path = uri.split('?').next().unwrap_or_default();
    match path.ends_with("/session") {
        true => format!("{uri} of uid {}", nix::unistd::geteuid()),
        false => uri.to_owned(),
    }
}

/// Answers for [`Ledger::reconcile`](super::Ledger::reconcile) with what `hypervisor` at `uri` tells: it is asked once,
/// when the first answer is needed. Nobody here can say how machines of other hypervisors are.
pub fn seen_by<'a>(hypervisor: &'a dyn Hypervisor, uri: &str) -> impl Fn(&Owner) -> Alive + 'a {
    seen(|| hypervisor.domains().ok(), uri)
}

fn seen<'a>(look: impl Fn() -> Option<Vec<DomainFacts>> + 'a, uri: &str) -> impl Fn(&Owner) -> Alive + 'a {
    let here = identity(uri);
    let domains = OnceCell::new();
    move |owner| {
        if owner.hypervisor != here {
            return Alive::CannotTell;
        }
        match domains.get_or_init(&look) {
            Some(domains) => among(domains, owner),
            None => Alive::CannotTell,
        }
    }
}

fn among(domains: &[DomainFacts], owner: &Owner) -> Alive {
    match domains.iter().find(|domain| domain.uuid == owner.domain_uuid) {
        Some(domain) if has_devices(domain.state) => Alive::Running,
        _ => Alive::Gone,
    }
}

/// Whether a domain in this state has its devices. A crashed one that was not removed has them, too.
fn has_devices(state: DomainState) -> bool {
    state != DomainState::ShutOff
}

/// The running domains other than `domain_uuid` that have one of `devices`, whoever started them: each device with the
/// name of the domain. The ledger does not know of those that were started without taskrun.
pub fn users<'a>(
    domains: &'a [DomainFacts],
    domain_uuid: &str,
    devices: &[PciAddress],
) -> Vec<(PciAddress, &'a DomainFacts)> {
    let others = domains.iter().filter(|domain| domain.uuid != domain_uuid && has_devices(domain.state));
    let of = |domain: &'a DomainFacts| {
        let shared = domain.devices.iter().filter(|device| devices.contains(device));
        shared.map(|device| (*device, domain)).collect::<Vec<_>>()
    };
    others.flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{device, owner};
    use super::*;

    fn domain(uuid: &str, state: DomainState) -> DomainFacts {
        DomainFacts {
            name: format!("domain-{uuid}"),
            uuid: uuid.to_owned(),
            state,
            auto_start: false,
            owner: None,
            devices: vec![device(1)],
        }
    }

    #[test]
    fn a_domain_has_its_devices_unless_it_is_off() {
        use DomainState::{Crashed, Paused, Running, ShutOff, ShuttingDown};
        for state in [Running, Paused, ShuttingDown, Crashed] {
            assert_eq!(among(&[domain("b", ShutOff), domain("a", state)], &owner("a")), Alive::Running);
        }
        assert_eq!(among(&[domain("a", ShutOff), domain("b", Running)], &owner("a")), Alive::Gone);
        assert_eq!(among(&[], &owner("a")), Alive::Gone);
    }

    #[test]
    fn only_who_can_see_a_machine_tells_of_it() {
        let looks = std::cell::Cell::new(0);
        let look = || {
            looks.set(looks.get() + 1);
            Some(vec![domain("a", DomainState::Running)])
        };
        let alive = seen(look, "qemu:///system");
        assert_eq!(looks.get(), 0, "it looks when it is asked, not before");
        assert_eq!([alive(&owner("a")), alive(&owner("b"))], [Alive::Running, Alive::Gone]);
        assert_eq!(looks.get(), 1);
        let elsewhere = Owner { hypervisor: "qemu:///session of uid 7".to_owned(), ..owner("b") };
        assert_eq!(alive(&elsewhere), Alive::CannotTell);
        assert_eq!(seen(|| None, "qemu:///system")(&owner("b")), Alive::CannotTell, "it does not answer");
    }

    #[test]
    fn who_uses_a_device_without_the_ledger_is_found() {
        let domains = [domain("a", DomainState::Running), domain("b", DomainState::ShutOff)];
        assert!(users(&domains, "a", &[device(1)]).is_empty());
        assert!(users(&domains, "b", &[device(2)]).is_empty());
        let found = users(&domains, "b", &[device(2), device(1)]);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].0, &*found[0].1.name), (device(1), "domain-a"));
    }

    #[test]
    fn a_session_is_that_of_one_user() {
        assert_eq!(identity("qemu:///system"), "qemu:///system");
        let own = format!("qemu:///session of uid {}", nix::unistd::geteuid());
        assert_eq!(identity("qemu:///session"), own);
    }
}
