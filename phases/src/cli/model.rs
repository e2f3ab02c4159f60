//! `taskrun model`: the models that are served.

use std::io::Read;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use serde_json::{Value, json};
use taskrun_engine::cli::{CliError, Session, exit, print, say};
use taskrun_engine::graph::parse_duration;

use crate::outputs::ModelServing;
use crate::serving::{
    Autoscaling, Client, ConditionKind, InferenceService, Replicas, Resources, Runtime, ServingError, Status,
};

/// How long an answer may take.
const PREDICT_TIMEOUT: Duration = Duration::from_secs(300);

/// The largest input that is read.
const MOST_INPUT: u64 = 64 << 20;

/// The verb's command line.
pub(crate) fn command() -> Command {
    let name = || Arg::new("name").required(true).value_name("NAME").help("The model's name in URLs");
    let json = || Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print JSON");
    Command::new("model")
        .about("Serve models, and ask them")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(deploy_command(name(), json()))
        .subcommand(Command::new("list").about("Show the models: address, replicas, condition").arg(json()))
        .subcommand(Command::new("delete").about("Take a model away, after its last requests").arg(name()))
        .subcommand(predict_command(name()))
        .subcommand(super::model_sync::command())
}

fn deploy_command(name: Arg, json: Arg) -> Command {
    let option = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let number = |name, help| option(name, "N", help).value_parser(value_parser!(u32));
    let uri = "models:/NAME/VERSION, models:/NAME@ALIAS, runs:/ID/PATH, s3://BUCKET/PREFIX, or a folder";
    Command::new("deploy")
        .about("Serve a model, or another version of it without a gap")
        .arg(name)
        .arg(Arg::new("uri").required(true).value_name("URI").help(uri))
        .arg(option("runtime", "RUNTIME", "What runs it [default: what its files tell]").value_parser([
            "auto",
            "pyfunc",
            "causal_lm",
        ]))
        .arg(number("min", "The least replicas [default: 1]"))
        .arg(number("max", "The most replicas [default: the least]"))
        .arg(number("cpus", "The threads of each replica [default: 1]"))
        .arg(option("memory", "MIB", "The memory of each replica [default: no limit]").value_parser(value_parser!(u64)))
        .arg(number("gpu-slots", "The GPU slots of each replica [default: 0]"))
        .arg(
            option("target-concurrency", "N", "The requests at once that a replica is meant to have [default: 4]")
                .value_parser(value_parser!(f64)),
        )
        .arg(
            option("stable-window", "TIME", "For how long fewer replicas must be enough [default: 60s]")
                .value_parser(duration),
        )
        .arg(
            option("startup-timeout", "TIME", "How long a replica may take to be ready [default: 5m]")
                .value_parser(duration),
        )
        .arg(Arg::new("no-wait").long("no-wait").action(ArgAction::SetTrue).help("Do not wait until it is ready"))
        .arg(json)
}

fn predict_command(name: Arg) -> Command {
    let input = "A file with JSON, or - for stdin: a V2 request, or rows such as [[5.1, 3.5, 1.4, 0.2]]";
    Command::new("predict")
        .about("Ask a model")
        .arg(name)
        .arg(Arg::new("input").value_name("FILE").required_unless_present("prompt").help(input))
        .arg(Arg::new("prompt").long("prompt").value_name("TEXT").conflicts_with("input").help("Ask a language model"))
        .arg(
            Arg::new("max-tokens")
                .long("max-tokens")
                .value_name("N")
                .value_parser(value_parser!(u32))
                .default_value("64")
                .help("The most tokens of a language model's answer"),
        )
}

/// Runs the verb.
///
/// # Errors
/// Models are not served here yet, or what was asked for cannot be done.
pub(crate) async fn model(args: &ArgMatches, session: &Session) -> Result<u8, CliError> {
    if let Some(("sync", args)) = args.subcommand() {
        return super::model_sync::sync_model(args, session).await;
    }
    let serving: ModelServing = session.output(&session.read()?).ok_or_else(|| {
        CliError::new(exit::FAILED, "no models are served here yet").with_hint("taskrun run --until CLOUD-3.4")
    })?;
    let client = Client::new(&serving);
    match args.subcommand() {
        Some(("deploy", args)) => deploy(&client, args).await,
        Some(("list", args)) => list(&client, args.get_flag("json")),
        Some(("delete", args)) => delete(&client, name(args)).await,
        Some(("predict", args)) => predict(&client, &serving, args).await,
        _ => Err(CliError::usage("say deploy, list, delete, predict or sync")),
    }
}

async fn deploy(client: &Client, args: &ArgMatches) -> Result<u8, CliError> {
    let service = service(args);
    client.deploy(&service).map_err(failure)?;
    if args.get_flag("no-wait") {
        return Ok(exit::OK);
    }
    // The controller itself gives up after the time of a start, and says why: a little later.
    let timeout = Duration::from_secs(u64::from(service.startup_timeout_s) + 30);
    say(format!("waiting for {}", service.name));
    let status = client.wait_ready(&service.name, timeout).await.map_err(failure)?;
    match args.get_flag("json") {
        true => print(&format!("{:#}\n", json!(status)))?,
        false => print(&format!("{}\n", status.url))?,
    };
    Ok(exit::OK)
}

/// What the command line describes.
fn service(args: &ArgMatches) -> InferenceService {
    let number = |name: &str, default: u32| args.get_one::<u32>(name).copied().unwrap_or(default);
    let seconds = |name: &str, default: u32| {
        let given = args.get_one::<Duration>(name).map(|given| given.as_secs());
        given.map_or(default, |seconds| u32::try_from(seconds).unwrap_or(u32::MAX))
    };
    let uri = args.get_one::<String>("uri").map_or("", String::as_str);
    let plain = InferenceService::new(name(args), uri);
    let min = number("min", plain.replicas.min);
    let target = args.get_one::<f64>("target-concurrency").copied();
    InferenceService {
        runtime: match args.get_one::<String>("runtime").map(String::as_str) {
            Some("pyfunc") => Runtime::Pyfunc,
            Some("causal_lm") => Runtime::CausalLm,
            _ => Runtime::Auto,
        },
        replicas: Replicas { min, max: number("max", min) },
        resources: Resources {
            cpus: number("cpus", plain.resources.cpus),
            memory_mib: args.get_one::<u64>("memory").copied().unwrap_or(plain.resources.memory_mib),
            gpu_slots: number("gpu-slots", plain.resources.gpu_slots),
        },
        autoscaling: Autoscaling {
            target_concurrency: target.unwrap_or(plain.autoscaling.target_concurrency),
            stable_window_s: seconds("stable-window", plain.autoscaling.stable_window_s),
        },
        startup_timeout_s: seconds("startup-timeout", plain.startup_timeout_s),
        ..plain
    }
}

fn list(client: &Client, json: bool) -> Result<u8, CliError> {
    let models = client.list().map_err(failure)?;
    match json {
        true => print(&format!("{:#}\n", json!({"version": 1, "models": models})))?,
        false => print(&table(&models))?,
    };
    Ok(exit::OK)
}

fn table(models: &[Status]) -> String {
    if models.is_empty() {
        return "no models; deploy one: taskrun model deploy NAME URI\n".to_owned();
    }
    let width = models.iter().map(|model| model.service.name.len()).max().unwrap_or(0).max(5);
    let mut out =
        format!("{:<width$} {:<8} {:>8} {:>8}  {:<30} CONDITION\n", "MODEL", "READY", "REPLICAS", "REVISION", "URI");
    for model in models {
        let condition = model.condition(ConditionKind::Ready);
        let told = condition.map_or_else(String::new, |told| format!("{:?}: {}", told.reason, told.message));
        let ready = condition.map_or_else(|| "Unknown".to_owned(), |told| format!("{:?}", told.status));
        let revision = model.revision.map_or_else(|| "-".to_owned(), |revision| revision.to_string());
        let replicas = format!("{}/{}", model.ready, model.desired);
        let Status { service: InferenceService { name, model_uri, .. }, .. } = model;
        out.push_str(&format!("{name:<width$} {ready:<8} {replicas:>8} {revision:>8}  {model_uri:<30} {told}\n"));
    }
    out
}

async fn delete(client: &Client, name: &str) -> Result<u8, CliError> {
    client.status(name).map_err(failure)?;
    client.delete(name).await.map_err(failure)?;
    say(format!("{name} is gone"));
    Ok(exit::OK)
}

async fn predict(client: &Client, serving: &ModelServing, args: &ArgMatches) -> Result<u8, CliError> {
    let name = name(args);
    client.status(name).map_err(failure)?;
    let (url, body) = match args.get_one::<String>("prompt") {
        Some(prompt) => {
            let most = args.get_one::<u32>("max-tokens").copied();
            let body = json!({"model": name, "prompt": prompt, "max_tokens": most, "temperature": 0});
            (format!("{}/openai/v1/completions", client.url(name)), body)
        }
        None => {
            let input = read(args.get_one::<String>("input").map_or("-", String::as_str))?;
            (format!("{}/v2/models/{name}/infer", serving.inference_url), request(input)?)
        }
    };
    let failed = |error: reqwest::Error| CliError::caused(exit::FAILED, format!("ask {name}"), &error);
    let http = reqwest::Client::builder().timeout(PREDICT_TIMEOUT).no_proxy().build().map_err(failed)?;
    let answer = http.post(&url).json(&body).send().await.map_err(failed)?;
    let (status, text) = (answer.status(), answer.text().await.map_err(failed)?);
    if !status.is_success() {
        return Err(CliError::new(exit::FAILED, format!("ask {name}: it answers {status}: {}", text.trim())));
    }
    print(&format!("{}\n", text.trim_end()))?;
    Ok(exit::OK)
}

/// Reads JSON from a file or stdin.
fn read(file: &str) -> Result<Value, CliError> {
    let mut text = Vec::new();
    let read = match file {
        "-" => std::io::stdin().lock().take(MOST_INPUT).read_to_end(&mut text),
        file => std::fs::File::open(file).and_then(|file| file.take(MOST_INPUT).read_to_end(&mut text)),
    };
    read.map_err(|error| CliError::caused(exit::USAGE, format!("read {file}"), &error))?;
    serde_json::from_slice(&text).map_err(|error| CliError::caused(exit::USAGE, format!("read {file} as JSON"), &error))
}

/// A request of the V2 protocol: the input itself if it is one, else made of rows of numbers.
fn request(input: Value) -> Result<Value, CliError> {
    if input.get("inputs").is_some() {
        return Ok(input);
    }
    let rows: Vec<Vec<f64>> = serde_json::from_value(input).map_err(|_| {
        CliError::usage("the input is neither a V2 request nor rows of numbers")
            .with_hint("rows are [[5.1, 3.5, 1.4, 0.2], …]; a request is {\"inputs\": […]}")
    })?;
    let columns = rows.first().map_or(0, Vec::len);
    if columns == 0 || rows.iter().any(|row| row.len() != columns) {
        return Err(CliError::usage("the rows of the input are empty or differ in length"));
    }
    let shape = [rows.len(), columns];
    Ok(json!({"inputs": [{"name": "input", "datatype": "FP64", "shape": shape, "data": rows.concat()}]}))
}

fn duration(text: &str) -> Result<Duration, &'static str> {
    parse_duration(text).ok_or("give a time such as 90s or 5m")
}

fn name(args: &ArgMatches) -> &str {
    args.get_one::<String>("name").map_or("", String::as_str)
}

fn failure(error: ServingError) -> CliError {
    let hint = error.hint();
    let code = match error {
        ServingError::Spec(_) | ServingError::Unknown { .. } | ServingError::Oversubscribed { .. } => exit::USAGE,
        _ => exit::FAILED,
    };
    let told = match &error {
        ServingError::Spec(cause) => CliError::caused(code, error.to_string(), cause),
        _ => CliError::new(code, error.to_string()),
    };
    match hint {
        Some(hint) => told.with_hint(hint),
        None => told,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> InferenceService {
        let matches = command().try_get_matches_from([&["model", "deploy"], words].concat()).unwrap();
        service(matches.subcommand().unwrap().1)
    }

    #[test]
    fn the_command_line_describes_a_service() {
        assert_eq!(parsed(&["iris", "models:/iris/1"]), InferenceService::new("iris", "models:/iris/1"));
        let full = parsed(&[
            "llama",
            "s3://models/llama",
            "--runtime=causal_lm",
            "--min=2",
            "--max=3",
            "--cpus=4",
            "--memory=2048",
            "--gpu-slots=1",
            "--target-concurrency=2.5",
            "--stable-window=2m",
            "--startup-timeout=10m",
        ]);
        let expected = InferenceService {
            runtime: Runtime::CausalLm,
            replicas: Replicas { min: 2, max: 3 },
            resources: Resources { cpus: 4, memory_mib: 2048, gpu_slots: 1 },
            autoscaling: Autoscaling { target_concurrency: 2.5, stable_window_s: 120 },
            startup_timeout_s: 600,
            ..InferenceService::new("llama", "s3://models/llama")
        };
        assert_eq!(full, expected);
        assert_eq!(parsed(&["m", "/m", "--min=2"]).replicas, Replicas { min: 2, max: 2 });
    }

    #[test]
    fn rows_become_a_tensor_and_requests_stay() {
        let made = request(json!([[1, 2], [3, 4], [5, 6]])).unwrap();
        assert_eq!(made["inputs"][0]["shape"], json!([3, 2]));
        assert_eq!(made["inputs"][0]["data"], json!([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
        let whole = json!({"inputs": []});
        assert_eq!(request(whole.clone()).unwrap(), whole);
        for bad in [json!([[1], [2, 3]]), json!([]), json!({"rows": 1}), json!([["a"]])] {
            assert!(request(bad.clone()).is_err(), "{bad}");
        }
    }
}
