//! Data flow: what a task reads must be made by its ancestors.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};
use petgraph::graph::{DiGraph, NodeIndex};

use super::command::is_glob;
use super::diagnose::{At, Problems, excerpt};
use super::draft::Draft;
use super::problem::ProblemKind;
use super::reach::{self, Query};

/// Notes what is read from tasks that are no ancestors, and files that two tasks make.
///
/// Paths are compared as they are written, after `dir` was put before them and `.` and `..` were taken out. Of globs
/// it is known only whether they match a path that another task names; two globs are never compared.
pub(super) fn check(
    tasks: &[Draft],
    ids: &HashMap<&str, NodeIndex>,
    shape: &DiGraph<(), (), u32>,
    topological: &[NodeIndex],
    incomplete: bool,
    problems: &mut Problems,
) {
    let mut reads = outputs_read(tasks, ids, incomplete, problems);
    reads.extend(files_read(tasks, problems));
    let queries: Vec<Query> = reads.iter().map(|read| Query { from: read.producer, to: read.reader }).collect();
    for (read, fine) in reads.into_iter().zip(reach::reachable(shape, topological, &queries)) {
        if !fine && !problems.enough() {
            let (producer, reader) = (&tasks[read.producer.index()].id, &tasks[read.reader.index()].id);
            let (producer, reader) = (producer.clone(), reader.clone());
            let kind = match read.path {
                _ if producer == reader => ProblemKind::OwnOutput { id: reader },
                Some(path) => ProblemKind::FileOfNoAncestor { path: excerpt(path), producer, reader },
                None => ProblemKind::OutputOfNoAncestor { from: producer, reader },
            };
            problems.add(read.at, kind);
        }
    }
}

/// That a task reads what another one makes.
struct Read<'a> {
    producer: NodeIndex,
    reader: NodeIndex,
    at: At,
    /// The file, as the reader writes it; nothing for an output.
    path: Option<&'a str>,
}

fn outputs_read<'a>(
    tasks: &[Draft],
    ids: &HashMap<&str, NodeIndex>,
    incomplete: bool,
    problems: &mut Problems,
) -> Vec<Read<'a>> {
    let mut reads = Vec::new();
    for (reader, read) in tasks.iter().enumerate().flat_map(|(at, task)| {
        let reads = task.command.iter().flat_map(|command| &command.reads);
        reads.map(move |read| (NodeIndex::new(at), read))
    }) {
        match ids.get(read.value.as_str()) {
            Some(producer) => reads.push(Read { producer: *producer, reader, at: read.at, path: None }),
            None if incomplete || problems.enough() => {}
            None => {
                let id = read.value.to_string();
                let nearest = problems.nearest(&id, ids.keys().copied());
                problems.add(read.at, ProblemKind::UnknownTask { id, nearest });
            }
        }
    }
    reads
}

/// A path or glob that a task names.
struct Named<'a> {
    task: NodeIndex,
    at: At,
    written: &'a str,
    full: String,
}

fn files_read<'a>(tasks: &'a [Draft], problems: &mut Problems) -> Vec<Read<'a>> {
    let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
    for (at, task) in tasks.iter().enumerate() {
        let Some(command) = &task.command else { continue };
        let (task, spec) = (NodeIndex::new(at), &command.spec);
        let named = |written: &'a str, at: &At| {
            let full = full_path(spec.dir.as_deref(), written);
            Named { task, at: *at, written, full }
        };
        inputs.extend(spec.inputs.iter().zip(&command.inputs).map(|(written, at)| named(written, at)));
        outputs.extend(spec.outputs.iter().zip(&command.outputs).map(|(written, at)| named(written, at)));
    }
    let (input_globs, input_paths): (Vec<_>, Vec<_>) = inputs.iter().partition(|input| is_glob(input.written));
    let (output_globs, output_paths): (Vec<_>, Vec<_>) = outputs.iter().partition(|output| is_glob(output.written));

    let mut makers: HashMap<&str, NodeIndex> = HashMap::with_capacity(output_paths.len());
    for output in &output_paths {
        let first = *makers.entry(&output.full).or_insert(output.task);
        if first != output.task && !problems.enough() {
            let (path, first) = (excerpt(output.written), tasks[first.index()].id.clone());
            problems.add(output.at, ProblemKind::SameOutput { path, first });
        }
    }
    let exact = input_paths.iter().filter_map(|input| Some((*input, *makers.get(&*input.full)?)));
    let read = |(input, producer): (&Named<'a>, NodeIndex)| {
        let path = Some(input.written);
        (input.task != producer).then_some(Read { producer, reader: input.task, at: input.at, path })
    };
    let mut reads: Vec<Read<'a>> = exact.filter_map(read).collect();
    for (glob, path) in matches(&input_globs, output_paths) {
        reads.extend(read((glob, path.task)));
    }
    for (glob, path) in matches(&output_globs, input_paths) {
        reads.extend(read((path, glob.task)));
    }
    reads
}

/// Which of `globs` match which of `paths`.
///
/// The paths are sorted, so that a glob is compared only with those that begin as it does, and each glob is compared
/// once however many tasks name it.
fn matches<'n, 'a>(globs: &[&'n Named<'a>], mut paths: Vec<&'n Named<'a>>) -> Vec<(&'n Named<'a>, &'n Named<'a>)> {
    if globs.is_empty() {
        return Vec::new();
    }
    paths.sort_by(|a, b| a.full.cmp(&b.full));
    let mut found: HashMap<&str, Vec<&Named<'_>>> = HashMap::new();
    let mut pairs = Vec::new();
    for glob in globs {
        let matching = found.entry(&glob.full).or_insert_with(|| {
            let Some(matcher) = matcher(&glob.full) else { return Vec::new() };
            let prefix = &glob.full[..glob.full.find(['*', '?', '[', '{', '\\']).unwrap_or(glob.full.len())];
            let from = paths.partition_point(|path| *path.full < *prefix);
            let alike = paths[from..].iter().take_while(|path| path.full.starts_with(prefix));
            alike.filter(|path| matcher.is_match(&path.full)).copied().collect()
        });
        pairs.extend(matching.iter().map(|path| (*glob, *path)));
    }
    pairs
}

/// As inputs and outputs are matched: `*` stays within a folder.
fn matcher(glob: &str) -> Option<GlobMatcher> {
    GlobBuilder::new(glob).literal_separator(true).build().ok().map(|glob| glob.compile_matcher())
}

fn full_path(dir: Option<&Path>, path: &str) -> String {
    let mut full = PathBuf::new();
    for component in dir.unwrap_or(Path::new("")).join(path).components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if matches!(full.components().next_back(), Some(Component::Normal(_))) => {
                full.pop();
            }
            other => full.push(other),
        }
    }
    full.into_os_string().into_string().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_compared_without_detours() {
        assert_eq!(full_path(Some(Path::new("sub")), "./a//b/../c"), "sub/a/c");
        assert_eq!(full_path(Some(Path::new("sub")), "../../x"), "../x");
        assert_eq!(full_path(Some(Path::new("sub")), "/x/y"), "/x/y");
        assert_eq!(full_path(None, "a*/b"), "a*/b");
    }
}
