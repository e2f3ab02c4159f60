//! From the process's arguments to its exit code.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

use super::args::{Cli, LogFormat, VerbArgs};
use super::error::{CliError, exit};
use super::product::Product;
use super::session::{Purpose, Session};
use super::{destroy, inspect, logs, meta, outputs, plan, recover, run, secret, status};

/// The whole command line, the product's own verbs included.
pub fn command(product: &dyn Product) -> clap::Command {
    product.verbs().into_iter().fold(Cli::command(), clap::Command::subcommand)
}

/// Runs the program and returns its exit code. Prints.
pub fn main(product: &'static dyn Product, args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let result = match command(product).try_get_matches_from(args) {
        Ok(matches) => dispatch(product, &matches),
        Err(error) => {
            // clap writes help and versions to stdout, errors to stderr; a closed pipe is no error.
            let _ = error.print();
            let code = if error.use_stderr() { exit::USAGE } else { exit::OK };
            return ExitCode::from(code);
        }
    };
    let code = result.unwrap_or_else(|error| {
        let _ = std::io::stderr().write_all(error.render().as_bytes());
        error.code
    });
    ExitCode::from(code)
}

fn dispatch(product: &'static dyn Product, matches: &clap::ArgMatches) -> Result<u8, CliError> {
    if let Some((name, own)) = matches.subcommand()
        && product.verbs().iter().any(|verb| verb.get_name() == name)
    {
        let global =
            super::args::Global::from_arg_matches(matches).map_err(|error| CliError::usage(error.to_string()))?;
        diagnostics(global.verbose, global.log_format);
        let session = Session::open(product, &global, Purpose::default())?;
        return runtime()?.block_on(product.verb(name, own, &session));
    }
    let Cli { global, verb } = Cli::from_arg_matches(matches).map_err(|error| CliError::usage(error.to_string()))?;
    diagnostics(global.verbose, global.log_format);
    let open = |purpose| Session::open(product, &global, purpose);
    match verb {
        VerbArgs::Run(args) => runtime()?.block_on(run::run(product, &global, args)),
        VerbArgs::Resume(args) => runtime()?.block_on(run::resume(product, &global, args)),
        VerbArgs::Plan(args) => runtime()?.block_on(plan::plan(product, &global, args)),
        VerbArgs::Why(args) => runtime()?.block_on(plan::why(&open(Purpose::default())?, &args)),
        VerbArgs::Destroy(args) => runtime()?.block_on(destroy::destroy(product, &global, args)),
        VerbArgs::Check(args) => runtime()?.block_on(plan::check(&open(Purpose::default())?, &args)),
        VerbArgs::Recover(args) => runtime()?.block_on(recover::recover(&open(Purpose::default())?, &args)),
        VerbArgs::Status(args) => status::status(product, &open(Purpose::default())?, &args),
        VerbArgs::List(args) => inspect::list(&open(Purpose::default())?, &args),
        VerbArgs::Graph(args) => inspect::graph(product, &global, &args),
        VerbArgs::Logs(args) => logs::logs(&open(Purpose::default())?, &args),
        VerbArgs::Watch => logs::watch(&open(Purpose::default())?, &global),
        VerbArgs::Report(args) => logs::report(&open(Purpose::default())?, &args),
        VerbArgs::Output(args) => outputs::output(&open(Purpose::default())?, &args),
        VerbArgs::Env(args) => outputs::env(&open(Purpose::default())?, &args),
        VerbArgs::Secret(args) => secret::secret(&open(Purpose::default())?, &args),
        VerbArgs::Schema(args) => meta::schema(product, &args),
        VerbArgs::Completions(args) => meta::completions(product, &global, &args),
        VerbArgs::Man(args) => meta::man(product, &args),
    }
}

/// Writes a result to stdout; that nobody reads it to its end is no error. Returns the exit code.
///
/// # Errors
/// The write failed for another reason.
pub fn print(text: &str) -> Result<u8, CliError> {
    match std::io::stdout().lock().write_all(text.as_bytes()).and_then(|()| std::io::stdout().flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(CliError::caused(exit::FAILED, "write to stdout", &error))
        }
        _ => Ok(exit::OK),
    }
}

/// Writes something that is no result to stderr.
pub fn say(text: impl AsRef<str>) {
    // When stderr is gone there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "{}", text.as_ref());
}

fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::caused(exit::FAILED, "start the runtime", &error))
}

fn diagnostics(verbose: u8, format: LogFormat) {
    let level = match verbose {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("TASKRUN_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second subscriber cannot be set; then the first one stays, as in tests.
    let _ = match format {
        LogFormat::Text => builder.with_ansi(super::show::colored()).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}
