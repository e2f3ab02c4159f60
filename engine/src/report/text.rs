//! Texts made fit to be shown: clean of control characters, as whole lines, cut to a width, durations in words.

use std::borrow::Cow;

use jiff::Timestamp;
use unicode_width::UnicodeWidthChar;

/// `text` as one line that a terminal shows and nothing more: no escape sequence, no control character (a tab or a line
/// end becomes a space), nothing that turns the direction of writing.
pub(crate) fn clean(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let stripped = console::strip_ansi_codes(text);
    let mut cleaned = String::with_capacity(stripped.len());
    for c in stripped.chars() {
        match c {
            '\t' | '\n' | '\r' => cleaned.push(' '),
            c if is_unsafe(c) => {}
            c => cleaned.push(c),
        }
    }
    Cow::Owned(cleaned)
}

fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            // Line and paragraph separators.
            '\u{2028}' | '\u{2029}'
            // Marks, embeddings, overrides and isolates of the writing direction.
            | '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
            // Makes the character before it twice as wide in some terminals.
            | '\u{fe0f}')
}

/// What a line shows once it is written: carriage returns overwrite what stood before them.
pub(crate) fn last_overwrite(line: &str) -> &str {
    let line = line.trim_end_matches(['\r', '\n']);
    line.rsplit('\r').find(|part| !part.is_empty()).unwrap_or_default()
}

/// The columns that a clean text takes, at most: terminals that join characters take fewer.
pub(crate) fn width(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

/// The longest beginning of a clean text within `columns`, its end marked by `ellipsis` where something is missing.
pub(crate) fn cut<'a>(text: &'a str, columns: usize, ellipsis: &str) -> Cow<'a, str> {
    if width(text) <= columns {
        return Cow::Borrowed(text);
    }
    match columns.checked_sub(width(ellipsis)) {
        Some(room) => Cow::Owned(format!("{}{ellipsis}", prefix(text, room))),
        None => Cow::Borrowed(""),
    }
}

/// The longest beginning of a clean text that takes at most `columns`.
pub(crate) fn prefix(text: &str, columns: usize) -> &str {
    let mut taken = 0;
    let past = text.char_indices().find(|(_, c)| {
        taken += c.width().unwrap_or(0);
        taken > columns
    });
    past.map_or(text, |(at, _)| &text[..at])
}

/// A duration in words: `0.4s`, `12.3s`, `2m 13s`, `1h 02m`.
pub(crate) fn seconds(seconds: f64) -> String {
    let rounded = (seconds * 10.0).round() / 10.0;
    if rounded < 60.0 { format!("{:.1}s", rounded.max(0.0)) } else { whole_seconds(seconds) }
}

/// A duration in words without fractions: `0s`, `12s`, `2m 13s`, `1h 02m`.
pub(crate) fn whole_seconds(seconds: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, and negative becomes 0")]
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{whole}s"),
        60..3600 => format!("{}m {:02}s", whole / 60, whole % 60),
        _ => format!("{}h {:02}m", whole / 3600, whole % 3600 / 60),
    }
}

/// The seconds from `since` to `now`, 0 if `now` is earlier.
pub(crate) fn elapsed(since: Timestamp, now: Timestamp) -> f64 {
    now.duration_since(since).as_secs_f64().max(0.0)
}

/// `one` or `many`, as `count` asks for, behind the number.
pub(crate) fn count(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Joins pieces of output to whole lines.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    partial: String,
}

impl Lines {
    /// A line that grows longer than this is broken, so that output without line ends does not fill the memory.
    const MAX: usize = 16 * 1024;

    /// Adds a piece and hands over the lines that it completes, without their ends.
    pub(crate) fn push(&mut self, piece: &str, mut line: impl FnMut(&str)) {
        for part in piece.split_inclusive('\n') {
            self.partial.push_str(part);
            if part.ends_with('\n') || self.partial.len() >= Self::MAX {
                line(last_overwrite(&self.partial));
                self.partial.clear();
            }
        }
    }

    /// Hands over what stands behind the last line end, if anything does.
    pub(crate) fn finish(&mut self, line: impl FnOnce(&str)) {
        if !self.partial.is_empty() {
            line(last_overwrite(&self.partial));
            self.partial.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_that_drives_a_terminal_is_left() {
        assert_eq!(clean("\u{1b}[31mred\u{1b}[0m\tand\u{1b}]0;title\u{7} \u{1b}[2Jgone\u{8}\u{9b}"), "red and gone");
        assert_eq!(clean("user\u{202e}txt.exe"), "usertxt.exe");
        assert!(matches!(clean("größer 漢字"), Cow::Borrowed("größer 漢字")));
    }

    #[test]
    fn cuts_by_columns() {
        assert_eq!(cut("abc", 3, "…"), "abc");
        assert_eq!(cut("abcd", 3, "…"), "ab…");
        assert_eq!(cut("漢字漢字", 6, "…"), "漢字…");
        assert_eq!(cut("abc", 0, "…"), "");
        assert_eq!(cut("abcd", 1, ".."), "");
    }

    #[test]
    fn durations_read_well() {
        let told = [0.04, 12.34, 59.96, 133.0, 3725.0, -1.0].map(seconds);
        assert_eq!(told, ["0.0s", "12.3s", "1m 00s", "2m 13s", "1h 02m", "0.0s"]);
        assert_eq!([0.4, 59.6, f64::NAN].map(whole_seconds), ["0s", "1m 00s", "0s"]);
    }

    #[test]
    fn pieces_become_lines() {
        let (mut lines, mut seen) = (Lines::default(), Vec::new());
        for piece in ["a", "b\nc\r\n", " 10%\r 50%\r", "100%\n\nend"] {
            lines.push(piece, |line| seen.push(line.to_owned()));
        }
        lines.finish(|line| seen.push(line.to_owned()));
        assert_eq!(seen, ["ab", "c", "100%", "", "end"]);
    }

    proptest! {
        #[test]
        fn a_cut_text_is_clean_and_within_its_width(text: String, columns in 0_usize..40) {
            let text = clean(&text);
            prop_assert!(!text.contains(is_unsafe));
            prop_assert!(width(&cut(&text, columns, "…")) <= columns);
        }
    }
}
