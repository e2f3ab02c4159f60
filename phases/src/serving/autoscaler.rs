//! How many replicas a model needs, from the requests that are under way at once. Pure: time comes from outside.
//!
//! Up at once, when the mean of the last seconds needs more; down only to what was enough during the whole stable
//! window, as the stabilisation of Kubernetes' HorizontalPodAutoscaler does. So a short pause costs no replica.

use std::collections::VecDeque;
use std::time::Duration;

use super::spec::{Autoscaling, Replicas};

/// Over how long the concurrency is averaged: longer than one request, shorter than anybody's patience.
const BURST: Duration = Duration::from_secs(3);

/// What a model was seen to need.
#[derive(Debug, Clone, Default)]
pub(super) struct Autoscaler {
    samples: VecDeque<(Duration, f64)>,
    needs: VecDeque<(Duration, u32)>,
    since: Option<Duration>,
}

impl Autoscaler {
    /// Adds a sample of the concurrency, queued requests included, taken at `now` (since any fixed time), and tells how
    /// many replicas there are to be, if there are `current` ones.
    pub(super) fn desired(
        &mut self,
        now: Duration,
        concurrency: f64,
        current: u32,
        bounds: Replicas,
        scaling: Autoscaling,
    ) -> u32 {
        let since = *self.since.get_or_insert(now);
        self.samples.push_back((now, concurrency));
        forget_before(&mut self.samples, now.saturating_sub(BURST));
        let count = self.samples.len().max(1) as f64;
        let mean = self.samples.iter().map(|(_, concurrency)| concurrency).sum::<f64>() / count;
        // A float too large for a u32 becomes the largest one, which the bounds cut.
        let need = (mean / scaling.target_concurrency).ceil() as u32;
        self.needs.push_back((now, need));
        let window = Duration::from_secs(scaling.stable_window_s.into());
        forget_before(&mut self.needs, now.saturating_sub(window));
        let most = self.needs.iter().map(|(_, need)| *need).max().unwrap_or(need);
        let seen_enough = now.saturating_sub(since) >= window;
        let wanted = match need > current {
            true => need,
            false if seen_enough => most.min(current),
            false => current,
        };
        wanted.clamp(bounds.min, bounds.max)
    }

    /// The mean concurrency of the last seconds.
    pub(super) fn concurrency(&self) -> f64 {
        let sum: f64 = self.samples.iter().map(|(_, concurrency)| concurrency).sum();
        sum / self.samples.len().max(1) as f64
    }
}

fn forget_before<T>(entries: &mut VecDeque<(Duration, T)>, start: Duration) {
    while entries.front().is_some_and(|(at, _)| *at < start) {
        entries.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: Replicas = Replicas { min: 1, max: 8 };
    const SCALING: Autoscaling = Autoscaling { target_concurrency: 2.0, stable_window_s: 20 };

    /// The replicas over time, if these concurrencies are seen, one each half second.
    fn run(concurrencies: &[f64], bounds: Replicas) -> Vec<u32> {
        let (mut scaler, mut current) = (Autoscaler::default(), bounds.min);
        let mut at = |(tick, concurrency): (usize, &f64)| {
            let now = Duration::from_millis(500 * tick as u64);
            current = scaler.desired(now, *concurrency, current, bounds, SCALING);
            current
        };
        concurrencies.iter().enumerate().map(&mut at).collect()
    }

    #[test]
    fn up_at_once_and_down_after_the_window() {
        let load: Vec<f64> = [vec![0.0; 10], vec![6.0; 20], vec![0.0; 100]].concat();
        let replicas = run(&load, BOUNDS);
        assert_eq!(replicas[9], 1);
        // Three seconds are averaged: six samples later at the latest.
        assert_eq!(replicas[16], 3);
        let down = replicas.iter().rposition(|count| *count == 3).unwrap();
        // The load ends at 30; its mean lasts 6 samples more, the window another 40.
        assert!((68..=78).contains(&down), "{down}");
        assert_eq!(*replicas.last().unwrap(), 1);
    }

    #[test]
    fn a_pause_within_the_window_costs_no_replica() {
        let load: Vec<f64> = [vec![6.0; 20], vec![0.0; 30], vec![6.0; 20]].concat();
        assert!(run(&load, BOUNDS)[10..].iter().all(|count| *count == 3));
    }

    proptest! {
        #[test]
        fn it_stays_within_the_bounds(load in prop::collection::vec(0.0..1e12, 1..200), min in 1u32..5, more in 0u32..5) {
            let bounds = Replicas { min, max: min + more };
            prop_assert!(run(&load, bounds).iter().all(|count| (min..=min + more).contains(count)));
        }

        #[test]
        fn a_steady_load_is_scaled_for_and_never_flaps(concurrency in 0.0..16.0) {
            let replicas = run(&[concurrency; 120], BOUNDS);
            let wanted = ((concurrency / 2.0).ceil() as u32).clamp(1, 8);
            prop_assert!(replicas.iter().all(|count| *count == wanted));
        }

        #[test]
        fn it_never_scales_down_within_the_window_of_a_higher_need(load in prop::collection::vec(0.0..16.0, 1..200)) {
            let replicas = run(&load, BOUNDS);
            for (at, pair) in replicas.windows(2).enumerate() {
                if pair[1] < pair[0] {
                    let window = &replicas[(at + 1).saturating_sub(40)..=at];
                    prop_assert!(at >= 39 && window.iter().all(|count| *count >= pair[0]), "{window:?} then {}", pair[1]);
                }
            }
        }

        #[test]
        fn more_load_never_means_fewer_replicas(load in prop::collection::vec(0.0..16.0, 1..100), extra in 0.0..8.0) {
            let more: Vec<f64> = load.iter().map(|concurrency| concurrency + extra).collect();
            prop_assert!(run(&load, BOUNDS).iter().zip(run(&more, BOUNDS)).all(|(less, more)| *less <= more));
        }
    }
}
