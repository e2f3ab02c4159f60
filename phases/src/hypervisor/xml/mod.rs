//! libvirt's XML: the part of it that is written here, and read back to be compared.
//!
//! Types follow the elements and attributes of libvirt's formats, so a definition that libvirt completed reads into the
//! same type as one that is to be written; what these types do not have is not ours to say.

pub mod devices;
pub mod domain;
mod fields;
pub mod network;
pub mod storage;

pub use fields::domain_drift;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// XML that cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum XmlError {
    /// It cannot be written.
    #[error("write it as XML: {0}")]
    Write(#[from] quick_xml::SeError),
    /// It is not what it should be.
    #[error("read what libvirt says: {0}")]
    Read(#[from] quick_xml::DeError),
}

/// `value` as XML, indented.
///
/// # Errors
/// It cannot be written.
pub fn write(value: &impl Serialize) -> Result<String, XmlError> {
    let mut text = String::new();
    let mut serializer = quick_xml::se::Serializer::new(&mut text);
    serializer.indent(' ', 2);
    value.serialize(serializer)?;
    text.push('\n');
    Ok(text)
}

/// What `text` says.
///
/// # Errors
/// It is no XML, or lacks what its type must have.
pub fn read<T: DeserializeOwned>(text: &str) -> Result<T, XmlError> {
    Ok(quick_xml::de::from_str(text)?)
}

/// An element that is there or not, and has nothing in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// An element that has only text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Text<T> {
    /// The text.
    #[serde(rename = "$text")]
    pub value: T,
}

/// A number with its unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// Such as `KiB`, which is libvirt's own choice for memory, or `bytes`.
    #[serde(rename = "@unit", skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// How many of the unit.
    #[serde(rename = "$text")]
    pub value: u64,
}

impl Amount {
    /// So many MiB.
    pub fn mib(value: u64) -> Self {
        Self { unit: Some("MiB".to_owned()), value }
    }

    /// So many bytes.
    pub fn bytes(value: u64) -> Self {
        Self { unit: Some("bytes".to_owned()), value }
    }

    /// In KiB; nothing if the unit is none that memory has.
    pub fn in_kib(&self) -> Option<u64> {
        match self.unit.as_deref().unwrap_or("KiB") {
            "b" | "bytes" => Some(self.value / 1024),
            "k" | "KiB" => Some(self.value),
            "M" | "MiB" => self.value.checked_mul(1024),
            "G" | "GiB" => self.value.checked_mul(1024 * 1024),
            _ => None,
        }
    }
}

/// An element with one attribute that names something.
macro_rules! named_by {
    ($(#[$doc:meta])* $name:ident, $attribute:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        pub struct $name {
            /// The attribute.
            #[serde(rename = $attribute)]
            pub value: String,
        }

        impl $name {
            /// With this attribute.
            pub fn new(value: impl Into<String>) -> Self {
                Self { value: value.into() }
            }
        }
    };
}
use named_by;

#[cfg(test)]
mod tests;
