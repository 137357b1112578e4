//! How the building of one target ended, and of all.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::file::{Complaint, Word};

/// What a target gives to those that need it: the files that it made, and those that its generated
/// file asked for. One without outputs passes on its inputs and what it needs itself.
pub struct Built {
    pub files: Vec<String>,
}

pub type Ended = Result<Arc<Built>, Broken>;

/// Why a target was not built. All targets that need it, directly or not, get the same.
#[derive(Clone, Debug)]
pub enum Broken {
    Failed(Arc<Failure>),
    /// A generated file is wrong, or closes a cycle.
    Input(Arc<Complaint>),
    /// The build was stopped before it came to this.
    Stopped,
}

impl Broken {
    /// Whether it is the very same, not one that looks alike.
    pub fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Failed(one), Self::Failed(other)) => Arc::ptr_eq(one, other),
            (Self::Input(one), Self::Input(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

/// A command that failed.
#[derive(Debug)]
pub struct Failure {
    pub target: Word,
    pub command: String,
    pub how: String,
    pub output: String,
}

/// Where the output of a target that failed is kept, until it is built.
pub fn log_file(target: &str) -> PathBuf {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._+-".contains(c);
    let mut name: String =
        target.chars().map(|c| if plain(c) { c } else { '_' }).take(100).collect();
    if name != target {
        name += &blake3::hash(target.as_bytes()).to_hex()[..8];
    }
    Path::new(".pbuild.logs").join(name + ".log")
}

/// How a build ended.
#[derive(Default)]
pub struct Report {
    /// Commands that succeeded.
    pub ran: usize,
    pub up_to_date: usize,
    /// By the names of the targets.
    pub broken: Vec<(String, Broken)>,
    /// Never begun, or interrupted.
    pub left: usize,
    pub interrupted: bool,
}
