//! Problems, their places, and how they are shown.

use std::fmt;
use std::sync::Arc;

use miette::{Diagnostic, LabeledSpan, SourceCode};

use super::problem::ProblemKind;
use super::source::{SourceFile, Span};

/// Everything that is wrong with the files of a graph, or with another document, ordered by place; at least one problem.
///
/// Rendered by miette it shows each problem with its file, line, column and the underlined text.
#[derive(Debug)]
pub struct GraphErrors {
    /// What they are the problems of.
    of: String,
    problems: Vec<Problem>,
    complete: bool,
}

/// One thing that is wrong, and where.
#[derive(Debug)]
pub struct Problem {
    kind: ProblemKind,
    /// The file and the part of it; nothing where a file could not be read or the graph as a whole is meant.
    at: Option<(Arc<SourceFile>, Span)>,
}

impl Problem {
    /// What is wrong.
    pub fn kind(&self) -> &ProblemKind {
        &self.kind
    }

    /// `FILE:LINE:COLUMN`, if the problem has a place.
    pub fn place(&self) -> Option<String> {
        self.at.as_ref().map(|(file, span)| place(file, *span))
    }
}

fn place(file: &SourceFile, span: Span) -> String {
    let (line, column) = file.place(span.start);
    format!("{}:{line}:{column}", file.path.display())
}

impl GraphErrors {
    /// The problems, ordered by place.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Whether these are all problems that there are; if not, looking for them was given up.
    pub fn complete(&self) -> bool {
        self.complete
    }
}

impl fmt::Display for GraphErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.problems[..] {
            [only] => write!(f, "{} has a problem: {only}", self.of),
            all if self.complete => write!(f, "{} has {} problems", self.of, all.len()),
            all => write!(f, "{} has more than {} problems", self.of, all.len()),
        }
    }
}

impl std::error::Error for GraphErrors {}

impl Diagnostic for GraphErrors {
    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        Some(Box::new(self.problems.iter().map(|problem| problem as &dyn Diagnostic)))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

impl std::error::Error for Problem {}

impl Diagnostic for Problem {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.kind.hint().map(|hint| Box::new(hint) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.at.as_ref().map(|(file, _)| &**file as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let (file, span) = self.at.as_ref()?;
        let label = LabeledSpan::new_primary_with_span(None, file.first_line(*span));
        Some(Box::new(std::iter::once(label)))
    }
}

/// The problems found so far.
#[derive(Debug, Default)]
pub(super) struct Problems {
    files: Vec<Arc<SourceFile>>,
    found: Vec<(Option<At>, ProblemKind)>,
}

/// A part of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct At {
    pub(super) file: u16,
    pub(super) span: Span,
}

/// After how many problems looking for more is given up.
const ENOUGH: usize = 100;

/// For how many unknown names the nearest known one is looked for: it takes long in a large graph.
const NEAREST_FOR: usize = 10;

impl Problems {
    pub(super) fn new(files: Vec<Arc<SourceFile>>) -> Self {
        Self { files, found: Vec::new() }
    }

    pub(super) fn add(&mut self, at: impl Into<Option<At>>, kind: ProblemKind) {
        self.found.push((at.into(), kind));
    }

    /// Whether so much is wrong that looking on helps nobody.
    pub(super) fn enough(&self) -> bool {
        self.found.len() >= ENOUGH
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// `FILE:LINE:COLUMN` of `at`.
    pub(super) fn place(&self, at: At) -> String {
        place(&self.files[usize::from(at.file)], at.span)
    }

    pub(super) fn line(&self, at: At) -> usize {
        self.files[usize::from(at.file)].place(at.span.start).0
    }

    /// The name of `known` that is most like `name`, if one is alike and not too many names are unknown already.
    pub(super) fn nearest<'k>(&self, name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<String> {
        if self.found.len() >= NEAREST_FOR { None } else { nearest(name, known).map(str::to_owned) }
    }

    /// All of them, as those of a graph; there must be one.
    pub(super) fn into_errors(self) -> GraphErrors {
        self.into_errors_of("the graph")
    }

    /// All of them, as those of `what`; there must be one.
    pub(super) fn into_errors_of(self, what: impl Into<String>) -> GraphErrors {
        let Self { files, mut found } = self;
        found.sort_by_key(|(at, _)| *at);
        let complete = found.len() < ENOUGH;
        found.truncate(ENOUGH);
        let problem = |(at, kind): (Option<At>, _)| Problem {
            kind,
            at: at.map(|at| (Arc::clone(&files[usize::from(at.file)]), at.span)),
        };
        GraphErrors { of: what.into(), problems: found.into_iter().map(problem).collect(), complete }
    }
}

/// The name of `known` that is most like `name`, if one is alike.
pub fn nearest<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let length = name.chars().count();
    let far = (1 + length / 4).min(length.saturating_sub(1));
    let folded = name.to_lowercase();
    let distance = |other: &str| strsim::osa_distance(&folded, &other.to_lowercase());
    let alike = known.into_iter().filter(|other| other.len().abs_diff(name.len()) <= far);
    let measured = alike.map(|other| (distance(other), other)).filter(|(distance, _)| *distance <= far);
    measured.min().map(|(_, other)| other)
}

/// `text`, or the beginning of a long one.
pub(super) fn excerpt(text: &str) -> String {
    const SHOWN: usize = 60;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
