//! The gateway of CLOUD-3.4: what the configuration exposes is reached from other machines, by TLS and with a login.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::json;
use taskrun_engine::context::{Context, View};
use taskrun_engine::fingerprint::Digest;
use taskrun_engine::outcome::{Failure, Persistence};
use taskrun_engine::secret::{Policy, SecretRef};
use taskrun_engine::task::{Drift, Probe, Problem};

use crate::config::{ExposeConfig, Ports};
use crate::outputs::Machine;
use crate::platform::{Health, Local, Login, SecretEnv, SecretFiles, Service};
use crate::tools::{files, template};

/// The service's name.
pub(super) const SERVICE: &str = "gateway";

/// The secret that is the password of the login.
pub(super) const PASSWORD: &str = "gateway-password";

/// Its configuration.
pub(super) const TEMPLATE: &str = include_str!("../../assets/haproxy/gateway.cfg");

/// How often an address may send a wrong password within a minute.
const GUESSES: u32 = 30;

/// How long it may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The proxy's program, and where its libraries are.
pub(super) struct Program<'a> {
    pub(super) path: &'a Path,
    pub(super) libraries: &'a [PathBuf],
}

/// What is exposed.
fn exposed(ports: Ports) -> [(&'static str, u16); 5] {
    [
        ("mlflow", ports.tracking),
        ("inference", ports.inference),
        ("prometheus", ports.monitoring),
        ("alertmanager", ports.alerts),
        ("grafana", ports.dashboards),
    ]
}

/// What would keep the gateway from coming up.
pub(super) fn check(expose: &ExposeConfig) -> Option<Problem> {
    let listens = std::net::TcpListener::bind((expose.address, 0));
    let error = listens.err()?;
    Some(Problem::new(
        format!("this machine cannot listen at {}: {error}", expose.address),
        "name one of its addresses as `expose.address`; they are shown by: ip address",
    ))
}

/// Brings the gateway up, or takes it away where nothing is exposed.
pub(super) async fn apply(
    context: &Context,
    machine: &Machine,
    expose: Option<&ExposeConfig>,
    program: &Program<'_>,
) -> Result<(), Failure> {
    let (local, folder) = (Local::new(machine)?, machine.service_dir(SERVICE));
    let Some(expose) = expose else {
        local.remove(context, SERVICE).await?;
        return files::remove(&folder);
    };
    let policy = Policy::letters_and_digits(32).ok_or_else(|| Failure::permanent("make a password"))?;
    let (password, _) = context
        .secrets()
        .get_or_generate(PASSWORD, &policy)
        .map_err(|error| Failure::caused(Persistence::Permanent, "make a password", &error))?;
    files::service_folder(&folder, &machine.service_user, 0o711)?;
    files::service_folder(&machine.sockets.join(SERVICE), &machine.service_user, 0o700)?;
    let pem = match wanted_certificate(expose)? {
        Some(pem) => pem,
        None => own_certificate(expose, &certificate(machine))?,
    };
    files::service_file(&certificate(machine), &machine.service_user, &pem)?;
    files::public_file(&folder.join("ca.pem"), public(&pem))?;
    let configuration = configuration(machine, expose);
    files::service_file(&folder.join("haproxy.cfg"), &machine.service_user, &configuration)?;
    let digest = Digest::of([&*configuration, &pem].concat().as_bytes()).to_string();
    local.ensure(context, &service(machine, expose, program, password, digest)).await
}

/// Takes the gateway away.
pub(super) async fn destroy(context: &Context, machine: &Machine) -> Result<(), Failure> {
    Local::new(machine)?.remove(context, SERVICE).await?;
    files::remove(&machine.sockets.join(SERVICE))?;
    files::remove(&machine.service_dir(SERVICE))
}

/// Whether the gateway is as it was made.
pub(super) async fn probe(local: &Local, machine: &Machine, expose: Option<&ExposeConfig>) -> Probe {
    let services = local.services();
    let service = services.iter().find(|service| service.name == SERVICE);
    let (expose, service) = match (expose, service) {
        (None, None) => return Probe::Holds,
        (None, Some(_)) => return Probe::Missing("there is a gateway, and nothing is to be exposed".to_owned()),
        (Some(_), None) => return Probe::Missing("there is no gateway".to_owned()),
        (Some(expose), Some(service)) => (expose, service),
    };
    match wanted_certificate(expose) {
        Err(failure) => return Probe::CannotTell(failure.to_string()),
        Ok(Some(wanted)) if fs::read_to_string(certificate(machine)).ok().as_ref() != Some(&wanted) => {
            return Probe::Drifted(vec![Drift::new("expose.tls", "the certificate in its files", "another one")]);
        }
        Ok(_) => {}
    }
    local.probe(service).await
}

/// What of this platform other machines reach: only what is exposed, and that only with the login.
pub(super) async fn prove(view: &View, machine: &Machine, expose: Option<&ExposeConfig>) -> Result<(), Failure> {
    let named = machine.ports.named();
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
    for open in tables.iter().flat_map(|table| table.lines().filter_map(listening)) {
        let Some((name, port)) = named.iter().find(|(_, port)| *port == open.port()) else { continue };
        let is_exposed = expose.is_some_and(|expose| {
            expose.address == open.ip() && exposed(machine.ports).iter().any(|(_, exposed)| exposed == port)
        });
        if !open.ip().is_loopback() && !is_exposed {
            return Err(Failure::permanent(format!("find ports.{name} on loopback alone: somebody listens on {open}"))
                .with_hint("see who: ss -ltnp"));
        }
    }
    let Some(expose) = expose else { return Ok(()) };
    let password = view.secret(PASSWORD)?;
    let user = &expose.auth.user;
    // The address is this machine's own: that its certificate has another name tells nothing.
    let client = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).danger_accept_invalid_certs(true).build();
    let client = client.map_err(|error| Failure::caused(Persistence::Permanent, "make a client", &error))?;
    let url = format!("https://{}/health", expose.at(machine.ports.tracking));
    let logins = [
        (None, StatusCode::UNAUTHORIZED),
        (Some("not-the-password"), StatusCode::UNAUTHORIZED),
        (Some(password.expose()), StatusCode::OK),
    ];
    for (login, wanted) in logins {
        let request = client.get(&url);
        let request = if let Some(password) = login { request.basic_auth(user, Some(password)) } else { request };
        let answer = request.send().await;
        let answer = answer
            .map_err(|error| Failure::caused(Persistence::Transient, format!("ask the gateway for {url}"), &error))?;
        // Somebody on this machine guessed a moment ago: so it is guarded, too.
        if ![wanted, StatusCode::TOO_MANY_REQUESTS].contains(&answer.status()) {
            let how = match login {
                None => "without a login",
                Some("not-the-password") => "with a wrong password",
                Some(_) => "with its login",
            };
            let found = answer.status();
            return Err(Failure::permanent(format!("see {url} answered by {wanted} {how}: it is {found}")));
        }
    }
    Ok(())
}

fn certificate(machine: &Machine) -> PathBuf {
    machine.service_dir(SERVICE).join("certificate.pem")
}

fn configuration(machine: &Machine, expose: &ExposeConfig) -> String {
    let exposed = exposed(machine.ports);
    let exposed = exposed.map(|(name, port)| json!({"name": name, "bind": expose.at(port), "port": port}));
    template::fill(
        TEMPLATE,
        &json!({
            "socket": machine.sockets.join(SERVICE).join("admin.sock"),
            "user": expose.auth.user,
            "certificate": certificate(machine),
            "guesses": GUESSES,
            "exposed": exposed,
        }),
    )
}

fn service(
    machine: &Machine,
    expose: &ExposeConfig,
    program: &Program<'_>,
    password: SecretRef,
    digest: String,
) -> Service {
    let folder = machine.service_dir(SERVICE);
    let file = folder.join("haproxy.cfg").display().to_string();
    let libraries = program.libraries.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(":");
    let endpoints =
        exposed(machine.ports).map(|(name, port)| (name.to_owned(), format!("https://{}", expose.at(port))));
    Service {
        name: SERVICE.to_owned(),
        command: [&*program.path.display().to_string(), "-W", "-db", "-f", &file].map(str::to_owned).to_vec(),
        // It reads its files at its start only: other contents make the platform restart it.
        env: [("LD_LIBRARY_PATH".to_owned(), libraries), ("TASKRUN_CONFIGURATION".to_owned(), digest)].into(),
        secret_env: [("GATEWAY_PASSWORD".to_owned(), SecretEnv::from(password))].into(),
        secret_files: SecretFiles::default(),
        dir: folder,
        endpoints: BTreeMap::from(endpoints),
        health: Health::Socket(machine.sockets.join(SERVICE).join("admin.sock")),
        metrics: Vec::new(),
        login: Some(Login { user: expose.auth.user.clone(), secret: PASSWORD.to_owned() }),
        stop_signal: "TERM".to_owned(),
        stop_seconds: 10,
    }
}

/// The user's own certificate with its key; nothing where one is to be made.
fn wanted_certificate(expose: &ExposeConfig) -> Result<Option<String>, Failure> {
    let Some(tls) = &expose.tls else { return Ok(None) };
    let read = |what: &'static str, path: &Path, begin: &str| {
        let text = fs::read_to_string(path).map_err(|error| files::failure("read", path, &error))?;
        match text.contains(begin) {
            true => Ok(text),
            false => Err(Failure::permanent(format!("find a {what} in {}", path.display()))
                .with_hint(format!("expose.tls.{what} wants a PEM file, in which stands `{begin}`"))),
        }
    };
    let certificate = read("certificate", &tls.certificate, "-----BEGIN CERTIFICATE-----")?;
    let key = read("key", &tls.key, "PRIVATE KEY-----")?;
    Ok(Some(format!("{}\n{key}", certificate.trim_end())))
}

/// A certificate that vouches for itself: the one that is there, if it has these names.
fn own_certificate(expose: &ExposeConfig, present: &Path) -> Result<String, Failure> {
    let names: Vec<String> = [expose.address.to_string()].into_iter().chain(expose.names.iter().cloned()).collect();
    let head = format!("for {}\n", names.join(" "));
    match fs::read_to_string(present) {
        Ok(pem) if pem.starts_with(&head) => return Ok(pem),
        _ => {}
    }
    let made = rcgen::generate_simple_self_signed(names)
        .map_err(|error| Failure::caused(Persistence::Permanent, "make a certificate", &error))?;
    Ok(format!("{head}{}{}", made.cert.pem(), made.signing_key.serialize_pem()))
}

/// The certificates alone, which clients may know.
fn public(pem: &str) -> &str {
    const END: &str = "-----END CERTIFICATE-----\n";
    match (pem.find("-----BEGIN CERTIFICATE-----"), pem.rfind(END)) {
        (Some(begin), Some(end)) => &pem[begin..end + END.len()],
        _ => "",
    }
}

/// The address of a line of `/proc/net/tcp` whose socket listens (proc_net_tcp(5)).
fn listening(line: &str) -> Option<SocketAddr> {
    const LISTEN: &str = "0A";
    let mut words = line.split_whitespace().skip(1);
    let (local, state) = (words.next()?, words.nth(1)?);
    let (address, port) = local.split_once(':')?;
    let word = |at: usize| u32::from_str_radix(address.get(at..at + 8)?, 16).ok();
    let address: IpAddr = match address.len() {
        8 => IpAddr::from(word(0)?.to_ne_bytes()),
        32 => {
            let mut bytes = [0; 16];
            for part in 0..4 {
                bytes[part * 4..][..4].copy_from_slice(&word(part * 8)?.to_ne_bytes());
            }
            std::net::Ipv6Addr::from(bytes).to_canonical()
        }
        _ => return None,
    };
    (state == LISTEN).then_some(SocketAddr::new(address, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_sockets_are_read() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1";
        assert_eq!(listening(line), Some("127.0.0.1:8080".parse().unwrap()));
        let any = "   1: 00000000000000000000000000000000:0016 00000000000000000000000000000000:0000 0A 0:0 0:0";
        assert_eq!(listening(any), Some("[::]:22".parse().unwrap()));
        assert_eq!(listening(&line.replace(" 0A ", " 01 ")), None, "it is connected");
        assert_eq!(listening("  sl  local_address rem_address   st tx_queue rx_queue tr tm->when"), None);
    }

    #[test]
    fn a_certificate_of_ones_own_is_kept_for_the_same_names() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("certificate.pem");
        let mut expose: ExposeConfig = serde_json::from_value(json!({"address": "192.0.2.1"})).unwrap();
        let first = own_certificate(&expose, &file).unwrap();
        assert!(first.contains("PRIVATE KEY"), "{first}");
        let public = public(&first);
        assert!(public.starts_with("-----BEGIN CERTIFICATE-----") && !public.contains("PRIVATE"), "{public}");
        fs::write(&file, &first).unwrap();
        assert_eq!(own_certificate(&expose, &file).unwrap(), first);
        expose.names.push("cloud.example.org".to_owned());
        assert_ne!(own_certificate(&expose, &file).unwrap(), first);
    }

    #[test]
    fn files_that_are_no_certificate_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("empty.pem");
        fs::write(&file, "").unwrap();
        let tls = json!({"certificate": file, "key": file});
        let expose: ExposeConfig = serde_json::from_value(json!({"address": "192.0.2.1", "tls": tls})).unwrap();
        let failure = wanted_certificate(&expose).unwrap_err();
        assert!(failure.hint.unwrap().contains("expose.tls.certificate"));
    }
}
