//! `taskrun docs`: the documents of this installation, and whether what they say is true.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command};
use taskrun_engine::cli::{CliError, Session, exit, print, say};

use crate::docs;
use crate::phase5::documents;

/// How long the blocks of a page may take; the tutorial trains a model.
const PAGE_TIMEOUT: Duration = Duration::from_secs(1800);

/// The verb's command line.
pub(crate) fn command() -> Command {
    Command::new("docs")
        .about("Print where the documents of this installation are; --check runs what they say")
        .arg(Arg::new("page").num_args(0..).value_name("PAGE").help("These pages [default: all]"))
        .arg(Arg::new("check").long("check").action(ArgAction::SetTrue).help("Follow every link and run every block"))
}

/// Runs the verb.
///
/// # Errors
/// There are no documents yet, or no such page.
pub(crate) async fn docs(args: &ArgMatches, session: &Session) -> Result<u8, CliError> {
    let folder = documents(&session.state);
    let named: Vec<&String> = args.get_many("page").into_iter().flatten().collect();
    let made: Vec<PathBuf> = docs::TEMPLATES
        .iter()
        .map(|(name, _)| folder.join(format!("{name}.md")))
        .filter(|file| file.exists())
        .collect();
    if made.is_empty() {
        return Err(CliError::new(exit::FAILED, "there are no documents yet")
            .with_hint("make them: taskrun run --until CLOUD-5.2"));
    }
    let is_named = |file: &Path| named.iter().any(|name| file.file_stem().is_some_and(|stem| stem == name.as_str()));
    if let Some(unknown) =
        named.iter().find(|name| !made.iter().any(|file| file.file_stem().is_some_and(|s| s == name.as_str())))
    {
        let known: Vec<_> =
            made.iter().filter_map(|file| file.file_stem()).map(|stem| stem.to_string_lossy()).collect();
        return Err(CliError::usage(format!("there is no page `{unknown}`"))
            .with_hint(format!("there are: {}", known.join(", "))));
    }
    let meant: Vec<PathBuf> = made.into_iter().filter(|file| named.is_empty() || is_named(file)).collect();
    if args.get_flag("check") {
        return check(&meant).await;
    }
    let list = meant.iter().map(|file| format!("{}\n", file.with_extension("html").display()));
    print(&list.collect::<String>())
}

async fn check(files: &[PathBuf]) -> Result<u8, CliError> {
    let bad = docs::bad_links(files).await;
    bad.iter().for_each(|bad| say(format!("error: {bad}")));
    let mut failed = !bad.is_empty();
    for file in files {
        let unreadable =
            |error: std::io::Error| CliError::caused(exit::FAILED, format!("read {}", file.display()), &error);
        let text = std::fs::read_to_string(file).map_err(unreadable)?;
        let folder = tempfile::Builder::new().prefix("taskrun-docs-").tempdir().map_err(unreadable)?;
        let blocks = docs::markdown::Page::parse(&text).blocks;
        let script = folder.path().join("blocks.sh");
        std::fs::write(&script, docs::script(file, &blocks)).map_err(unreadable)?;
        // In the foreground, so that Ctrl-C reaches it.
        let mut run = std::process::Command::new("timeout");
        run.args(["--foreground", &PAGE_TIMEOUT.as_secs().to_string(), "bash", "--noprofile", "--norc"]).arg(&script);
        let ended = run.current_dir(folder.path()).status();
        let ended = ended.map_err(|error| CliError::caused(exit::FAILED, "run the blocks of a page", &error))?;
        failed |= !ended.success();
        let verdict = if ended.success() { "ok" } else { "error" };
        say(format!("{verdict}: {}: {} blocks, {ended}", file.display(), blocks.len()));
    }
    Ok(if failed { exit::FAILED } else { exit::OK })
}
