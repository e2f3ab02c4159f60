//! The nodes of a cluster: what the hypervisor is asked for, starting and stopping them, and how they are.
//!
//! | part | what it does |
//! |---|---|
//! | [`layout`] | from the cluster to networks, pools, disks and domains; pure |
//! | [`power`] | which machines are meant to run; kept on the disk |
//! | [`Devices`] | whole IOMMU groups of the host, each with one owner |
//! | [`machines`] | defines, starts, stops and removes virtual machines |
//! | [`reach`] | how nodes are logged in to |
//! | [`look`], [`status`] | how all nodes are, as a table, as JSON and as a picture |

mod devices;
pub mod layout;
pub mod look;
pub mod machines;
pub mod power;
pub mod reach;
pub mod status;

pub use devices::Devices;
pub use layout::Layout;
pub use machines::{Machines, StopTimes};
pub use power::Power;
