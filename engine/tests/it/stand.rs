//! A graph in a folder, driven in process, with a journal in memory that may fail.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use taskrun_engine::checkpoint::{Checkpoint, Record, RunStarted, Status};
use taskrun_engine::context::{Context, Dirs, View};
use taskrun_engine::event::Verb;
use taskrun_engine::graph::{Graph, Selection};
use taskrun_engine::outcome::Failure;
use taskrun_engine::plan::{Plan, Wanted, plan};
use taskrun_engine::process::{Cancel, ProcessId};
use taskrun_engine::redact::Redactor;
use taskrun_engine::registry::Registry;
use taskrun_engine::run::events::EventSink;
use taskrun_engine::run::{AppendError, Options, Run, Summary, drive};
use taskrun_engine::secret::SecretStore;
use taskrun_engine::task::{Applied, Earlier, Made, Output, Probe, Read, Task, Traces};
use taskrun_engine::world::World;

/// When the journal fails, and whether the record is durable all the same.
#[derive(Debug, Clone, Copy)]
pub(crate) struct JournalFault {
    /// Counts the batches of the run, from 0; the start of the run is none of them.
    pub(crate) batch: usize,
    /// The record reached the disk although the program was told otherwise, as when it is killed after the write.
    pub(crate) durable: bool,
}

/// What the tasks of a stand did and shall do.
#[derive(Debug, Default)]
pub(crate) struct Script {
    /// How often each task and step took effect, by its name.
    pub(crate) effects: HashMap<String, usize>,
    /// How many more attempts of each task fail, and whether transiently.
    pub(crate) failures: HashMap<String, (u32, bool)>,
    /// Which tasks run now.
    pub(crate) running: Vec<String>,
    /// The most that ran at once.
    pub(crate) most: usize,
    /// The tasks in the order in which they began and ended.
    pub(crate) order: Vec<(String, Edge)>,
}

/// The two ends of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Edge {
    Begin,
    End,
}

pub(crate) type Shared = Arc<Mutex<Script>>;

/// A task that counts its effects.
struct Counting {
    id: String,
    script: Shared,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Counted {
    id: String,
}

impl Output for Counted {
    const KIND: &'static str = "counted";
}

#[async_trait]
impl Task for Counting {
    type Settings = String;
    type Output = Counted;

    fn settings(&self) -> &String {
        &self.id
    }

    async fn probe(&self, _view: &View, _made: &Made<Self>) -> Probe {
        Probe::Holds
    }

    async fn apply(&self, context: &Context, _earlier: &Earlier<Self>) -> Result<Applied<Counted>, Failure> {
        {
            let mut script = self.script.lock().unwrap();
            script.running.push(self.id.clone());
            script.most = script.most.max(script.running.len());
            script.order.push((self.id.clone(), Edge::Begin));
        }
        let worked = self.work(context).await;
        let mut script = self.script.lock().unwrap();
        script.running.retain(|id| *id != self.id);
        script.order.push((self.id.clone(), Edge::End));
        worked.map(|()| Applied::complete(Counted { id: self.id.clone() }))
    }

    async fn destroy(&self, _context: &Context, _made: &Traces<Self>) -> Result<(), Failure> {
        Ok(())
    }
}

impl Counting {
    async fn work(&self, context: &Context) -> Result<(), Failure> {
        for step in ["first", "second"] {
            let name = format!("{}/{step}", self.id);
            let effect = async {
                tokio::task::yield_now().await;
                *self.script.lock().unwrap().effects.entry(name).or_default() += 1;
                Ok(())
            };
            context.step(step, effect).await?;
        }
        let mut script = self.script.lock().unwrap();
        if let Some((left, transient)) = script.failures.get_mut(&self.id)
            && *left > 0
        {
            *left -= 1;
            return Err(if *transient { Failure::transient("it is busy") } else { Failure::permanent("it is broken") });
        }
        Ok(())
    }
}

/// A task that is skipped as long as there is no file `device`, and gives what the file says.
struct Device {
    id: String,
}

#[async_trait]
impl Task for Device {
    type Settings = String;
    type Output = Counted;

    fn settings(&self) -> &String {
        &self.id
    }

    async fn relevant(&self, view: &View) -> Result<(), String> {
        let there = view.graph_dir().join("device").exists();
        if there { Ok(()) } else { Err("there is no device".to_owned()) }
    }

    async fn probe(&self, _view: &View, _made: &Made<Self>) -> Probe {
        Probe::Holds
    }

    async fn apply(&self, _context: &Context, _earlier: &Earlier<Self>) -> Result<Applied<Counted>, Failure> {
        Ok(Applied::complete(Counted { id: self.id.clone() }))
    }

    async fn destroy(&self, _context: &Context, _made: &Traces<Self>) -> Result<(), Failure> {
        Ok(())
    }
}

/// A task that reads what a [`Device`] gives, if it gives anything, and counts how often it did and did not.
struct Reader {
    id: String,
    script: Shared,
}

#[async_trait]
impl Task for Reader {
    type Settings = String;
    type Output = Counted;

    fn settings(&self) -> &String {
        &self.id
    }

    fn reads(&self) -> Vec<Read> {
        vec![Read::of::<Counted>()]
    }

    async fn probe(&self, _view: &View, _made: &Made<Self>) -> Probe {
        Probe::Holds
    }

    async fn apply(&self, context: &Context, _earlier: &Earlier<Self>) -> Result<Applied<Counted>, Failure> {
        let read = match context.output_unless_skipped::<Counted>()? {
            Some(Counted { id }) => format!("with {id}"),
            None => "without".to_owned(),
        };
        *self.script.lock().unwrap().effects.entry(read).or_default() += 1;
        Ok(Applied::complete(Counted { id: self.id.clone() }))
    }

    async fn destroy(&self, _context: &Context, _made: &Traces<Self>) -> Result<(), Failure> {
        Ok(())
    }
}

/// A graph in a folder.
pub(crate) struct Stand {
    pub(crate) world: Arc<World>,
    pub(crate) checkpoint: Checkpoint,
    pub(crate) script: Shared,
    journal: Arc<Mutex<Vec<Vec<u8>>>>,
    run: u64,
}

impl Stand {
    /// A stand for a graph; nodes that are no commands are counting tasks.
    pub(crate) fn new(folder: &Path, yaml: &str) -> Self {
        let graph = Graph::from_yaml("graph.yaml", yaml).unwrap_or_else(|errors| panic!("{errors:?}\n{yaml}"));
        let script = Shared::default();
        let mut registry = Registry::new();
        let shared = Arc::clone(&script);
        registry
            .add("counting", move |instance| Ok(Counting { id: instance.id.to_string(), script: Arc::clone(&shared) }));
        registry.add("device", |instance| Ok(Device { id: instance.id.to_string() }));
        let shared = Arc::clone(&script);
        registry.add("reader", move |instance| Ok(Reader { id: instance.id.to_string(), script: Arc::clone(&shared) }));
        let bound = registry.bind(&graph).unwrap();
        let redactor = Redactor::new();
        let secrets = Arc::new(SecretStore::open(folder.join("secrets.json"), redactor.clone()).unwrap());
        let dirs = Dirs { state: folder.join("state"), graph: folder.to_owned() };
        let world = World::new(graph, bound, dirs, secrets, redactor, "test".into(), false);
        std::fs::create_dir_all(folder.join("state/tmp")).unwrap();
        let journal = Arc::default();
        Self { world: Arc::new(world), checkpoint: Checkpoint::default(), script, journal, run: 0 }
    }

    pub(crate) async fn plan(&self) -> (Wanted, Plan) {
        let wanted = Wanted::from(Selection::default().resolve(&self.world.graph).unwrap());
        let plan = plan(&self.world, &self.checkpoint, &wanted, &Cancel::new()).await.unwrap();
        (wanted, plan)
    }

    pub(crate) async fn run(&mut self) -> Summary {
        self.run_with(Options { jobs: 4, keep_going: false, disruptive: false }, None, Cancel::new()).await
    }

    /// Runs the graph. A fault of the journal ends the run as the end of the program would.
    pub(crate) async fn run_with(&mut self, options: Options, fault: Option<JournalFault>, cancel: Cancel) -> Summary {
        self.run += 1;
        let started = Record::RunStarted(RunStarted {
            run: self.run,
            at: jiff::Timestamp::now(),
            verb: Verb::Run,
            request: serde_json::value::to_raw_value("all").unwrap(),
            driver: ProcessId::current().unwrap(),
        });
        self.journal.lock().unwrap().push(serde_json::to_vec(&[&started]).unwrap());
        self.checkpoint.apply(started).unwrap();
        let (wanted, plan) = self.plan().await;
        let journal = Arc::clone(&self.journal);
        let mut batch = 0;
        let append = Box::new(move |payload: &[u8]| {
            let faulty = fault.filter(|fault| batch >= fault.batch);
            let durable = faulty.is_none_or(|fault| fault.durable && batch == fault.batch);
            batch += 1;
            if durable {
                journal.lock().unwrap().push(payload.to_vec());
            }
            match faulty {
                None => Ok(()),
                Some(_) => Err(AppendError("the power failed".into())),
            }
        });
        let (events, _stream) = EventSink::new(self.run);
        let (world, checkpoint) = (Arc::clone(&self.world), std::mem::take(&mut self.checkpoint));
        let (checkpoint, summary) =
            drive(Run { world, checkpoint, wanted, plan, options, append, events, cancel }).await;
        self.checkpoint = checkpoint;
        summary
    }

    /// Forgets everything but the journal, as a new process does.
    pub(crate) fn restart(&mut self) {
        self.checkpoint = Checkpoint::default();
        for payload in self.journal.lock().unwrap().iter() {
            for record in serde_json::from_slice::<Vec<Record>>(payload).unwrap() {
                self.checkpoint.apply(record).unwrap();
            }
        }
    }

    /// How many batches the journal has.
    pub(crate) fn batches(&self) -> usize {
        self.journal.lock().unwrap().len()
    }

    pub(crate) fn status(&self, id: &str) -> Status {
        self.checkpoint.tasks.get(&id.parse().unwrap()).map_or(Status::Pending, |state| state.status)
    }

    pub(crate) fn effects(&self) -> HashMap<String, usize> {
        self.script.lock().unwrap().effects.clone()
    }
}
