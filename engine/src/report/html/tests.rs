use std::collections::HashSet;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::event::EventKind;
use crate::outcome::{FailedCommand, Failure, Outcome};
use crate::plan::{Action, Reason};
use crate::report::testing::{self, Script};

fn page(runs: &[RunHistory]) -> String {
    html(runs, &TimeZone::UTC)
}

fn run(events: Vec<Event>) -> RunHistory {
    RunHistory { events, logs: Vec::new() }
}

/// The names of the tags in order, ends with their slash; panics where the page is not well formed, an id is there
/// twice, or a link leads nowhere.
fn tags(page: &str) -> Vec<&str> {
    const VOID: [&str; 4] = ["!doctype", "meta", "input", "br"];
    let (mut tags, mut open, mut ids, mut links) = (Vec::new(), Vec::new(), HashSet::new(), Vec::new());
    let mut rest = page;
    while let Some((_, tag)) = rest.split_once('<') {
        let (tag, after) = tag.split_once('>').expect("a tag ends");
        rest = after;
        let name = tag.split_whitespace().next().unwrap();
        tags.push(name);
        if let Some(end) = name.strip_prefix('/') {
            assert_eq!(open.pop(), Some(end), "in front of {:.200}", rest);
        } else if !VOID.contains(&name) {
            open.push(name);
        }
        if let Some((_, id)) = tag.split_once(" id=\"") {
            let id = id.split('"').next().unwrap();
            assert!(ids.insert(id), "{id} is there twice");
        }
        if let Some((_, link)) = tag.split_once("href=\"#") {
            links.push(link.split('"').next().unwrap());
        }
        if matches!(name, "script" | "style") {
            let end = rest.find(&format!("</{name}")).expect("it ends");
            rest = &rest[end..];
        }
    }
    assert_eq!(open, [""; 0]);
    for link in links {
        assert!(ids.contains(link), "#{link} is not there");
    }
    tags
}

/// What the page says, a line per line of the template.
fn words(page: &str) -> String {
    let body = page.split_once("<main>").unwrap().1.split_once("</main>").unwrap().0;
    let mut words = String::new();
    for (at, part) in body.split('<').enumerate() {
        words += if at == 0 { part } else { part.split_once('>').unwrap().1 };
    }
    let lines = words.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_page_tells_the_story() {
    let text = "\u{1b}[32mstarting\u{1b}[0m\n 1%\r 99%\nready\n".to_owned();
    let log =
        LogTail { task: testing::id("CLOUD-3.2"), attempt: 2, path: "logs/CLOUD-3.2/2.log".into(), size: 70_000, text };
    let page = page(&[RunHistory { events: testing::story(), logs: vec![log] }]);
    tags(&page);
    testing::snapshots().bind(|| insta::assert_snapshot!("report_html", words(&page)));
}

/// A run in which every text that comes from outside is `text`.
fn saying(text: &str) -> RunHistory {
    let owned = || text.to_owned();
    let mut script = Script::new(&[("a", &[]), ("b", &["a"]), ("c", &[]), ("d", &[]), ("e", &[])])
        .titled(&[text; 5])
        .planning("d", Action::Skip, Reason::NotApplicable { reason: owned() })
        .planning("e", Action::Run, Reason::Missing { found: owned() });
    let mut begin = script.begin();
    if let EventKind::RunStarted { environment, .. } = &mut begin.kind {
        *environment = owned();
    }
    let mut events = vec![begin, script.event(EventKind::Notice { task: None, text: owned() })];
    events.extend([script.started("a"), script.step("a", text), script.started("c")]);
    script.wait(1.0);
    let failure = Failure::permanent(text).in_step(text).with_hint(text).with_command(FailedCommand {
        line: owned(),
        ended: owned(),
        tail: owned(),
        log: Some(text.into()),
    });
    let error = Failure::transient(text);
    events.push(script.event(EventKind::TaskRetrying { task: testing::id("c"), attempt: 1, error, delay: 1.0 }));
    events.push(script.ended("a", failure.into(), 1.0));
    events.push(script.started("c"));
    script.wait(1.0);
    events.push(script.ended("c", Outcome::Degraded { missing: vec![owned()] }, 1.0));
    let log = LogTail { task: testing::id("a"), attempt: 1, path: text.into(), size: 0, text: owned() };
    RunHistory { events, logs: vec![log] }
}

#[test]
fn a_text_of_a_task_is_never_part_of_the_page() {
    const HOSTILE: &str =
        r#"'"></script></pre><img src=x onerror=alert(1)><script>alert(2)</script>{{ 7 * 7 }}{% raw %}<!--&amp;"#;
    let hostile = page(&[saying(HOSTILE)]);
    tags(&hostile);
    let escaped = minijinja::HtmlEscape(HOSTILE).to_string();
    assert!(!escaped.contains(['<', '>', '"', '\'']) && hostile.matches(&escaped).count() > 15);
    let (hostile, harmless) = (hostile.replace(&escaped, "harmless"), page(&[saying("harmless")]));
    for (hostile, harmless) in hostile.lines().zip(harmless.lines()) {
        assert_eq!(hostile, harmless);
    }
}

#[test]
fn the_page_needs_no_network() {
    let page = page(&[run(testing::story())]);
    for outside in ["http:", "https:", "src=", "url(", "@import", "<link"] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(page.contains("default-src 'none'"));
}

#[test]
fn of_a_large_run_the_longest_tasks_are_shown() {
    let ids: Vec<_> = (0..2100).map(|n| format!("t{n}")).collect();
    let graph: Vec<(&str, &[&str])> = ids.iter().map(|id| (id.as_str(), &[] as &[&str])).collect();
    let mut script = Script::new(&graph);
    let mut events = vec![script.begin()];
    for (at, id) in ids.iter().enumerate() {
        events.push(script.started(id));
        script.wait(if at == 50 { 0.0 } else { 1.0 });
        events.push(if at == 50 {
            script.ended(id, Failure::permanent("x").into(), 0.0)
        } else {
            script.succeeded(id, 1.0)
        });
    }
    let page = page(&[run(events)]);
    tags(&page);
    assert_eq!(page.matches("<tr id=").count(), page::SHOWN_TASKS);
    assert!(page.contains("<tr id=\"r1-t50\""), "the failure is shown though it took no time");
    assert!(page.contains("100 more ran") && page.contains("100 more are not shown"));
}

#[test]
fn the_latest_run_comes_first_and_a_killed_one_has_no_end() {
    let mut killed = Script::new(&[("a", &[])]);
    let begun = vec![killed.begin(), killed.started("a")];
    let mut second = Script::new(&[("a", &[])]);
    second.run = 2;
    let done = vec![second.begin(), second.started("a"), second.succeeded("a", 0.0)];
    let end = second.end(&done, 0);
    let page = page(&[run(begun), run([done, vec![end]].concat())]);
    tags(&page);
    let (latest, earlier) = page.split_once("Earlier runs").unwrap();
    assert!(latest.contains("<title>Run 2 of local succeeded</title>"));
    assert!(earlier.contains("has no recorded end: it still runs, or was killed"));
    assert!(earlier.contains("<span class=\"pill unfinished\">unfinished</span>"));
}

#[test]
fn no_runs_make_a_page_too() {
    assert!(words(&page(&[])).contains("Nothing has run here yet."));
    assert_eq!(page(&[RunHistory::default()]), page(&[]));
}

#[test]
fn the_end_of_a_log_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("1.log");
    let text = format!("{}the end\n", "ä".repeat(LogTail::MAX));
    std::fs::write(&path, &text).unwrap();
    let log = LogTail::read(testing::id("a"), 1, &path).unwrap();
    assert_eq!(log.size, text.len() as u64);
    assert!(log.text.ends_with("äthe end\n"));
    assert!(LogTail::read(testing::id("a"), 1, Path::new("missing")).is_err());
    let page = page(&[RunHistory { events: testing::story(), logs: vec![log] }]);
    assert!(page.contains("the last 64 KiB of 128 KiB"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_comes_the_page_is_well_formed(events in testing::any_events()) {
        tags(&page(&[run(events)]));
    }
}
