//! Errors as the user sees them, and the exit codes that they lead to.

use std::fmt::Write as _;

/// The exit codes of the program.
pub mod exit {
    /// Done; degraded and skipped tasks included.
    pub const OK: u8 = 0;
    /// A task failed.
    pub const FAILED: u8 = 1;
    /// Wrong usage or invalid input; nothing was started.
    pub const USAGE: u8 = 2;
    /// Another run holds the state.
    pub const LOCKED: u8 = 3;
    /// The state is damaged or cannot be written.
    pub const STATE: u8 = 4;
    /// `plan --detailed-exitcode`: a run would do something.
    pub const CHANGES: u8 = 10;
    /// Interrupted by Ctrl-C; by SIGTERM or SIGHUP it is 143.
    pub const INTERRUPTED: u8 = 130;
    /// Ended by SIGTERM or SIGHUP.
    pub const TERMINATED: u8 = 143;
}

/// What to try when the state cannot be written.
pub(super) const MEND_DISK: &str = "make room on the disk or mend it, then: taskrun resume";

/// Why a verb could not do its work.
#[derive(Debug)]
pub struct CliError {
    /// The exit code.
    pub code: u8,
    /// What is printed, without the word `error` before it unless it is a report of its own.
    text: Text,
}

#[derive(Debug)]
enum Text {
    /// A message, its causes, and what to try.
    Plain { message: String, causes: Vec<String>, hint: Option<String> },
    /// A rendered report, printed as it is.
    Report(String),
}

impl CliError {
    /// An error with a message.
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, text: Text::Plain { message: message.into(), causes: Vec::new(), hint: None } }
    }

    /// Wrong usage or invalid input.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(exit::USAGE, message)
    }

    /// A report that is printed as it is, such as one that shows places in a file.
    pub fn report(code: u8, report: impl Into<String>) -> Self {
        Self { code, text: Text::Report(report.into()) }
    }

    /// Puts `error` and its sources below a message.
    pub fn caused(code: u8, message: impl Into<String>, error: &dyn std::error::Error) -> Self {
        let mut causes = vec![error.to_string()];
        let mut source = error.source();
        while let Some(inner) = source {
            causes.push(inner.to_string());
            source = inner.source();
        }
        Self { code, text: Text::Plain { message: message.into(), causes, hint: None } }
    }

    /// Says what to try.
    #[must_use]
    pub fn with_hint(mut self, text: impl Into<String>) -> Self {
        if let Text::Plain { hint, .. } = &mut self.text {
            *hint = Some(text.into());
        }
        self
    }

    /// What is printed on stderr.
    pub fn render(&self) -> String {
        match &self.text {
            Text::Report(report) => format!("{}\n", report.trim_end()),
            Text::Plain { message, causes, hint } => {
                let mut out = format!("error: {message}\n");
                for cause in causes {
                    let _ = writeln!(out, "  because: {cause}");
                }
                if let Some(hint) = hint {
                    let _ = writeln!(out, "hint: {hint}");
                }
                out
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_why_and_what_to_try() {
        let io = std::io::Error::other("no space left");
        let error = CliError::caused(exit::STATE, "write the journal", &io).with_hint("make room");
        assert_eq!(error.render(), "error: write the journal\n  because: no space left\nhint: make room\n");
    }
}
