//! What the engine itself costs a task: tasks in process that do nothing, in one wide graph, so that many records share
//! a sync, with a journal that is as durable as in a real run.
//!
//! `BENCH_TASKS=1000,10000,100000` chooses the sizes (10000 and 100000 by default), `BENCH_DIR` the folder, and so the
//! disk, of the journal (by default that of temporary files).

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use taskrun_engine::checkpoint::{Checkpoint, Record, RunStarted};
use taskrun_engine::context::{Context, Dirs, View};
use taskrun_engine::event::Verb;
use taskrun_engine::graph::{Graph, Selection};
use taskrun_engine::journal::{Identity, Lock, RealDisk, Writer};
use taskrun_engine::outcome::Failure;
use taskrun_engine::plan::{Wanted, plan};
use taskrun_engine::process::{Cancel, ProcessId};
use taskrun_engine::redact::Redactor;
use taskrun_engine::registry::Registry;
use taskrun_engine::run::events::EventSink;
use taskrun_engine::run::{AppendError, Options, Run, drive};
use taskrun_engine::secret::SecretStore;
use taskrun_engine::task::{Applied, Earlier, Made, Output, Probe, Task, Traces};
use taskrun_engine::world::World;

const BOUND: Duration = Duration::from_micros(100);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // `cargo test --benches` calls us too, and is not meant.
    if !std::env::args().any(|arg| arg == "--bench") {
        return Ok(());
    }
    let mut out = std::io::stdout();
    let sizes = std::env::var("BENCH_TASKS").unwrap_or_else(|_| "10000,100000".to_owned());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    for size in sizes.split(',').filter_map(|size| size.trim().parse::<u32>().ok()) {
        let folder = match std::env::var_os("BENCH_DIR") {
            Some(dir) => tempfile::tempdir_in(dir)?,
            None => tempfile::tempdir()?,
        };
        let (planned, run, syncs) = runtime.block_on(measure(folder.path(), size))?;
        let (plan, each) = (planned / size, run / size);
        let verdict = if each <= BOUND { "met" } else { "missed" };
        writeln!(
            out,
            "{:<28} {plan:>8.1?} to plan, {each:>8.1?} to run a task ({syncs} syncs)  <= {BOUND:?}: {verdict}",
            format!("in process, {size} tasks"),
        )?;
    }
    Ok(())
}

/// How long the plan and the run of `size` tasks take, and how many syncs the run made.
async fn measure(folder: &Path, size: u32) -> Result<(Duration, Duration, u64), Box<dyn std::error::Error>> {
    let mut yaml = String::from("version: 1\ntasks:\n");
    (0..size).for_each(|task| yaml.push_str(&format!("  t{task}: {{uses: nothing}}\n")));
    let graph = Graph::from_yaml("graph.yaml", &yaml).map_err(|errors| format!("{errors:?}"))?;
    let mut registry = Registry::new();
    registry.add("nothing", |_| Ok(Nothing));
    let bound = registry.bind(&graph).map_err(|errors| format!("{errors:?}"))?;
    let redactor = Redactor::new();
    let secrets = Arc::new(SecretStore::open(folder.join("secrets.json"), redactor.clone())?);
    let dirs = Dirs { state: folder.to_owned(), graph: folder.to_owned() };
    let world = Arc::new(World::new(graph, bound, dirs, secrets, redactor, "bench".into(), false));

    let identity = Identity { environment: "bench".into(), platform: "none".into() };
    let lock = Arc::new(Lock::acquire(folder, "bench")?);
    let (mut writer, _) = Writer::open(lock, Arc::new(RealDisk), &identity, |_, _| Ok(()))?;
    let mut checkpoint = Checkpoint::default();
    let started = Record::RunStarted(RunStarted {
        run: 1,
        at: jiff::Timestamp::now(),
        verb: Verb::Run,
        request: serde_json::value::to_raw_value("all")?,
        driver: ProcessId::current()?,
    });
    writer.append(&serde_json::to_vec(&[&started])?)?;
    checkpoint.apply(started)?;

    let begin = Instant::now();
    let wanted = Wanted::from(Selection::default().resolve(&world.graph).map_err(|error| format!("{error:?}"))?);
    let cancel = Cancel::new();
    let plan = plan(&world, &checkpoint, &wanted, &cancel).await?;
    let planned = begin.elapsed();

    let syncs = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counted = Arc::clone(&syncs);
    let append = Box::new(move |payload: &[u8]| {
        counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        writer.append(payload).map(|_| ()).map_err(|error| AppendError(Box::new(error)))
    });
    let (events, stream) = EventSink::new(1);
    let reader = std::thread::spawn(move || while stream.next(Duration::from_secs(60)).is_ok() {});
    let options = Options { jobs: 64, keep_going: false, disruptive: false };
    let begin = Instant::now();
    let (_, summary) = drive(Run { world, checkpoint, wanted, plan, options, append, events, cancel }).await;
    let run = begin.elapsed();
    assert_eq!(summary.counts.succeeded, size as usize);
    reader.join().map_err(|_| "the reader of the events panicked")?;
    Ok((planned, run, syncs.load(std::sync::atomic::Ordering::Relaxed)))
}

struct Nothing;

#[derive(Debug, Serialize, Deserialize)]
struct Product;

impl Output for Product {
    const KIND: &'static str = "nothing";
}

#[async_trait]
impl Task for Nothing {
    type Settings = ();
    type Output = Product;

    fn settings(&self) -> &() {
        &()
    }

    async fn probe(&self, _view: &View, _made: &Made<Self>) -> Probe {
        Probe::Holds
    }

    async fn apply(&self, _context: &Context, _earlier: &Earlier<Self>) -> Result<Applied<Product>, Failure> {
        Ok(Applied::complete(Product))
    }

    async fn destroy(&self, _context: &Context, _made: &Traces<Self>) -> Result<(), Failure> {
        Ok(())
    }
}
