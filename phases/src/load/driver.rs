//! Sends requests at their times, whatever becomes of the ones before.
//!
//! A thread of its own waits for the time of each request, because the operating system wakes it within some 60 µs while
//! the timers of tokio have steps of 1 ms; a runtime of its own, in the thread of its caller, sends and reads, so that
//! other work of the program does not delay it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use reqwest::Client;
use reqwest::redirect::Policy;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout};

use super::request::Request;
use super::sample::{Outcome, Sample};
use super::schedule::Schedule;

/// How many requests may be without an answer at once; each may need a connection of its own.
pub const MOST_IN_FLIGHT: usize = 1000;

/// How many files the program may then have open: two for a connection whose server is in the same process, and others.
const OPEN_FILES: u64 = 4096;

/// The longest pause in which it is not noticed that the test was asked to stop.
const NAP: Duration = Duration::from_millis(100);

/// The time between the call and the start of the test, in which the threads get ready.
const LEAD: Duration = Duration::from_millis(50);

/// Why a test could not be made.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The HTTP client cannot be made.
    #[error("make the HTTP client")]
    Client(#[source] reqwest::Error),
    /// A thread cannot be started.
    #[error("start the load generator")]
    Start(#[source] io::Error),
    /// It was asked to stop.
    #[error("the test was stopped")]
    Stopped,
}

/// Asks a test to stop, and tells how far it is.
#[derive(Debug, Clone, Default)]
pub struct Control(Arc<State>);

#[derive(Debug, Default)]
struct State {
    stop: AtomicBool,
    answered: AtomicU64,
}

impl Control {
    /// Ends the test; no further request is sent.
    pub fn stop(&self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }

    /// How many requests have ended.
    pub fn answered(&self) -> u64 {
        self.0.answered.load(Ordering::Relaxed)
    }

    fn is_stopped(&self) -> bool {
        self.0.stop.load(Ordering::Relaxed)
    }
}

/// Makes a test, on a thread of its own; the samples are in the order of the schedule.
///
/// # Errors
/// It cannot begin, or was stopped.
pub async fn run(request: Request, schedule: Schedule, control: Control) -> Result<Vec<Sample>, LoadError> {
    let test = tokio::task::spawn_blocking(move || run_here(request, &schedule, &control));
    test.await.map_err(|error| LoadError::Start(io::Error::other(error)))?
}

/// Sends a request once.
///
/// # Errors
/// How it ended, if not well.
pub async fn once(request: &Request) -> Result<(), Outcome> {
    let client = client().map_err(|_| Outcome::NotSent)?;
    let seen = request.send(&client, Instant::now() + request.timeout).await;
    if seen.outcome.is_ok() { Ok(()) } else { Err(seen.outcome) }
}

fn client() -> Result<Client, LoadError> {
    let client = Client::builder().no_proxy().redirect(Policy::none()).http1_only().tcp_nodelay(true);
    client.pool_max_idle_per_host(MOST_IN_FLIGHT).build().map_err(LoadError::Client)
}

/// Raises the soft limit of open files, which is 1024 on many systems, as far as the hard one lets it.
fn allow_open_files() -> nix::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = OPEN_FILES.min(hard);
    if soft < wanted { setrlimit(Resource::RLIMIT_NOFILE, wanted, hard) } else { Ok(()) }
}

fn run_here(request: Request, schedule: &Schedule, control: &Control) -> Result<Vec<Sample>, LoadError> {
    allow_open_files().map_err(|error| LoadError::Start(error.into()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(LoadError::Start)?;
    let client = client()?;
    let (sender, mut received) = mpsc::unbounded_channel();
    let dispatcher = Dispatcher { runtime: runtime.handle().clone(), client, request: Arc::new(request), sender };
    let mut samples = std::thread::scope(|scope| {
        let start = Instant::now() + LEAD;
        let builder = std::thread::Builder::new().name("load".to_owned());
        builder.spawn_scoped(scope, move || dispatcher.send_all(start, schedule, control)).map_err(LoadError::Start)?;
        // Ends when the dispatcher has, and the last request, each of which has a time-out.
        Ok(runtime.block_on(async {
            let mut samples = Vec::with_capacity(schedule.times.len());
            while !control.is_stopped() {
                match timeout(NAP, received.recv()).await {
                    Ok(Some(sample)) => samples.push(sample),
                    Ok(None) => break,
                    Err(_) => {}
                }
                control.0.answered.store(samples.len() as u64, Ordering::Relaxed);
            }
            samples
        }))
    })?;
    if control.is_stopped() {
        return Err(LoadError::Stopped);
    }
    samples.sort_by_key(|sample: &Sample| sample.intended);
    Ok(samples)
}

/// The thread that keeps the schedule.
struct Dispatcher {
    runtime: tokio::runtime::Handle,
    client: Client,
    request: Arc<Request>,
    sender: mpsc::UnboundedSender<Sample>,
}

impl Dispatcher {
    fn send_all(self, start: Instant, schedule: &Schedule, control: &Control) {
        let room = Arc::new(Semaphore::new(MOST_IN_FLIGHT));
        for &intended in &schedule.times {
            let due = start + intended;
            loop {
                let missing = due.saturating_duration_since(Instant::now());
                if missing.is_zero() {
                    break;
                }
                std::thread::sleep(missing.min(NAP));
                if control.is_stopped() {
                    return;
                }
            }
            let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
                let delay = due.elapsed();
                let outcome = Outcome::NotSent;
                let sample = Sample { intended, delay, first: None, latency: delay, outcome, bytes: 0, tokens: 0 };
                // The collector ends after this thread.
                let _ = self.sender.send(sample);
                continue;
            };
            let (client, request, sender) = (self.client.clone(), Arc::clone(&self.request), self.sender.clone());
            self.runtime.spawn(async move {
                let delay = due.elapsed();
                let seen = request.send(&client, due + request.timeout).await;
                let (latency, first) = (due.elapsed(), seen.first.map(|at| at - due));
                let (outcome, bytes, tokens) = (seen.outcome, seen.bytes, seen.tokens);
                drop(permit);
                let _ = sender.send(Sample { intended, delay, first, latency, outcome, bytes, tokens });
            });
        }
    }
}
