//! Up to date or not: what the last build of each target was made of, kept in a file, against what
//! is there now.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::name::identities;

const FILE: &str = ".pbuild.state";

/// Stamps that no file has: it is not known which content was read.
const MEANWHILE: &str = "changed meanwhile";
const FUTURE: &str = "from the future";

const MISSING: &str = "missing";

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

    /// The target is built again.
    pub fn forget(&mut self, target: &str) {
        self.targets.remove(target);
    }

    /// What a target was found to have read when it was built last.
    pub fn found(&self, target: &str) -> impl Iterator<Item = &String> {
        self.get(target).into_iter().flat_map(|record| record.found.keys())
    }
}

impl Check {
    /// Why a target has to be built, if it has to.
    pub fn why(self, last: Option<&Record>, now: &Record) -> Option<String> {
        if now.outputs.is_empty() {
            return Some("it has no outputs".to_owned());
        }
        let Some(last) = last else {
            return Some("never built".to_owned());
        };
        if last.command != now.command {
            return Some("its command has changed".to_owned());
        }
        let mut outputs = now.outputs.iter();
        if let Some((file, _)) = outputs.find(|(_, stamp)| *stamp == MISSING) {
            return Some(format!("output {file} is missing"));
        }
        if let Some(file) = difference(&last.inputs, &now.inputs) {
            return Some(match (last.inputs.get(file), now.inputs.get(file)) {
                (None, _) => format!("input {file} is new"),
                (_, None) => format!("input {file} is none any more"),
                _ => format!("input {file} has changed{}", from_future(file)),
            });
        }
        let found = self.stamp_all(last.found.keys());
        if let Some(file) = difference(&last.found, &found) {
            return Some(match (&*last.found[file], &*found[file]) {
                (_, MISSING) => format!("header {file} is missing"),
                (MEANWHILE, _) => format!("header {file} has changed while the command ran"),
                (FUTURE, _) => {
                    format!("header {file} was from the future (was the clock set back?)")
                }
                _ => format!("header {file} has changed{}", from_future(file)),
            });
        }
        let file = difference(&last.outputs, &now.outputs)?;
        Some(format!("output {file} is not as it was left"))
    }

    /// What a file is like now. `None`: it is not there, or can't be read.
    fn stamp(self, file: &str) -> Option<String> {
        let place = place(file);
        let metadata = fs::metadata(&place).ok()?;
        if !metadata.is_file() {
            return Some("not a regular file".to_owned()); // To read from a FIFO might never end.
        }
        match self {
            Self::Time => {
                let (seconds, nanos) = (metadata.mtime(), metadata.mtime_nsec());
                let bytes = metadata.len();
                let mut stamp = format!("time {seconds}.{nanos:09}, {bytes} bytes");
                // A link may come to lead to another file, with the same time and size.
                if place != file {
                    stamp += &format!(", at {place}");
                }
                Some(stamp)
            }
            Self::Hash => {
                let mut hasher = blake3::Hasher::new();
                io::copy(&mut File::open(place).ok()?, &mut hasher).ok()?;
                Some(format!("blake3 {}", hasher.finalize()))
            }
        }
    }

    /// The stamps of files that a command has read and no target makes. A file that has changed
    /// since the command began may have been read before that. It gets a stamp that no file has, so
    /// that the target is built again. `before` are changes that are known to be older, whatever
    /// the clock says; `span` is when the command ran.
    pub fn stamp_found(
        self,
        files: Vec<String>,
        before: &Changes,
        span: Range<SystemTime>,
    ) -> Stamps {
        let stamp = |file: &String| {
            let (Some(stamp), Some(time)) = (self.stamp(file), change(file)) else {
                return MEANWHILE.to_owned();
            };
            match time {
                _ if time < span.start || before.get(file) == Some(&time) => stamp,
                _ if time > span.end => FUTURE.to_owned(),
                _ => MEANWHILE.to_owned(),
            }
        };
        let files = files.into_iter();
        files.map(|file| (file.clone(), stamp(&file))).collect()
    }

    pub fn stamp_all<'a>(self, files: impl Iterator<Item = &'a String>) -> Stamps {
        let stamp = |file: &String| self.stamp(file).unwrap_or_else(|| MISSING.to_owned());
        files.map(|file| (file.clone(), stamp(file))).collect()
    }
}

fn from_future(file: &str) -> &'static str {
    let time = fs::metadata(file).and_then(|metadata| metadata.modified());
    if time.is_ok_and(|time| time > SystemTime::now()) {
        ", its time is in the future (was the clock set back?)"
    } else {
        ""
    }
}

/// When files were changed last. Not the time of modification, which can be set, and moves with the
/// file.
pub type Changes = HashMap<String, SystemTime>;

pub fn changes<'a>(files: impl Iterator<Item = &'a String>) -> Changes {
    files.filter_map(|file| Some((file.clone(), change(file)?))).collect()
}

fn change(file: &str) -> Option<SystemTime> {
    let metadata = fs::metadata(place(file)).ok()?;
    let seconds = metadata.ctime().try_into().ok()?;
    let since = Duration::new(seconds, metadata.ctime_nsec() as u32);
    Some(UNIX_EPOCH + since)
}

/// Where a file is, after all symbolic links.
fn place(file: &str) -> String {
    identities(file).last().unwrap_or_default()
}

/// The first file that is not the same in both.
fn difference<'a>(last: &'a Stamps, now: &'a Stamps) -> Option<&'a String> {
    let mut files = last.keys().chain(now.keys());
    files.find(|file| last.get(*file) != now.get(*file))
}
