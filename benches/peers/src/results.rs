//! All that was measured, to look things up in.

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

    /// How a release of so many compares with a bare broadcast to as many.
    pub fn beside_broadcast(&self, row: &release::Row, size: usize) -> f64 {
        row.of[size].last / self.release[0].of[size].last
    }
}
