//! The controller: twice a second it looks, plans, and acts.
//!
//! Every look begins from the files, the supervisor and the proxy; nothing is taken from memory that they can tell. An
//! error ends the look, is logged, and the next look begins anew.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use taskrun_engine::redact::Redactor;
use taskrun_engine::secret::SecretStore;

use super::memory::Memory;
use super::metrics::{self, Figures};
use super::observe::Observer;
use super::plan::{Action, Plan, Scene, Seen, plan, slots};
use super::proxy::Proxy;
use super::replica::Replica;
use super::setup::{self, Setup, allocate};
use super::spec::{InferenceService, Replicas};
use super::status::Status;
use super::store::{Store, Wanted};
use super::{conditions, sweep};
use crate::platform::Local;
use crate::tools::haproxy::{Backend, ServerStat, Slot};
use crate::tools::{exporter, ports};

/// The hidden verb that the controller is started by.
pub const VERB: &str = "serving-controller";

/// How long a look takes, with the pause after it.
const PERIOD: Duration = Duration::from_millis(500);

/// How often a replica may have more requests at once than it is meant to have, before they wait in the proxy: what a
/// burst brings is spread over the replicas that come for it.
const SLACK: f64 = 4.0;

type Shared = Arc<Mutex<BTreeMap<String, Figures>>>;

/// The controller.
struct Controller {
    setup: Setup,
    store: Store,
    proxy: Proxy,
    observer: Observer,
    memories: BTreeMap<String, Memory>,
    figures: Shared,
    begin: Instant,
}

/// A model in one look.
struct Model {
    name: String,
    wanted: Option<Wanted>,
    before: Option<Status>,
    seen: Vec<Seen>,
    desired: u32,
    concurrency: f64,
    plan: Plan,
}

/// What goes wrong in a look.
type Error = Box<dyn std::error::Error + Send + Sync>;

/// Runs the controller with the [`Setup`] in `file`: what [`VERB`] does. Returns only if it cannot begin.
pub fn run(file: &Path) -> ExitCode {
    exporter::main(async {
        let setup = setup::read(file)?;
        let port = setup.machine.ports.inference_controller;
        let figures = Shared::default();
        let controller = Controller::new(setup, Arc::clone(&figures)).map_err(std::io::Error::other)?;
        tokio::spawn(controller.work());
        exporter::serve(port, move || {
            let registry = metrics::registry(&figures.lock().unwrap_or_else(PoisonError::into_inner));
            async { Ok(registry) }
        })
        .await
    })
}

impl Controller {
    fn new(setup: Setup, figures: Shared) -> Result<Self, Error> {
        let redactor = Redactor::new();
        SecretStore::open(&setup.secrets, redactor.clone())?;
        let local = Local::new(&setup.machine).map_err(|failure| failure.to_string())?;
        Ok(Self {
            store: Store::new(&setup.folder()),
            proxy: Proxy::new(&setup),
            observer: Observer::new(local, redactor)?,
            memories: BTreeMap::new(),
            figures,
            begin: Instant::now(),
            setup,
        })
    }

    async fn work(mut self) {
        let mut last = String::new();
        loop {
            let said = match self.look().await {
                Ok(()) => String::new(),
                Err(error) => error.to_string(),
            };
            // The same trouble is told once.
            if said != last && !said.is_empty() {
                log(&said);
            }
            last = said;
            tokio::time::sleep(PERIOD).await;
        }
    }

    /// Looks at everything once, and does what is to be done.
    async fn look(&mut self) -> Result<(), Error> {
        let stats = self.proxy.stats().await?;
        let supervisor = self.observer.local.supervisor().clone();
        let processes = supervisor.processes().await?;
        let mut replicas = self.observer.replicas();
        let mut names = self.store.names()?;
        names.extend(replicas.keys().cloned());
        names.sort();
        names.dedup();
        let mut held = gpus(replicas.values().flatten());
        let (mut models, mut trouble) = (Vec::new(), None);
        for name in names {
            let own = replicas.remove(&name).unwrap_or_default();
            let before = self.store.status(&name)?;
            let wanted = match self.store.wanted(&name) {
                Ok(wanted) => wanted,
                // A file that cannot be read is one model's trouble, which stays as it is.
                Err(error) => {
                    trouble = Some(error);
                    before.clone().map(|Status { generation, service, .. }| Wanted { generation, service })
                }
            };
            models.push(self.model(name, wanted, before, own, &processes, &stats, &held).await);
        }
        let backends = models.iter().filter(|model| model.wanted.is_some() || !model.seen.is_empty()).map(backend);
        let proxied = self.proxy.bring_to(backends.collect(), &stats, &supervisor).await;
        for model in &models {
            self.tell(model)?;
        }
        proxied?;
        for model in &models {
            self.act(model, &mut held).await?;
        }
        self.publish(&models);
        trouble.map_or(Ok(()), |error| Err(error.into()))
    }

    /// What is known of a model, and what to do about it.
    #[expect(clippy::too_many_arguments, reason = "each is a different thing that was looked at")]
    async fn model(
        &mut self,
        name: String,
        wanted: Option<Wanted>,
        before: Option<Status>,
        replicas: Vec<Replica>,
        processes: &[crate::tools::supervisor::ProcessInfo],
        stats: &[ServerStat],
        held: &[String],
    ) -> Model {
        let memory = self.memories.entry(name.clone()).or_default();
        let timeout = wanted.as_ref().map_or(300, |wanted| wanted.service.startup_timeout_s);
        let timeout = Duration::from_secs(timeout.into());
        let seen = self.observer.look(replicas, processes, stats, timeout, memory).await;
        let concurrency = f64::from(concurrency(&name, stats));
        let mut desired = 0;
        if let Some(Wanted { service, .. }) = &wanted {
            let bounds = Replicas { min: service.replicas.min, max: service.replicas.max.max(service.replicas.min) };
            let current = memory.desired.or_else(|| Some(before.as_ref()?.desired)).unwrap_or(bounds.min);
            let now = self.begin.elapsed();
            desired = memory.autoscaler.desired(now, concurrency, current, bounds, service.autoscaling);
            memory.wants(desired);
        }
        let room = wanted.as_ref().map_or(0, |wanted| room(&self.setup, held, wanted.service.resources.gpu_slots));
        let may_start = memory.may_start(Instant::now());
        let (wanted_now, before_now) = (wanted.as_ref(), before.as_ref());
        let scene = Scene { wanted: wanted_now, before: before_now, seen: &seen, desired, room, may_start };
        let plan = plan(&scene);
        Model { concurrency: memory.autoscaler.concurrency(), name, wanted, before, seen, desired, plan }
    }

    /// Writes the state of a model, if it has changed.
    fn tell(&self, model: &Model) -> Result<(), Error> {
        let (Some(wanted), before) = (&model.wanted, model.before.as_ref()) else {
            return match &model.before {
                Some(before) if model.seen.is_empty() => {
                    sweep::model(&self.setup, &self.observer.local, &model.name)?;
                    self.store.forget(&before.service.name).map_err(Into::into)
                }
                Some(before) => {
                    let status = conditions::leaving(before, &model.seen);
                    if status != *before { self.store.tell(&status).map_err(Into::into) } else { Ok(()) }
                }
                None => Ok(()),
            };
        };
        let url = format!("{}/models/{}", self.setup.inference_url(), model.name);
        let cold_start = self.memories.get(&model.name).and_then(|memory| memory.cold_start_s);
        let status = conditions::status(&model.scene(), wanted, &model.plan, url, cold_start, Timestamp::now());
        if before == Some(&status) {
            return Ok(());
        }
        Ok(self.store.tell(&status)?)
    }

    /// Does what is planned for the services of a model.
    async fn act(&mut self, model: &Model, held: &mut Vec<String>) -> Result<(), Error> {
        let local = self.observer.local.clone();
        let mut own: Vec<Replica> = model.seen.iter().map(|seen| seen.replica.clone()).collect();
        for action in &model.plan.actions {
            match action {
                Action::Make(revision) => {
                    let scene = model.scene();
                    let Some(service) = conditions::description(&scene, &model.plan, *revision) else { continue };
                    let Some(replica) = self.replica(model, service, *revision, &own, held)? else { continue };
                    log(&format!("starting {}", replica.name()));
                    let described = replica.service(&self.setup, service);
                    local.launch(&self.setup.secrets, &described).await.map_err(|failure| failure.to_string())?;
                    held.extend(replica.gpus.iter().cloned());
                    own.push(replica);
                }
                Action::Start(name) => local.supervisor().start(name).await?,
                Action::Stop(name) => {
                    log(&format!("stopping {name}"));
                    local.supervisor().stop(name).await?;
                }
                Action::Forget(name) => {
                    local.forget(name).await.map_err(|failure| failure.to_string())?;
                    own.retain(|replica| replica.name() != *name);
                    let failed = |seen: &&Seen| matches!(seen.phase, super::plan::Phase::Failed(..));
                    let failed = model.seen.iter().filter(failed).any(|seen| seen.replica.name() == *name);
                    if failed && let Some(memory) = self.memories.get_mut(&model.name) {
                        memory.failed(Instant::now());
                    }
                    sweep::revisions(&self.setup, &model.name, &own)?;
                }
            }
        }
        Ok(())
    }

    /// A replica that is not made yet; nothing where the proxy has no slot free for it, or no GPU is.
    fn replica(
        &self,
        model: &Model,
        service: &InferenceService,
        revision: u32,
        own: &[Replica],
        held: &[String],
    ) -> Result<Option<Replica>, Error> {
        let count = slots(model.wanted.as_ref().map(|wanted| &wanted.service), &model.seen);
        let slot = (0..count).find(|slot| own.iter().all(|replica| replica.slot != *slot));
        let gpus = allocate(&self.setup.gpu_slots(), held, service.resources.gpu_slots);
        let (Some(slot), Some(gpus)) = (slot, gpus) else { return Ok(None) };
        let last = own.iter().filter(|replica| replica.revision == revision).map(|replica| replica.number).max();
        Ok(Some(Replica {
            model: model.name.clone(),
            revision,
            number: last.unwrap_or_default() + 1,
            slot,
            port: ports::any_free()?,
            made: Timestamp::now(),
            gpus,
        }))
    }

    /// Lets Prometheus see what was decided.
    fn publish(&mut self, models: &[Model]) {
        let there = |name: &String| models.iter().any(|model| model.name == *name && model.wanted.is_some());
        self.memories.retain(|name, _| there(name));
        let figures = models.iter().filter_map(|model| {
            let (wanted, memory) = (model.wanted.as_ref()?, self.memories.get(&model.name)?);
            let status = model.before.as_ref();
            let figures = Figures {
                replicas: status.map_or(0, |status| status.ready),
                desired: model.desired,
                max: wanted.service.replicas.max,
                concurrency: model.concurrency,
                ready: status.is_some_and(|status| status.generation == wanted.generation && status.is_ready()),
                scaled_up: memory.scaled_up,
                scaled_down: memory.scaled_down,
                cold_start_s: memory.cold_start_s.or_else(|| status?.cold_start_s),
            };
            Some((model.name.clone(), figures))
        });
        *self.figures.lock().unwrap_or_else(PoisonError::into_inner) = figures.collect();
    }
}

impl Model {
    fn scene(&self) -> Scene<'_> {
        Scene {
            wanted: self.wanted.as_ref(),
            before: self.before.as_ref(),
            seen: &self.seen,
            desired: self.desired,
            // What is told does not depend on these.
            room: 0,
            may_start: false,
        }
    }
}

fn backend(model: &Model) -> (String, Backend) {
    let service = model.wanted.as_ref().map(|wanted| &wanted.service).or(model.before.as_ref().map(|one| &one.service));
    let target = service.map_or(1.0, |service| service.autoscaling.target_concurrency);
    // A float too large for a u32 becomes the largest one.
    let most_at_once = (target * SLACK).ceil().clamp(1.0, 10_000.0) as u32;
    let count = slots(model.wanted.as_ref().map(|wanted| &wanted.service), &model.seen);
    let slots = (0..count).map(|number| model.plan.slots.get(&number).copied().unwrap_or(Slot::Off)).collect();
    (model.name.clone(), Backend { most_at_once, slots })
}

/// The requests of a model, under way and waiting.
fn concurrency(model: &str, stats: &[ServerStat]) -> u32 {
    let own = stats.iter().filter(|stat| stat.model == model);
    own.map(|stat| if stat.slot.is_some() { stat.sessions + stat.queued } else { stat.queued }).sum()
}

fn gpus<'a>(replicas: impl Iterator<Item = &'a Replica>) -> Vec<String> {
    replicas.flat_map(|replica| replica.gpus.iter().cloned()).collect()
}

/// How many more replicas the free GPU slots are enough for.
fn room(setup: &Setup, held: &[String], each: u32) -> u32 {
    match each {
        0 => u32::MAX,
        each => (setup.gpu_slots().len().saturating_sub(held.len()) / each as usize) as u32,
    }
}

/// A line in the controller's own log.
fn log(text: &str) {
    // Nobody is left to tell when that fails.
    let _ = writeln!(std::io::stderr(), "{} {text}", Timestamp::now().strftime("%FT%TZ"));
}
