//! The command line: verbs, options, help.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Brings a graph of tasks to its described state, in parallel, and can be killed at any instant.
#[derive(Debug, Parser)]
#[command(name = "taskrun", version, max_term_width = 100, subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    /// Options of all verbs.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub verb: VerbArgs,
}

/// Options of all verbs.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// The configuration: what is wanted
    #[arg(long, global = true, value_name = "FILE", env = "TASKRUN_CONFIG")]
    pub config: Option<PathBuf>,
    /// The graph: what depends on what
    #[arg(long, global = true, value_name = "FILE", env = "TASKRUN_GRAPH")]
    pub graph: Option<PathBuf>,
    /// Where the state of all environments is kept [default: .taskrun beside the graph]
    #[arg(long, global = true, value_name = "DIR", env = "TASKRUN_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// Say more of what is going on inside; twice for still more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// How to show a run
    #[arg(long, global = true, value_enum, default_value_t, env = "TASKRUN_OUTPUT_FORMAT")]
    pub output: Output,
    /// The format of diagnostics (-v)
    #[arg(long, global = true, value_enum, default_value_t)]
    pub log_format: LogFormat,
}

/// How a run is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Live on a terminal, plain elsewhere.
    #[default]
    Auto,
    /// A line for each running task, kept up to date.
    Live,
    /// Lines, for logs and CI.
    Plain,
    /// One event a line, as JSON, on stdout.
    Json,
}

/// The format of diagnostics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum VerbArgs {
    /// Bring the tasks to their described state
    Run(RunArgs),
    /// Go on with what the last run was asked for
    Resume(ResumeArgs),
    /// Show what a run would do, and why
    Plan(PlanArgs),
    /// Take away what tasks made, dependents first
    Destroy(DestroyArgs),
    /// Show the state of all tasks
    Status(JsonArgs),
    /// Draw the graph
    Graph(GraphArgs),
    /// Explain what a run would do with a task
    Why(IdArgs),
    /// Show the output of a task's last attempt
    Logs(LogsArgs),
    /// Follow a run from another terminal
    Watch,
    /// Write a report of the last run as one HTML file
    Report(ReportArgs),
    /// List the tasks
    List(JsonArgs),
    /// Check graph, configuration and machine
    Check(CheckArgs),
    /// Show what tasks gave to their dependents
    Output(OutputArgs),
    /// Print the outputs as shell variables
    Env(EnvArgs),
    /// List, show or rotate secrets
    Secret(SecretArgs),
    /// Rebuild a damaged state from what exists
    Recover(RecoverArgs),
    /// Print the JSON Schema of a file, for editors
    Schema(SchemaArgs),
    /// Print completions for a shell
    Completions(CompletionsArgs),
    /// Print the manual page, or write all of them
    Man(ManArgs),
}

/// Which tasks.
#[derive(Debug, Clone, Default, Args)]
pub struct SelectionArgs {
    /// These and all that they need; a prefix such as CLOUD-3 means the phase
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,
    /// These and all that they need
    #[arg(long, value_name = "ID", num_args = 1..)]
    pub until: Vec<String>,
    /// These and all that depend on them, again
    #[arg(long, value_name = "ID", num_args = 1..)]
    pub from: Vec<String>,
    /// Only these
    #[arg(long, value_name = "ID", num_args = 1.., conflicts_with_all = ["ids", "until", "from"])]
    pub only: Vec<String>,
    /// Not these
    #[arg(long, value_name = "ID", num_args = 1..)]
    pub skip: Vec<String>,
    /// These in any case
    #[arg(long, value_name = "ID", num_args = 1..)]
    pub force: Vec<String>,
}

/// How to run.
#[derive(Debug, Clone, Default, Args)]
pub struct DriveArgs {
    /// How many tasks may run at once [default: the number of processors, at least 4]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub jobs: Option<u32>,
    /// After a failure, go on with what does not depend on it
    #[arg(short, long)]
    pub keep_going: bool,
    /// Count degraded and skipped tasks as failures
    #[arg(long)]
    pub strict: bool,
    /// Make disruptive proofs too, such as restarts
    #[arg(long)]
    pub disruptive: bool,
    /// Make lost data anew, empty
    #[arg(long)]
    pub accept_data_loss: bool,
}

/// `run`
#[derive(Debug, Clone, Default, Args)]
pub struct RunArgs {
    /// Which tasks.
    #[command(flatten)]
    pub selection: SelectionArgs,
    /// How.
    #[command(flatten)]
    pub drive: DriveArgs,
    /// Only show what would be done, and why
    #[arg(long)]
    pub dry_run: bool,
    /// Save the plan
    #[arg(long, value_name = "FILE", conflicts_with = "plan")]
    pub plan_out: Option<PathBuf>,
    /// Run exactly this saved plan, or nothing if anything changed since
    #[arg(long, value_name = "FILE", conflicts_with_all = ["ids", "until", "from", "only", "skip", "force", "dry_run"])]
    pub plan: Option<PathBuf>,
    /// Move services to other ports where theirs are taken
    #[arg(long)]
    pub reassign_ports: bool,
    /// Run in the background; `taskrun watch` follows it
    #[arg(long, conflicts_with = "dry_run")]
    pub detach: bool,
}

/// `resume`
#[derive(Debug, Clone, Default, Args)]
pub struct ResumeArgs {
    /// How.
    #[command(flatten)]
    pub drive: DriveArgs,
}

/// `plan`
#[derive(Debug, Clone, Default, Args)]
pub struct PlanArgs {
    /// Which tasks.
    #[command(flatten)]
    pub selection: SelectionArgs,
    /// Save the plan
    #[arg(long, value_name = "FILE")]
    pub plan_out: Option<PathBuf>,
    /// Exit with 10 if a run would do something, with 0 if not
    #[arg(long)]
    pub detailed_exitcode: bool,
    /// Plan as a run with the same option would
    #[arg(long)]
    pub accept_data_loss: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `destroy`
#[derive(Debug, Clone, Default, Args)]
pub struct DestroyArgs {
    /// These and all that depend on them [default: all]
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// Also remove journal, logs, secrets and what was downloaded and built, for other environments too
    #[arg(long, conflicts_with = "ids")]
    pub purge: bool,
}

/// A verb that can print JSON.
#[derive(Debug, Clone, Default, Args)]
pub struct JsonArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `graph`
#[derive(Debug, Clone, Args)]
pub struct GraphArgs {
    /// The format: `taskrun graph | dot -Tsvg` draws it
    #[arg(long, value_enum, default_value_t)]
    pub format: GraphFormat,
    /// Only these and all that they need
    #[arg(long, value_name = "ID", num_args = 1..)]
    pub until: Vec<String>,
    /// Without states
    #[arg(long)]
    pub plain: bool,
}

/// The formats of graphs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum GraphFormat {
    /// Graphviz.
    #[default]
    Dot,
    /// Mermaid, for Markdown.
    Mermaid,
    /// Nodes and edges.
    Json,
}

/// A verb about one task.
#[derive(Debug, Clone, Args)]
pub struct IdArgs {
    /// The task
    pub id: String,
}

/// `logs`
#[derive(Debug, Clone, Args)]
pub struct LogsArgs {
    /// The task
    pub id: String,
    /// Go on as it is written
    #[arg(short, long)]
    pub follow: bool,
    /// Of this attempt instead of the last one
    #[arg(long, value_name = "N")]
    pub attempt: Option<u32>,
}

/// `report`
#[derive(Debug, Clone, Default, Args)]
pub struct ReportArgs {
    /// Where to write it [default: report.html in the state folder]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Of this run instead of the last one
    #[arg(long, value_name = "N")]
    pub run: Option<u64>,
}

/// `check`
#[derive(Debug, Clone, Default, Args)]
pub struct CheckArgs {
    /// These and all that they need [default: all]
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,
}

/// `output`
#[derive(Debug, Clone, Default, Args)]
pub struct OutputArgs {
    /// The task [default: all]
    pub id: Option<String>,
    /// The field, as a dotted path
    pub field: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `env`
#[derive(Debug, Clone, Default, Args)]
pub struct EnvArgs {
    /// Of these tasks [default: all]
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,
}

/// `secret`
#[derive(Debug, Clone, Args)]
pub struct SecretArgs {
    /// What to do with secrets.
    #[command(subcommand)]
    pub verb: SecretVerb,
}

/// What to do with secrets.
#[derive(Debug, Clone, Subcommand)]
pub enum SecretVerb {
    /// List names and versions
    List(JsonArgs),
    /// Show a secret, on a terminal only
    Show {
        /// Its name
        name: String,
    },
    /// Replace a secret by a new one; the next run brings it to those who read it
    Rotate {
        /// Its name
        name: String,
    },
}

/// `recover`
#[derive(Debug, Clone, Default, Args)]
pub struct RecoverArgs {
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

/// `schema`
#[derive(Debug, Clone, Args)]
pub struct SchemaArgs {
    /// Of which file
    #[arg(value_enum)]
    pub of: SchemaOf,
}

/// The files that have a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SchemaOf {
    /// graph.yaml
    Graph,
    /// The configuration
    Config,
}

/// `completions`
#[derive(Debug, Clone, Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// `man`
#[derive(Debug, Clone, Default, Args)]
pub struct ManArgs {
    /// Write the pages of all verbs into this folder
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}
