//! The definitions of storage pools and volumes.

use serde::{Deserialize, Serialize};

use super::domain::text;
use super::{Amount, XmlError, named_by, write};
use crate::hypervisor::spec::{PoolSpec, VolumeSpec};

/// A storage pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "pool")]
pub struct Pool {
    /// `dir`
    #[serde(rename = "@type")]
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its id; libvirt gives one to who has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// Its folder; nothing where the pool is of another kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<PoolTarget>,
}

/// The folder of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolTarget {
    /// Its path.
    pub path: String,
    /// Who may what there, where libvirt makes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permissions: Option<Permissions>,
}

/// Who may what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permissions {
    /// In octal digits.
    pub mode: String,
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "volume")]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// Its size as the guest sees it.
    pub capacity: Amount,
    /// What it takes of the disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocation: Option<Amount>,
    /// Its file.
    pub target: VolumeTarget,
    /// The image that it is on top of.
    #[serde(rename = "backingStore", default, skip_serializing_if = "Option::is_none")]
    pub backing: Option<VolumeTarget>,
}

/// A file and its format.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeTarget {
    /// Its path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// `qcow2` or `raw`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
}

named_by!(
    /// The format of a file.
    Format,
    "@type"
);

impl Pool {
    /// What is wanted, for a pool that has the id `uuid` if it is there already.
    pub fn of(spec: &PoolSpec, uuid: Option<String>) -> Self {
        // QEMU, which runs as somebody else, passes through it to the files that it was given.
        let permissions = Some(Permissions { mode: "0711".to_owned() });
        let target = PoolTarget { path: text(&spec.folder), permissions };
        Self { kind: "dir".to_owned(), name: spec.name.clone(), uuid, target: Some(target) }
    }

    /// As XML.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn to_xml(&self) -> Result<String, XmlError> {
        write(self)
    }
}

impl Volume {
    /// What is wanted.
    pub fn of(spec: &VolumeSpec) -> Self {
        let qcow2 = || Some(Format::new("qcow2"));
        Self {
            name: spec.name.clone(),
            capacity: Amount::bytes(spec.capacity),
            allocation: Some(Amount::bytes(0)),
            target: VolumeTarget { path: None, format: qcow2() },
            backing: spec.backing.as_ref().map(|image| VolumeTarget { path: Some(text(image)), format: qcow2() }),
        }
    }

    /// One that takes the contents of a file of `length` bytes as they are.
    pub fn raw(name: &str, length: u64) -> Self {
        let target = VolumeTarget { path: None, format: Some(Format::new("raw")) };
        let allocation = Some(Amount::bytes(0));
        Self { name: name.to_owned(), capacity: Amount::bytes(length), allocation, target, backing: None }
    }

    /// As XML.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn to_xml(&self) -> Result<String, XmlError> {
        write(self)
    }
}
