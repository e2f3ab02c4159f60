//! Who runs next: the ready task with the longest remaining path, within the slots and pools.
//!
//! This is list scheduling by critical path (R. L. Graham, *Bounds on Multiprocessing Timing Anomalies*, 1969): never
//! more than 2 - 1/m times the shortest possible time on m slots, and a few percent above it on ordinary graphs.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::graph::Claim;

/// The ready tasks and what they compete for.
#[derive(Debug)]
pub struct Scheduler {
    slots: u32,
    pools: Vec<Pool>,
    ready: BinaryHeap<Ready>,
}

#[derive(Debug)]
struct Pool {
    free: u32,
    /// Tasks that found too little here, served in their order before any that come later: none starves.
    parked: BinaryHeap<Ready>,
}

#[derive(Debug, Clone, PartialEq)]
struct Ready {
    priority: f64,
    task: usize,
    claims: Box<[Claim]>,
}

impl Scheduler {
    /// At most `jobs` tasks at once, and pools of the given capacities.
    pub fn new(jobs: u32, pools: &[u32]) -> Self {
        let pools = pools.iter().map(|&free| Pool { free, parked: BinaryHeap::new() }).collect();
        Self { slots: jobs, pools, ready: BinaryHeap::new() }
    }

    /// Adds a ready task; the highest `priority` goes first, at equal priorities the lowest `task`.
    pub fn push(&mut self, task: usize, priority: f64, claims: &[Claim]) {
        self.ready.push(Ready { priority, task, claims: claims.into() });
    }

    /// Takes the next task and gives it a slot and its share of the pools; nothing if none fits.
    pub fn pop(&mut self) -> Option<usize> {
        while self.slots > 0 {
            let next = self.ready.pop()?;
            match next.claims.iter().find(|claim| !self.pools[usize::from(claim.pool)].has(claim.amount, &next)) {
                Some(short) => self.pools[usize::from(short.pool)].parked.push(next),
                None => {
                    self.slots -= 1;
                    next.claims.iter().for_each(|claim| self.pools[usize::from(claim.pool)].free -= claim.amount);
                    return Some(next.task);
                }
            }
        }
        None
    }

    /// Takes back the slot and the shares of a task that ended.
    pub fn release(&mut self, claims: &[Claim]) {
        self.slots += 1;
        for claim in claims {
            let pool = &mut self.pools[usize::from(claim.pool)];
            pool.free += claim.amount;
            self.ready.extend(pool.parked.drain());
        }
    }

    /// Forgets all ready tasks and returns them: none of them will run.
    pub fn drain(&mut self) -> Vec<usize> {
        let parked = self.pools.iter_mut().flat_map(|pool| pool.parked.drain());
        self.ready.drain().chain(parked).map(|ready| ready.task).collect()
    }
}

impl Pool {
    fn has(&self, amount: u32, who: &Ready) -> bool {
        self.free >= amount && self.parked.peek().is_none_or(|first| first < who)
    }
}

impl Eq for Ready {}

impl Ord for Ready {
    fn cmp(&self, other: &Self) -> Ordering {
        self.priority.total_cmp(&other.priority).then_with(|| other.task.cmp(&self.task))
    }
}

impl PartialOrd for Ready {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_longest_path_goes_first_and_slots_bound_it() {
        let mut scheduler = Scheduler::new(2, &[]);
        [(0, 1.0), (1, 3.0), (2, 3.0)].into_iter().for_each(|(task, priority)| scheduler.push(task, priority, &[]));
        assert_eq!((scheduler.pop(), scheduler.pop(), scheduler.pop()), (Some(1), Some(2), None));
        scheduler.release(&[]);
        assert_eq!(scheduler.pop(), Some(0));
    }

    #[test]
    fn a_large_claim_is_not_starved_by_small_ones() {
        let claim = |amount| [Claim { pool: 0, amount }];
        let mut scheduler = Scheduler::new(8, &[2]);
        scheduler.push(0, 1.0, &claim(1));
        assert_eq!(scheduler.pop(), Some(0));
        scheduler.push(1, 3.0, &claim(2));
        scheduler.push(2, 2.0, &claim(1));
        scheduler.push(3, 1.0, &[]);
        assert_eq!(scheduler.pop(), Some(3), "what needs no pool is not held up");
        assert_eq!(scheduler.pop(), None, "task 1 waits for both, and task 2 does not overtake it");
        scheduler.release(&claim(1));
        assert_eq!((scheduler.pop(), scheduler.pop()), (Some(1), None));
        scheduler.release(&claim(2));
        assert_eq!(scheduler.pop(), Some(2));
    }

    proptest! {
        #[test]
        fn no_pool_is_exceeded_and_everything_gets_its_turn(
            jobs in 1..5u32,
            capacities in proptest::collection::vec(1..4u32, 1..3),
            tasks in proptest::collection::vec((0..9u8, proptest::collection::vec((0..3u16, 1..4u32), 0..3)), 1..40),
        ) {
            let mut scheduler = Scheduler::new(jobs, &capacities);
            let claims: Vec<Vec<Claim>> = tasks.iter().map(|(_, wanted)| {
                let mut claims: Vec<Claim> = Vec::new();
                for &(pool, amount) in wanted {
                    let pool = pool % capacities.len() as u16;
                    if claims.iter().all(|claim| claim.pool != pool) {
                        claims.push(Claim { pool, amount: amount.min(capacities[usize::from(pool)]) });
                    }
                }
                claims
            }).collect();
            for (task, (priority, _)) in tasks.iter().enumerate() {
                scheduler.push(task, f64::from(*priority), &claims[task]);
            }
            let mut running: Vec<usize> = Vec::new();
            let mut done = 0;
            loop {
                while let Some(task) = scheduler.pop() {
                    running.push(task);
                    prop_assert!(running.len() <= jobs as usize);
                    for (pool, capacity) in capacities.iter().enumerate() {
                        let used: u32 = running.iter().flat_map(|task| &claims[*task])
                            .filter(|claim| usize::from(claim.pool) == pool).map(|claim| claim.amount).sum();
                        prop_assert!(used <= *capacity);
                    }
                }
                if running.is_empty() {
                    break;
                }
                scheduler.release(&claims[running.remove(0)]);
                done += 1;
            }
            prop_assert_eq!(done, tasks.len());
        }
    }
}
