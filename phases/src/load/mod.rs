//! Load tests of HTTP services: requests at given times, what became of them, and whether that is good enough.
//!
//! # Why this generator
//! The load is open: requests are sent at times that were fixed beforehand, whatever becomes of the ones before, and
//! latencies count from these times. A generator that waits for answers sends less while the service stalls, and so
//! hides the stall ("coordinated omission"). `tests.rs` proves it on a server that stalls for one second.
//!
//! It is a loop of our own on reqwest, with HDR histograms by the `hdrhistogram` crate. The others were tried:
//! - inference-perf, which also times tokens, needs Python 3.12, and this program supports 3.10 on.
//! - vegeta keeps its rate as well and agrees within 5 % (`phases/tests/it/load.rs` compares them), but counts from when
//!   a request was sent, has neither ramps, spikes nor random arrivals, and cannot read tokens from a stream.
//! - hey waits for answers: what it tells of a slow service is too good.
//! - oha measures well, and no release of it builds both with this project's Rust and without TLS.

mod driver;
mod figures;
mod model;
mod plot;
mod report;
mod request;
mod resources;
mod sample;
mod schedule;
mod targets;
mod test;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use driver::{Control, LoadError, MOST_IN_FLIGHT, once, run};
pub use figures::{Distribution, Figures, Second, Times, Tokens};
pub use model::prediction;
pub use report::{ASSETS, Files, Report, Resource};
pub use request::{Answer, Request};
pub use sample::{Outcome, Sample};
pub use schedule::{Arrivals, Profile, Schedule, Shape};
pub use targets::{Judged, Measured, Scaling, Targets, Verdict, judge};
pub use test::{Test, TestError, WatchedModel};
