//! How a model is run, what every model has to show for itself, and what several models begin with.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use loom::sync::atomic::{AtomicUsize, Ordering};

use crate::{sync, FlightGroup, Joined, Leader};

/// What the executions of a model have come across.
#[derive(Clone, Default)]
pub(crate) struct Reached(Arc<Mutex<BTreeSet<&'static str>>>);

impl Reached {
    pub(crate) fn mark(&self, outcome: &'static str) {
        self.0.lock().unwrap().insert(outcome);
    }
}

/// A model's bounds and obligations.
pub(crate) struct Model {
    /// `None`: every interleaving there is.
    pub(crate) preemptions: Option<usize>,
    /// Every outcome that some execution has to reach: a model that never saw a follower proves
    /// nothing about followers.
    pub(crate) must_reach: &'static [&'static str],
    /// The number of executions with 0, 1 and 2 spurious wake-ups a condition variable, or less of
    /// them. A changed number is not wrong, but it wants an explanation: somewhere hidden
    /// nondeterminism, or a change to what the sources synchronise on.
    pub(crate) executions: &'static [usize],
}

impl Model {
    /// Explores `model`. A deadlock, a panic or a broken assertion in any execution fails.
    pub(crate) fn explore(self, model: impl Fn(&Reached) + Send + Sync + 'static) {
        let model = Arc::new(model);
        let mut explored = Vec::new();
        for budget in 0..self.executions.len() {
            let reached = Reached::default();
            let executions = Arc::new(Mutex::new(0));
            let mut builder = loom::model::Builder::new();
            builder.preemption_bound = self.preemptions;
            // Beyond what any of these models branches; the default is meant for smaller ones.
            builder.max_branches = 100_000;
            sync::set_budget(budget);
            builder.check({
                let (model, reached) = (Arc::clone(&model), reached.clone());
                let executions = Arc::clone(&executions);
                move || {
                    *executions.lock().unwrap() += 1;
                    sync::reset();
                    model(&reached);
                }
            });
            let found: Vec<_> = reached.0.lock().unwrap().iter().copied().collect();
            let mut wanted = self.must_reach.to_vec();
            wanted.sort_unstable();
            assert_eq!(found, wanted, "outcomes reached with {budget} spurious wake-ups");
            explored.push(*executions.lock().unwrap());
        }
        // In the words that `models.rs` looks for.
        let executions: Vec<_> = explored.iter().map(usize::to_string).collect();
        println!("executions: {}", executions.join(", "));
        let bound = self.preemptions.map_or("none".to_owned(), |n| n.to_string());
        println!("bound: {bound}");
        assert_eq!(explored, self.executions, "executions, by spurious wake-ups");
    }
}

/// Counts executions; two at once would lose a count.
#[derive(Default)]
pub(crate) struct Work(pub(crate) AtomicUsize);

impl Work {
    pub(crate) fn run(&self) -> usize {
        let run = self.0.load(Ordering::Relaxed) + 1;
        self.0.store(run, Ordering::Relaxed);
        run
    }
}

pub(crate) fn first_leader<V, E>(group: &FlightGroup<V, E>) -> Leader<'_, V, E> {
    match group.join("key") {
        Joined::Leader(leader) => leader,
        Joined::Follower(_) => unreachable!("nobody else is here yet"),
    }
}
