//! The mark that an attempt leaves on every process it starts.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A random 128-bit mark of one attempt of one task, carried by its processes in the environment variable
/// [`Cookie::VARIABLE`]. It is not a secret.
///
/// A driver that itself runs inside an attempt of another driver appends its cookie to the one it was given, so that
/// the outer driver finds the inner one's processes as well.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cookie(u128);

/// A text is no [`Cookie`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no cookie of 32 hexadecimal digits")]
pub struct CookieError(String);

impl Cookie {
    /// The environment variable: cookies separated by commas, the innermost attempt last.
    pub const VARIABLE: &'static str = "TASKRUN_ATTEMPT";

    /// A new one, from the kernel's random numbers.
    ///
    /// # Panics
    /// The kernel gives no random numbers, which it does from early boot on.
    pub fn random() -> Self {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("the kernel gives random numbers");
        Self(u128::from_ne_bytes(bytes))
    }

    /// What the variable is set to for a process with this cookie, within an attempt if one is given, and within the
    /// attempt that the driver itself may be part of.
    pub(super) fn value(&self, attempt: Option<Self>) -> String {
        let outer = std::env::var(Self::VARIABLE).ok().filter(|outer| !outer.is_empty());
        let inner = [attempt, Some(*self)].into_iter().flatten().map(|cookie| cookie.to_string());
        outer.into_iter().chain(inner).collect::<Vec<_>>().join(",")
    }

    /// The cookies in an environment as `/proc/PID/environ` gives it: `NAME=value` entries, each ended by a zero byte.
    pub(super) fn all_in(environ: &[u8]) -> Vec<Self> {
        let assigned = environ.split(|byte| *byte == 0).find_map(|entry| {
            entry.strip_prefix(Self::VARIABLE.as_bytes())?.strip_prefix(b"=").and_then(|v| std::str::from_utf8(v).ok())
        });
        assigned.unwrap_or("").split(',').filter_map(|text| text.parse().ok()).collect()
    }
}

impl std::str::FromStr for Cookie {
    type Err = CookieError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(CookieError(text.to_owned()));
        }
        u128::from_str_radix(text, 16).map(Self).map_err(|_| CookieError(text.to_owned()))
    }
}

impl fmt::Display for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Cookie {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cookie {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        crate::text::deserialize(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_found_in_an_environment_alone_and_behind_an_outer_one() {
        let (outer, inner) = (Cookie::random(), Cookie::random());
        assert_ne!(outer, inner);
        let environ = format!("PATH=/bin\0TASKRUN_ATTEMPT={outer},{inner}\0HOME=/\0");
        assert_eq!(Cookie::all_in(environ.as_bytes()), [outer, inner]);
        assert_eq!(Cookie::all_in(format!("TASKRUN_ATTEMPT={inner}").as_bytes()), [inner]);
        assert_eq!(Cookie::all_in(format!("MY_TASKRUN_ATTEMPT={inner}\0X=TASKRUN_ATTEMPT={inner}\0").as_bytes()), []);
    }

    #[test]
    fn reads_back_what_it_writes() {
        let cookie = Cookie::random();
        assert_eq!(cookie.to_string().len(), 32);
        assert_eq!(cookie.to_string().parse(), Ok(cookie));
        assert_eq!(serde_json::from_str::<Cookie>(&serde_json::to_string(&cookie).unwrap()).unwrap(), cookie);
        assert!("+123456789012345678901234567890a".parse::<Cookie>().is_err());
    }
}
