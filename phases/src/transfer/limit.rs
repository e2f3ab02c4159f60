//! The bandwidth limit: a token bucket that is shared by all connections of a transfer.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// For how long the bucket fills while nobody takes from it. Short, so that a pause is not followed by a flood.
const BURST: Duration = Duration::from_millis(100);

/// With less, in bytes each second, servers lose their patience.
const MINIMUM: u64 = 16 << 10;

/// Reads a rate such as `50MiB`, `1.5 GB` or `50MiB/s`.
///
/// # Errors
/// What is wrong with it.
pub fn parse_rate(text: &str) -> Result<u64, String> {
    let size = text.strip_suffix("/s").unwrap_or(text).trim();
    match size.parse::<bytesize::ByteSize>() {
        Ok(rate) if rate.as_u64() >= MINIMUM => Ok(rate.as_u64()),
        Ok(_) => Err(format!("`{text}` is less than 16KiB each second")),
        Err(_) => Err(format!("`{text}` is no rate; write one such as 50MiB")),
    }
}

/// Lets bytes pass at a rate.
#[derive(Debug)]
pub struct Limiter {
    /// Bytes each second.
    rate: u64,
    bucket: Mutex<Bucket>,
}

/// A token bucket, seen as a clock: when everything that was granted so far will have passed.
#[derive(Debug, Default)]
struct Bucket {
    drained: Option<Instant>,
}

impl Bucket {
    /// Grants `bytes` at `rate`, and says how long to wait before they may pass.
    fn take(&mut self, now: Instant, bytes: u64, rate: u64) -> Duration {
        let full = now.checked_sub(BURST).unwrap_or(now);
        let begin = self.drained.map_or(full, |drained| drained.max(full));
        let drained = begin + Duration::from_secs_f64(bytes as f64 / rate as f64);
        self.drained = Some(drained);
        drained.saturating_duration_since(now)
    }
}

impl Limiter {
    /// A limit of `rate` bytes each second, at least one.
    pub fn new(rate: u64) -> Self {
        Self { rate: rate.max(1), bucket: Mutex::default() }
    }

    /// The bytes that pass each second.
    pub fn rate(&self) -> u64 {
        self.rate
    }

    /// Waits until `bytes` may pass.
    pub async fn pass(&self, bytes: u64) {
        let wait = self.bucket.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now(), bytes, self.rate);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read() {
        assert_eq!(parse_rate("50MiB"), Ok(50 << 20));
        assert_eq!(parse_rate("50 MB/s"), Ok(50_000_000));
        assert_eq!(parse_rate("1.5GiB"), Ok(3 << 29));
        for bad in ["", "fast", "-1MiB", "1KiB", "50MiB/h"] {
            assert!(parse_rate(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn bytes_pass_at_the_rate_whoever_takes_them() {
        let (mut bucket, start) = (Bucket::default(), Instant::now());
        // The burst of 100 ms is there at once.
        assert_eq!(bucket.take(start, 100, 1000), Duration::ZERO);
        assert_eq!(bucket.take(start, 500, 1000), Duration::from_millis(500));
        assert_eq!(bucket.take(start, 500, 1000), Duration::from_millis(1000));
        let later = start + Duration::from_millis(900);
        assert_eq!(bucket.take(later, 400, 1000), Duration::from_millis(500));
    }

    #[test]
    fn a_pause_is_followed_by_no_more_than_the_burst() {
        let (mut bucket, start) = (Bucket::default(), Instant::now());
        bucket.take(start, 1000, 1000);
        let later = start + Duration::from_secs(3600);
        assert_eq!(bucket.take(later, 100, 1000), Duration::ZERO);
        assert_eq!(bucket.take(later, 1000, 1000), Duration::from_secs(1));
    }

    #[tokio::test]
    async fn many_takers_share_one_rate() {
        let limiter = std::sync::Arc::new(Limiter::new(1 << 20));
        let mut takers = tokio::task::JoinSet::new();
        let start = Instant::now();
        for _ in 0..8 {
            let limiter = std::sync::Arc::clone(&limiter);
            takers.spawn(async move { limiter.pass(1 << 15).await });
        }
        takers.join_all().await;
        // A quarter of a second at this rate, less the burst.
        assert!(start.elapsed() >= Duration::from_millis(150), "{:?}", start.elapsed());
    }
}
