//! The figures of a test, made of its samples without those of the warm-up.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::sample::{Outcome, Sample};
use super::schedule::{Schedule, Shape};

/// The precision of histograms, in decimal digits: values are off by less than 0.1 %.
const DIGITS: u8 = 3;

/// The longest time that a histogram holds, in microseconds: one hour. Longer ones count as this.
const LONGEST: u64 = 3_600_000_000;

/// The percentiles of the curve that is drawn.
const CURVE: [f64; 19] =
    [0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 75.0, 80.0, 85.0, 90.0, 95.0, 97.5, 99.0, 99.5, 99.9, 99.99, 100.0];

/// The figures of a test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// The requests of the schedule.
    pub requests: u64,
    /// Those that were answered as they should be.
    pub successes: u64,
    /// The others, by how they ended.
    pub errors: BTreeMap<String, u64>,
    /// The rate of the schedule, in requests a second on average.
    pub rate: f64,
    /// The successes a second, until the end of the load or the last answer, whichever is later.
    pub throughput: f64,
    /// From when a request should have been sent until its answer was complete. Successes, and requests that timed out:
    /// these with the time-out, so that the truth is no better than what is told.
    pub latency: Times,
    /// Until the first byte of the answer or, where it is streamed by a language model, until the first token. Successes.
    pub first_answer: Times,
    /// How much later than intended the generator sent requests: its own error, which is part of the latency.
    pub delay: Times,
    /// What a language model answered.
    pub tokens: Option<Tokens>,
    /// The bytes of all answers.
    pub bytes: u64,
    /// Percentiles of the latency with their times in milliseconds, to be drawn.
    pub curve: Vec<(f64, f64)>,
    /// The course of the test, second by second, the warm-up at negative times.
    pub course: Vec<Second>,
}

/// How times are distributed, in milliseconds; zeros where there are none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Times {
    /// How many there are.
    pub count: u64,
    /// The mean.
    pub mean: f64,
    /// Half of them are no longer than this.
    pub p50: f64,
    /// 95 % are.
    pub p95: f64,
    /// 99 % are.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

/// What a language model answered.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Tokens {
    /// All tokens.
    pub total: u64,
    /// Tokens a second of all answers together.
    pub per_second: f64,
    /// The time between two tokens of an answer in milliseconds, on average; nothing where answers are not streamed.
    pub between: Option<f64>,
}

/// What became of the requests that were due within one second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Second {
    /// Its beginning, in seconds since the end of the warm-up.
    pub at: f64,
    /// How many were due.
    pub requests: u64,
    /// How many of these failed.
    pub errors: u64,
    /// Half of the latencies are no longer than this, in milliseconds.
    pub p50: f64,
    /// 99 % are.
    pub p99: f64,
}

/// Times in a histogram.
#[derive(Debug, Clone)]
pub struct Distribution(Histogram<u64>);

impl Default for Distribution {
    fn default() -> Self {
        Self(Histogram::new_with_max(LONGEST, DIGITS).expect("these bounds are allowed"))
    }
}

impl Distribution {
    /// Adds a time.
    pub fn add(&mut self, time: Duration) {
        self.0.saturating_record(u64::try_from(time.as_micros()).unwrap_or(LONGEST));
    }

    /// Adds all times of another one.
    pub fn merge(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all have the same bounds");
    }

    /// The time below which so many percent are, in milliseconds.
    pub fn percentile(&self, percent: f64) -> f64 {
        milliseconds(self.0.value_at_percentile(percent))
    }

    /// The usual figures.
    pub fn times(&self) -> Times {
        if self.0.is_empty() {
            return Times::default();
        }
        Times {
            count: self.0.len(),
            mean: self.0.mean() / 1000.0,
            p50: self.percentile(50.0),
            p95: self.percentile(95.0),
            p99: self.percentile(99.0),
            max: milliseconds(self.0.max()),
        }
    }
}

impl FromIterator<Duration> for Distribution {
    fn from_iter<I: IntoIterator<Item = Duration>>(times: I) -> Self {
        let mut distribution = Self::default();
        times.into_iter().for_each(|time| distribution.add(time));
        distribution
    }
}

impl Figures {
    /// The figures of a test.
    pub fn new(samples: &[Sample], shape: &Shape, schedule: &Schedule) -> Self {
        let measured: Vec<&Sample> =
            samples.iter().filter(|sample| sample.intended >= schedule.measured_from).collect();
        let successes = || measured.iter().filter(|sample| sample.outcome.is_ok());
        let latency: Distribution = measured.iter().filter_map(|sample| latency(sample)).collect();
        let ended = successes().map(|sample| sample.intended + sample.latency).max().unwrap_or_default();
        let seconds = (ended.max(schedule.end) - schedule.measured_from).as_secs_f64();
        let mut errors = BTreeMap::new();
        for sample in measured.iter().filter(|sample| !sample.outcome.is_ok()) {
            *errors.entry(sample.outcome.to_string()).or_default() += 1;
        }
        let count = successes().count() as u64;
        Self {
            requests: measured.len() as u64,
            successes: count,
            errors,
            rate: measured.len() as f64 / shape.seconds,
            throughput: count as f64 / seconds,
            first_answer: successes().filter_map(|sample| sample.first).collect::<Distribution>().times(),
            delay: measured.iter().map(|sample| sample.delay).collect::<Distribution>().times(),
            tokens: Tokens::of(&measured, seconds),
            bytes: measured.iter().map(|sample| sample.bytes).sum(),
            curve: CURVE.map(|percent| (percent, latency.percentile(percent))).to_vec(),
            latency: latency.times(),
            course: course(samples, schedule),
        }
    }

    /// The share of requests that failed, 0 to 1.
    pub fn error_ratio(&self) -> f64 {
        if self.requests == 0 { 0.0 } else { 1.0 - self.successes as f64 / self.requests as f64 }
    }
}

impl Tokens {
    fn of(samples: &[&Sample], seconds: f64) -> Option<Self> {
        let total: u64 = samples.iter().map(|sample| sample.tokens).sum();
        // An answer in one piece has its first byte with its last.
        let streamed = samples.iter().filter(|sample| sample.tokens > 1).filter_map(|sample| {
            let writing = sample.latency.checked_sub(sample.first?)?.as_secs_f64();
            (writing > 0.001).then_some((writing, sample.tokens - 1))
        });
        let (writing, gaps) = streamed.fold((0.0, 0), |(sum, gaps), (writing, more)| (sum + writing, gaps + more));
        let between = (gaps > 0).then(|| writing * 1000.0 / gaps as f64);
        (total > 0).then(|| Self { total, per_second: total as f64 / seconds, between })
    }
}

/// The latency of a sample, if it is to count.
fn latency(sample: &Sample) -> Option<Duration> {
    let counts = sample.outcome.is_ok() || sample.outcome == Outcome::TimedOut;
    counts.then_some(sample.latency)
}

fn course(samples: &[Sample], schedule: &Schedule) -> Vec<Second> {
    let start = schedule.measured_from.as_secs_f64();
    let second = |sample: &Sample| (sample.intended.as_secs_f64() - start).floor() as i64;
    let mut seconds: BTreeMap<i64, Vec<&Sample>> = BTreeMap::new();
    for sample in samples {
        seconds.entry(second(sample)).or_default().push(sample);
    }
    let seconds = seconds.into_iter().map(|(at, samples)| {
        let times: Distribution = samples.iter().filter_map(|sample| latency(sample)).collect();
        let errors = samples.iter().filter(|sample| !sample.outcome.is_ok()).count() as u64;
        let (p50, p99) = (times.percentile(50.0), times.percentile(99.0));
        Second { at: at as f64, requests: samples.len() as u64, errors, p50, p99 }
    });
    seconds.collect()
}

fn milliseconds(microseconds: u64) -> f64 {
    microseconds as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::load::schedule::{Arrivals, Profile};

    fn sample(intended: f64, latency: f64, outcome: Outcome) -> Sample {
        let [intended, latency] = [intended, latency].map(Duration::from_secs_f64);
        Sample { intended, delay: Duration::ZERO, first: Some(latency), latency, outcome, bytes: 10, tokens: 0 }
    }

    #[test]
    fn warm_up_does_not_count_and_time_outs_do() {
        let shape = Shape {
            profile: Profile::Steady,
            arrivals: Arrivals::Constant,
            rate: 1.0,
            seconds: 4.0,
            warm_up_seconds: 2.0,
            seed: 0,
        };
        let samples = [
            sample(0.5, 9.0, Outcome::Ok(200)),
            sample(2.0, 0.1, Outcome::Ok(200)),
            sample(3.0, 0.1, Outcome::Ok(200)),
            sample(4.0, 0.001, Outcome::Status(503)),
            sample(5.0, 5.0, Outcome::TimedOut),
        ];
        let figures = Figures::new(&samples, &shape, &shape.schedule());
        assert_eq!((figures.requests, figures.successes, figures.latency.count), (4, 2, 3));
        assert_eq!(figures.errors, BTreeMap::from([("status 503".to_owned(), 1), ("timed out".to_owned(), 1)]));
        assert_eq!((figures.error_ratio(), figures.rate, figures.throughput), (0.5, 1.0, 0.5));
        assert!((figures.latency.max - 5000.0).abs() < 5.0 && (figures.latency.p50 - 100.0).abs() < 0.1);
        assert_eq!(figures.course.iter().map(|second| second.at).collect::<Vec<_>>(), [-2.0, 0.0, 1.0, 2.0, 3.0]);
        assert_eq!(figures.course[3].errors, 1);
    }

    #[test]
    fn nothing_has_figures_too() {
        let shape = Shape {
            profile: Profile::Steady,
            arrivals: Arrivals::Constant,
            rate: 1.0,
            seconds: 1.0,
            warm_up_seconds: 0.0,
            seed: 0,
        };
        let figures = Figures::new(&[], &shape, &shape.schedule());
        assert_eq!((figures.requests, figures.throughput, figures.error_ratio()), (0, 0.0, 0.0));
        assert_eq!(figures.latency, Times::default());
    }

    proptest! {
        #[test]
        fn merging_is_the_same_as_recording_together(
            one in proptest::collection::vec(0u64..10_000_000, 0..200),
            other in proptest::collection::vec(0u64..10_000_000, 0..200),
        ) {
            let times = |values: &[u64]| values.iter().map(|us| Duration::from_micros(*us)).collect::<Distribution>();
            let mut merged = times(&one);
            merged.merge(&times(&other));
            prop_assert_eq!(merged.times(), times(&[one, other].concat()).times());
        }

        #[test]
        fn percentiles_are_those_of_the_sorted_values(mut values in proptest::collection::vec(1u64..100_000_000, 1..500)) {
            let distribution: Distribution = values.iter().map(|us| Duration::from_micros(*us)).collect();
            values.sort_unstable();
            for percent in [50.0, 95.0, 99.0, 100.0f64] {
                let rank = ((percent / 100.0 * values.len() as f64).ceil() as usize).max(1);
                let exact = values[rank - 1] as f64 / 1000.0;
                let told = distribution.percentile(percent);
                prop_assert!((told - exact).abs() <= exact * 0.001 + 0.001, "{percent}: {told} {exact}");
            }
        }
    }
}
