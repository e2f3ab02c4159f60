//! `taskrun cloud`: what the platform runs, shown and driven.

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::json;
use taskrun_engine::checkpoint::Checkpoint;
use taskrun_engine::cli::{CliError, Session, exit};

use super::boot;
use crate::outputs::Machine;
use crate::platform::{Local, Service, ServiceState, healthy};

/// How long services may take to start or stop.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(120);

/// The services that people look at with a browser, or ask for answers.
const TUNNELLED: [&str; 7] =
    ["alertmanager", "grafana", "hpc-prometheus", "inference-proxy", "minio", "mlflow", "prometheus"];

/// The verb's command line.
pub(crate) fn command() -> Command {
    let json = Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print JSON");
    let name = Arg::new("service").num_args(0..).value_name("SERVICE").help("These services [default: all]");
    let yes = Arg::new("yes").short('y').long("yes").action(ArgAction::SetTrue).help("Do not ask");
    Command::new("cloud")
        .about("Show and drive what the platform runs")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("status")
                .about("Show the services: state, process, uptime, endpoints, health")
                .arg(json.clone()),
        )
        .subcommand(Command::new("start").about("Start services").arg(name.clone()).arg(json.clone()))
        .subcommand(Command::new("stop").about("Stop services; their data stays").arg(name).arg(json))
        .subcommand(
            Command::new("enable")
                .about("Have systemd bring the platform up whenever the machine starts")
                .arg(Arg::new("print").long("print").action(ArgAction::SetTrue).help("Only print the unit")),
        )
        .subcommand(Command::new("disable").about("Take that back"))
        .subcommand(Command::new("destroy").about("Take everything away: the same as `taskrun destroy`").arg(yes))
}

/// A service with what it does.
struct Row {
    service: Service,
    state: Option<ServiceState>,
    health: Result<(), String>,
}

/// Runs the verb.
///
/// # Errors
/// Nothing was run here yet, or the supervisor does not answer.
pub(crate) async fn cloud(args: &ArgMatches, session: &Session) -> Result<u8, CliError> {
    match args.subcommand() {
        Some(("enable", args)) => return boot::enable(args, session).await,
        Some(("disable", _)) => return boot::disable(session).await,
        _ => {}
    }
    let local = platform(session, &session.read()?)?;
    match args.subcommand() {
        Some(("start", args)) => drive(&local, args, true).await,
        Some(("stop", args)) => drive(&local, args, false).await,
        Some((_, args)) => show(&local, args.get_flag("json")).await,
        None => Err(CliError::usage("say status, start, stop, enable, disable or destroy")),
    }
}

/// The platform that the journal tells of.
pub(super) fn platform(session: &Session, checkpoint: &Checkpoint) -> Result<Local, CliError> {
    let machine: Option<Machine> = session.output(checkpoint);
    let machine = machine.ok_or_else(|| {
        CliError::new(exit::FAILED, "there is no platform yet").with_hint("bring it up: taskrun run --until CLOUD-2.1")
    })?;
    Local::new(&machine).map_err(|failure| CliError::new(exit::FAILED, failure.to_string()))
}

async fn rows(local: &Local) -> Vec<Row> {
    let mut rows = Vec::new();
    for service in local.services() {
        let state = local.state(&service.name).await.ok().flatten();
        let health = match &state {
            Some(state) if state.is_running() => healthy(&service.health).await,
            _ => Err("it does not run".to_owned()),
        };
        rows.push(Row { service, state, health });
    }
    rows
}

async fn show(local: &Local, json: bool) -> Result<u8, CliError> {
    let supervisor = local.supervisor().pid().await.ok();
    let rows = rows(local).await;
    let all_well = supervisor.is_some() && rows.iter().all(|row| row.health.is_ok());
    if json {
        let services: serde_json::Map<_, _> =
            rows.iter().map(|row| (row.service.name.clone(), describe(row))).collect();
        let status =
            json!({"version": 1, "supervisor": {"pid": supervisor}, "healthy": all_well, "services": services});
        print(&format!("{status:#}\n"))?;
    } else {
        print(&table(supervisor, &rows))?;
    }
    Ok(if all_well { exit::OK } else { exit::FAILED })
}

fn describe(row: &Row) -> serde_json::Value {
    let state = row.state.as_ref();
    json!({
        "state": state.map_or("UNKNOWN", |state| &state.state),
        "pid": state.and_then(|state| state.pid),
        "uptime_seconds": state.and_then(|state| state.uptime),
        "endpoints": row.service.endpoints,
        "healthy": row.health.is_ok(),
        "detail": row.health.as_ref().err(),
    })
}

fn table(supervisor: Option<u32>, rows: &[Row]) -> String {
    let mut out = match supervisor {
        Some(pid) => format!("supervisor: running (pid {pid})\n"),
        None => "supervisor: does not answer; start it again: taskrun resume\n".to_owned(),
    };
    let dash = || "-".to_owned();
    let wide = width(rows.iter().map(|row| &*row.service.name).chain(["SERVICE"]));
    out.push_str(&format!(
        "{:<wide$} {:<9} {:>8} {:>9}  {:<8} ENDPOINTS\n",
        "SERVICE", "STATE", "PID", "UPTIME", "HEALTH"
    ));
    for row in rows {
        let state = row.state.as_ref();
        let endpoints: Vec<&str> = row.service.endpoints.values().map(String::as_str).collect();
        out.push_str(&format!(
            "{:<wide$} {:<9} {:>8} {:>9}  {:<8} {}\n",
            row.service.name,
            state.map_or("UNKNOWN", |state| &state.state),
            state.and_then(|state| state.pid).map_or_else(dash, |pid| pid.to_string()),
            state.and_then(|state| state.uptime).map_or_else(dash, |seconds| format!("{seconds}s")),
            if row.health.is_ok() { "healthy" } else { "unwell" },
            endpoints.join(" "),
        ));
        if let Err(said) = &row.health {
            out.push_str(&format!("{:<wide$} {said}\n", ""));
        }
    }
    out
}

/// The width of a column.
fn width<'t>(texts: impl Iterator<Item = &'t str>) -> usize {
    texts.map(str::len).max().unwrap_or_default()
}

/// Where everything is, and how to see the logins; nothing before the platform is up.
pub(crate) fn endpoints(session: &Session, checkpoint: &Checkpoint) -> Option<String> {
    let services = platform(session, checkpoint).ok()?.services();
    let rows =
        services.iter().flat_map(|service| service.endpoints.iter().map(move |(what, url)| (service, what, url)));
    let wide = width(services.iter().map(|service| &*service.name));
    let named = width(services.iter().flat_map(|service| service.endpoints.keys()).map(|what| &**what));
    let row = |(service, what, url): (&Service, &String, &String)| {
        format!("  {:<wide$}  {what:<named$}  {url}\n", service.name)
    };
    let rows = rows.map(row).collect::<String>();
    if rows.is_empty() {
        return None;
    }
    let logins = services.iter().filter_map(|service| {
        let login = service.login.as_ref()?;
        Some(format!("  {:<wide$}  {:<named$}  taskrun secret show {}\n", service.name, login.user, login.secret))
    });
    let logins = logins.collect::<String>();
    let logins = match &*logins {
        "" => String::new(),
        logins => format!("logins (shown on a terminal only):\n{logins}"),
    };
    let (tunnel, boot) = (tunnel(&services, &host_name()), boot::told(session));
    Some(format!("{}:\n{rows}{logins}{tunnel}\n{boot}", session.identity.environment))
}

/// How to reach what is only on this machine from another one (ssh(1), `-L`), in one line.
fn tunnel(services: &[Service], host: &str) -> String {
    let shown = services.iter().filter(|service| TUNNELLED.contains(&&*service.name));
    let urls = shown.flat_map(|service| service.endpoints.iter().filter(|(what, _)| *what != "s3").map(|(_, url)| url));
    let ports = urls.filter_map(|url| url.rsplit(':').next()?.split('/').next()?.parse::<u16>().ok());
    let forwards = ports.map(|port| format!(" -L {port}:127.0.0.1:{port}")).collect::<String>();
    format!("from another machine: ssh{forwards} {host}")
}

fn host_name() -> String {
    nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_else(|| "HOST".to_owned())
}

/// Starts or stops services and waits until they have.
async fn drive(local: &Local, args: &ArgMatches, up: bool) -> Result<u8, CliError> {
    let named: Vec<&String> = args.get_many("service").into_iter().flatten().collect();
    let services = local.services();
    let unknown: Vec<&&String> =
        named.iter().filter(|name| !services.iter().any(|service| service.name == ***name)).collect();
    if let Some(unknown) = unknown.first() {
        let known: Vec<&str> = services.iter().map(|service| service.name.as_str()).collect();
        return Err(CliError::usage(format!("there is no service `{unknown}`"))
            .with_hint(format!("there are: {}", known.join(", "))));
    }
    let meant: Vec<&Service> =
        services.iter().filter(|service| named.is_empty() || named.contains(&&service.name)).collect();
    let failed = |error: crate::tools::supervisor::SupervisorError| {
        CliError::caused(exit::FAILED, "drive the services", &error).with_hint("bring the platform up: taskrun resume")
    };
    for service in &meant {
        let asked = if up {
            local.supervisor().start(&service.name).await
        } else {
            local.supervisor().stop(&service.name).await
        };
        asked.map_err(failed)?;
    }
    let deadline = tokio::time::Instant::now() + PATIENCE;
    for service in &meant {
        loop {
            let state = local.state(&service.name).await.map_err(failed)?;
            let running = state.as_ref().is_some_and(ServiceState::is_running);
            let stopped =
                state.as_ref().is_none_or(|state| !matches!(&*state.state, "RUNNING" | "STARTING" | "STOPPING"));
            if (up && running && healthy(&service.health).await.is_ok()) || (!up && stopped) {
                break;
            }
            if tokio::time::Instant::now() > deadline {
                let state = state.map_or_else(|| "unknown".to_owned(), |state| state.state);
                return Err(CliError::new(exit::FAILED, format!("{} is {state} after {PATIENCE:?}", service.name))
                    .with_hint(format!("see its log: {}", local.log(&service.name).display())));
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }
    // Those that were meant do what was asked; how the others are is shown.
    show(local, args.get_flag("json")).await.map(|_| exit::OK)
}

/// Writes to stdout; a closed pipe is no error.
pub(super) fn print(text: &str) -> Result<(), CliError> {
    taskrun_engine::cli::print(text).map(|_| ())
}
