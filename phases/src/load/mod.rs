//! Load tests of HTTP services: requests at given times, what became of them, and whether that is good enough.
mod driver;
mod figures;
mod plot;
mod report;
mod request;
mod sample;
mod schedule;
mod targets;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use driver::{Control, LoadError, MOST_IN_FLIGHT, run};
pub use figures::{Distribution, Figures, Second, Times, Tokens};
pub use report::{Files, Report, Resource};
pub use request::{Answer, Request};
pub use sample::{Outcome, Sample};
pub use schedule::{Arrivals, Profile, Schedule, Shape};
pub use targets::{Judged, Measured, Scaling, Targets, Verdict, judge};
