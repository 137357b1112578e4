//! All that was measured, to look things up in.

use peers::SHARED_CALLS;

use crate::{failing, growth, hot, lone, release, stale};

pub struct Results {
    pub machine: Vec<[String; 2]>,
    pub quick: bool,
    pub lone: lone::Lone,
    pub hot: Vec<hot::Row>,
    /// The first is that of the bare broadcast.
    pub release: Vec<release::Row>,
    pub failing: Vec<failing::Row>,
    pub stale: Vec<stale::Row>,
    pub growth: Vec<growth::Row>,
}

impl Results {
    pub fn lone(&self, name: &str) -> Option<&lone::Row> {
        self.lone.rows.iter().find(|row| row.name == name)
    }

    pub fn hot(&self, name: &str) -> Option<&hot::Row> {
        self.hot.iter().find(|row| row.name == name)
    }

    pub fn release(&self, name: &str) -> Option<&release::Row> {
        self.release.iter().find(|row| row.name == name)
    }

    pub fn failing(&self, name: &str) -> Option<&failing::Row> {
        self.failing.iter().find(|row| row.name == name)
    }

    pub fn stale(&self, name: &str) -> Option<&stale::Row> {
        self.stale.iter().find(|row| row.name == name)
    }

    pub fn growth(&self, name: &str) -> Option<&growth::Row> {
        self.growth.iter().find(|row| row.name == name)
    }

    /// The fastest peer of those that keep no values, and of a load that fails tell all who wait for
    /// it. More is not asked of them here: of the rest that shared-calls guarantees, each lacks most.
    pub fn fastest_alike(&self) -> &lone::Row {
        let alike = |row: &&lone::Row| {
            let failing = self.failing(row.name);
            !row.keeps_values && failing.is_some_and(|failing| failing.runs == 1)
        };
        let peers = self.lone.rows.iter().filter(|row| row.name != SHARED_CALLS);
        peers
            .filter(alike)
            .min_by(|a, b| a.text.nanos.total_cmp(&b.text.nanos))
            .expect("the hand-written version is one")
    }

    /// How a release of so many compares with a bare broadcast to as many.
    pub fn beside_broadcast(&self, row: &release::Row, size: usize) -> f64 {
        row.of[size].last / self.release[0].of[size].last
    }
}
