//! Another machine: a network namespace, joined to this one by a pair of virtual network devices.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A host with processes; they end, and the network goes, with the value.
pub(crate) struct OtherHost {
    namespace: String,
    number: u32,
    /// Its address.
    pub(crate) address: String,
    processes: Vec<Child>,
}

impl Drop for OtherHost {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
        let _ = Command::new("ip").args(["netns", "delete", &self.namespace]).status();
    }
}

fn ip(args: &str) {
    let done = Command::new("ip").args(args.split_whitespace()).output().unwrap();
    assert!(done.status.success(), "ip {args}: {}", String::from_utf8_lossy(&done.stderr));
}

impl OtherHost {
    pub(crate) fn new() -> Self {
        static HOSTS: AtomicU32 = AtomicU32::new(0);
        let number = (std::process::id() + 50 * HOSTS.fetch_add(1, Ordering::Relaxed)) % 250;
        let namespace = format!("taskrun-{number}");
        let (here, there) = (format!("tr{number}a"), format!("tr{number}b"));
        let subnet = format!("10.213.{number}");
        ip(&format!("netns add {namespace}"));
        let address = format!("{subnet}.2");
        let host = Self { namespace: namespace.clone(), number, address, processes: Vec::new() };
        ip(&format!("link add {here} type veth peer name {there} netns {namespace}"));
        ip(&format!("address add {subnet}.1/24 dev {here}"));
        ip(&format!("link set {here} up"));
        ip(&format!("-n {namespace} address add {subnet}.2/24 dev {there}"));
        ip(&format!("-n {namespace} link set lo up"));
        host.link("up");
        host
    }

    /// Takes the link down, or up again.
    pub(crate) fn link(&self, state: &str) {
        ip(&format!("-n {} link set tr{}b {state}", self.namespace, self.number));
    }

    /// A program that is to run there.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace]).arg(program).stdin(Stdio::null());
        command
    }

    /// Starts a program there.
    pub(crate) fn start(&mut self, program: &Path, args: &[String], variables: &[(&str, &str)]) {
        let mut command = self.command(program);
        command.args(args).envs(variables.iter().copied());
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        self.processes.push(process);
    }

    /// Whether somebody listens at this port.
    pub(crate) fn listens(&self, port: u16) -> bool {
        std::net::TcpStream::connect((self.address.as_str(), port)).is_ok()
    }

    /// Makes an authority, and a key and certificate of it for this host's address, in `folder`.
    pub(crate) fn certificate(&self, folder: &Path) -> Certificate {
        let path = |name: &str| folder.join(name);
        let (ca_key, ca) = (path("ca.key"), path("ca.pem"));
        let (key, certificate) = (path("key.pem"), path("certificate.pem"));
        let name = format!("subjectAltName=IP:{}", self.address);
        openssl(&["-subj", "/CN=authority", "-keyout", text(&ca_key), "-out", text(&ca)]);
        let from = ["-subj", "/CN=other", "-CA", text(&ca), "-CAkey", text(&ca_key), "-addext", &name];
        let leaf = ["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", text(&key), "-out", text(&certificate)];
        openssl(&[&from[..], &leaf[..]].concat());
        Certificate { key, certificate, ca }
    }
}

/// The files of a certificate.
pub(crate) struct Certificate {
    pub(crate) key: PathBuf,
    pub(crate) certificate: PathBuf,
    /// The authority that issued it.
    pub(crate) ca: PathBuf,
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn openssl(args: &[&str]) {
    let request = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"];
    let made = Command::new("openssl").args(request).args(args).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}
