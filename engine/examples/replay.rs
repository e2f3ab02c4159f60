//! Plays the events of a run through a reporter again: `replay [--speed N] [--as live|plain|json] EVENTS.jsonl`.
//!
//! With `--html FILE`, writes the report of the run instead.

use std::io::{BufRead, BufReader, IsTerminal, stderr, stdout};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Parser;
use jiff::tz::TimeZone;
use taskrun_engine::event::Event;
use taskrun_engine::report::{self, Kind, RunHistory, Size, Streams, Unicode};

#[derive(Parser)]
struct Arguments {
    /// The events, one JSON object a line.
    events: PathBuf,
    /// How many times faster than it happened.
    #[arg(long, default_value_t = 1.0)]
    speed: f64,
    /// The form of reporting.
    #[arg(long = "as", value_parser = ["live", "plain", "json"], default_value = "live")]
    kind: String,
    /// Leaves it at ASCII.
    #[arg(long)]
    ascii: bool,
    /// Writes the report of the run to this file.
    #[arg(long)]
    html: Option<PathBuf>,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    let lines = BufReader::new(std::fs::File::open(&arguments.events)?).lines();
    let events = lines.map(|line| Ok(serde_json::from_str(&line?)?)).collect::<Result<Vec<Event>, std::io::Error>>()?;
    if let Some(file) = &arguments.html {
        let mut runs: Vec<RunHistory> = Vec::new();
        for event in events {
            if runs.last().is_none_or(|run| run.number() != event.run) {
                runs.push(RunHistory::default());
            }
            runs.last_mut().expect("one was just added").events.push(event);
        }
        std::fs::write(file, report::html(&runs, &TimeZone::system()))?;
        return Ok(());
    }
    let kind = match arguments.kind.as_str() {
        "plain" => Kind::Plain,
        "json" => Kind::Json,
        _ => Kind::Live,
    };
    play(&events, kind, &arguments);
    Ok(())
}

fn play(events: &[Event], kind: Kind, arguments: &Arguments) {
    let Some(first) = events.first() else { return };
    let mut reporter = report::reporter(kind, streams(arguments.ascii));
    let begun = Instant::now();
    let now = || first.at + begun.elapsed().mul_f64(arguments.speed);
    for event in events {
        while now() < event.at {
            std::thread::sleep(Duration::from_millis(20));
            reporter.tick(now());
        }
        reporter.event(event);
    }
    reporter.finish();
}

fn streams(ascii: bool) -> Streams {
    Streams {
        out: Box::new(stdout()),
        err: Box::new(stderr()),
        size: Box::new(|| {
            let (rows, columns) = console::Term::stderr().size();
            Size { columns: columns.into(), rows: rows.into() }
        }),
        color: stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        unicode: if ascii { Unicode::No } else { Unicode::Yes },
        zone: TimeZone::system(),
    }
}
