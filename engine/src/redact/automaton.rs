//! The spellings of all secrets as one non-deterministic automaton.

use std::ops::Range;
use std::sync::Arc;

use super::spelling::{self, Pattern};

/// States and edges. It is a forest of short branches that meet again after each character of a secret: no two secrets
/// share a state, and no state is left by more edges than a character has spellings.
#[derive(Debug, Default)]
pub(super) struct Automaton {
    states: Vec<State>,
    edges: Vec<Edge>,
    /// The edges into the first states, by their byte.
    roots: Vec<Range<u32>>,
    /// One bit for each pair of bytes that some spelling begins with.
    pairs: Vec<u64>,
    names: Vec<Arc<str>>,
}

/// A place in a secret.
#[derive(Debug)]
struct State {
    edges: Range<u32>,
    /// The secret that has ended here.
    name: Option<u32>,
}

/// A byte that leads on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Edge {
    byte: u8,
    /// The state that it leads to.
    pub(super) to: u32,
}

impl Automaton {
    /// The automaton of the secrets, given with their names.
    pub(super) fn new<'a>(secrets: impl Iterator<Item = (&'a Arc<str>, &'a str)>) -> Self {
        let (mut builder, mut names) = (Builder::default(), Vec::new());
        for (name, secret) in secrets {
            let index = u32::try_from(names.len()).expect("fewer than 2^32 secrets");
            names.push(Arc::clone(name));
            spelling::patterns(secret).iter().for_each(|pattern| builder.add(pattern, index));
        }
        builder.build(names)
    }

    /// Whether there is nothing to be found.
    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The name of a secret.
    pub(super) fn name(&self, index: u32) -> &str {
        &self.names[index as usize]
    }

    /// The secret that has ended at `state`.
    pub(super) fn ended(&self, state: u32) -> Option<u32> {
        self.states[state as usize].name
    }

    /// Whether anything leads on from `state`.
    pub(super) fn goes_on(&self, state: u32) -> bool {
        !self.states[state as usize].edges.is_empty()
    }

    /// The states that `byte` leads to from `state`.
    pub(super) fn next(&self, state: u32, byte: u8) -> impl Iterator<Item = u32> + '_ {
        let edges = self.edges(&self.states[state as usize].edges);
        edges.iter().filter(move |edge| edge.byte == byte).map(|edge| edge.to)
    }

    /// The states that a spelling beginning with `byte` is in after it.
    pub(super) fn begin(&self, byte: u8) -> impl Iterator<Item = u32> + '_ {
        self.edges(&self.roots[usize::from(byte)]).iter().map(|edge| edge.to)
    }

    /// Whether a spelling may begin with `first` and go on with `second`; nothing is a byte that is not yet known.
    pub(super) fn may_begin(&self, first: u8, second: Option<u8>) -> bool {
        match second {
            Some(second) => {
                let pair = usize::from(first) << 8 | usize::from(second);
                self.pairs[pair / 64] >> (pair % 64) & 1 == 1
            }
            None => !self.roots[usize::from(first)].is_empty(),
        }
    }

    fn edges(&self, range: &Range<u32>) -> &[Edge] {
        &self.edges[range.start as usize..range.end as usize]
    }
}

#[derive(Default)]
struct Builder {
    roots: Vec<Edge>,
    /// Per state its edges and the secret that has ended there.
    states: Vec<(Vec<Edge>, Option<u32>)>,
}

impl Builder {
    /// Adds a branch for `pattern` of the secret number `name`.
    fn add(&mut self, pattern: &Pattern, name: u32) {
        let mut from = None;
        for (count, unit) in (1..).zip(&pattern.units) {
            let after = self.state();
            self.states[after as usize].1 = (count >= pattern.needed).then_some(name);
            for spelling in unit {
                let (last, before) = spelling.text.split_last().expect("a spelling has a byte");
                let mut at = from;
                for byte in before {
                    let next = self.state();
                    self.connect(at, *byte, spelling.any_case, next);
                    at = Some(next);
                }
                self.connect(at, *last, spelling.any_case, after);
            }
            from = Some(after);
        }
    }

    fn state(&mut self) -> u32 {
        self.states.push((Vec::new(), None));
        u32::try_from(self.states.len() - 1).expect("fewer than 2^32 states")
    }

    fn connect(&mut self, from: Option<u32>, byte: u8, any_case: bool, to: u32) {
        let edges = from.map_or(&mut self.roots, |state| &mut self.states[state as usize].0);
        edges.push(Edge { byte, to });
        if any_case && byte.is_ascii_alphabetic() {
            edges.push(Edge { byte: byte ^ 0x20, to });
        }
    }

    fn build(mut self, names: Vec<Arc<str>>) -> Automaton {
        let mut pairs = vec![0_u64; (1 << 16) / 64];
        for first in &self.roots {
            let seconds = self.states[first.to as usize].0.iter().map(|second| second.byte);
            for second in seconds.chain(*b"\r\n") {
                let pair = usize::from(first.byte) << 8 | usize::from(second);
                pairs[pair / 64] |= 1 << (pair % 64);
            }
        }
        let mut edges = Vec::new();
        let mut append = |more: &[Edge]| {
            let from = edges.len();
            edges.extend_from_slice(more);
            let position = |at: usize| u32::try_from(at).expect("fewer than 2^32 edges");
            position(from)..position(edges.len())
        };
        self.roots.sort_by_key(|edge| edge.byte);
        let of_byte = |byte: u8| {
            let from = self.roots.partition_point(|edge| edge.byte < byte);
            &self.roots[from..self.roots.partition_point(|edge| edge.byte <= byte)]
        };
        let roots = (0..=u8::MAX).map(|byte| append(of_byte(byte))).collect();
        let states = self.states.iter().map(|(edges, name)| State { edges: append(edges), name: *name }).collect();
        Automaton { states, edges, roots, pairs, names }
    }
}
