//! Who owns which device, for people.

use super::ledger::{Owned, when};
use super::names::Names;
use super::sysfs::Sysfs;

/// A row of the table.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Row {
    /// The address of the device.
    pub device: String,
    /// What it is called.
    pub name: String,
    /// Who owns it: environment and node.
    pub owner: String,
    /// Since when, to the second (UTC), or that it is being started.
    pub since: String,
}

impl Row {
    /// What stands above the rows.
    pub const HEAD: [&'static str; 4] = ["DEVICE", "NAME", "OWNER", "SINCE"];

    /// Its cells.
    pub fn cells(&self) -> [&str; 4] {
        [&self.device, &self.name, &self.owner, &self.since]
    }
}

/// A row for each device that has an owner.
pub fn describe(owners: &[Owned], sysfs: &Sysfs) -> Vec<Row> {
    let names = Names::of(sysfs);
    let row = |owned: &Owned| {
        let device = sysfs.device(owned.device).ok().flatten();
        let name = device.map_or_else(|| "not there".to_owned(), |device| names.of_device(&device));
        let since = when(owned.owner.since);
        let since = match owned.starting {
            Some(starter) if starter.is_alive() => format!("{since} (being started by process {starter})"),
            Some(_) => format!("{since} (its start was cut off)"),
            None => since,
        };
        let owner = format!("{}: {}", owned.owner.environment, owned.owner.node);
        Row { device: owned.device.to_string(), name, owner, since }
    };
    owners.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::super::ledger::{Owner, OwnerName};
    use super::super::testing::Tree;
    use super::*;
    use taskrun_engine::process::ProcessId;

    #[test]
    fn a_row_says_what_the_device_is_and_whose() {
        let name = OwnerName {
            environment: "lab",
            cluster: "cloud",
            node: "cloud-gpu-worker-01",
            domain_uuid: "a",
            uri: "qemu:///system",
        };
        let owner = Owner {
            since: "2026-11-26T07:00:00.123Z".parse().unwrap(),
            ..Owner::new(name, Vec::new(), "/srv/lab".into()).unwrap()
        };
        let owned =
            |address: &str, starting| Owned { device: address.parse().unwrap(), owner: owner.clone(), starting };
        let me = ProcessId::current().unwrap();
        let owners = [
            owned("65:00.0", None),
            owned("65:00.1", Some(me)),
            owned("66:00.0", Some(ProcessId { start_time: me.start_time + 1, ..me })),
        ];
        let rows = describe(&owners, &Tree::with_a_gpu().sysfs());
        let cells: Vec<_> = rows.iter().map(Row::cells).collect();
        let (owner, since) = ("lab: cloud-gpu-worker-01", "2026-11-26T07:00:00Z");
        let starting = format!("{since} (being started by process {})", me.pid);
        let cut = format!("{since} (its start was cut off)");
        assert_eq!(
            cells,
            [
                ["0000:65:00.0", "NVIDIA GPU [10de:2684]", owner, since],
                ["0000:65:00.1", "NVIDIA audio device [10de:22ba]", owner, &starting],
                ["0000:66:00.0", "not there", owner, &cut],
            ]
        );
    }
}
