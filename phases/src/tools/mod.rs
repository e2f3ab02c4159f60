//! One file for each outside tool or server, each a thin typed client.

pub mod marked;
pub mod supervisor;
