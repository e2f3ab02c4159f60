//! `taskrun open`: the address of a service and who may log in there.

use std::process::{Command, Stdio};

use clap::{Arg, ArgAction, ArgMatches};
use taskrun_engine::cli::{CliError, Session, exit, print, say};
use taskrun_engine::graph::nearest;

use super::cloud::platform;
use crate::platform::Service;

/// The verb's command line.
pub(crate) fn command() -> clap::Command {
    clap::Command::new("open")
        .about("Print the address of a service, and its login")
        .arg(Arg::new("service").required(true).value_name("SERVICE").help("mlflow, minio, prometheus, grafana, …"))
        .arg(Arg::new("browser").long("browser").action(ArgAction::SetTrue).help("Open it in the browser, too"))
}

/// Runs the verb.
///
/// # Errors
/// There is no such service, or no browser.
pub(crate) fn open(args: &ArgMatches, session: &Session) -> Result<u8, CliError> {
    let services = platform(session, &session.read()?)?.services();
    let wanted = args.get_one::<String>("service").map_or("", String::as_str);
    let service = services.iter().find(|service| service.name == wanted).ok_or_else(|| unknown(wanted, &services))?;
    let url = page(service).ok_or_else(|| CliError::usage(format!("{wanted} has no address to open")))?;
    print(&format!("{url}\n"))?;
    match &service.login {
        Some(login) => say(format!("user {}, password: taskrun secret show {}", login.user, login.secret)),
        None => say("without a login"),
    }
    if args.get_flag("browser") {
        browse(url)?;
    }
    Ok(exit::OK)
}

/// The address that is made for people, if there is one.
fn page(service: &Service) -> Option<&str> {
    let is_page = |url: &&String| url.starts_with("http");
    let console = service.endpoints.get("console").filter(is_page);
    console.or_else(|| service.endpoints.values().find(is_page)).map(String::as_str)
}

fn unknown(wanted: &str, services: &[Service]) -> CliError {
    let names: Vec<&str> = services.iter().filter(|service| page(service).is_some()).map(|s| s.name.as_str()).collect();
    let error = CliError::usage(format!("there is no service `{wanted}`"));
    match nearest(wanted, names.iter().copied()) {
        Some(near) => error.with_hint(format!("perhaps `{near}`")),
        None => error.with_hint(format!("there are: {}", names.join(", "))),
    }
}

/// Starts the desktop's browser and leaves it to itself.
fn browse(url: &str) -> Result<(), CliError> {
    let mut command = Command::new("xdg-open");
    command.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map(|_| ()).map_err(|error| {
        CliError::caused(exit::FAILED, "start the browser", &error)
            .with_hint("open the address by hand, or install xdg-utils")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::Health;

    fn service(name: &str, endpoints: &[(&str, &str)]) -> Service {
        Service {
            name: name.to_owned(),
            command: Vec::new(),
            env: [].into(),
            secret_env: [].into(),
            secret_files: Default::default(),
            dir: "/".into(),
            endpoints: endpoints.iter().map(|(what, url)| ((*what).to_owned(), (*url).to_owned())).collect(),
            health: Health::Socket("/".into()),
            metrics: Vec::new(),
            login: None,
            stop_signal: "TERM".to_owned(),
            stop_seconds: 1,
        }
    }

    #[test]
    fn a_console_is_preferred_and_a_database_is_no_page() {
        let minio = service("minio", &[("api", "http://127.0.0.1:1"), ("console", "http://127.0.0.1:2")]);
        let postgres = service("postgres", &[("postgres", "postgresql://127.0.0.1:3")]);
        assert_eq!(page(&minio), Some("http://127.0.0.1:2"));
        assert_eq!(page(&postgres), None);
        let told = unknown("mino", &[minio, postgres]).render();
        assert!(told.contains("there is no service `mino`") && told.contains("perhaps `minio`"), "{told}");
    }
}
