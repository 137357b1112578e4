//! Seeded bugs: reads the files in `bugs/` and applies them to the sources.
//!
//! `bugs/README.md` describes the format. `cargo models` uses this to build the models over sources
//! with a bug, and `tests/seeded_bugs.rs` to check within a second that every bug still applies.

use std::collections::BTreeMap;
use std::path::Path;
use std::{fs, io};

/// The text of each file of the crate, by its path: `src/group.rs`.
pub type Sources = BTreeMap<String, String>;

#[derive(Debug)]
pub struct Bug {
    pub name: String,
    /// Why somebody might write it.
    pub why: String,
    /// `model_order::a_later_call_gets_a_later_run`: each of these has to fail.
    pub caught_by: Vec<String>,
    hunks: Vec<Hunk>,
}

/// Lines of one file, and what the bug puts in their place.
#[derive(Debug)]
struct Hunk {
    file: String,
    old: Vec<String>,
    new: Vec<String>,
}

/// Every bug, with the name of its file, in the order of those names.
pub fn read_all(root: &Path) -> io::Result<Vec<(String, Result<Bug, String>)>> {
    let texts = read_folder(root, "loom-tests/bugs", ".patch")?;
    let parse = |(file, text): (String, String)| (file, Bug::parse(&text));
    Ok(texts.into_iter().map(parse).collect())
}

pub fn read_sources(root: &Path) -> io::Result<Sources> {
    read_folder(root, "src", ".rs")
}

fn read_folder(root: &Path, folder: &str, ending: &str) -> io::Result<BTreeMap<String, String>> {
    let mut texts = BTreeMap::new();
    for entry in fs::read_dir(root.join(folder))? {
        let entry = entry?;
        let name = format!("{folder}/{}", entry.file_name().to_string_lossy());
        if name.ends_with(ending) {
            texts.insert(name, fs::read_to_string(entry.path())?);
        }
    }
    Ok(texts)
}

impl Bug {
    pub fn parse(text: &str) -> Result<Self, String> {
        let (header, diff) = text.split_once("\n--- a/").ok_or("no line `--- a/FILE`")?;
        let (name, rest) = header.split_once("\n\n").ok_or("no name on its own line")?;
        let (why, models) = rest
            .rsplit_once("\n\nCaught by:")
            .ok_or("no paragraph `Caught by:`, or none before it that says why")?;
        // What `git diff` writes before the first file may follow.
        let models = models.split("\n\n").next().unwrap_or_default();
        let models = models.split(',').map(|model| model.trim().to_owned());
        let bug = Self {
            name: name.trim().to_owned(),
            why: why.trim().to_owned(),
            caught_by: models.filter(|model| !model.is_empty()).collect(),
            hunks: parse_diff(&format!("--- a/{diff}"))?,
        };
        if bug.name.is_empty() || bug.name.contains('\n') {
            return Err("the name is not one line".to_owned());
        }
        if bug.why.is_empty() {
            return Err("it does not say why somebody might write it".to_owned());
        }
        if bug.caught_by.is_empty() {
            return Err("it names no model that catches it".to_owned());
        }
        Ok(bug)
    }

    /// Puts the bug into the sources, hunk by hunk.
    pub fn apply(&self, sources: &mut Sources) -> Result<(), String> {
        for hunk in &self.hunks {
            let file = &hunk.file;
            let text = sources.get_mut(file).ok_or(format!("no file {file}"))?;
            *text = hunk.apply(text).map_err(|why| format!("{file} {why}"))?;
        }
        Ok(())
    }
}

/// A unified diff, of which the line numbers are not looked at.
fn parse_diff(diff: &str) -> Result<Vec<Hunk>, String> {
    let mut hunks: Vec<Hunk> = Vec::new();
    let mut file = None;
    let mut in_hunk = false;
    for line in diff.lines() {
        if let Some(path) = line.strip_prefix("--- a/") {
            (file, in_hunk) = (Some(path.to_owned()), false);
        } else if line.starts_with("diff --git ") {
            in_hunk = false;
        } else if line.starts_with("@@") {
            in_hunk = true;
            hunks.push(Hunk {
                file: file.clone().ok_or("a hunk of no file")?,
                old: Vec::new(),
                new: Vec::new(),
            });
        } else if let (true, Some(hunk)) = (in_hunk, hunks.last_mut()) {
            let (sign, code) = match line.chars().next() {
                // Editors remove the space from an empty line of context.
                None => (' ', ""),
                Some(sign) => (sign, &line[sign.len_utf8()..]),
            };
            match sign {
                ' ' => {
                    hunk.old.push(code.to_owned());
                    hunk.new.push(code.to_owned());
                }
                '-' => hunk.old.push(code.to_owned()),
                '+' => hunk.new.push(code.to_owned()),
                _ => return Err(format!("not a line of a diff: {line}")),
            }
        }
    }
    hunks.iter_mut().for_each(Hunk::trim);
    match hunks.iter().find(|hunk| hunk.old == hunk.new) {
        Some(hunk) => Err(format!("a hunk of {} changes nothing", hunk.file)),
        None if hunks.is_empty() => Err("no hunk".to_owned()),
        None => Ok(hunks),
    }
}

impl Hunk {
    /// Removes empty lines of context from the end: they may be there to part two files.
    fn trim(&mut self) {
        let is_empty = |lines: &[String]| lines.last().is_some_and(String::is_empty);
        while is_empty(&self.old) && is_empty(&self.new) {
            self.old.pop();
            self.new.pop();
        }
    }

    /// The old lines have to be there exactly once: a hunk that fits two places, or none, tests
    /// something else than its author meant, or nothing.
    fn apply(&self, text: &str) -> Result<String, String> {
        let lines: Vec<_> = text.lines().collect();
        let places = match self.old.len() {
            0 => Vec::new(),
            length => (0..)
                .zip(lines.windows(length))
                .filter(|(_, window)| *window == self.old)
                .map(|(place, _)| place)
                .collect(),
        };
        let [place] = places[..] else {
            let (times, old) = (places.len(), self.old.join("\n"));
            return Err(format!("has these lines {times} times, not once:\n{old}"));
        };
        let new = self.new.iter().map(String::as_str);
        let before = lines[..place].iter().copied();
        let after = lines[place + self.old.len()..].iter().copied();
        let lines = before.chain(new).chain(after);
        Ok(lines.flat_map(|line| [line, "\n"]).collect())
    }
}
