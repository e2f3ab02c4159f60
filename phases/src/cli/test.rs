//! `taskrun test`: whether what the tasks promise holds now.

use std::path::PathBuf;
use std::time::Instant;

use clap::builder::EnumValueParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use taskrun_engine::cli::{CliError, Session, exit, print, say};

use crate::suites::{self, Results, Suite};

/// The verb's command line.
pub(crate) fn command() -> Command {
    Command::new("test")
        .about("Check again, by suite, that what the tasks promise holds; changes and mends nothing")
        .arg(
            Arg::new("suite")
                .num_args(0..)
                .value_name("SUITE")
                .value_parser(EnumValueParser::<Suite>::new())
                .help("These suites [default: all]"),
        )
        .arg(
            Arg::new("disruptive")
                .long("disruptive")
                .action(ArgAction::SetTrue)
                .help("Make disruptive checks too, such as restarts"),
        )
        .arg(
            Arg::new("out")
                .long("out")
                .value_name("FOLDER")
                .value_parser(value_parser!(PathBuf))
                .help("Where junit.xml, results.json and summary.txt go [default: reports/test in the state folder]"),
        )
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print the results as JSON"))
}

/// Runs the verb.
///
/// # Errors
/// It was interrupted, or the results cannot be written.
pub(crate) async fn test(args: &ArgMatches, session: &Session) -> Result<u8, CliError> {
    let asked: Vec<Suite> = args.get_many::<Suite>("suite").into_iter().flatten().copied().collect();
    let asked = if asked.is_empty() { Suite::ALL.to_vec() } else { asked };
    let folder = args.get_one::<PathBuf>("out").cloned().unwrap_or_else(|| session.state.join("reports").join("test"));
    let checkpoint = session.read()?;
    let _alone = alone(session)?;
    let tasks = session.tasks_where(|id| Suite::of(id).is_some_and(|suite| asked.contains(&suite)));
    let (started, begun) = (jiff::Timestamp::now(), Instant::now());
    let json = args.get_flag("json");
    let tell = |check: &_| say(suites::line(check));
    let checks = session.prove(&checkpoint, &tasks, args.get_flag("disruptive"), tell).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let (environment, platform) = (&session.identity.environment, &session.identity.platform);
    let results = Results::new(environment, platform, &asked, started, seconds, checks);
    let failed = |error: &dyn std::error::Error| {
        CliError::caused(exit::FAILED, "write down the results", error).with_hint("name another folder: --out FOLDER")
    };
    let files = suites::write(&results, &folder).map_err(|error| failed(&error))?;
    if json {
        let text = serde_json::to_string_pretty(&results).map_err(|error| failed(&error))?;
        print(&(text + "\n"))?;
    } else {
        print(&results.digest())?;
    }
    say(format!("results: {}", files.junit.display()));
    Ok(if results.counts().failed == 0 { exit::OK } else { exit::FAILED })
}

/// Makes sure that no other test runs: both would use the same names, and clean up after each other.
fn alone(session: &Session) -> Result<std::fs::File, CliError> {
    let file = session.state.join("test.lock");
    let failed = |error: std::io::Error| CliError::caused(exit::FAILED, format!("make {}", file.display()), &error);
    std::fs::create_dir_all(&session.state).map_err(failed)?;
    let lock = std::fs::File::create(&file).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(std::fs::TryLockError::WouldBlock) => {
            Err(CliError::new(exit::LOCKED, "another test of this environment goes on").with_hint("wait for its end"))
        }
        Err(std::fs::TryLockError::Error(error)) => Err(failed(error)),
    }
}
