//! `taskrun cloud`: what the platform runs, shown and driven. Services on the local platform, nodes on a cluster.

mod destroy;
mod endpoints;
mod nodes;
mod services;

use async_trait::async_trait;
use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::Value;
use taskrun_engine::cli::{CliError, Session, exit, print};
use taskrun_engine::graph::nearest;

use super::boot;
pub(crate) use endpoints::endpoints;
pub(super) use nodes::Nodes;
use services::Services;
pub(super) use services::platform;

/// What the platform runs: things with names that are started, stopped and seen.
#[async_trait]
pub(super) trait Units: Send + Sync {
    /// The word for one of them: `service`, `node`.
    fn word(&self) -> &'static str;

    /// Their names, in the order in which they are started.
    fn names(&self) -> Vec<String>;

    /// The names of those that are started, or else stopped, when none are named.
    fn usual(&self, _up: bool) -> Vec<String> {
        self.names()
    }

    /// Starts these, in order, and waits until they serve.
    async fn start(&self, names: &[String]) -> Result<(), CliError>;

    /// Stops these, in the opposite order, and waits until they have; at once if `force`.
    async fn stop(&self, names: &[String], force: bool) -> Result<(), CliError>;

    /// How all of them are.
    async fn status(&self) -> Result<Shown, CliError>;
}

/// How things are, in each way that it can be shown.
pub(super) struct Shown {
    /// Whether everything is as it should be.
    pub(super) healthy: bool,
    /// For people.
    pub(super) table: String,
    /// For programs.
    pub(super) json: Value,
    /// For `dot`.
    pub(super) dot: String,
}

impl Shown {
    pub(super) fn print(&self, args: &ArgMatches) -> Result<u8, CliError> {
        match (args.get_flag("json"), args.get_flag("dot")) {
            (true, _) => print(&format!("{:#}\n", self.json))?,
            (_, true) => print(&self.dot)?,
            _ => print(&self.table)?,
        };
        Ok(if self.healthy { exit::OK } else { exit::FAILED })
    }
}

/// The options that say how a status is shown.
pub(super) fn shown_as(command: Command) -> Command {
    let flag = |name: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue);
    command
        .arg(flag("json").help("Print JSON"))
        .arg(flag("dot").conflicts_with("json").help("Print a picture of the topology, for dot"))
}

/// The option that leaves out asking nicely.
pub(super) fn force() -> Arg {
    Arg::new("force")
        .long("force")
        .action(ArgAction::SetTrue)
        .help("Turn machines off at once, without asking them to end")
}

/// The verb's command line.
pub(crate) fn command() -> Command {
    let name = Arg::new("name").num_args(0..).value_name("NAME").help("These services or nodes [default: all]");
    let yes = Arg::new("yes").short('y').long("yes").action(ArgAction::SetTrue).help("Do not ask");
    let verb = |name: &'static str, about: &'static str| Command::new(name).about(about);
    Command::new("cloud")
        .about("Show and drive what the platform runs")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(shown_as(verb("status", "Show the services, or the nodes of the cluster")))
        .subcommand(shown_as(verb("start", "Start services, or the nodes and then the cluster").arg(name.clone())))
        .subcommand(shown_as(verb("stop", "Stop services or nodes; their data stays").arg(name).arg(force())))
        .subcommand(
            verb("enable", "Have systemd bring the platform up whenever the machine starts")
                .arg(Arg::new("print").long("print").action(ArgAction::SetTrue).help("Only print the unit")),
        )
        .subcommand(verb("disable", "Take that back"))
        .subcommand(verb("destroy", "Take everything away, and keep an archive of the logs").arg(yes))
}

/// Runs the verb.
///
/// # Errors
/// Nothing was run here yet, or what runs there does not answer.
pub(crate) async fn cloud(args: &ArgMatches, session: &Session) -> Result<u8, CliError> {
    let (verb, args) = args.subcommand().unwrap_or(("status", args));
    match verb {
        "enable" => return boot::enable(args, session).await,
        "disable" => return boot::disable(session).await,
        "destroy" => return destroy::destroy(args, session),
        _ => {}
    }
    if session.identity.platform == "local" {
        return drive(&Services::new(session)?, verb, args).await;
    }
    let nodes = Nodes::new(session)?;
    if verb != "start" {
        return drive(&nodes, verb, args).await;
    }
    let code = nodes.prepare()?;
    if code != exit::OK {
        return Ok(code);
    }
    drive(&nodes, verb, args).await?;
    nodes.make_cluster()
}

async fn drive(units: &dyn Units, verb: &str, args: &ArgMatches) -> Result<u8, CliError> {
    if verb == "status" {
        return units.status().await?.print(args);
    }
    let up = verb == "start";
    let names = meant(units, args.get_many::<String>("name").into_iter().flatten(), up)?;
    match up {
        true => units.start(&names).await?,
        false => units.stop(&names, args.get_flag("force")).await?,
    }
    // Those that were meant do what was asked; how the others are is shown.
    units.status().await?.print(args).map(|_| exit::OK)
}

/// The units that somebody named, or the usual ones.
pub(super) fn meant<'n>(
    units: &dyn Units,
    named: impl IntoIterator<Item = &'n String>,
    up: bool,
) -> Result<Vec<String>, CliError> {
    let (known, named) = (units.names(), named.into_iter().collect::<Vec<_>>());
    for name in &named {
        if !known.contains(name) {
            let error = CliError::usage(format!("there is no {} `{name}`", units.word()));
            return Err(match nearest(name, known.iter().map(String::as_str)) {
                Some(near) => error.with_hint(format!("perhaps `{near}`")),
                None => error.with_hint(format!("there are: {}", known.join(", "))),
            });
        }
    }
    match named.is_empty() {
        true => Ok(units.usual(up)),
        false => Ok(known.into_iter().filter(|name| named.contains(&name)).collect()),
    }
}
