//! How long to wait before a task is tried again.

use std::time::Duration;

use crate::graph::Retries;

/// The wait before retry number `retry` (from 1): the backoff doubles with each retry up to the maximum, and a part of
/// it, given by `jitter`, is left to `chance` (0..1), so that tasks that failed together do not return together.
pub(super) fn delay(retries: &Retries, retry: u32, chance: f64) -> Duration {
    let doubled = 2.0_f64.powi(i32::try_from(retry.saturating_sub(1)).unwrap_or(i32::MAX).min(60));
    let longest = retries.max_delay.as_secs_f64();
    let full = (retries.backoff.as_secs_f64() * doubled).min(longest);
    Duration::from_secs_f64(full * (1.0 - retries.jitter.clamp(0.0, 1.0) * chance.clamp(0.0, 1.0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn doubles_up_to_the_maximum() {
        let retries =
            Retries { count: 9, backoff: Duration::from_secs(1), max_delay: Duration::from_secs(5), jitter: 0.5 };
        let waits: Vec<u64> = (1..=5).map(|retry| delay(&retries, retry, 0.0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 5, 5]);
        assert_eq!(delay(&retries, 1, 1.0), Duration::from_millis(500));
    }

    proptest! {
        #[test]
        fn stays_within_its_bounds(retry in 0..u32::MAX, chance in 0.0..1.0f64, jitter in 0.0..1.0f64) {
            let retries = Retries { jitter, ..Retries::default() };
            prop_assert!(delay(&retries, retry, chance) <= retries.max_delay);
        }
    }
}
