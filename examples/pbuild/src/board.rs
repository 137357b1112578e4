//! What there is to build, and what a thread does next.

use std::collections::HashMap;
use std::sync::Arc;

use crate::file::{Target, Word};
use crate::graph::Graph;
use crate::outcome::Ended;

/// What is to be done, what is being done and what is done.
pub struct Board {
    pub graph: Graph,
    /// What nobody has begun, each after what it needs.
    pub todo: Vec<Arc<Target>>,
    pub at_work: HashMap<String, Phase>,
    pub done: HashMap<String, Ended>,
    /// For what a target that is being built asks at the moment.
    pub asks: HashMap<String, Word>,
    /// The files that commands have made in this run, in that order, by their identities.
    pub made: Vec<String>,
    /// The files that a target was found to read, by their identities, with such a target.
    pub read: HashMap<String, Word>,
    pub stopped: bool,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Phase {
    /// A thread is about to ask for it.
    Given,
    Runs,
    /// For a target that another thread builds.
    Waits,
}

impl Board {
    pub fn new(graph: Graph, todo: Vec<Arc<Target>>) -> Self {
        Self {
            graph,
            todo,
            at_work: HashMap::new(),
            done: HashMap::new(),
            asks: HashMap::new(),
            made: Vec::new(),
            read: HashMap::new(),
            stopped: false,
        }
    }

    /// A target to ask for.
    pub fn next(&mut self) -> Option<Arc<Target>> {
        let done = |need: &Word| self.done.contains_key(&need.text);
        let runs = |need: &Word| self.at_work.get(&need.text) == Some(&Phase::Runs);
        let mut todo = self.todo.iter();
        if let Some(ready) = todo.position(|target| target.needs.iter().all(done)) {
            return Some(self.take(ready, Phase::Given));
        }
        // One that generates may add targets before it lands.
        let generates = |name: &str| self.graph.get(name).is_some_and(|t| t.generates.is_some());
        let mut busy = self.at_work.iter().filter(|(_, p)| **p != Phase::Waits);
        let only = busy.next().filter(|_| busy.next().is_none());
        if only.is_some_and(|(name, _)| !generates(name)) {
            let mut todo = self.todo.iter();
            let next = todo.position(|t| t.needs.iter().all(|n| done(n) || runs(n)))?;
            return Some(self.take(next, Phase::Waits));
        }
        // Nothing is ready and nothing is being built: a cycle of generated targets that nothing
        // needs any more. A thread that asks for one gets the cycle as an error.
        (self.at_work.is_empty() && !self.todo.is_empty()).then(|| self.take(0, Phase::Waits))
    }

    fn take(&mut self, index: usize, phase: Phase) -> Arc<Target> {
        let target = self.todo.remove(index);
        self.at_work.insert(target.name.text.clone(), phase);
        target
    }

    /// Those that waited for what is done now count as running before their threads have woken:
    /// they are not nothing.
    pub fn go_on(&mut self) {
        for (target, phase) in &mut self.at_work {
            let need = self.asks.get(target);
            if need.is_none_or(|need| self.done.contains_key(&need.text)) {
                *phase = Phase::Runs;
            }
        }
    }

    pub fn is_over(&self) -> bool {
        self.stopped || self.todo.is_empty() && self.at_work.is_empty()
    }
}
