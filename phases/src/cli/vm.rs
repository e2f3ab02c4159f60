//! `taskrun vm`: single machines of a cluster.

use std::os::unix::process::CommandExt;
use std::process::Command as Process;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command};
use taskrun_engine::cli::{CliError, Session, exit, print, say};

use crate::cluster::Cluster;

use super::cloud::{Nodes, Units, force, meant, shown_as};

/// The verb's command line.
pub(crate) fn command() -> Command {
    let names = || Arg::new("name").required(true).num_args(1..).value_name("NAME").help("The names of nodes");
    let name = || Arg::new("name").required(true).value_name("NAME").help("The name of a node");
    let verb = |name: &'static str, about: &'static str| Command::new(name).about(about);
    let words = Arg::new("command").num_args(0..).trailing_var_arg(true).allow_hyphen_values(true);
    Command::new("vm")
        .about("Start, stop and enter single nodes of a cluster")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(verb("start", "Start machines, also those that do not start with the cluster").arg(names()))
        .subcommand(verb("stop", "Ask machines to end, and turn off those that do not").arg(names()).arg(force()))
        .subcommand(verb("restart", "Stop machines and start them again").arg(names()).arg(force()))
        .subcommand(shown_as(verb("status", "Show the nodes")))
        .subcommand(
            verb("console", "Show the serial console; Ctrl-] leaves it")
                .arg(name())
                .arg(Arg::new("log").long("log").action(ArgAction::SetTrue).help("Print what it has said so far")),
        )
        .subcommand(
            verb("ssh", "Log in, or run a command there")
                .arg(name())
                .arg(words.value_name("COMMAND").help("The command, in place of a shell")),
        )
}

/// The command line with the names of a cluster's nodes.
pub(crate) fn completed(command: Command, cluster: &Cluster) -> Command {
    let names: Vec<String> = cluster.nodes.iter().map(|node| node.name.clone()).collect();
    let takes_name = |verb: &Command| verb.get_arguments().any(|argument| argument.get_id() == "name");
    let with_names = |verb: Command| match takes_name(&verb) {
        true => verb.mut_arg("name", |name| name.value_parser(PossibleValuesParser::new(names.clone()))),
        false => verb,
    };
    let verbs = |parent: Command| parent.mut_subcommands(&with_names);
    command.mut_subcommand("vm", verbs).mut_subcommand("cloud", verbs)
}

/// Runs the verb.
///
/// # Errors
/// The platform has no nodes, there is no such node, or the hypervisor refuses.
pub(crate) async fn vm(args: &ArgMatches, session: &Session) -> Result<u8, CliError> {
    let nodes = Nodes::new(session)?;
    let (verb, args) = args.subcommand().unwrap_or(("status", args));
    if verb == "status" {
        return nodes.status().await?.print(args);
    }
    let names = meant(&nodes, args.get_many::<String>("name").into_iter().flatten(), true)?;
    match (verb, &*names) {
        ("start", _) => nodes.start(&names).await?,
        ("stop", _) => nodes.stop(&names, args.get_flag("force")).await?,
        ("restart", _) => {
            nodes.stop(&names, args.get_flag("force")).await?;
            nodes.start(&names).await?;
        }
        ("console", [name, ..]) => return console(&nodes, name, args.get_flag("log")),
        ("ssh", [name, ..]) => {
            let words: Vec<String> = args.get_many::<String>("command").into_iter().flatten().cloned().collect();
            let mut ssh = nodes.target(name).await?.interactive(&words);
            return Err(CliError::caused(exit::FAILED, "start ssh", &ssh.exec()).with_hint("install openssh-client"));
        }
        _ => return Err(CliError::usage("name a node")),
    }
    Ok(exit::OK)
}

/// Shows a machine's serial console: the live one, by libvirt's own program, or what it has said.
fn console(nodes: &Nodes<'_>, name: &str, log: bool) -> Result<u8, CliError> {
    let (layout, node) = nodes.virtual_machine(name)?;
    if log {
        let file = layout.console_log(&node.name);
        let text = std::fs::read(&file).map_err(|error| {
            CliError::caused(exit::FAILED, format!("read {}", file.display()), &error)
                .with_hint(format!("it is written once the machine starts: taskrun vm start {name}"))
        })?;
        return print(&String::from_utf8_lossy(&text));
    }
    say(format!("the console of {name}; leave it by Ctrl-]"));
    let mut virsh = Process::new("virsh");
    virsh.args(["--connect", &layout.virtualization.uri, "console", &node.name]);
    let hint = format!("apt-get install libvirt-clients, or see what it has said: taskrun vm console {name} --log");
    Err(CliError::caused(exit::FAILED, "start virsh", &virsh.exec()).with_hint(hint))
}
