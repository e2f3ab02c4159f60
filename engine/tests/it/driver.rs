//! The loop, driven in process on graphs of plain commands.

use std::path::Path;
use std::sync::{Arc, Mutex};

use taskrun_engine::checkpoint::{Checkpoint, Record, RunStarted, Status};
use taskrun_engine::context::Dirs;
use taskrun_engine::event::Verb;
use taskrun_engine::graph::{Graph, Selection};
use taskrun_engine::plan::{Action, Plan, Reason, Wanted, plan};
use taskrun_engine::process::{Cancel, ProcessId};
use taskrun_engine::redact::Redactor;
use taskrun_engine::registry::Registry;
use taskrun_engine::run::events::EventSink;
use taskrun_engine::run::{Options, Run, Summary, drive};
use taskrun_engine::secret::SecretStore;
use taskrun_engine::world::World;

/// A graph of commands in a folder, with a journal in memory.
struct Stand {
    world: Arc<World>,
    checkpoint: Checkpoint,
    run: u64,
}

impl Stand {
    fn new(folder: &Path, yaml: &str) -> Self {
        let graph = Graph::from_yaml("graph.yaml", yaml).unwrap();
        let bound = Registry::new().bind(&graph).unwrap();
        let redactor = Redactor::new();
        let secrets = Arc::new(SecretStore::open(folder.join("secrets.json"), redactor.clone()).unwrap());
        let dirs = Dirs { state: folder.join("state"), graph: folder.to_owned() };
        let world = World::new(graph, bound, dirs, secrets, redactor, "test".into(), false);
        std::fs::create_dir_all(folder.join("state/tmp")).unwrap();
        Self { world: Arc::new(world), checkpoint: Checkpoint::default(), run: 0 }
    }

    async fn plan(&self) -> (Wanted, Plan) {
        let wanted = Wanted::from(Selection::default().resolve(&self.world.graph).unwrap());
        let plan = plan(&self.world, &self.checkpoint, &wanted, &Cancel::new()).await.unwrap();
        (wanted, plan)
    }

    async fn run(&mut self) -> Summary {
        let (wanted, plan) = self.plan().await;
        self.run += 1;
        let started = RunStarted {
            run: self.run,
            at: jiff::Timestamp::now(),
            verb: Verb::Run,
            request: serde_json::value::to_raw_value("all").unwrap(),
            driver: ProcessId::current().unwrap(),
        };
        self.checkpoint.apply(Record::RunStarted(started)).unwrap();
        let journal = Arc::new(Mutex::new(Vec::new()));
        let append = Box::new(move |payload: &[u8]| {
            journal.lock().unwrap().push(payload.to_vec());
            Ok(())
        });
        let options = Options { jobs: 4, keep_going: false, disruptive: false };
        let (events, _stream) = EventSink::new(self.run);
        let checkpoint = std::mem::take(&mut self.checkpoint);
        let (world, cancel) = (Arc::clone(&self.world), Cancel::new());
        let driven = drive(Run { world, checkpoint, wanted, plan, options, append, events, cancel }).await;
        self.checkpoint = driven.0;
        driven.1
    }

    fn status(&self, id: &str) -> Status {
        self.checkpoint.tasks[&id.parse().unwrap()].status
    }
}

#[tokio::test]
async fn a_graph_runs_and_then_stands() {
    let folder = tempfile::tempdir().unwrap();
    let mut stand = Stand::new(
        folder.path(),
        r#"
version: 1
tasks:
  one: {run: "echo 1 > one", outputs: [one]}
  two: {needs: [one], run: "cat one one > two", inputs: [one], outputs: [two]}
  three: {needs: [one], run: 'echo "{\"n\": 3}" > $TASKRUN_OUTPUT'}
  four: {needs: [three, two], run: "echo $N > four", env: {N: {from: three, field: n}}, outputs: [four]}
"#,
    );
    let summary = stand.run().await;
    assert_eq!(summary.counts.succeeded, 4, "{summary:?} {:?}", stand.checkpoint.tasks);
    assert_eq!(std::fs::read_to_string(folder.path().join("four")).unwrap(), "3\n");

    let (_, again) = stand.plan().await;
    assert!(!again.has_work(), "{again:?}");

    std::fs::write(folder.path().join("one"), "2\n").unwrap();
    let (_, changed) = stand.plan().await;
    let actions: Vec<Action> = changed.iter().map(|(_, decision)| decision.action).collect();
    assert_eq!(actions, [Action::Run, Action::DecideAfter, Action::Keep, Action::DecideAfter]);
    let summary = stand.run().await;
    assert_eq!((summary.counts.succeeded, summary.counts.kept), (1, 3), "one makes what it made before");
}

#[tokio::test]
async fn a_failure_blocks_what_needs_it_and_is_the_reason_next_time() {
    let folder = tempfile::tempdir().unwrap();
    let yaml = "{version: 1, tasks: {bad: {run: 'echo no; exit 3'}, after: {needs: [bad], run: 'true'}}}";
    let mut stand = Stand::new(folder.path(), yaml);
    let summary = stand.run().await;
    assert_eq!((summary.counts.failed, summary.counts.blocked), (1, 1));
    assert_eq!(stand.status("bad"), Status::Failed);
    let (_, again) = stand.plan().await;
    let reasons: Vec<&Reason> = again.iter().map(|(_, decision)| &decision.reason).collect();
    assert!(matches!(reasons[..], [Reason::FailedBefore { .. }, Reason::NeverRun]), "{reasons:?}");
}
