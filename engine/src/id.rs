//! Task ids: what a node of the graph is called.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The id of a task, such as `CLOUD-3.2` or `oumi-environment`.
///
/// An id is 1 to 128 ASCII letters, digits, `.`, `_` and `-`, and begins with a letter or a digit, so that it can
/// be part of a file name. Ids order *naturally*: runs of digits compare as numbers, `CLOUD-2.9 < CLOUD-2.10`.
/// Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TaskId(Arc<str>);

/// Why a string is no [`TaskId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TaskIdError {
    /// The string is empty or longer than 128 bytes.
    #[error("an id has 1 to {MAX_LEN} characters, this one has {0}")]
    Length(usize),
    /// The string begins with something else than a letter or a digit.
    #[error("an id begins with a letter or a digit, not with `{0}`")]
    Start(char),
    /// The string holds a character that an id may not have.
    #[error("an id is made of letters, digits, `.`, `_` and `-`; `{0}` is none of these")]
    Character(char),
}

const MAX_LEN: usize = 128;

impl TaskId {
    /// Checks `text` and makes it an id.
    ///
    /// # Errors
    /// Says which rule of [`TaskId`] the text breaks.
    pub fn new(text: &str) -> Result<Self, TaskIdError> {
        if text.is_empty() || text.len() > MAX_LEN {
            return Err(TaskIdError::Length(text.chars().count()));
        }
        for (at, c) in text.char_indices() {
            if c.is_ascii_alphanumeric() {
                continue;
            }
            if at == 0 {
                return Err(TaskIdError::Start(c));
            }
            if !matches!(c, '.' | '_' | '-') {
                return Err(TaskIdError::Character(c));
            }
        }
        Ok(Self(text.into()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What comes before the last `.`: `CLOUD-3` for `CLOUD-3.2`; nothing for an id without one.
    ///
    /// Tasks of one phase are drawn together and can be selected together.
    pub fn phase(&self) -> Option<&str> {
        self.0.rsplit_once('.').map(|(phase, _)| phase).filter(|phase| !phase.is_empty())
    }
}

impl Ord for TaskId {
    fn cmp(&self, other: &Self) -> Ordering {
        natural_cmp(&self.0, &other.0)
    }
}

impl PartialOrd for TaskId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for TaskId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for TaskId {
    type Err = TaskIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

impl Serialize for TaskId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for TaskId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        crate::text::deserialize(deserializer)
    }
}

/// Compares `a` and `b` with runs of digits taken as numbers; equal numbers with different leading zeros fall back
/// to their bytes, so that only equal strings compare as equal.
fn natural_cmp(a: &str, b: &str) -> Ordering {
    let (mut x, mut y) = (a.as_bytes(), b.as_bytes());
    loop {
        match (x.first(), y.first()) {
            (Some(p), Some(q)) if p.is_ascii_digit() && q.is_ascii_digit() => {
                let (m, n) = (digits(x), digits(y));
                let (p, q) = (without_zeros(&x[..m]), without_zeros(&y[..n]));
                let order = p.len().cmp(&q.len()).then_with(|| p.cmp(q));
                if order != Ordering::Equal {
                    return order;
                }
                (x, y) = (&x[m..], &y[n..]);
            }
            (Some(p), Some(q)) if p == q => (x, y) = (&x[1..], &y[1..]),
            (Some(p), Some(q)) => return p.cmp(q),
            (None, None) => return a.cmp(b),
            (None, _) => return Ordering::Less,
            (_, None) => return Ordering::Greater,
        }
    }
}

fn digits(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|b| b.is_ascii_digit()).count()
}

fn without_zeros(digits: &[u8]) -> &[u8] {
    let zeros = digits.iter().take_while(|b| **b == b'0').count();
    &digits[zeros..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(text: &str) -> TaskId {
        TaskId::new(text).unwrap()
    }

    #[test]
    fn orders_naturally() {
        let mut ids = ["CLOUD-2.10", "CLOUD-2.9", "CLOUD-10.1", "CLOUD-2", "a", "CLOUD-02.9"].map(id);
        ids.sort();
        assert_eq!(
            ids.map(|id| id.to_string()),
            ["CLOUD-2", "CLOUD-02.9", "CLOUD-2.9", "CLOUD-2.10", "CLOUD-10.1", "a"]
        );
    }

    #[test]
    fn rejects_what_a_file_name_could_not_bear() {
        assert_eq!(TaskId::new(""), Err(TaskIdError::Length(0)));
        assert_eq!(TaskId::new(".."), Err(TaskIdError::Start('.')));
        assert_eq!(TaskId::new("a/b"), Err(TaskIdError::Character('/')));
        assert_eq!(TaskId::new("aä"), Err(TaskIdError::Character('ä')));
        assert!(TaskId::new(&"x".repeat(129)).is_err());
    }

    #[test]
    fn phase_is_what_stands_before_the_last_dot() {
        assert_eq!(id("CLOUD-3.2").phase(), Some("CLOUD-3"));
        assert_eq!(id("oumi-environment").phase(), None);
    }

    proptest! {
        #[test]
        fn order_is_total_and_consistent_with_equality(a in "[a-b0-1.]{1,6}", b in "[a-b0-1.]{1,6}", c in "[a-b0-1.]{1,6}") {
            prop_assert_eq!(natural_cmp(&a, &b), natural_cmp(&b, &a).reverse());
            prop_assert_eq!(natural_cmp(&a, &b) == Ordering::Equal, a == b);
            if natural_cmp(&a, &b).is_le() && natural_cmp(&b, &c).is_le() {
                prop_assert!(natural_cmp(&a, &c).is_le());
            }
        }
    }
}
