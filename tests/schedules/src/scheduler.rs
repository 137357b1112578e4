//! Which thread runs next: by chance, or by priorities (PCT).
//!
//! shuttle has both. This one draws every schedule from a seed of its own, so that a single number
//! is enough to replay any of them.

use std::cell::Cell;
use std::rc::Rc;

use shuttle::scheduler::{Schedule, Scheduler, Task, TaskId};

use crate::dice::Dice;

/// How many steps a PCT schedule is taken to have, for where its priorities change.
const STEPS: u64 = 1_500;

/// Draws the schedules, one for each seed that `next_seed` gives.
pub(crate) struct Seeded<F> {
    next_seed: F,
    current: Rc<Cell<u64>>,
    dice: Dice,
    /// Empty for a random schedule. By task, the lowest runs first.
    priorities: Option<Vec<u64>>,
    changes: Vec<u64>,
    lowest: u64,
    steps: u64,
}

impl<F: FnMut() -> Option<u64>> Seeded<F> {
    /// `current` will hold the seed of the schedule that is running.
    pub(crate) fn new(next_seed: F, current: Rc<Cell<u64>>) -> Self {
        Self {
            next_seed,
            current,
            dice: Dice::new(0),
            priorities: None,
            changes: Vec::new(),
            lowest: 0,
            steps: 0,
        }
    }

    fn lower(&mut self, task: TaskId) {
        self.lowest += 1;
        let lowest = self.lowest;
        *self.priority(task) = lowest;
    }

    fn priority(&mut self, task: TaskId) -> &mut u64 {
        let priorities = self.priorities.as_mut().expect("a PCT schedule");
        let task = usize::from(task);
        while priorities.len() <= task {
            priorities.push(self.dice.below(1 << 32));
        }
        &mut priorities[task]
    }
}

impl<F: FnMut() -> Option<u64>> Scheduler for Seeded<F> {
    fn new_execution(&mut self) -> Option<Schedule> {
        let seed = (self.next_seed)()?;
        self.current.set(seed);
        self.dice = Dice::new(seed ^ 0x5EED);
        let by_priority = self.dice.one_in(2);
        self.priorities = by_priority.then(Vec::new);
        let changes = self.dice.below(6);
        self.changes = (0..changes).map(|_| self.dice.below(STEPS)).collect();
        self.lowest = 1 << 32;
        self.steps = 0;
        Some(Schedule::new(seed))
    }

    fn next_task(
        &mut self,
        runnable: &[&Task],
        current: Option<TaskId>,
        is_yielding: bool,
    ) -> Option<TaskId> {
        if self.priorities.is_none() {
            let chosen = self.dice.below(runnable.len() as u64);
            return Some(runnable[chosen as usize].id());
        }
        self.steps += 1;
        if let Some(current) = current {
            if is_yielding || self.changes.contains(&self.steps) {
                self.lower(current);
            }
        }
        let ids = runnable.iter().map(|task| task.id());
        ids.min_by_key(|id| *self.priority(*id))
    }

    fn next_u64(&mut self) -> u64 {
        self.dice.next()
    }
}
