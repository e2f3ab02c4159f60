//! A line made of inked pieces, so that it can be measured and cut before it is coloured.

use console::Style;

use super::text;

/// How a piece of a line is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ink {
    Plain,
    Bold,
    Dim,
    Green,
    Yellow,
    Red,
    Cyan,
}

/// A line of a report. What is added to it is cleaned, so that a line never drives the terminal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Line(Vec<(Ink, String)>);

impl Line {
    /// An empty line.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds `piece`.
    #[must_use]
    pub(crate) fn with(mut self, ink: Ink, piece: impl AsRef<str>) -> Self {
        let piece = text::clean(piece.as_ref());
        if !piece.is_empty() {
            self.0.push((ink, piece.into_owned()));
        }
        self
    }

    /// Adds `piece` without ink.
    #[must_use]
    pub(crate) fn plain(self, piece: impl AsRef<str>) -> Self {
        self.with(Ink::Plain, piece)
    }

    /// Adds the pieces of another line.
    #[must_use]
    pub(crate) fn append(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Adds spaces until the line takes `columns`.
    #[must_use]
    pub(crate) fn pad(self, columns: usize) -> Self {
        let missing = columns.saturating_sub(self.width());
        self.plain(" ".repeat(missing))
    }

    /// The line without spaces at its end.
    #[must_use]
    pub(crate) fn trim_end(mut self) -> Self {
        while let Some((_, last)) = self.0.last_mut() {
            last.truncate(last.trim_end().len());
            if !last.is_empty() {
                break;
            }
            self.0.pop();
        }
        self
    }

    /// The columns that the line takes.
    pub(crate) fn width(&self) -> usize {
        self.0.iter().map(|(_, piece)| text::width(piece)).sum()
    }

    /// The line within `columns`, its end marked by `ellipsis` where something is missing.
    #[must_use]
    pub(crate) fn cut(self, columns: usize, ellipsis: &str) -> Self {
        if self.width() <= columns {
            return self;
        }
        let mut cut = Self::new();
        let Some(mut room) = columns.checked_sub(text::width(ellipsis)) else { return cut };
        for (ink, piece) in self.0 {
            let fits = text::prefix(&piece, room);
            if fits.len() < piece.len() {
                return cut.with(ink, format!("{fits}{ellipsis}"));
            }
            room -= text::width(&piece);
            cut.0.push((ink, piece));
        }
        cut
    }

    /// The line without colours.
    pub(crate) fn text(&self) -> String {
        self.0.iter().map(|(_, piece)| piece.as_str()).collect()
    }

    /// The line, with colours if `color`.
    pub(crate) fn paint(&self, color: bool) -> String {
        if !color {
            return self.text();
        }
        self.0.iter().map(|(ink, piece)| ink.style().apply_to(piece).to_string()).collect()
    }
}

impl Ink {
    fn style(self) -> Style {
        let style = Style::new().force_styling(true);
        match self {
            Self::Plain => style,
            Self::Bold => style.bold(),
            Self::Dim => style.dim(),
            Self::Green => style.green(),
            Self::Yellow => style.yellow(),
            Self::Red => style.red().bold(),
            Self::Cyan => style.cyan(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_across_its_pieces() {
        let line = || Line::new().with(Ink::Bold, "ab").with(Ink::Dim, "cd").plain("ef");
        let cut = |columns| line().cut(columns, "…").text();
        assert_eq!([6, 5, 4, 3, 2, 1, 0].map(cut), ["abcdef", "abcd…", "abc…", "ab…", "a…", "…", ""]);
    }

    #[test]
    fn only_our_own_colours_are_written() {
        let line = Line::new().with(Ink::Green, "\u{1b}[31mok\u{1b}[0m");
        assert_eq!(line.paint(true), "\u{1b}[32mok\u{1b}[0m");
        assert_eq!(line.paint(false), "ok");
    }
}
