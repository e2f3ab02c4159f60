//! `secret`

use std::io::IsTerminal;

use serde_json::json;

use super::args::{SecretArgs, SecretVerb};
use super::error::{CliError, exit};
use super::main::{print, say};
use super::session::Session;
use super::show;

pub(super) fn secret(session: &Session, args: &SecretArgs) -> Result<u8, CliError> {
    let secrets = &session.world.secrets;
    let unknown = |name: &str| {
        CliError::usage(format!("there is no secret `{name}`")).with_hint("see which there are: taskrun secret list")
    };
    match &args.verb {
        SecretVerb::List(json) => {
            let known: Vec<_> = secrets.names().iter().filter_map(|name| Some(secrets.present(name)?.0)).collect();
            if json.json {
                return print(&format!("{:#}\n", json!({"version": 1, "secrets": known})));
            }
            let head = vec![["SECRET", "VERSION"].map(str::to_owned).to_vec()];
            let rows = known.iter().map(|secret| vec![secret.name.to_string(), secret.version.to_string()]).collect();
            print(&show::table(&[head, rows].concat()))
        }
        SecretVerb::Show { name } => {
            let (_, value) = secrets.present(name).ok_or_else(|| unknown(name))?;
            if !std::io::stdout().is_terminal() {
                return Err(CliError::usage(
                    "a secret is shown on a terminal only, so that it does not end up in a file",
                )
                .with_hint("give it to a command of the graph by `env: {NAME: {secret: …}}`"));
            }
            print(&format!("{}\n", value.expose()))
        }
        SecretVerb::Rotate { name } => {
            let (_lock, _) = session.lock()?;
            if secrets.present(name).is_none() {
                return Err(unknown(name));
            }
            let new = secrets
                .rotate(name)
                .map_err(|error| CliError::caused(exit::STATE, format!("rotate the secret `{name}`"), &error))?;
            say(format!("{name} is now version {}; bring it to those who read it: taskrun run", new.version));
            Ok(exit::OK)
        }
    }
}
