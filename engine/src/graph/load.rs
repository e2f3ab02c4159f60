//! Reading the files of a graph.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use petgraph::graph::NodeIndex;

use super::check::check;
use super::decode::decode;
use super::diagnose::{At, GraphErrors, Problems};
use super::draft::{Draft, Drafts};
use super::model::{Digest, Graph, Parts};
use super::problem::ProblemKind;
use super::source::{SourceFile, Span};

/// How large a file may be, in MiB; 100,000 tasks take about 12.
const MAX_MIB: u64 = 64;

/// How many files a graph may have.
const MAX_FILES: usize = 10_000;

/// Reads a graph from `main`, such as `graph.yaml`, and from all `*.yaml` in the folder beside it that is called
/// like it with the ending `.d`, such as `graph.d`.
///
/// # Errors
/// Everything that is wrong with the files, each problem with its place.
pub fn load(main: &Path) -> Result<Graph, GraphErrors> {
    Files::read(main).compile()
}

impl Graph {
    /// Reads a graph from `text`, which messages call `name`.
    ///
    /// # Errors
    /// Everything that is wrong with the text, each problem with its place.
    pub fn from_yaml(name: &str, text: &str) -> Result<Self, GraphErrors> {
        Files { contents: vec![(name.into(), text.into())], problems: Vec::new() }.compile()
    }

    /// What was found wrong with tasks after the graph was read, each problem with its place if the files are still what
    /// they were.
    pub(crate) fn errors(&self, findings: Vec<Finding>) -> GraphErrors {
        // A graph does not keep the places of everything: the files are read again, only now that one is to be shown.
        let files = self.files().first().map(|main| Files::read(main)).filter(|files| files.digest() == self.digest());
        let (sources, _) = files.map(Files::sources).unwrap_or_default();
        let drafts = decode_all(&sources, &mut Problems::new(sources.clone()));
        let drafts: HashMap<_, &Draft> = drafts.tasks.iter().map(|draft| (&draft.id, draft)).collect();
        let mut problems = Problems::new(sources);
        for Finding { task, part, problem } in findings {
            let at = drafts.get(&self[task].id).map(|draft| {
                let parameter = |name: &str| draft.with_keys.iter().find(|(key, _)| &*key.value == name);
                let part = match &part {
                    Part::Uses => draft.uses.as_ref().map(|uses| uses.at),
                    Part::With => draft.with_at,
                    Part::ParameterName(name) => parameter(name).map(|(key, _)| key.at),
                    Part::ParameterValue(name) => parameter(name).map(|(_, value)| *value),
                    Part::Needs => draft.needs_at,
                };
                part.unwrap_or(draft.at)
            });
            problems.add(at, problem);
        }
        problems.into_errors()
    }
}

/// Something that is wrong with a task of a graph that was read.
pub(crate) struct Finding {
    pub(crate) task: NodeIndex,
    /// The part of its declaration that is to be changed.
    pub(crate) part: Part,
    pub(crate) problem: ProblemKind,
}

/// A part of a task's declaration; its id where it has no such part.
pub(crate) enum Part {
    Uses,
    With,
    /// The key of an entry of `with`.
    ParameterName(String),
    /// The value of an entry of `with`.
    ParameterValue(String),
    Needs,
}

/// The files of a graph as they were found.
pub(super) struct Files {
    contents: Vec<(PathBuf, Vec<u8>)>,
    problems: Vec<ProblemKind>,
}

impl Files {
    pub(super) fn read(main: &Path) -> Self {
        let mut files = Self { contents: Vec::new(), problems: Vec::new() };
        files.add(main.to_owned());
        if !files.complete() {
            return files;
        }
        let more = main.with_extension("d");
        match more_files(&more) {
            Ok(paths) => paths.into_iter().for_each(|path| files.add(path)),
            Err(source) => files.problems.push(ProblemKind::Unreadable { path: more, source }),
        }
        files
    }

    fn add(&mut self, path: PathBuf) {
        match bytes_of(&path) {
            Ok(bytes) => self.contents.push((path, bytes)),
            Err(problem) => self.problems.push(problem),
        }
    }

    /// A hash of the names and contents.
    pub(super) fn digest(&self) -> Digest {
        let mut hasher = blake3::Hasher::new();
        for (path, bytes) in &self.contents {
            for part in [path.as_os_str().as_encoded_bytes(), bytes] {
                hasher.update(&(part.len() as u64).to_le_bytes());
                hasher.update(part);
            }
        }
        Digest(hasher.finalize().into())
    }

    /// Whether all files could be read.
    pub(super) fn complete(&self) -> bool {
        self.problems.is_empty()
    }

    pub(super) fn compile(self) -> Result<Graph, GraphErrors> {
        let digest = self.digest();
        let (sources, mut problems) = self.sources();
        let readable = problems.is_empty();
        let mut drafts = decode_all(&sources, &mut problems);
        drafts.incomplete |= !readable;
        let files = sources.iter().map(|source| source.path.clone()).collect();
        let graph = check(drafts, Parts { pools: Vec::new(), files, digest }, &mut problems);
        match graph {
            Some(graph) if problems.is_empty() => Ok(graph),
            _ => Err(problems.into_errors()),
        }
    }

    /// The files as text, and the problems so far; of what is not UTF-8, a readable likeness.
    fn sources(self) -> (Vec<Arc<SourceFile>>, Problems) {
        let mut sources = Vec::with_capacity(self.contents.len());
        let mut broken = Vec::new();
        for (file, (path, bytes)) in (0..).zip(self.contents) {
            let text = String::from_utf8(bytes).unwrap_or_else(|error| {
                let valid = error.utf8_error().valid_up_to();
                broken.push(At { file, span: Span::new(valid, valid + char::REPLACEMENT_CHARACTER.len_utf8()) });
                String::from_utf8_lossy(error.as_bytes()).into_owned()
            });
            sources.push(Arc::new(SourceFile::new(path, text)));
        }
        let mut problems = Problems::new(sources.clone());
        self.problems.into_iter().for_each(|kind| problems.add(None, kind));
        broken.into_iter().for_each(|at| problems.add(at, ProblemKind::NotUtf8));
        (sources, problems)
    }
}

fn decode_all(sources: &[Arc<SourceFile>], problems: &mut Problems) -> Drafts {
    let mut drafts = Drafts::default();
    for (number, source) in (0..).zip(sources) {
        decode(&source.text, number, number == 0, &mut drafts, problems);
    }
    drafts
}

fn more_files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(Vec::new()),
        entries => entries?,
    };
    let paths: Result<Vec<PathBuf>, _> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut paths = paths?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml"));
    if paths.len() >= MAX_FILES {
        return Err(std::io::Error::other(format!("it holds more than {MAX_FILES} files")));
    }
    paths.sort();
    Ok(paths)
}

fn bytes_of(path: &Path) -> Result<Vec<u8>, ProblemKind> {
    let unreadable = |source| ProblemKind::Unreadable { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| {
        // What is no ordinary file has no length; one that grows in the meantime is read to its end as well.
        let length = file.metadata()?.len().min(MAX_MIB * 1024 * 1024);
        bytes.reserve_exact(length as usize + 1);
        file.take(MAX_MIB * 1024 * 1024 + 1).read_to_end(&mut bytes)
    });
    match read {
        Err(error) if error.kind() == ErrorKind::IsADirectory => Err(ProblemKind::Folder { path: path.to_owned() }),
        Err(error) => Err(unreadable(error)),
        Ok(length) if length as u64 > MAX_MIB * 1024 * 1024 => {
            Err(ProblemKind::TooLarge { path: path.to_owned(), limit: MAX_MIB })
        }
        Ok(_) => Ok(bytes),
    }
}
