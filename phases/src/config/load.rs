//! Reading a configuration file, and checking what its types cannot say.

use std::path::Path;

use taskrun_engine::cli::{CliError, exit};
use taskrun_engine::graph::{Document, Fault};
use taskrun_engine::secret::SecretSource;

use super::{ClustersConfig, Config, DatabaseConfig, ExposeConfig, GpuConfig, PlatformKind};
use crate::transfer::{check_name, parse_rate};

/// The newest version of the format.
const VERSION: u32 = 1;

/// The bucket of the tracking server.
const ARTIFACTS: &str = "mlflow-artifacts";

/// A configuration is a page, not a book.
const MAX_BYTES: u64 = 1 << 20;

/// A configuration that was read.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What the user should know of it, each with its place.
    pub warnings: Vec<String>,
}

/// Reads `file`. If it is not there and nobody `asked` for it, the defaults are taken.
///
/// # Errors
/// What is wrong with it, with its place where there is one; exit code 2.
pub fn load(file: &Path, asked: bool) -> Result<Loaded, CliError> {
    let failed = |error: std::io::Error| {
        CliError::caused(exit::USAGE, format!("read the configuration {}", file.display()), &error)
    };
    let metadata = match std::fs::metadata(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !asked => {
            return Ok(Loaded { config: Config::default(), warnings: Vec::new() });
        }
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

pub(super) fn parse(text: &str, name: &str) -> Result<Loaded, CliError> {
    if text.trim().is_empty() {
        return Err(
            CliError::usage(format!("{name} is empty")).with_hint("begin it with `version: 1` and `name: local`")
        );
    }
    let document = Document::parse(name, text)?;
    let faults = match document.read::<Config>() {
        Ok(config) => match check(&config) {
            faults if faults.is_empty() => {
                let warnings = config.clusters.iter().flat_map(ClustersConfig::warnings);
                let warnings =
                    warnings.map(|Fault { path, message, .. }| format!("{}: {message}", document.place(&path)));
                return Ok(Loaded { warnings: warnings.collect(), config });
            }
            faults => faults,
        },
        Err(faults) => faults,
    };
    // Its place would show the secret.
    match faults.iter().find(|fault| fault.message.contains(SecretSource::LITERAL)) {
        Some(fault) => Err(CliError::usage(format!("{}: {}", document.place(&fault.path), SecretSource::LITERAL))),
        None => Err(document.errors(faults).into()),
    }
}

/// What is wrong across fields, all of it.
fn check(config: &Config) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut fault = |path: &[&str], message: String| faults.push(Fault::new(path.iter().copied(), message));
    if config.version != VERSION {
        fault(&["version"], format!("version {} is not known here, {VERSION} is", config.version));
    }
    let plain = |text: &str| {
        !text.is_empty()
            && text.len() <= 32
            && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
    };
    let metadata = config.metadata.as_ref().and_then(|metadata| metadata.name.as_ref());
    match (&config.name, metadata) {
        (None, None) => fault(&["name"], "missing field `name`".to_owned()),
        (Some(name), _) if !plain(name) => {
            fault(&["name"], format!("`{name}` is not 1 to 32 letters, digits, `-` and `_`"));
        }
        (None, Some(name)) if !plain(name) => {
            let what = "is not 1 to 32 letters, digits, `-` and `_`, as the name of the environment must be";
            fault(&["metadata", "name"], format!("`{name}` {what}: set `name` besides"));
        }
        _ => {}
    }
    match (config.platform, &config.clusters) {
        (Some(PlatformKind::Local), Some(_)) => {
            fault(&["platform"], "`local` and `clusters` contradict each other: take one of them out".to_owned());
        }
        (Some(PlatformKind::Kubernetes), None) => {
            fault(&["platform"], "`kubernetes` needs nodes: describe them as `clusters`".to_owned());
        }
        _ => {}
    }
    if !plain(&config.service_user) {
        fault(&["service_user"], format!("`{}` cannot be the name of a user", config.service_user));
    }
    let named = config.ports.named();
    for (i, (name, port)) in named.iter().enumerate() {
        if let Some((other, _)) = named[..i].iter().find(|(_, taken)| taken == port && *port != 0) {
            fault(&["ports", name], format!("ports.{name}: {port} is that of ports.{other} too"));
        }
    }
    let store = &config.object_store;
    for (at, bucket) in store.buckets.iter().enumerate().filter(|(_, bucket)| !is_bucket(bucket)) {
        let what = "3 to 63 lower-case letters, digits and `-`, beginning and ending with a letter or digit";
        fault(&["object_store", "buckets", &at.to_string()], format!("the bucket `{bucket}` is not {what}"));
    }
    if !store.buckets.iter().any(|bucket| bucket == ARTIFACTS) {
        fault(&["object_store", "buckets"], format!("`{ARTIFACTS}` is missing, and the tracking server needs it"));
    }
    for (application, buckets) in &store.applications {
        for (at, bucket) in buckets.iter().enumerate().filter(|(_, bucket)| !store.buckets.contains(bucket)) {
            let path = ["object_store", "applications", application, &at.to_string()];
            fault(&path, format!("there is no bucket `{bucket}`"));
        }
    }
    if !store.applications.get("mlflow").is_some_and(|buckets| buckets.iter().any(|bucket| bucket == ARTIFACTS)) {
        fault(&["object_store", "applications", "mlflow"], format!("`mlflow` needs the bucket `{ARTIFACTS}`"));
    }
    if !plain(&config.database.name) {
        let name = &config.database.name;
        fault(&["database", "name"], format!("`{name}` is not 1 to 32 letters, digits, `-` and `_`"));
    }
    for (at, model) in config.transfer.models.iter().enumerate() {
        if let Err(error) = check_name(model) {
            fault(&["transfer", "models", &at.to_string()], error.to_string());
        }
    }
    if let Some(Err(message)) = config.transfer.bandwidth.as_deref().map(parse_rate) {
        fault(&["transfer", "bandwidth"], message);
    }
    let most = GpuConfig::MOST_SLOTS;
    if !(1..=most).contains(&config.gpu.slots) {
        fault(&["gpu", "slots"], format!("{} is not between 1 and {most}", config.gpu.slots));
    }
    if config.tracking.workers == 0 {
        fault(&["tracking", "workers"], "a server without workers serves nobody".to_owned());
    }
    faults.extend(config.monitoring.faults(&config.secrets));
    faults.extend(config.dashboards.faults());
    let training = config.training.faults().into_iter();
    faults.extend(training.map(|(field, message)| Fault::new(["training", field], message)));
    faults.extend(config.hpc.faults(&config.secrets));
    faults.extend(config.performance.faults());
    faults.extend(config.external.faults(&config.secrets));
    if config.external.prometheus.is_some() && config.hpc.login().is_some() {
        let message = "the Prometheus that `external.prometheus` names cannot read the secret of this program: give it \
                       the job with the login yourself, and take `login` out here";
        faults.push(Fault::new(["hpc", "prometheus", "login"], message.to_owned()));
    }
    if config.external.database.is_some() && config.database != DatabaseConfig::default() {
        let message = "it has no effect on the database that `external.database` names: take it out";
        faults.push(Fault::new(["database"], message.to_owned()));
    }
    faults.extend(config.expose.iter().flat_map(ExposeConfig::faults));
    faults.extend(config.clusters.iter().flat_map(ClustersConfig::faults));
    faults
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
        assert_eq!(serde_json::to_value(&read.config).unwrap(), default);
        assert!(read.warnings.is_empty());
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
