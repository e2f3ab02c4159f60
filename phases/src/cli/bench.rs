//! `taskrun bench`: a load test of an inference service, or of any address.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::EnumValueParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};
use taskrun_engine::checkpoint::Checkpoint;
use taskrun_engine::cli::{CliError, Session, exit, print, say};
use taskrun_engine::graph::parse_duration;

use crate::load::{
    self, Answer, Arrivals, Control, Files, Profile, Report, Request, Shape, Targets, Test, TestError, WatchedModel,
};
use crate::outputs::{Accelerators, ModelServing, Monitoring};
use crate::serving::Client;

/// The highest rate; what one machine can send is less.
const MOST_RATE: f64 = 20_000.0;

/// The most requests of a test: their samples are kept in memory.
const MOST_REQUESTS: f64 = 10_000_000.0;

/// The verb's command line.
pub(crate) fn command() -> Command {
    let option = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let duration = |name, help| option(name, "TIME", help).value_parser(duration);
    Command::new("bench")
        .about("Put a model or an address under load and judge how it does; writes a report")
        .arg(
            Arg::new("name")
                .value_name("NAME")
                .required_unless_present("url")
                .help("The model, see `taskrun model list`"),
        )
        .arg(
            option("url", "URL", "This address instead of a model")
                .conflicts_with("name")
                .value_parser(value_parser!(Url)),
        )
        .arg(option("rate", "N", "Requests a second at the most").default_value("10").value_parser(rate))
        .arg(duration("duration", "How long it is measured").default_value("30s"))
        .arg(duration("warm-up", "How long requests are sent before that").default_value("5s"))
        .arg(
            option("profile", "PROFILE", "How the rate changes")
                .default_value("steady")
                .value_parser(EnumValueParser::<Profile>::new()),
        )
        .arg(
            option("arrivals", "ARRIVALS", "How requests are spread")
                .default_value("poisson")
                .value_parser(EnumValueParser::<Arrivals>::new()),
        )
        .arg(option("seed", "N", "Decides the random arrivals").default_value("1").value_parser(value_parser!(u64)))
        .arg(duration("timeout", "How long an answer may take").default_value("30s"))
        .arg(option("method", "METHOD", "The method [default: GET, or POST with a body]").value_parser(method))
        .arg(
            option("header", "NAME:VALUE", "A header of every request")
                .short('H')
                .action(ArgAction::Append)
                .value_parser(header),
        )
        .arg(option("body", "TEXT", "The body of every request, or @FILE [default for a model: made from its inputs]"))
        .arg(
            Arg::new("tokens")
                .long("tokens")
                .action(ArgAction::SetTrue)
                .help("Answers are tokens of a language model, by OpenAI's protocol"),
        )
        .arg(
            option("out", "FOLDER", "Where the report goes [default: reports/ in the state folder]")
                .value_parser(value_parser!(PathBuf)),
        )
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print the report as JSON"))
}

/// Runs the verb.
///
/// # Errors
/// The load makes no sense, the test could not be made, or nothing was answered.
pub(crate) async fn bench(args: &ArgMatches, session: &Session) -> Result<u8, CliError> {
    let load = shape(args)?;
    let checkpoint = session.read()?;
    let mut test = match args.get_one::<Url>("url") {
        Some(url) => address(url, load),
        None => model(args.get_one::<String>("name").map_or("", String::as_str), load, session, &checkpoint).await?,
    };
    let monitoring: Option<Monitoring> = session.output(&checkpoint);
    // Without it the report says that what the test took is not known.
    test.prometheus = monitoring.and_then(|monitoring| monitoring.prometheus(&session.world.secrets).ok());
    adjust(&mut test.request, args)?;
    let folder = args.get_one::<PathBuf>("out").cloned().unwrap_or_else(|| session.state.join("reports"));
    let Request { method, url, .. } = &test.request;
    say(format!(
        "{method} {url}: up to {}/s, {} s after {} s of warm-up",
        load.rate, load.seconds, load.warm_up_seconds
    ));
    let (report, files) = test.run(&folder, Control::default()).await.map_err(|error| {
        let told = CliError::caused(exit::FAILED, "make the test", &error);
        match error {
            TestError::Write { .. } => told.with_hint("name another folder: --out FOLDER"),
            TestError::Load(_) => told,
        }
    })?;
    tell(args, &report, &files)
}

/// Tells of a test.
fn tell(args: &ArgMatches, report: &Report, files: &Files) -> Result<u8, CliError> {
    if args.get_flag("json") {
        let json = serde_json::to_string_pretty(report)
            .map_err(|error| CliError::caused(exit::FAILED, "write the report as JSON", &error))?;
        print(&(json + "\n"))?;
    } else {
        print(&report.summary())?;
    }
    say(format!("report: {}", files.html.display()));
    if report.figures.successes == 0 {
        let why = report.figures.errors.keys().next().map_or("there was none to send", String::as_str);
        return Err(CliError::new(exit::FAILED, format!("get an answer from {}: {why}", report.subject)));
    }
    Ok(exit::OK)
}

/// The load that the command line asks for.
fn shape(args: &ArgMatches) -> Result<Shape, CliError> {
    let seconds = |name: &str| args.get_one::<Duration>(name).map_or(0.0, Duration::as_secs_f64);
    let shape = Shape {
        profile: args.get_one("profile").copied().unwrap_or_default(),
        arrivals: args.get_one("arrivals").copied().unwrap_or_default(),
        rate: args.get_one("rate").copied().unwrap_or(1.0),
        seconds: seconds("duration"),
        warm_up_seconds: seconds("warm-up"),
        seed: args.get_one("seed").copied().unwrap_or(1),
    };
    if shape.seconds <= 0.0 {
        return Err(CliError::usage("a test without a duration measures nothing").with_hint("such as --duration 30s"));
    }
    if shape.expected() > MOST_REQUESTS {
        let message = format!("{:.0} requests are more than {MOST_REQUESTS}", shape.expected());
        return Err(CliError::usage(message).with_hint("test for a shorter time, or at a lower rate"));
    }
    Ok(shape)
}

/// A test of an address.
fn address(url: &Url, load: Shape) -> Test {
    let host = url.host_str().unwrap_or_default();
    Test {
        subject: url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")),
        request: Request::get(url.clone()),
        load,
        targets: Targets::default(),
        model: None,
        cold_start_seconds: None,
        gpus: 0,
        prometheus: None,
    }
}

/// A test of a model that is served.
async fn model(name: &str, load: Shape, session: &Session, checkpoint: &Checkpoint) -> Result<Test, CliError> {
    let serving: ModelServing = session.output(checkpoint).ok_or_else(|| {
        CliError::new(exit::FAILED, "no models are served here yet").with_hint("taskrun run --until CLOUD-3.4")
    })?;
    let client = Client::new(&serving);
    let status = client.status(name).map_err(|error| {
        let told = CliError::caused(exit::FAILED, "test the model", &error);
        match error.hint() {
            Some(hint) => told.with_hint(hint),
            None => told,
        }
    })?;
    let request = load::prediction(&serving, name).await;
    let devices = session.output::<Accelerators>(checkpoint).map_or(0, |all| all.devices.len());
    let uses_gpu = status.service.resources.gpu_slots > 0;
    Ok(Test {
        subject: name.to_owned(),
        request: request.map_err(|failure| CliError::new(exit::FAILED, failure.to_string()))?,
        load,
        targets: Targets::default(),
        model: Some(WatchedModel { client, name: name.to_owned() }),
        cold_start_seconds: status.cold_start_s,
        gpus: if uses_gpu { u32::try_from(devices).unwrap_or(u32::MAX) } else { 0 },
        prometheus: None,
    })
}

/// Changes a request as the command line says.
fn adjust(request: &mut Request, args: &ArgMatches) -> Result<(), CliError> {
    if let Some(body) = args.get_one::<String>("body") {
        request.body = match body.strip_prefix('@') {
            Some(file) => std::fs::read(file).map_err(|error| {
                CliError::caused(exit::USAGE, format!("read {}", Path::new(file).display()), &error)
            })?,
            None => body.clone().into_bytes(),
        };
        request.method = Method::POST;
        request.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    if let Some(method) = args.get_one::<Method>("method") {
        request.method = method.clone();
    }
    let headers = args.get_many::<(HeaderName, HeaderValue)>("header").into_iter().flatten().cloned();
    request.headers.extend(headers.collect::<HeaderMap>());
    request.timeout = args.get_one("timeout").copied().unwrap_or(request.timeout);
    if args.get_flag("tokens") {
        request.answer = Answer::Tokens;
    }
    Ok(())
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "it is no number".to_owned())?;
    if rate > 0.0 && rate <= MOST_RATE { Ok(rate) } else { Err(format!("it is not above 0 and up to {MOST_RATE}")) }
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "it is no time such as `500ms`, `30s` or `2m`".to_owned())
}

fn method(text: &str) -> Result<Method, String> {
    Method::from_bytes(text.to_ascii_uppercase().as_bytes()).map_err(said)
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("there is no `:` in it")?;
    Ok((name.trim().parse().map_err(said)?, value.trim().parse().map_err(said)?))
}

fn said(error: impl Display) -> String {
    error.to_string()
}
