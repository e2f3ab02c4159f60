//! What became of a request, and the file of all of them.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;

/// A request of a test. All times count from when it should have been sent, not from when it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// When it should have been sent, since the start of the test.
    pub intended: Duration,
    /// How much later the generator sent it.
    pub delay: Duration,
    /// Until the first byte of the answer; of one that is streamed, until the first token.
    pub first: Option<Duration>,
    /// Until the last byte of the answer, or the error.
    pub latency: Duration,
    /// How it ended.
    pub outcome: Outcome,
    /// The size of the answer's body, in bytes.
    pub bytes: u64,
    /// The tokens that a language model answered.
    pub tokens: u64,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// An answer with this status, which says that all went well.
    Ok(u16),
    /// An answer with this status, which says that it did not.
    Status(u16),
    /// An answer of another kind than the one that was asked for.
    WrongAnswer,
    /// No answer in time.
    TimedOut,
    /// No connection.
    NotConnected,
    /// The connection broke.
    Broken,
    /// It was not sent: too many were without an answer.
    NotSent,
}

impl Outcome {
    /// Whether the answer is the one that was asked for.
    pub fn is_ok(self) -> bool {
        matches!(self, Self::Ok(_))
    }

    /// The status of the answer, 0 without one.
    fn status(self) -> u16 {
        match self {
            Self::Ok(status) | Self::Status(status) => status,
            _ => 0,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok(_) => f.write_str("ok"),
            Self::Status(status) => write!(f, "status {status}"),
            Self::WrongAnswer => f.write_str("wrong answer"),
            Self::TimedOut => f.write_str("timed out"),
            Self::NotConnected => f.write_str("not connected"),
            Self::Broken => f.write_str("connection broken"),
            Self::NotSent => f.write_str("not sent, too many in flight"),
        }
    }
}

/// The header of the file of samples; times are in microseconds.
const HEADER: &str = "intended_us,delay_us,first_us,latency_us,outcome,status,bytes,tokens,warm_up";

/// Writes all samples, those of the warm-up too, as CSV that is compressed by gzip.
///
/// # Errors
/// The file cannot be written.
pub(super) fn write(file: &Path, samples: &[Sample], measured_from: Duration) -> io::Result<()> {
    let mut out = GzEncoder::new(io::BufWriter::new(File::create(file)?), Compression::default());
    writeln!(out, "{HEADER}")?;
    for sample in samples {
        let first = sample.first.map_or_else(String::new, |first| first.as_micros().to_string());
        writeln!(
            out,
            "{},{},{first},{},\"{}\",{},{},{},{}",
            sample.intended.as_micros(),
            sample.delay.as_micros(),
            sample.latency.as_micros(),
            sample.outcome,
            sample.outcome.status(),
            sample.bytes,
            sample.tokens,
            u8::from(sample.intended < measured_from),
        )?;
    }
    out.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn the_file_has_a_line_for_each_sample() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let ok = Sample {
            intended: Duration::from_millis(900),
            delay: Duration::from_micros(80),
            first: Some(Duration::from_millis(3)),
            latency: Duration::from_millis(4),
            outcome: Outcome::Ok(200),
            bytes: 12,
            tokens: 0,
        };
        let late = Duration::from_secs(1);
        let none = Sample { intended: late, first: None, latency: late, outcome: Outcome::NotSent, bytes: 0, ..ok };
        write(file.path(), &[ok, none], late).unwrap();
        let mut text = String::new();
        flate2::read::GzDecoder::new(File::open(file.path()).unwrap()).read_to_string(&mut text).unwrap();
        let lines = [
            HEADER,
            "900000,80,3000,4000,\"ok\",200,12,0,1",
            "1000000,80,,1000000,\"not sent, too many in flight\",0,0,0,0",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), lines);
    }
}
