//! The signs of reports, for terminals with and without Unicode.

/// Whether more than ASCII can be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unicode {
    /// Everything can be shown.
    Yes,
    /// Only ASCII; our own signs have a fallback, the texts of tasks are passed on as they are.
    No,
}

/// The signs of reports.
#[derive(Debug)]
pub(crate) struct Symbols {
    pub(crate) succeeded: &'static str,
    pub(crate) degraded: &'static str,
    pub(crate) kept: &'static str,
    pub(crate) skipped: &'static str,
    pub(crate) failed: &'static str,
    pub(crate) blocked: &'static str,
    pub(crate) cancelled: &'static str,
    pub(crate) retrying: &'static str,
    pub(crate) notice: &'static str,
    pub(crate) dot: &'static str,
    pub(crate) into: &'static str,
    pub(crate) bar: &'static str,
    pub(crate) ellipsis: &'static str,
    pub(crate) spinner: &'static [&'static str],
}

impl Symbols {
    /// The signs for such a terminal.
    pub(crate) fn of(unicode: Unicode) -> &'static Self {
        match unicode {
            Unicode::Yes => &UNICODE,
            Unicode::No => &ASCII,
        }
    }
}

const UNICODE: Symbols = Symbols {
    succeeded: "✓",
    degraded: "~",
    kept: "=",
    skipped: "–",
    failed: "✗",
    blocked: "⊘",
    cancelled: "■",
    retrying: "↻",
    notice: "!",
    dot: " · ",
    into: "›",
    bar: "│",
    ellipsis: "…",
    spinner: &["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"],
};

const ASCII: Symbols = Symbols {
    succeeded: "+",
    degraded: "~",
    kept: "=",
    skipped: "-",
    failed: "x",
    blocked: "o",
    cancelled: "#",
    retrying: "@",
    notice: "!",
    dot: ", ",
    into: ">",
    bar: "|",
    ellipsis: "..",
    spinner: &["|", "/", "-", "\\"],
};
