//! Reading a configuration file, and checking what its types cannot say.

use std::path::Path;

use miette::{GraphicalReportHandler, GraphicalTheme};
use taskrun_engine::cli::{CliError, exit};
use taskrun_engine::secret::SecretSource;

use super::Config;

/// The newest version of the format.
const VERSION: u32 = 1;

/// A configuration is a page, not a book.
const MAX_BYTES: u64 = 1 << 20;

/// Reads `file`. If it is not there and nobody `asked` for it, the defaults are taken.
///
/// # Errors
/// What is wrong with it, with its place where there is one; exit code 2.
pub fn load(file: &Path, asked: bool) -> Result<Config, CliError> {
    let failed = |error: std::io::Error| {
        CliError::caused(exit::USAGE, format!("read the configuration {}", file.display()), &error)
    };
    let metadata = match std::fs::metadata(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !asked => return Ok(Config::default()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(failed(error).with_hint("name one by --config FILE; config/local.yaml is the usual one"));
        }
        other => other.map_err(failed)?,
    };
    if metadata.is_dir() {
        return Err(CliError::usage(format!("{} is a folder, not a configuration", file.display())));
    }
    if metadata.len() > MAX_BYTES {
        return Err(CliError::usage(format!("{} is larger than {MAX_BYTES} bytes", file.display())));
    }
    let bytes = std::fs::read(file).map_err(failed)?;
    let text = String::from_utf8(bytes)
        .map_err(|_| CliError::usage(format!("{} is not UTF-8 text", file.display())).with_hint("save it as UTF-8"))?;
    parse(&text, &file.display().to_string())
}

fn parse(text: &str, name: &str) -> Result<Config, CliError> {
    if text.trim().is_empty() {
        return Err(
            CliError::usage(format!("{name} is empty")).with_hint("begin it with `version: 1` and `name: local`")
        );
    }
    let config: Config = serde_saphyr::from_str(text).map_err(|error| {
        let place = error.location().map(|at| format!(":{}:{}", at.line(), at.column())).unwrap_or_default();
        if error.to_string().contains(SecretSource::LITERAL) {
            // The place would show the secret.
            return CliError::usage(format!("{name}{place}: {}", SecretSource::LITERAL));
        }
        let report = serde_saphyr::miette::to_miette_report(&error, text, name);
        let mut out = String::new();
        let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor()).with_links(false);
        if handler.render_report(&mut out, report.as_ref()).is_err() {
            out = format!("error: {name}: {error}");
        }
        // The parser calls every text so.
        CliError::report(exit::USAGE, out.replace("<input>", name))
    })?;
    let problems = check(&config);
    if problems.is_empty() {
        return Ok(config);
    }
    let told = problems.iter().map(|problem| format!("error: {name}: {problem}\n"));
    Err(CliError::report(exit::USAGE, told.collect::<String>()))
}

/// What is wrong across fields, all of it.
fn check(config: &Config) -> Vec<String> {
    let mut problems = Vec::new();
    if config.version != VERSION {
        problems.push(format!("version: {} is not known here, {VERSION} is", config.version));
    }
    let plain = |text: &str| {
        !text.is_empty()
            && text.len() <= 32
            && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
    };
    if !plain(&config.name) {
        problems.push(format!("name: `{}` is not 1 to 32 letters, digits, `-` and `_`", config.name));
    }
    if !plain(&config.service_user) {
        problems.push(format!("service_user: `{}` cannot be the name of a user", config.service_user));
    }
    let ports = config.ports;
    let named = [
        ("object_store", ports.object_store),
        ("object_store_console", ports.object_store_console),
        ("database", ports.database),
        ("tracking", ports.tracking),
    ];
    for (i, (name, port)) in named.iter().enumerate() {
        if let Some((other, _)) = named[..i].iter().find(|(_, taken)| taken == port && *port != 0) {
            problems.push(format!("ports.{name}: {port} is that of ports.{other} too"));
        }
    }
    let store = &config.object_store;
    for bucket in store.buckets.iter().filter(|bucket| !is_bucket(bucket)) {
        problems.push(format!(
            "object_store.buckets: `{bucket}` is not 3 to 63 lower-case letters, digits and `-`, beginning and ending with a letter or digit"
        ));
    }
    if !store.buckets.iter().any(|bucket| bucket == "mlflow-artifacts") {
        problems
            .push("object_store.buckets: `mlflow-artifacts` is missing, and the tracking server needs it".to_owned());
    }
    for (application, buckets) in &store.applications {
        for bucket in buckets.iter().filter(|bucket| !store.buckets.contains(bucket)) {
            problems.push(format!("object_store.applications.{application}: there is no bucket `{bucket}`"));
        }
    }
    if !store.applications.get("mlflow").is_some_and(|buckets| buckets.iter().any(|b| b == "mlflow-artifacts")) {
        problems.push("object_store.applications.mlflow: it needs the bucket `mlflow-artifacts`".to_owned());
    }
    if !plain(&config.database.name) {
        problems.push(format!("database.name: `{}` is not 1 to 32 letters, digits, `-` and `_`", config.database.name));
    }
    if config.tracking.workers == 0 {
        problems.push("tracking.workers: a server without workers serves nobody".to_owned());
    }
    problems
}

/// The names of buckets that every S3 server takes.
fn is_bucket(name: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    (3..=63).contains(&name.len())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        && edge(name.chars().next())
        && edge(name.chars().last())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_file_is_the_default() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/local.yaml");
        let read = load(&file, true).map_err(|error| error.render()).unwrap();
        let default = serde_json::to_value(Config::default()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), default);
    }

    #[test]
    fn all_contradictions_are_told_at_once() {
        let text = "{version: 1, name: a b, ports: {tracking: 9000}, object_store: {buckets: [Models], applications: {mlflow: [x]}}}";
        let told = parse(text, "c.yaml").unwrap_err().render();
        crate::testing::snapshot("config-contradictions", &told);
    }

    #[test]
    fn an_unknown_field_is_shown_in_its_place() {
        let told = parse("version: 1\nname: local\nports:\n  trackin: 5000\n", "c.yaml").unwrap_err().render();
        crate::testing::snapshot("config-unknown-field", &told);
    }
}
