//! Disk images of virtual machines, and what tells a machine who it is when it first boots from one.

pub mod seed;
