//! Where everything is, and how to see the logins.

use taskrun_engine::checkpoint::Checkpoint;
use taskrun_engine::cli::Session;

use super::platform;
use crate::cli::boot;
use crate::platform::Service;

/// The services that people look at with a browser, or ask for answers.
const TUNNELLED: [&str; 7] =
    ["alertmanager", "grafana", "hpc-prometheus", "inference-proxy", "minio", "mlflow", "prometheus"];

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
