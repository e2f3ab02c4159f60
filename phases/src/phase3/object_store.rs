//! CLOUD-3.1: the object store, MinIO, with its buckets and a key of its own for each application.
//!
//! Proof: an object, also one of 64 MiB in parts, comes back with the same SHA-256 and survives a restart; an
//! application's key opens its buckets only; a foreign key is refused.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use rand::Rng;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use taskrun_engine::context::{Context, View};
use taskrun_engine::outcome::{Failure, Persistence};
use taskrun_engine::process::Command;
use taskrun_engine::secret::{Policy, Secret, SecretRef};
use taskrun_engine::task::{Applied, Drift, Earlier, Made, Probe, Proof, Read, Task, Traces};

use super::external_object_store::ObjectStoreSettings;
use crate::config::{Config, ObjectStoreConfig};
use crate::outputs::{AccessKey, BaseRuntime, Machine, ObjectStore, Platform};
use crate::platform::{Health, Local, Login, Metrics, SecretFiles, Service};
use crate::tools::files;
use crate::tools::s3::{S3, S3Error};

/// The service's name.
const SERVICE: &str = "minio";

/// MinIO signs for this region unless it is told another one.
const REGION: &str = "us-east-1";

/// The id of the root key, which no application uses.
const ROOT: &str = "taskrun-root";

/// The secrets of the server itself: the root key, and the key that users and policies are encrypted with on the disk.
const ROOT_SECRET: &str = "object-store-root";
const KMS_SECRET: &str = "object-store-kms";

/// How long the admin client may take.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(60);

/// The size of the object of the proof, and of its parts.
const LARGE: usize = 64 << 20;
const PART: usize = 16 << 20;

/// The task.
pub struct ObjectStoreTask {
    all: ObjectStoreSettings,
    settings: ObjectStoreConfig,
}

/// All that a verb works with.
struct Place {
    machine: Machine,
    runtime: BaseRuntime,
    folder: PathBuf,
    endpoint: String,
    console: String,
}

impl Place {
    fn new(view: &View) -> Result<Self, Failure> {
        let machine: Machine = view.output()?;
        let runtime = view.output()?;
        let endpoint = format!("http://127.0.0.1:{}", machine.ports.object_store);
        let console = format!("http://127.0.0.1:{}", machine.ports.object_store_console);
        Ok(Self { folder: machine.service_dir(SERVICE), machine, runtime, endpoint, console })
    }
}

impl ObjectStoreTask {
    /// The task for a configuration.
    pub fn new(config: &Config) -> Self {
        let settings = config.object_store.clone();
        Self { all: ObjectStoreSettings::Embedded(settings.clone()), settings }
    }

    fn service(&self, place: &Place, root: SecretRef, kms: SecretRef) -> Service {
        let local = |port: u16| format!("127.0.0.1:{port}");
        let ports = place.machine.ports;
        let command = [
            &place.runtime.minio.path.display().to_string(),
            "server",
            "--address",
            &local(ports.object_store),
            "--console-address",
            &local(ports.object_store_console),
            "--certs-dir",
            &place.folder.join("certs").display().to_string(),
            &place.folder.join("data").display().to_string(),
        ];
        let env = [
            ("MINIO_ROOT_USER", ROOT),
            ("MINIO_UPDATE", "off"),
            ("MINIO_CALLHOME_ENABLE", "off"),
            ("MINIO_PROMETHEUS_AUTH_TYPE", "public"),
        ];
        // Without this key MinIO keeps the keys of applications in clear.
        let kms = crate::platform::SecretEnv { secret: kms, template: Some("taskrun:{}".to_owned()) };
        let login = Some(Login { user: ROOT.to_owned(), secret: ROOT_SECRET.to_owned() });
        Service {
            name: SERVICE.to_owned(),
            command: command.map(str::to_owned).to_vec(),
            env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            secret_env: [("MINIO_ROOT_PASSWORD".to_owned(), root.into()), ("MINIO_KMS_SECRET_KEY".to_owned(), kms)]
                .into(),
            secret_files: SecretFiles::default(),
            dir: place.folder.clone(),
            endpoints: [("s3".to_owned(), place.endpoint.clone()), ("console".to_owned(), place.console.clone())]
                .into(),
            health: Health::Http(format!("{}/minio/health/ready", place.endpoint)),
            metrics: vec![Metrics::of_port(SERVICE, ports.object_store).at("/minio/v2/metrics/cluster")],
            login,
            stop_signal: "TERM".to_owned(),
            stop_seconds: 30,
        }
    }

    fn known_service(&self, view: &View, place: &Place) -> Result<Service, Failure> {
        let reference = |name: &str| view.secrets().present(name).map(|(reference, _)| reference);
        match (reference(ROOT_SECRET), reference(KMS_SECRET)) {
            (Some(root), Some(kms)) => Ok(self.service(place, root, kms)),
            _ => Err(Failure::permanent("find the root key of the object store among the secrets")),
        }
    }

    async fn ensure_users(
        &self,
        context: &Context,
        place: &Place,
        stale: Vec<String>,
    ) -> Result<BTreeMap<String, AccessKey>, Failure> {
        let mut keys = BTreeMap::new();
        let mut users = Vec::new();
        for (application, buckets) in &self.settings.applications {
            let (secret, value) = generated(context, &secret_name(application))?;
            let id = format!("app-{application}");
            users.push(json!({"id": id, "secret": value.expose(), "policy": id, "buckets": buckets}));
            keys.insert(application.clone(), AccessKey { id, secret, buckets: buckets.clone() });
        }
        let request = json!({"users": users, "stale": stale});
        admin(context, place, request).await?;
        Ok(keys)
    }

    async fn prove_keys(&self, view: &View, output: &ObjectStore) -> Result<(), Failure> {
        prove_foreign_key(output).await?;
        for (application, key) in &output.keys {
            let secret = view.secret(&key.secret.name.to_string())?;
            let s3 = output.client(&key.id, &secret).map_err(failure)?;
            for bucket in &output.buckets {
                let listed = s3.list(bucket, "taskrun-proof/").await;
                if key.buckets.contains(bucket) {
                    listed.map_err(failure)?;
                } else {
                    expect_forbidden(listed, &format!("the key of {application} for {bucket}"))?;
                }
            }
        }
        Ok(())
    }

    async fn prove_restart(&self, view: &View, output: &ObjectStore) -> Result<(), Failure> {
        let (place, bucket) = (Place::new(view)?, first_bucket(output)?);
        let (s3, key, body) = (client(view, output, bucket)?, "taskrun-proof/restart", random_bytes(1 << 20));
        s3.put(bucket, key, body.clone()).await.map_err(failure)?;
        Local::new(&place.machine)?.restart(view, &self.known_service(view, &place)?).await?;
        let read = s3.get(bucket, key).await.map_err(failure)?;
        s3.delete(bucket, key).await.map_err(failure)?;
        if read == body { Ok(()) } else { Err(Failure::permanent("find an object as it was before a restart")) }
    }
}

#[async_trait]
impl Task for ObjectStoreTask {
    type Settings = ObjectStoreSettings;
    type Output = ObjectStore;

    fn settings(&self) -> &ObjectStoreSettings {
        &self.all
    }

    fn reads(&self) -> Vec<Read> {
        vec![Read::of::<Machine>(), Read::of::<BaseRuntime>(), Read::of::<Platform>()]
    }

    fn secrets(&self) -> Vec<String> {
        let own = [ROOT_SECRET, KMS_SECRET].map(str::to_owned);
        own.into_iter().chain(self.settings.applications.keys().map(|name| secret_name(name))).collect()
    }

    fn assets(&self) -> Vec<(&'static str, &'static [u8])> {
        vec![("minio_admin.py", ADMIN.as_bytes())]
    }

    async fn probe(&self, view: &View, made: &Made<Self>) -> Probe {
        let looked = async {
            let place = Place::new(view)?;
            let service = self.known_service(view, &place)?;
            Ok::<_, Failure>((Local::new(&place.machine)?, service))
        };
        let (local, service) = match looked.await {
            Ok(found) => found,
            Err(failure) => return Probe::CannotTell(failure.to_string()),
        };
        match local.probe(&service).await {
            Probe::Holds => look_inside(view, &made.output).await,
            other => other,
        }
    }

    async fn apply(&self, context: &Context, earlier: &Earlier<Self>) -> Result<Applied<ObjectStore>, Failure> {
        let place = Place::new(context)?;
        let user = &place.machine.service_user;
        for folder in [place.folder.clone(), place.folder.join("data"), place.folder.join("certs")] {
            files::service_folder(&folder, user, 0o711)?;
        }
        let (root, root_secret) = generated(context, ROOT_SECRET)?;
        let kms = kms_key(context)?;
        let service = self.service(&place, root, kms);
        Local::new(&place.machine)?.ensure(context, &service).await?;
        context.safe_point()?;
        let s3 = S3::new(&place.endpoint, REGION, ROOT, root_secret.expose()).map_err(failure)?;
        let before = earlier.made.as_ref().filter(|made| matches!(made.settings, ObjectStoreSettings::Embedded(_)));
        let before = before.map(|made| &made.output);
        for bucket in &self.settings.buckets {
            if s3.has_bucket(bucket).await.map_err(failure)? {
                continue;
            }
            if before.is_some_and(|before| before.buckets.contains(bucket)) && !context.accepts_data_loss() {
                return Err(bucket_gone(bucket));
            }
            s3.create_bucket(bucket).await.map_err(failure)?;
        }
        context.safe_point()?;
        let stale = before.iter().flat_map(|before| before.keys.iter());
        let stale = stale.filter(|(application, _)| !self.settings.applications.contains_key(*application));
        let keys = self.ensure_users(context, &place, stale.map(|(_, key)| key.id.clone()).collect()).await?;
        Ok(Applied::complete(ObjectStore {
            endpoint: place.endpoint,
            console: Some(place.console),
            region: REGION.to_owned(),
            buckets: self.settings.buckets.clone(),
            keys,
            ca: None,
        }))
    }

    fn proofs(&self) -> &'static [Proof] {
        const PROOFS: &[Proof] = &[
            Proof::safe("objects come back with the same SHA-256"),
            Proof::safe("each key opens its buckets only"),
            Proof::disruptive("an object survives a restart"),
        ];
        PROOFS
    }

    async fn prove(&self, proof: &str, view: &View, output: &ObjectStore) -> Result<(), Failure> {
        match proof {
            "objects come back with the same SHA-256" => prove_round_trip(view, output).await,
            "each key opens its buckets only" => self.prove_keys(view, output).await,
            "an object survives a restart" => self.prove_restart(view, output).await,
            _ => Err(Failure::permanent(format!("no proof is called `{proof}`"))),
        }
    }

    async fn destroy(&self, context: &Context, made: &Traces<Self>) -> Result<(), Failure> {
        for settings in &made.settings {
            if let ObjectStoreSettings::Embedded(settings) = settings {
                remove(context, settings).await?;
            }
        }
        Ok(())
    }
}

/// A client with the key of an application that may use `bucket`.
fn client(view: &View, output: &ObjectStore, bucket: &str) -> Result<S3, Failure> {
    let key = output.keys.values().find(|key| key.buckets.iter().any(|own| own == bucket));
    let key = key.ok_or_else(|| Failure::permanent(format!("find a key for the bucket {bucket}")))?;
    let secret = view.secret(&key.secret.name.to_string())?;
    output.client(&key.id, &secret).map_err(failure)
}

/// Writes objects, reads them back and deletes them.
pub(super) async fn prove_round_trip(view: &View, output: &ObjectStore) -> Result<(), Failure> {
    let bucket = first_bucket(output)?;
    let s3 = client(view, output, bucket)?;
    let body = random_bytes(LARGE);
    for (key, in_parts) in [("taskrun-proof/small", false), ("taskrun-proof/large", true)] {
        let body = if in_parts { &body[..] } else { &body[..1024] };
        let written = match in_parts {
            true => s3.put_in_parts(bucket, key, body, PART).await,
            false => s3.put(bucket, key, body.to_vec()).await,
        };
        let read = match written {
            Ok(()) => s3.get(bucket, key).await,
            Err(error) => Err(error),
        };
        s3.delete(bucket, key).await.map_err(failure)?;
        if Sha256::digest(read.map_err(failure)?) != Sha256::digest(body) {
            return Err(Failure::permanent(format!("read {bucket}/{key} back with the same SHA-256")));
        }
    }
    Ok(())
}

/// Tries a key that nobody has.
pub(super) async fn prove_foreign_key(output: &ObjectStore) -> Result<(), Failure> {
    let foreign = output.client("nobody", &Secret::new("not-a-secret-key".to_owned())).map_err(failure)?;
    expect_forbidden(foreign.list(first_bucket(output)?, "").await, "a foreign key")
}

/// The failure of a bucket that was there and is not any more.
pub(super) fn bucket_gone(bucket: &str) -> Failure {
    Failure::permanent(format!("find the bucket {bucket}: it is gone"))
        .with_hint("restore it, or make it anew, empty: taskrun run --accept-data-loss")
}

/// Stops the server, if there is one; its data stays.
///
/// # Errors
/// It does not end.
pub(super) async fn stop(context: &Context) -> Result<(), Failure> {
    let data = context.state_dir().join("services").join(SERVICE).join("data");
    if data.is_dir() {
        context.say(format!("the data of this environment's own MinIO stays in {}", data.display()));
    }
    Local::new(&context.output()?)?.remove(context, SERVICE).await
}

/// Removes the server with its data.
///
/// # Errors
/// It does not end, or the disk.
pub(super) async fn remove(context: &Context, settings: &ObjectStoreConfig) -> Result<(), Failure> {
    if let Ok(machine) = context.output::<Machine>() {
        Local::new(&machine)?.remove(context, SERVICE).await?;
    }
    files::remove(&context.state_dir().join("services").join(SERVICE))?;
    files::remove(&context.state_dir().join("services").join("minio_admin.py"))?;
    // With the data goes what opened it.
    let applications = settings.applications.keys().map(|name| secret_name(name));
    for name in [ROOT_SECRET, KMS_SECRET].map(str::to_owned).into_iter().chain(applications) {
        context
            .secrets()
            .remove(&name)
            .map_err(|error| Failure::caused(Persistence::Permanent, format!("forget the secret {name}"), &error))?;
    }
    Ok(())
}

/// Whether the buckets are there and the keys open them, seen with the keys themselves.
pub(super) async fn look_inside(view: &View, made: &ObjectStore) -> Probe {
    for bucket in &made.buckets {
        let looked = match client(view, made, bucket) {
            Ok(s3) => s3.has_bucket(bucket).await,
            // A bucket that no application uses is looked at by nobody but root.
            Err(_) => continue,
        };
        match looked {
            Ok(true) => {}
            Ok(false) => return Probe::DataLost(format!("there is no bucket {bucket}")),
            Err(error) if error.is_forbidden() => {
                return Probe::Drifted(vec![Drift::new(format!("key for {bucket}"), "accepted", "refused")]);
            }
            Err(error) => return Probe::CannotTell(error.to_string()),
        }
    }
    Probe::Holds
}

/// The client of MinIO's admin API.
const ADMIN: &str = include_str!("../../assets/minio_admin.py");

/// Asks the admin API; `request` has the users and the ones that are stale.
async fn admin(context: &Context, place: &Place, mut request: Value) -> Result<(), Failure> {
    let root = context.secret(ROOT_SECRET)?;
    request["endpoint"] = json!(place.endpoint.trim_start_matches("http://"));
    request["region"] = json!(REGION);
    request["root"] = json!({"id": ROOT, "secret": root.expose()});
    let script = context.state_dir().join("services").join("minio_admin.py");
    fs::write(&script, ADMIN).map_err(|error| files::failure("write", &script, &error))?;
    let command = Command::new(BaseRuntime::program(&place.runtime.platform_env, "python"))
        .arg("-I")
        .arg(script)
        .stdin(request.to_string())
        .dir(context.state_dir())
        .timeout(ADMIN_TIMEOUT);
    context.command(command).await.map(|_| ())
}

fn secret_name(application: &str) -> String {
    format!("object-store-{application}")
}

fn generated(context: &Context, name: &str) -> Result<(SecretRef, Secret), Failure> {
    let policy = Policy::letters_and_digits(40).ok_or_else(|| Failure::permanent("make a key"))?;
    context
        .secrets()
        .get_or_generate(name, &policy)
        .map_err(|error| Failure::caused(Persistence::Permanent, format!("make the secret {name}"), &error))
}

/// MinIO wants 32 bytes in base64. It cannot be rotated: what is encrypted with it would be lost.
fn kms_key(context: &Context) -> Result<SecretRef, Failure> {
    use base64::Engine as _;
    if let Some((reference, _)) = context.secrets().present(KMS_SECRET) {
        return Ok(reference);
    }
    let key = base64::engine::general_purpose::STANDARD.encode(random_bytes(32));
    context
        .secrets()
        .set(KMS_SECRET, Secret::new(key))
        .map_err(|error| Failure::caused(Persistence::Permanent, "make the encryption key of the object store", &error))
}

fn random_bytes(count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    rand::rng().fill_bytes(&mut bytes);
    bytes
}

fn first_bucket(output: &ObjectStore) -> Result<&str, Failure> {
    let used = |bucket: &&String| output.keys.values().any(|key| key.buckets.contains(bucket));
    let bucket = output.buckets.iter().find(used);
    bucket.map(String::as_str).ok_or_else(|| Failure::permanent("find a bucket that an application may use"))
}

fn expect_forbidden<T>(answer: Result<T, S3Error>, who: &str) -> Result<(), Failure> {
    match answer {
        Err(error) if error.is_forbidden() => Ok(()),
        Err(error) => Err(failure(error)),
        Ok(_) => Err(Failure::permanent(format!("see {who} refused: it was taken"))),
    }
}

/// What the object store says, as the error of a task.
pub(super) fn failure(error: S3Error) -> Failure {
    let persistence = if error.is_transient() { Persistence::Transient } else { Persistence::Permanent };
    Failure::caused(persistence, "work with the object store", &error)
}
