//! `taskrun bench`: a load test of an inference service, or of any address.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::EnumValueParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use jiff::Timestamp;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};
use taskrun_engine::cli::{CliError, Session, exit, print, say};
use taskrun_engine::graph::parse_duration;

use crate::load::{
    self, Answer, Arrivals, Control, Figures, Files, Measured, Profile, Report, Request, Shape, Targets,
};

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
    let (subject, request) = subject(args)?;
    let folder = args.get_one::<PathBuf>("out").cloned().unwrap_or_else(|| session.state.join("reports"));
    let told = format!("{} {}", request.method, request.url);
    say(format!("{told}: up to {}/s, {} s after {} s of warm-up", load.rate, load.seconds, load.warm_up_seconds));
    let (began, schedule) = (Timestamp::now(), load.schedule());
    let samples = load::run(request, schedule.clone(), Control::default())
        .await
        .map_err(|error| CliError::caused(exit::FAILED, "make the test", &error))?;
    let figures = Figures::new(&samples, &load, &schedule);
    let files = Files::new(&folder, &subject, began);
    let mut report = Report::new(&subject, told, began, load, figures, &files);
    let measured =
        Measured { figures: &report.figures, cold_start: None, gpus: 0, gpu_utilisation: None, scaling: None };
    report.judged = load::judge(&Targets::default(), &measured);
    finish(args, &report, &samples, &files)
}

/// Writes the report and tells of it.
fn finish(args: &ArgMatches, report: &Report, samples: &[load::Sample], files: &Files) -> Result<u8, CliError> {
    files.write(report, samples).map_err(|(file, error)| {
        CliError::caused(exit::FAILED, format!("write {}", file.display()), &error)
            .with_hint("name another folder: --out FOLDER")
    })?;
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

/// What is tested, and the request.
fn subject(args: &ArgMatches) -> Result<(String, Request), CliError> {
    let Some(url) = args.get_one::<Url>("url") else {
        return Err(CliError::usage("say what to test: a model's NAME or --url URL"));
    };
    let mut request = Request::get(url.clone());
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
    let headers: HeaderMap = headers.collect();
    request.headers.extend(headers);
    request.timeout = args.get_one("timeout").copied().unwrap_or(request.timeout);
    if args.get_flag("tokens") {
        request.answer = Answer::Tokens;
    }
    let authority =
        [url.host_str().unwrap_or_default().to_owned(), url.port().map_or(String::new(), |p| p.to_string())];
    Ok((authority.join(":").trim_end_matches(':').to_owned(), request))
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
