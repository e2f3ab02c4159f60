//! How secrets are generated.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::value::Secret;
use crate::redact::MIN_SECRET_LEN;

/// What a generated secret is made of. The default is 32 ASCII letters and digits: 190 bits, and nothing that a URL, a
/// shell or a configuration file would have to escape.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Policy {
    length: usize,
    alphabet: String,
}

/// A policy as it is read.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unchecked {
    length: usize,
    alphabet: String,
}

impl Policy {
    const LETTERS_AND_DIGITS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    const MAX_LEN: usize = 4096;

    /// `length` characters of `alphabet`; nothing if the length is not in 6 to 4096, or the alphabet has fewer than ten
    /// characters, one of them twice, or others than the printable ones of ASCII.
    pub fn new(length: usize, alphabet: &str) -> Option<Self> {
        let policy = Self { length, alphabet: alphabet.to_owned() };
        policy.is_sound().then_some(policy)
    }

    /// `length` letters and digits; nothing if the length is not in 6 to 4096.
    pub fn letters_and_digits(length: usize) -> Option<Self> {
        Self::new(length, Self::LETTERS_AND_DIGITS)
    }

    fn is_sound(&self) -> bool {
        let characters = self.alphabet.as_bytes();
        let distinct =
            characters.iter().enumerate().all(|(at, c)| c.is_ascii_graphic() && !characters[..at].contains(c));
        (MIN_SECRET_LEN..=Self::MAX_LEN).contains(&self.length) && characters.len() >= 10 && distinct
    }

    /// A new secret from the kernel's random numbers, every character equally likely.
    pub(super) fn generate(&self) -> Result<Secret, getrandom::Error> {
        let characters = self.alphabet.as_bytes();
        // Bytes from here on would make the first characters of the alphabet likelier.
        let fair = 256 - 256 % characters.len();
        let mut value = String::with_capacity(self.length);
        let mut random = Zeroizing::new([0; 64]);
        while value.len() < self.length {
            getrandom::fill(&mut *random)?;
            let bytes = random.iter().map(|byte| usize::from(*byte)).filter(|byte| *byte < fair);
            value.extend(
                bytes.take(self.length - value.len()).map(|byte| char::from(characters[byte % characters.len()])),
            );
        }
        Ok(Secret::new(value))
    }
}

impl TryFrom<Unchecked> for Policy {
    type Error = &'static str;

    fn try_from(Unchecked { length, alphabet }: Unchecked) -> Result<Self, Self::Error> {
        Self::new(length, &alphabet).ok_or("length and alphabet make no secret")
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self { length: 32, alphabet: Self::LETTERS_AND_DIGITS.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn generates_what_it_says() {
        let policy = Policy::new(4096, "0123456789abc").unwrap();
        let secret = policy.generate().unwrap();
        assert_eq!(secret.expose().len(), 4096);
        let mut counts = HashMap::new();
        secret.expose().chars().for_each(|c| *counts.entry(c).or_insert(0) += 1);
        assert_eq!(counts.len(), 13, "{counts:?}");
        // Expected 315 each, standard deviation 17.
        assert!(counts.values().all(|n| (200..430).contains(n)), "{counts:?}");
        assert_ne!(secret.expose(), policy.generate().unwrap().expose());
        assert_eq!(Policy::default().generate().unwrap().expose().len(), 32);
    }

    #[test]
    fn refuses_what_makes_no_secret() {
        assert_eq!(Policy::letters_and_digits(5), None);
        assert_eq!(Policy::new(32, "aaaaaaaaaaaaa"), None);
        assert_eq!(Policy::new(32, "abc"), None);
        assert_eq!(Policy::new(32, "abcdefghijklmnop "), None);
        assert_eq!(Policy::new(32, "abcdefghijklmnopä"), None);
    }
}
