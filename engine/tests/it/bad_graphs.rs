//! Broken graph files: a clear message for each, at once, and never a panic.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme};
use taskrun_engine::graph::{self, Graph, GraphErrors};

use crate::snapshot;

/// `errors` as a person sees them, one problem after the other.
pub(crate) fn rendered(errors: &GraphErrors) -> String {
    let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor()).with_width(100);
    let mut text = format!("{errors}\n");
    for problem in errors.problems() {
        handler.render_report(&mut text, problem as &dyn Diagnostic).unwrap();
    }
    text
}

/// What `load` does not like about the graph, found in less than a second of this thread's own processor time: what else
/// the machine does meanwhile does not count.
#[track_caller]
fn refused(load: impl Fn() -> Result<Graph, GraphErrors>) -> String {
    let start = processor_time();
    let text = rendered(&load().expect_err("the graph was accepted"));
    let took = processor_time() - start;
    assert!(took < Duration::from_secs(1), "took {took:?}");
    text
}

/// The processor time that this thread has used.
fn processor_time() -> Duration {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap();
    Duration::from(now)
}

/// As [`refused`], for a graph whose folder has another name each time.
#[track_caller]
fn refused_in(folder: &Path, main: &str) -> String {
    refused(|| graph::load(&folder.join(main))).replace(&folder.display().to_string(), "FOLDER")
}

#[test]
fn each_broken_file_has_a_clear_message() {
    let mut files: Vec<PathBuf> =
        fs::read_dir("tests/it/bad_graphs").unwrap().map(|file| file.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    assert!(files.len() >= 45);
    let mut all = String::new();
    for file in files {
        writeln!(all, "# {}\n{}", file.file_stem().unwrap().display(), refused(|| graph::load(&file))).unwrap();
    }
    snapshot::assert("bad_graphs", &all);
}

#[test]
fn what_cannot_be_read_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    fs::create_dir(folder.path().join("folder.yaml")).unwrap();
    write("good.yaml", "{version: 1, tasks: {a: {}}}");
    fs::create_dir_all(folder.path().join("good.d/more.yaml")).unwrap();
    fs::File::create(folder.path().join("large.yaml")).unwrap().set_len(1 << 40).unwrap();
    let mut all = String::new();
    for name in ["missing.yaml", "folder.yaml", "good.yaml", "large.yaml"] {
        writeln!(all, "# {name}\n{}", refused_in(folder.path(), name)).unwrap();
    }
    snapshot::assert("unreadable_graphs", &all);
}

#[test]
fn a_file_without_permission_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("graph.yaml");
    fs::write(&file, "{version: 1, tasks: {a: {}}}").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::File::open(&file).is_ok() {
        return; // Root may read everything.
    }
    let text = refused_in(folder.path(), "graph.yaml");
    assert!(text.contains("cannot read `FOLDER/graph.yaml`: Permission denied"), "{text}");
}

#[test]
fn bombs_do_not_go_off() {
    let laughs: String = (1..10).fold("x-0: &a0 [lol, lol]\n".to_owned(), |mut text, level| {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        writeln!(text, "x-{level}: &a{level} [{aliases}]").unwrap();
        text
    });
    let laughs = format!("version: 1\n{laughs}tasks: {{a: {{with: {{x: *a9}}}}}}\n");
    let merges: String = (1..30).fold("x-0: &a0 {lol: 1}\n".to_owned(), |mut text, level| {
        let last = level - 1;
        writeln!(text, "x-{level}: &a{level} {{a: *a{last}, b: *a{last}}}").unwrap();
        text
    });
    let deep = |open: &str| format!("version: 1\ntasks:\n  a: {{with: {{x: {}", open.repeat(100_000));
    let indented: String = (2..2_000).map(|level| format!("{}a:\n", "  ".repeat(level))).collect();
    let mut all = String::new();
    for (name, text) in [
        ("billion laughs", laughs),
        ("mappings of mappings", format!("version: 1\n{merges}")),
        ("deep lists", deep("[")),
        ("deep mappings", deep("{a: ")),
        ("deep dashes", deep("\n      ").replace("\n      ", "- ")),
        ("deep indentation", format!("version: 1\ntasks:\n  a:\n{indented}")),
    ] {
        writeln!(all, "# {name}\n{}", refused(|| Graph::from_yaml("graph.yaml", &text))).unwrap();
    }
    snapshot::assert("bomb_graphs", &all);
}

#[test]
fn ten_megabytes_of_junk_are_refused_quickly() {
    const SIZE: usize = 10_000_000;
    let noise = |alphabet: &[u8]| -> String {
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize
        };
        (0..SIZE).map(|_| char::from(alphabet[next() % alphabet.len()])).collect()
    };
    let lines = |line: &str| line.repeat(SIZE / line.len());
    for (name, text) in [
        ("printable noise", noise(b"abcdefghijklmnopqrstuvwxyz:-{}[]&*#'\"|> \n")),
        ("one long word", noise(b"abc")),
        ("brackets", noise(b"[]{}")),
        ("a list", lines("- a\n")),
        ("the same key", lines("abcdef: 1\n")),
        ("tasks that are texts", format!("version: 1\ntasks:\n{}", lines("  abcdef: ghijkl\n"))),
        ("spaces", lines(" ")),
        ("NUL", lines("\0")),
    ] {
        let text = refused(|| Graph::from_yaml("graph.yaml", &text));
        assert!(text.len() < 200_000, "{name}: a message of {} bytes", text.len());
    }
}

#[test]
fn anchors_and_merge_keys_are_fine() {
    let graph = Graph::from_yaml(
        "graph.yaml",
        "version: 1
x-defaults: &defaults {timeout: 5m, env: &env {LANG: C}}
tasks:
  a: &a {<<: *defaults, run: echo a}
  b: {<<: *a, title: as a but later, needs: [a], timeout: 1h}
  c: {needs: &needs [a, b]}
  d: {needs: *needs, <<: *defaults, run: env, env: *env}
",
    )
    .unwrap();
    let timeouts: Vec<_> = graph.indices().map(|task| graph[task].timeout.map(|timeout| timeout.as_secs())).collect();
    assert_eq!(timeouts, [Some(300), Some(3600), None, Some(300)]);
    assert_eq!(graph.indices().map(|task| graph.needs(task).count()).collect::<Vec<_>>(), [0, 1, 2, 2]);
}
