//! The definition of a network.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use taskrun_engine::task::Drift;

use super::{XmlError, named_by, write};
use crate::cluster::NetworkMode;
use crate::hypervisor::spec::NetworkSpec;

/// A network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "network")]
pub struct Network {
    /// Its name.
    pub name: String,
    /// Its id; libvirt gives one to who has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// How it reaches others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forward: Option<Forward>,
    /// Its bridge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<Bridge>,
    /// The domain of host names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<DnsDomain>,
    /// Names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<Dns>,
    /// Addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ip: Vec<Ip>,
}

named_by!(
    /// How a network reaches others: `nat` or `bridge`.
    Forward,
    "@mode"
);

/// A bridge of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bridge {
    /// Its name.
    #[serde(rename = "@name")]
    pub name: String,
    /// Whether it looks for loops; `on`.
    #[serde(rename = "@stp", default, skip_serializing_if = "Option::is_none")]
    pub stp: Option<String>,
    /// How long it looks before it forwards, in seconds.
    #[serde(rename = "@delay", default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<String>,
}

/// The domain of host names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsDomain {
    /// Its name.
    #[serde(rename = "@name")]
    pub name: String,
    /// `yes`: nobody else is asked for names in it.
    #[serde(rename = "@localOnly", default, skip_serializing_if = "Option::is_none")]
    pub local_only: Option<String>,
}

/// Names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// Servers that are asked for names; those of the host if none is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forwarder: Vec<Forwarder>,
    /// Names that are known here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host: Vec<DnsHost>,
}

/// A server that is asked for names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forwarder {
    /// Its address.
    #[serde(rename = "@addr", default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// A name that is known.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename = "host")]
pub struct DnsHost {
    /// Its address.
    #[serde(rename = "@ip")]
    pub ip: String,
    /// The names.
    #[serde(default)]
    pub hostname: Vec<HostName>,
}

/// A host name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HostName {
    /// The name.
    #[serde(rename = "$text")]
    pub name: String,
}

/// Addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ip {
    /// The host's own.
    #[serde(rename = "@address")]
    pub address: String,
    /// The mask of its subnet.
    #[serde(rename = "@netmask", default, skip_serializing_if = "Option::is_none")]
    pub netmask: Option<String>,
    /// The length of that mask, as libvirt may say it instead.
    #[serde(rename = "@prefix", default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<u8>,
    /// Who gets which address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dhcp: Option<Dhcp>,
}

/// Who gets which address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dhcp {
    /// The addresses for anybody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub range: Vec<Range>,
    /// Those for one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host: Vec<DhcpHost>,
}

/// Addresses from one to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The first.
    #[serde(rename = "@start")]
    pub start: String,
    /// The last.
    #[serde(rename = "@end")]
    pub end: String,
}

/// The address of one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename = "host")]
pub struct DhcpHost {
    /// Its network device.
    #[serde(rename = "@mac", default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Its name.
    #[serde(rename = "@name", default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The address.
    #[serde(rename = "@ip")]
    pub ip: String,
}

impl Network {
    /// What is wanted, for a network that has the id `uuid` if it is there already.
    pub fn of(spec: &NetworkSpec, uuid: Option<String>) -> Self {
        let network = &spec.network;
        if network.mode == NetworkMode::Bridge {
            return Self {
                name: spec.name.clone(),
                uuid,
                forward: Some(Forward::new("bridge")),
                bridge: Some(Bridge { name: network.bridge.clone(), stp: None, delay: None }),
                domain: None,
                dns: None,
                ip: Vec::new(),
            };
        }
        let names = spec
            .reservations
            .iter()
            .map(|who| DnsHost { ip: who.address.to_string(), hostname: vec![HostName { name: who.name.clone() }] });
        let hosts = spec.reservations.iter().map(|who| DhcpHost {
            mac: Some(who.mac.to_string()),
            name: Some(who.name.clone()),
            ip: who.address.to_string(),
        });
        let range = |(start, end): (Ipv4Addr, Ipv4Addr)| Range { start: start.to_string(), end: end.to_string() };
        let forwarders = network.dns_servers.iter().map(|server| Forwarder { address: Some(server.to_string()) });
        Self {
            name: spec.name.clone(),
            uuid,
            forward: Some(Forward::new("nat")),
            bridge: Some(Bridge {
                name: network.bridge.clone(),
                stp: Some("on".to_owned()),
                delay: Some("0".to_owned()),
            }),
            domain: Some(DnsDomain { name: spec.name.clone(), local_only: Some("yes".to_owned()) }),
            dns: Some(Dns { forwarder: forwarders.collect(), host: names.collect() }),
            ip: vec![Ip {
                address: network.gateway.to_string(),
                netmask: Some(network.subnet.netmask().to_string()),
                prefix: None,
                dhcp: Some(Dhcp { range: network.dhcp.map(range).into_iter().collect(), host: hosts.collect() }),
            }],
        }
    }

    /// As XML.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn to_xml(&self) -> Result<String, XmlError> {
        write(self)
    }

    /// Who has an address of its own.
    pub fn reservations(&self) -> Vec<DhcpHost> {
        let mut hosts: Vec<_> = self.ip.iter().flat_map(|ip| &ip.dhcp).flat_map(|dhcp| &dhcp.host).cloned().collect();
        hosts.sort();
        hosts
    }

    /// The names that are known.
    pub fn names(&self) -> Vec<DnsHost> {
        let mut hosts: Vec<_> = self.dns.iter().flat_map(|dns| &dns.host).cloned().collect();
        hosts.sort();
        hosts
    }

    /// Where `found` differs from this one, field by field; what only an update needs is among them if `all`.
    pub fn drift(&self, found: &Self, all: bool) -> Vec<Drift> {
        let updated = ["reservations", "names"];
        let pairs = self.fields().into_iter().zip(found.fields());
        let differ = pairs.filter(|((name, wanted), (_, found))| wanted != found && (all || !updated.contains(name)));
        differ.map(|((name, wanted), (_, found))| Drift::new(name, wanted, found)).collect()
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let join = |parts: Vec<String>| parts.join(", ");
        let ip = self.ip.first();
        let mask = ip.and_then(|ip| match (&ip.netmask, ip.prefix) {
            (Some(mask), _) => mask.parse().ok().and_then(|mask| ipnet::ipv4_mask_to_prefix(mask).ok()),
            (None, prefix) => prefix,
        });
        let ranges = ip.iter().flat_map(|ip| &ip.dhcp).flat_map(|dhcp| &dhcp.range);
        let servers = self.dns.iter().flat_map(|dns| &dns.forwarder).filter_map(|forwarder| forwarder.address.clone());
        let reservations = self.reservations().into_iter().map(|host| {
            let (mac, name) = (host.mac.unwrap_or_default(), host.name.unwrap_or_default());
            format!("{} {name} {mac}", host.ip)
        });
        let names = self.names().into_iter().map(|host| {
            let names: Vec<_> = host.hostname.into_iter().map(|name| name.name).collect();
            format!("{} {}", host.ip, names.join(" "))
        });
        vec![
            ("mode", self.forward.as_ref().map(|forward| forward.value.clone()).unwrap_or_default()),
            ("bridge", self.bridge.as_ref().map(|bridge| bridge.name.clone()).unwrap_or_default()),
            ("gateway", ip.map(|ip| ip.address.clone()).unwrap_or_default()),
            ("length of the subnet's mask", mask.map(|mask| mask.to_string()).unwrap_or_default()),
            ("addresses for anybody", join(ranges.map(|range| format!("{}-{}", range.start, range.end)).collect())),
            ("domain name", self.domain.as_ref().map(|domain| domain.name.clone()).unwrap_or_default()),
            ("servers for names", join(servers.collect())),
            ("reservations", join(reservations.collect())),
            ("names", join(names.collect())),
        ]
    }
}
