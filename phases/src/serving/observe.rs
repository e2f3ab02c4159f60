//! Looking: what each replica does, from the supervisor, the proxy, and the replica itself.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use taskrun_engine::redact::Redactor;

use super::memory::{Memory, ReplicaMemory};
use super::plan::{Phase, Seen, Traffic};
use super::replica::Replica;
use super::status::Reason;
use crate::platform::Local;
use crate::tools::haproxy::{ServerStat, Slot};
use crate::tools::supervisor::ProcessInfo;

/// `EX_CONFIG` of `sysexits.h`: starting a replica that ends so again does not help.
const HOPELESS: i32 = 78;

/// How long a replica may take to say that it is ready.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a replica that served may be silent until it is given up.
const SILENCE: Duration = Duration::from_secs(60);

/// How often a replica may end and start again without ever answering in between.
const MOST_RESTARTS: u32 = 3;

/// How much of a log is read for its last line.
const TAIL_BYTES: u64 = 8192;

/// The longest line of a log that is told.
const LINE_CHARS: usize = 500;

/// Looks at replicas.
pub(super) struct Observer {
    pub(super) local: Local,
    pub(super) http: reqwest::Client,
    pub(super) redactor: Redactor,
}

/// A look at one replica: what it is about to be judged by.
struct Look<'a> {
    process: Option<&'a ProcessInfo>,
    traffic: Traffic,
    answers: bool,
    startup_timeout: Duration,
}

impl Observer {
    pub(super) fn new(local: Local, redactor: Redactor) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder().timeout(ANSWER_TIMEOUT).no_proxy().build()?;
        Ok(Self { local, http, redactor })
    }

    /// The replicas of all models.
    pub(super) fn replicas(&self) -> BTreeMap<String, Vec<Replica>> {
        let mut models: BTreeMap<String, Vec<Replica>> = BTreeMap::new();
        for replica in self.local.services().iter().filter_map(Replica::of) {
            models.entry(replica.model.clone()).or_default().push(replica);
        }
        models.values_mut().for_each(|replicas| replicas.sort_by_key(|one| (one.revision, one.number)));
        models
    }

    /// What the replicas of a model do.
    pub(super) async fn look(
        &self,
        replicas: Vec<Replica>,
        processes: &[ProcessInfo],
        stats: &[ServerStat],
        startup_timeout: Duration,
        memory: &mut Memory,
    ) -> Vec<Seen> {
        let now = Instant::now();
        memory.replicas.retain(|name, _| replicas.iter().any(|replica| replica.name() == *name));
        let mut asked = Vec::new();
        for replica in replicas {
            let process = processes.iter().find(|process| process.name == replica.name());
            let mut traffic = traffic(&replica, stats);
            let remembered = memory.replicas.entry(replica.name()).or_default();
            let drained = matches!(traffic.slot, Slot::Drain(_));
            remembered.drained_since = drained.then(|| remembered.drained_since.unwrap_or(now));
            traffic.drained_for = remembered.drained_since.map_or(Duration::ZERO, |since| now - since);
            // The proxy asks those that it knows each second.
            let known = traffic.up && matches!(traffic.slot, Slot::Ready(_));
            let running = process.is_some_and(|process| process.state == "RUNNING");
            let request = (running && !known).then(|| tokio::spawn(answers(self.http.clone(), replica.health())));
            asked.push((replica, process, traffic, running && known, request));
        }
        let mut seen = Vec::new();
        for (replica, process, traffic, known, request) in asked {
            let answers = match request {
                Some(request) => request.await.unwrap_or(false),
                None => known,
            };
            let look = Look { process, traffic, answers, startup_timeout };
            let name = replica.name();
            let remembered = memory.replicas.entry(name.clone()).or_default();
            let phase = judge(&look, remembered, now, || self.last_line(&name));
            if phase == Phase::Ready && remembered.answers() {
                // One that the proxy knows has been ready before; a controller that was restarted only finds it again.
                if traffic.slot == Slot::Off {
                    memory.cold_start_s = Some(Timestamp::now().duration_since(replica.made).as_secs_f64());
                }
                memory.succeeded();
            }
            let running = process.is_some_and(|process| process.pid != 0);
            seen.push(Seen { replica, phase, running, traffic });
        }
        seen
    }

    /// The last line of a service's log that says something.
    fn last_line(&self, name: &str) -> String {
        let text = tail(&self.local.log(name)).unwrap_or_default();
        let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or("its log is empty");
        let line: String = line.trim_start_matches("error: ").chars().take(LINE_CHARS).collect();
        self.redactor.redact_str(&line).into_owned()
    }
}

/// What a replica does, by what was seen of it.
fn judge(look: &Look<'_>, memory: &mut ReplicaMemory, now: Instant, last_line: impl Fn() -> String) -> Phase {
    let Some(process) = look.process else { return Phase::Stopped };
    memory.sees((process.pid != 0).then_some(process.pid));
    match &*process.state {
        "STOPPED" => return Phase::Stopped,
        "STOPPING" => return Phase::Stopping,
        // It said that trying again does not help.
        "EXITED" => return Phase::Failed(Reason::ModelLoadFailed, last_line()),
        // It said so sooner than the supervisor believes it to have started.
        "BACKOFF" if process.exit_status == HOPELESS => return Phase::Failed(Reason::ModelLoadFailed, last_line()),
        "FATAL" => return Phase::Failed(Reason::CrashLoop, last_line()),
        _ if look.answers => return Phase::Ready,
        _ => {}
    }
    if memory.restarts >= MOST_RESTARTS {
        return Phase::Failed(Reason::CrashLoop, format!("it ended {} times: {}", memory.restarts, last_line()));
    }
    let served = memory.was_ready || look.traffic.slot != Slot::Off;
    let (silent, most) = match served {
        true => (now - *memory.unready_since.get_or_insert(now), SILENCE.max(look.startup_timeout)),
        false if process.state == "RUNNING" => {
            (Duration::from_secs(process.now.saturating_sub(process.start)), look.startup_timeout)
        }
        false => (Duration::ZERO, look.startup_timeout),
    };
    if silent > most {
        let line = last_line();
        return Phase::Failed(Reason::StartupTimeout, format!("not ready after {} s; it said: {line}", most.as_secs()));
    }
    Phase::Starting
}

fn traffic(replica: &Replica, stats: &[ServerStat]) -> Traffic {
    let own = stats.iter().find(|stat| stat.model == replica.model && stat.slot == Some(replica.slot));
    // A slot with another port has not been told of this replica yet.
    let own = own.filter(|stat| matches!(stat.state, Slot::Ready(port) | Slot::Drain(port) if port == replica.port));
    own.map_or_else(Traffic::default, |stat| Traffic {
        slot: stat.state,
        up: stat.up,
        requests: stat.sessions + stat.queued,
        drained_for: Duration::ZERO,
    })
}

async fn answers(http: reqwest::Client, url: String) -> bool {
    http.get(url).send().await.is_ok_and(|answer| answer.status().is_success())
}

/// The end of a file.
fn tail(path: &std::path::Path) -> std::io::Result<String> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = std::fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(state: &str, pid: u32, age: u64) -> ProcessInfo {
        ProcessInfo {
            name: "model-m-1-1".to_owned(),
            state: state.to_owned(),
            pid,
            start: 1000,
            now: 1000 + age,
            description: String::new(),
            spawn_error: String::new(),
            exit_status: 0,
        }
    }

    fn judged(process: &ProcessInfo, answers: bool, slot: Slot, memory: &mut ReplicaMemory) -> Phase {
        let traffic = Traffic { slot, ..Traffic::default() };
        let look = Look { process: Some(process), traffic, answers, startup_timeout: Duration::from_secs(60) };
        judge(&look, memory, Instant::now(), || "no such run".to_owned())
    }

    #[test]
    fn a_replica_is_judged_by_its_process_and_its_answer() {
        let fresh = ReplicaMemory::default;
        let say = |state: &str, answers| judged(&process(state, 7, 5), answers, Slot::Off, &mut fresh());
        assert_eq!(say("RUNNING", true), Phase::Ready);
        assert_eq!(say("RUNNING", false), Phase::Starting);
        assert_eq!(say("BACKOFF", false), Phase::Starting);
        assert_eq!(say("STOPPED", false), Phase::Stopped);
        assert_eq!(say("STOPPING", false), Phase::Stopping);
        assert_eq!(say("EXITED", false), Phase::Failed(Reason::ModelLoadFailed, "no such run".to_owned()));
        let soon = ProcessInfo { exit_status: 78, ..process("BACKOFF", 0, 0) };
        let soon = judged(&soon, false, Slot::Off, &mut fresh());
        assert_eq!(soon, Phase::Failed(Reason::ModelLoadFailed, "no such run".to_owned()));
        assert!(matches!(say("FATAL", false), Phase::Failed(Reason::CrashLoop, _)));
        let late = judged(&process("RUNNING", 7, 61), false, Slot::Off, &mut fresh());
        assert!(matches!(late, Phase::Failed(Reason::StartupTimeout, _)), "{late:?}");
        // One that serves and is silent for a moment is not late.
        assert_eq!(judged(&process("RUNNING", 7, 9999), false, Slot::Ready(1), &mut fresh()), Phase::Starting);
    }

    #[test]
    fn one_that_ends_again_and_again_is_given_up_unless_it_answers_in_between() {
        let mut memory = ReplicaMemory::default();
        for pid in 1..=3 {
            assert_eq!(judged(&process("RUNNING", pid, 2), false, Slot::Off, &mut memory), Phase::Starting);
        }
        let fourth = judged(&process("RUNNING", 4, 2), false, Slot::Off, &mut memory);
        assert!(matches!(fourth, Phase::Failed(Reason::CrashLoop, _)), "{fourth:?}");
        memory.answers();
        assert_eq!(judged(&process("RUNNING", 5, 2), false, Slot::Off, &mut memory), Phase::Starting);
    }
}
