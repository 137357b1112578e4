//! Up to date or not: what the last build of each target was made of, kept in a file, against what
//! is there now.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

const FILE: &str = ".pbuild.state";

/// How two states of a file are told apart.
#[derive(Clone, Copy)]
pub enum Check {
    /// By its time of modification and its size. Any other time counts, older ones too.
    Time,
    /// By its content.
    Hash,
}

/// Files, and what each was like.
pub type Stamps = BTreeMap<String, String>;

/// How one target was built.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The command's hash.
    pub command: String,
    pub inputs: Stamps,
    /// What the command said it had read, in its depfile.
    pub found: Stamps,
    pub outputs: Stamps,
}

#[derive(Default, Serialize, Deserialize)]
pub struct Records {
    targets: BTreeMap<String, Record>,
}

impl Records {
    /// None that can be read is as good as none: everything is built again.
    pub fn load() -> Self {
        let text = fs::read_to_string(FILE).unwrap_or_default();
        toml::from_str(&text).unwrap_or_default()
    }

    /// Written beside the old one and put in its place, so that there is always a whole one.
    pub fn save(&self) -> io::Result<()> {
        let text = toml::to_string(self).map_err(io::Error::other)?;
        let new = format!("{FILE}.new");
        fs::write(&new, text)?;
        File::open(&new)?.sync_all()?;
        fs::rename(new, FILE)
    }

    pub fn put(&mut self, target: &str, record: Record) {
        self.targets.insert(target.to_owned(), record);
    }

    pub fn get(&self, target: &str) -> Option<&Record> {
        self.targets.get(target)
    }
}

impl Check {
    /// Why a target has to be built, if it has to.
    pub fn why(self, last: Option<&Record>, now: &Record) -> Option<String> {
        let Some(last) = last else {
            return Some("never built".to_owned());
        };
        if last.command != now.command {
            return Some("its command has changed".to_owned());
        }
        let missing = now.outputs.keys().find(|file| !Path::new(file).exists());
        if let Some(file) = missing {
            return Some(format!("output {file} is missing"));
        }
        if let Some(file) = difference(&last.inputs, &now.inputs) {
            return Some(match (last.inputs.get(file), now.inputs.get(file)) {
                (None, _) => format!("input {file} is new"),
                (_, None) => format!("input {file} is none any more"),
                _ => format!("input {file} has changed"),
            });
        }
        if let Some(file) = difference(&last.found, &self.stamp_all(last.found.keys())) {
            return Some(format!("header {file} has changed"));
        }
        let file = difference(&last.outputs, &now.outputs)?;
        Some(format!("output {file} is not as it was left"))
    }

    /// What a file is like now. `None`: it is not there, or can't be read.
    pub fn stamp(self, file: &str) -> Option<String> {
        match self {
            Self::Time => {
                let metadata = fs::metadata(file).ok()?;
                let (seconds, nanos) = (metadata.mtime(), metadata.mtime_nsec());
                Some(format!(
                    "time {seconds}.{nanos:09}, {} bytes",
                    metadata.len()
                ))
            }
            Self::Hash => {
                let mut hasher = blake3::Hasher::new();
                io::copy(&mut File::open(file).ok()?, &mut hasher).ok()?;
                Some(format!("blake3 {}", hasher.finalize()))
            }
        }
    }

    /// The stamps of files that the command turned out to have read. It may have read something
    /// else than what is there now: what has changed since the command began gets a stamp that
    /// nothing has, and so is built again.
    pub fn stamp_found(self, files: Vec<String>, began: SystemTime) -> Stamps {
        let stamp = |file: &String| {
            // Not the time of modification, which can be set, and moves with the file.
            let metadata = fs::metadata(file).ok()?;
            let since = Duration::new(
                metadata.ctime().try_into().ok()?,
                metadata.ctime_nsec() as u32,
            );
            let changed = UNIX_EPOCH + since;
            // (The times of files lag behind the clock, by some milliseconds. But what changes so
            // soon after a command began, it has not read yet.)
            if changed > began {
                return None;
            }
            self.stamp(file)
        };
        files
            .into_iter()
            .map(|file| (stamp(&file).unwrap_or_else(|| "unknown".to_owned()), file))
            .map(|(stamp, file)| (file, stamp))
            .collect()
    }

    pub fn stamp_all<'a>(self, files: impl Iterator<Item = &'a String>) -> Stamps {
        let stamp = |file: &String| self.stamp(file).unwrap_or_else(|| "missing".to_owned());
        files.map(|file| (file.clone(), stamp(file))).collect()
    }
}

/// The first file that is not the same in both.
fn difference<'a>(last: &'a Stamps, now: &'a Stamps) -> Option<&'a String> {
    let mut files = last.keys().chain(now.keys());
    files.find(|file| last.get(*file) != now.get(*file))
}
