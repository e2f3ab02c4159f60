//! The text of a graph file, and places in it.

use std::fmt;
use std::path::PathBuf;
use std::sync::OnceLock;

use miette::{MietteError, MietteSpanContents, SourceCode, SourceSpan, SpanContents};

/// A graph file that was read.
pub(super) struct SourceFile {
    pub(super) path: PathBuf,
    pub(super) text: String,
    /// The offset at which each line begins; made when the first place is asked for.
    lines: OnceLock<Vec<usize>>,
}

/// A part of a file, in bytes from its start; `start <= end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) end: u32,
}

/// How much is shown at most on either side of the place in question, in bytes.
const SHOWN_AROUND: usize = 200;

/// How much of a line is shown on either side of the place if more would be too much, in bytes.
const SHOWN_OF_LINE: usize = 60;

impl SourceFile {
    pub(super) fn new(path: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        Self { path: path.into(), text: text.into(), lines: OnceLock::new() }
    }

    fn lines(&self) -> &[usize] {
        self.lines.get_or_init(|| {
            let breaks = self.text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
            std::iter::once(0).chain(breaks.map(|(at, _)| at + 1)).collect()
        })
    }

    /// The line that `offset` is on, from 0.
    fn line_at(&self, offset: usize) -> usize {
        self.lines().partition_point(|start| *start <= offset) - 1
    }

    /// Line and column (in characters) of `offset`, both from 1.
    pub(super) fn place(&self, offset: u32) -> (usize, usize) {
        let offset = self.boundary(offset as usize);
        let line = self.line_at(offset);
        (line + 1, self.text[self.lines()[line]..offset].chars().count() + 1)
    }

    /// What of `span` is on its first line and not too long to be shown, at least one character unless the line ends
    /// there.
    pub(super) fn first_line(&self, span: Span) -> SourceSpan {
        let start = self.boundary(span.start as usize);
        let rest = &self.text[start..];
        let line = rest.find(['\n', '\r']).unwrap_or(rest.len());
        let longest = rest.floor_char_boundary(line.min(SHOWN_AROUND));
        let shortest = rest.chars().next().filter(|c| !matches!(c, '\n' | '\r')).map_or(0, char::len_utf8);
        let length = self.boundary(span.end as usize).saturating_sub(start).min(longest).max(shortest);
        (start, length).into()
    }

    /// The last place at or before `offset` where the text can be cut.
    fn boundary(&self, offset: usize) -> usize {
        self.text.floor_char_boundary(offset)
    }
}

/// The text is left out: it may be many megabytes.
impl fmt::Debug for SourceFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SourceFile").field(&self.path).finish()
    }
}

/// Finds lines by bisection and shows only a part of a line that is very long, so that reporting a hundred problems
/// in a file of many megabytes is quick and readable.
impl SourceCode for SourceFile {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let (start, end) = (span.offset(), span.offset() + span.len());
        if end > self.text.len() {
            return Err(MietteError::OutOfBounds);
        }
        let lines = self.lines();
        let from = match lines[self.line_at(start).saturating_sub(before)] {
            _ if before == 0 => start,
            from if start - from <= SHOWN_AROUND => from,
            _ => lines[self.line_at(start)].max(self.boundary(start.saturating_sub(SHOWN_OF_LINE))),
        };
        let end_of = |line: usize| lines.get(line + 1).map_or(self.text.len(), |next| next - 1).max(end);
        let to = match end_of(self.line_at(end) + after) {
            to if to - end <= SHOWN_AROUND => to,
            _ => end_of(self.line_at(end)).min(self.text.ceil_char_boundary(end + SHOWN_OF_LINE)),
        };
        let line = self.line_at(from);
        Ok(Box::new(MietteSpanContents::new_named(
            self.path.display().to_string(),
            &self.text.as_bytes()[from..to],
            (from, to - from).into(),
            line,
            self.text[lines[line]..from].chars().count(),
            self.line_at(to) - line + 1,
        )))
    }
}

impl Span {
    pub(super) fn new(start: usize, end: usize) -> Self {
        // Files are far smaller than 4 GiB: reading them enforces that.
        let narrow = |offset| u32::try_from(offset).unwrap_or(u32::MAX);
        Self { start: narrow(start), end: narrow(end.max(start)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_characters_from_one() {
        let file = SourceFile::new("g", "äb\ncd");
        assert_eq!(file.place(0), (1, 1));
        assert_eq!(file.place(2), (1, 2));
        assert_eq!(file.place(4), (2, 1));
        assert_eq!(file.place(99), (2, 3));
    }

    #[test]
    fn lines_around_are_shown() {
        let file = SourceFile::new("g", "a\nb\ncde\nf\ng");
        let shown = file.read_span(&(5, 1).into(), 1, 1).unwrap();
        assert_eq!((shown.data(), shown.line(), shown.column()), (&b"b\ncde\nf"[..], 1, 0));
        let shown = file.read_span(&(5, 1).into(), 0, 0).unwrap();
        assert_eq!((shown.data(), shown.line(), shown.column()), (&b"de"[..], 2, 1));
        assert!(file.read_span(&(12, 1).into(), 0, 0).is_err());
    }

    #[test]
    fn a_span_ends_with_its_line() {
        let file = SourceFile::new("g", "ab\ncd");
        assert_eq!(file.first_line(Span::new(1, 5)), (1, 1).into());
        assert_eq!(file.first_line(Span::new(3, 3)), (3, 1).into());
        assert_eq!(file.first_line(Span::new(5, 9)), (5, 0).into());
    }

    #[test]
    fn little_of_a_long_line_is_shown() {
        let file = SourceFile::new("g", "x".repeat(1_000_000));
        let shown = file.read_span(&(500_000, 3).into(), 1, 1).unwrap();
        assert_eq!(shown.data().len(), 60 + 3 + 60);
        assert_eq!((shown.line(), shown.column()), (0, 500_000 - 60));
    }
}
