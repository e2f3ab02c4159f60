//! When requests are to be sent: fixed before the first one is, so that slow answers cannot thin the load out.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the rate changes in the course of a test.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// The full rate all the time.
    #[default]
    Steady,
    /// From a tenth of the rate evenly up to all of it.
    Ramp,
    /// A fifth of the rate, and all of it during the middle third.
    Spike,
}

/// How requests are spread within the rate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Arrivals {
    /// Independently of each other, as those of many users are: a Poisson process.
    #[default]
    Poisson,
    /// Evenly.
    Constant,
}

/// A load.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// How the rate changes.
    pub profile: Profile,
    /// How requests are spread.
    pub arrivals: Arrivals,
    /// The highest rate, in requests a second.
    pub rate: f64,
    /// How long it is measured, in seconds.
    pub seconds: f64,
    /// How long requests are sent before that at the profile's first rate, in seconds; they do not count.
    pub warm_up_seconds: f64,
    /// Decides the random arrivals: the same number gives the same ones.
    pub seed: u64,
}

/// The times at which requests are to be sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// The times since the start of the test, ascending.
    pub times: Vec<Duration>,
    /// What is before this is warm-up.
    pub measured_from: Duration,
    /// The end of the load.
    pub end: Duration,
}

/// A rate over time that is linear between points; two points at one time make a jump.
#[derive(Debug, Clone, PartialEq)]
struct Curve(Vec<Point>);

/// A point of a curve.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Point {
    /// Seconds since the start of the test.
    at: f64,
    /// Requests a second.
    rate: f64,
    /// How many requests are due before it.
    due: f64,
}

impl Shape {
    /// The rate at a time, in requests a second; `at` is in seconds since the start of the warm-up.
    pub fn rate_at(&self, at: f64) -> f64 {
        self.curve().rate(at)
    }

    /// How many requests there are, on average over seeds.
    pub fn expected(&self) -> f64 {
        self.curve().0.last().map_or(0.0, |point| point.due)
    }

    /// The times of all requests.
    pub fn schedule(&self) -> Schedule {
        let curve = self.curve();
        let total = self.expected();
        let mut random = StdRng::seed_from_u64(self.seed);
        let mut due = 0.0;
        let mut times = Vec::with_capacity(total as usize + 1);
        if self.arrivals == Arrivals::Poisson {
            due += exponential(&mut random);
        }
        while due < total {
            times.push(Duration::from_secs_f64(curve.when(due)));
            due += match self.arrivals {
                Arrivals::Constant => 1.0,
                Arrivals::Poisson => exponential(&mut random),
            };
        }
        let measured_from = Duration::from_secs_f64(self.warm_up_seconds);
        Schedule { times, measured_from, end: measured_from + Duration::from_secs_f64(self.seconds) }
    }

    fn curve(&self) -> Curve {
        let Self { rate, seconds, warm_up_seconds: start, .. } = *self;
        let (low, end) = (rate / 5.0, start + seconds);
        let measured = match self.profile {
            Profile::Steady => vec![(start, rate), (end, rate)],
            Profile::Ramp => vec![(start, rate / 10.0), (end, rate)],
            Profile::Spike => {
                let (up, down) = (start + seconds / 3.0, start + seconds * 2.0 / 3.0);
                vec![(start, low), (up, low), (up, rate), (down, rate), (down, low), (end, low)]
            }
        };
        let first = measured[0].1;
        Curve::new(std::iter::once((0.0, first)).chain(measured))
    }
}

impl Curve {
    fn new(points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        let mut curve: Vec<Point> = Vec::new();
        for (at, rate) in points {
            let due = curve.last().map_or(0.0, |last| last.due + (at - last.at) * (rate + last.rate) / 2.0);
            curve.push(Point { at, rate, due });
        }
        Self(curve)
    }

    fn rate(&self, at: f64) -> f64 {
        let mut segments = self.0.windows(2).filter(|pair| pair[0].at <= at && at < pair[1].at);
        let inside = segments.next_back().map(|pair| {
            let share = (at - pair[0].at) / (pair[1].at - pair[0].at);
            pair[0].rate + share * (pair[1].rate - pair[0].rate)
        });
        inside.unwrap_or(0.0)
    }

    /// When `due` requests are due: the inverse of the integral of the rate.
    fn when(&self, due: f64) -> f64 {
        let after = self.0.partition_point(|point| point.due <= due).clamp(1, self.0.len() - 1);
        let (from, to) = (self.0[after - 1], self.0[after]);
        let (missing, span) = (due - from.due, to.at - from.at);
        let slope = if span > 0.0 { (to.rate - from.rate) / span } else { 0.0 };
        // Solves rate·t + slope·t²/2 = missing, in the form that also holds for a slope of 0.
        let root = (from.rate * from.rate + 2.0 * slope * missing).max(0.0).sqrt();
        let passed = if missing <= 0.0 { 0.0 } else { 2.0 * missing / (from.rate + root) };
        from.at + passed.min(span)
    }
}

/// A sample of the exponential distribution with mean 1.
fn exponential(random: &mut StdRng) -> f64 {
    let uniform: f64 = random.random();
    -(1.0 - uniform).ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shape(profile: Profile, arrivals: Arrivals) -> Shape {
        Shape { profile, arrivals, rate: 100.0, seconds: 30.0, warm_up_seconds: 5.0, seed: 7 }
    }

    fn between(schedule: &Schedule, from: f64, to: f64) -> usize {
        schedule.times.iter().filter(|at| (from..to).contains(&at.as_secs_f64())).count()
    }

    #[test]
    fn even_arrivals_follow_the_rate_exactly() {
        let steady = shape(Profile::Steady, Arrivals::Constant).schedule();
        assert_eq!(steady.times.len(), 3500);
        assert_eq!(steady.times[1] - steady.times[0], Duration::from_millis(10));
        assert_eq!(between(&steady, 0.0, 5.0), 500);
        // From 10 to 100 a second: 55 on average; the warm-up is at 10.
        let ramp = shape(Profile::Ramp, Arrivals::Constant).schedule();
        assert_eq!(ramp.times.len(), 50 + 1650);
        assert_eq!(between(&ramp, 5.0, 20.0), 488, "32.5 a second on average in the first half");
        let spike = shape(Profile::Spike, Arrivals::Constant).schedule();
        let thirds = [5.0, 15.0, 25.0].map(|at| between(&spike, at, at + 10.0));
        assert_eq!((between(&spike, 0.0, 5.0), thirds), (100, [200, 1000, 200]));
    }

    #[test]
    fn random_arrivals_have_the_rate_and_the_spread_of_a_poisson_process() {
        let schedule = Shape { seconds: 1000.0, ..shape(Profile::Steady, Arrivals::Poisson) }.schedule();
        let counts: Vec<f64> =
            (0..1000).map(|second| between(&schedule, second as f64, (second + 1) as f64) as f64).collect();
        let mean = counts.iter().sum::<f64>() / 1000.0;
        let variance = counts.iter().map(|count| (count - mean).powi(2)).sum::<f64>() / 999.0;
        // Both are 100; these are five standard errors.
        assert!((mean - 100.0).abs() < 1.6, "{mean}");
        assert!((variance - 100.0).abs() < 23.0, "{variance}");
        assert_eq!(schedule, Shape { seconds: 1000.0, ..shape(Profile::Steady, Arrivals::Poisson) }.schedule());
    }

    proptest! {
        #[test]
        fn every_schedule_is_in_order_and_has_the_integral_of_its_rate(
            profile in prop_oneof![Just(Profile::Steady), Just(Profile::Ramp), Just(Profile::Spike)],
            rate in 0.5f64..500.0,
            seconds in 0.5f64..60.0,
            warm_up_seconds in 0.0f64..10.0,
            seed: u64,
        ) {
            let even = Shape { profile, arrivals: Arrivals::Constant, rate, seconds, warm_up_seconds, seed };
            // The integral of the rate, by small steps.
            let step = (seconds + warm_up_seconds) / 50_000.0;
            let integral: f64 = (0..50_000).map(|i| even.rate_at((f64::from(i) + 0.5) * step) * step).sum();
            prop_assert!((even.expected() - integral).abs() <= integral * 1e-3 + 0.1, "{} {integral}", even.expected());
            for arrivals in [Arrivals::Constant, Arrivals::Poisson] {
                let shape = Shape { arrivals, ..even };
                let schedule = shape.schedule();
                prop_assert!(schedule.times.is_sorted());
                prop_assert!(schedule.times.last().is_none_or(|last| *last <= schedule.end + Duration::from_micros(1)));
                let count = schedule.times.len() as f64;
                let slack = if arrivals == Arrivals::Constant { 1.0 } else { 6.0 * integral.sqrt() + 6.0 };
                prop_assert!((count - integral).abs() <= slack + integral * 1e-3, "{count} {integral}");
            }
        }

        #[test]
        fn when_is_the_inverse_of_due(due in 0.0f64..1700.0) {
            let curve = shape(Profile::Ramp, Arrivals::Constant).curve();
            let at = curve.when(due);
            // Due until then: 10 a second for 5 s, then from 10 a second up by 3 a second in each.
            let ramp = (at - 5.0).max(0.0);
            let again = 10.0 * at.min(5.0) + 10.0 * ramp + 1.5 * ramp * ramp;
            prop_assert!((again - due).abs() < 1e-6, "{due} {again}");
        }
    }
}
