//! Lengths of time as people write them: `500ms`, `10s`, `1h30m`.

use std::time::Duration;

/// The units and what they are in milliseconds, from the longest.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads numbers with units, from the longest unit to the shortest, each at most once.
///
/// Gives nothing if `text` is something else or longer than 10,000 years.
pub fn parse(text: &str) -> Option<Duration> {
    const LONGEST: u64 = 10_000 * 366 * 86_400_000;
    let mut units = UNITS.iter();
    let mut rest = text;
    let mut sum: u64 = 0;
    while !rest.is_empty() || text.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at(digits);
        let end = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let (_, factor) = units.find(|(name, _)| *name == unit)?;
        sum = sum.checked_add(number.parse::<u64>().ok()?.checked_mul(*factor)?)?;
        rest = tail;
    }
    (sum <= LONGEST).then(|| Duration::from_millis(sum))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_people_write() {
        for (text, millis) in [("500ms", 500), ("10s", 10_000), ("5m", 300_000), ("1h30m", 5_400_000), ("0s", 0)] {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(parse("2d1ms"), Some(Duration::from_millis(172_800_001)));
    }

    #[test]
    fn refuses_the_rest() {
        for text in ["", "10", "s", "1.5s", "-1s", "1m1h", "1s1s", "10 s", "1y", "99999999999999999999s", "9999999999d"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "[0-9dhms ä-]{0,12}") {
            let _ = parse(&text);
        }

        #[test]
        fn reads_each_number_of_milliseconds(millis in 0u64..10_000_000_000) {
            prop_assert_eq!(parse(&format!("{millis}ms")), Some(Duration::from_millis(millis)));
        }
    }
}
