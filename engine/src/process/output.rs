//! Where a command's output goes, and the end of it that error reports show.

use std::collections::VecDeque;

/// Takes the output of a command, piece by piece as it comes.
///
/// Pieces end anywhere: in the middle of a line or of a character.
pub trait OutputSink {
    /// Takes the next bytes. It is called on the thread that runs the command, which reads no further until this returns.
    fn chunk(&mut self, bytes: &[u8]);
}

/// Collects the output.
impl OutputSink for Vec<u8> {
    fn chunk(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// A sink that forgets everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct Discard;

impl OutputSink for Discard {
    fn chunk(&mut self, _: &[u8]) {}
}

/// The last bytes of an output, at most [`Tail::BYTES`].
#[derive(Debug, Default)]
pub(super) struct Tail(VecDeque<u8>);

impl Tail {
    /// How many bytes are kept.
    pub(super) const BYTES: usize = 8 * 1024;
    /// How many lines are shown.
    pub(super) const LINES: usize = 20;

    /// Appends `bytes`, forgetting the oldest.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(Self::BYTES)..];
        let too_many = (self.0.len() + bytes.len()).saturating_sub(Self::BYTES);
        self.0.drain(..too_many);
        self.0.extend(bytes);
    }

    /// The last [`Tail::LINES`] lines as text, without the final line end; what is not UTF-8 is replaced.
    pub(super) fn into_text(mut self) -> String {
        let text = String::from_utf8_lossy(self.0.make_contiguous());
        let text = text.trim_end_matches(['\n', '\r']);
        let from = text.rmatch_indices('\n').nth(Self::LINES - 1).map_or(0, |(at, _)| at + 1);
        text[from..].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_last_lines_only() {
        let mut tail = Tail::default();
        for n in 0..10_000 {
            tail.push(format!("line {n}\n").as_bytes());
        }
        let text = tail.into_text();
        assert_eq!(text.lines().count(), Tail::LINES);
        assert!(text.starts_with("line 9980\n") && text.ends_with("line 9999"), "{text}");
    }

    #[test]
    fn bounds_a_line_without_end() {
        let mut tail = Tail::default();
        tail.push(&[b'x'; 3 * Tail::BYTES]);
        tail.push(b"yz");
        let text = tail.into_text();
        assert_eq!(text.len(), Tail::BYTES);
        assert!(text.ends_with("xyz"));
    }

    #[test]
    fn short_output_is_kept_whole() {
        let mut tail = Tail::default();
        tail.push(b"a\nb\xff\n\n");
        assert_eq!(tail.into_text(), "a\nb\u{fffd}");
        assert_eq!(Tail::default().into_text(), "");
    }
}
