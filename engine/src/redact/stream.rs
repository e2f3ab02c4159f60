//! Redacting what comes in pieces.

use std::fmt;
use std::mem;
use std::sync::Arc;

use super::Redactor;
use super::automaton::Automaton;

/// Redacts an output that comes in pieces of any size.
///
/// Only what may be the beginning of a secret is held back, until that is decided.
pub struct RedactStream {
    redactor: Redactor,
    automaton: Arc<Automaton>,
    /// What was not yet let through.
    held: Vec<u8>,
    threads: Vec<Thread>,
    /// Empty, but for the room to move the threads on.
    moved: Vec<Thread>,
    /// Secrets that were found in `held`.
    found: Vec<Found>,
}

/// A spelling of a secret that has gone well so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Thread {
    state: u32,
    /// How many bytes of a line end were passed since the last byte of the secret.
    line_end: u8,
    /// Where in `held` it begins.
    start: usize,
}

/// A secret in `held`.
#[derive(Debug, Clone, Copy)]
struct Found {
    start: usize,
    end: usize,
    name: u32,
}

impl RedactStream {
    pub(super) fn new(redactor: Redactor) -> Self {
        let automaton = redactor.automaton();
        Self { redactor, automaton, held: Vec::new(), threads: Vec::new(), moved: Vec::new(), found: Vec::new() }
    }

    /// Takes the next bytes, and appends to `out` what can be let through.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let automaton = self.redactor.automaton();
        if !Arc::ptr_eq(&automaton, &self.automaton) {
            self.automaton = automaton;
            self.threads.clear();
            self.found.clear();
            let held = mem::take(&mut self.held);
            self.follow(&held, bytes.first().copied(), out);
        }
        self.follow(bytes, None, out);
        self.let_through(out);
    }

    /// Appends to `out` what was held back: nothing comes after it. The stream can be used again.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.threads.clear();
        self.let_through(out);
    }

    /// Follows the automaton through `bytes`, after which `next` comes, if that is known.
    fn follow(&mut self, bytes: &[u8], next: Option<u8>, out: &mut Vec<u8>) {
        let automaton = Arc::clone(&self.automaton);
        if automaton.is_empty() {
            return out.extend_from_slice(bytes);
        }
        let mut rest = bytes;
        while let Some((&byte, behind)) = rest.split_first() {
            let begins = automaton.may_begin(byte, behind.first().copied().or(next));
            if !begins && self.threads.is_empty() {
                self.let_through(out);
                let begins = |pair: &[u8]| automaton.may_begin(pair[0], Some(pair[1]));
                let skipped = 1 + behind.windows(2).position(begins).unwrap_or(behind.len().saturating_sub(1));
                out.extend_from_slice(&rest[..skipped]);
                rest = &rest[skipped..];
                continue;
            }
            self.step(&automaton, byte, begins);
            rest = behind;
        }
    }

    /// Moves all threads on by `byte`, and begins new ones if a secret may begin with it.
    fn step(&mut self, automaton: &Automaton, byte: u8, begins: bool) {
        let at = self.held.len();
        self.held.push(byte);
        let mut threads = mem::take(&mut self.moved);
        for thread in self.threads.drain(..) {
            threads.extend(automaton.next(thread.state, byte).map(|state| Thread { state, line_end: 0, ..thread }));
            let is_line_end = matches!((byte, thread.line_end), (b'\r', 0) | (b'\n', 0 | 1));
            if is_line_end {
                let line_end = if byte == b'\n' { 2 } else { 1 };
                threads.push(Thread { line_end, ..thread });
            }
        }
        if begins {
            threads.extend(automaton.begin(byte).map(|state| Thread { state, line_end: 0, start: at }));
        }
        for thread in threads.iter().filter(|thread| thread.line_end == 0) {
            if let Some(name) = automaton.ended(thread.state) {
                self.found.push(Found { start: thread.start, end: at + 1, name });
            }
        }
        threads.retain(|thread| automaton.goes_on(thread.state));
        // Of two threads in one place the older one finds all that the other would, and more.
        threads.sort_unstable();
        threads.dedup_by_key(|thread| (thread.state, thread.line_end));
        self.moved = mem::replace(&mut self.threads, threads);
    }

    /// Lets through what no thread is interested in, and names in place of secrets. Secrets that overlap are one.
    fn let_through(&mut self, out: &mut Vec<u8>) {
        let decided = self.threads.iter().map(|thread| thread.start).min().unwrap_or(self.held.len());
        self.found.sort_unstable_by_key(|found| (found.start, usize::MAX - found.end));
        let mut done = 0;
        let mut limit = decided;
        let mut found = self.found.iter().copied().peekable();
        while let Some(mut secret) = found.next() {
            while let Some(next) = found.next_if(|next| next.start < secret.end) {
                secret.end = secret.end.max(next.end);
            }
            if secret.end > decided {
                limit = limit.min(secret.start);
                break;
            }
            out.extend_from_slice(&self.held[done..secret.start]);
            out.extend_from_slice(format!("[redacted:{}]", self.automaton.name(secret.name)).as_bytes());
            done = secret.end;
        }
        if done < limit {
            out.extend_from_slice(&self.held[done..limit]);
            done = limit;
        }
        self.held.drain(..done);
        self.threads.iter_mut().for_each(|thread| thread.start -= done);
        self.found.retain(|found| found.start >= done);
        for found in &mut self.found {
            found.start -= done;
            found.end -= done;
        }
    }
}

/// Shows how much is held back, not what.
impl fmt::Debug for RedactStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedactStream").field("held", &self.held.len()).finish_non_exhaustive()
    }
}
