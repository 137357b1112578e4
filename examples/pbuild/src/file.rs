//! A build file: what its TOML says, and where it says so.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use toml::Spanned;

use crate::name::{identity, is_own, plain};

/// A word of a build file, and its place there.
#[derive(Clone, Debug)]
pub struct Word {
    pub text: String,
    pub at: At,
}

/// A place in a build file. Shown as `pbuild.toml:3:9`.
#[derive(Clone, Debug)]
pub struct At {
    source: Arc<Source>,
    span: Range<usize>,
    /// A file that the command at this place reads, as its depfile says.
    pub found: Option<String>,
}

#[derive(Debug)]
struct Source {
    path: String,
    text: String,
}

/// What is wrong with the input. Shown with its place and the line that it is in.
#[derive(Debug, thiserror::Error)]
pub struct Complaint {
    pub message: String,
    pub at: Option<At>,
}

impl Complaint {
    /// Of no place in a build file.
    pub fn new(message: String) -> Self {
        Self { message, at: None }
    }
}

pub struct Target {
    pub name: Word,
    pub command: Option<Word>,
    pub inputs: Vec<Word>,
    pub outputs: Vec<Word>,
    /// Other targets: first those that the file names. [`crate::graph`] adds those that make an
    /// input, and those that make what the command was found to read.
    pub needs: Vec<Word>,
    /// How many of `needs` the file names.
    pub named: usize,
    /// That of the outputs which is a build file, to be read when this target is built.
    pub generates: Option<Word>,
}

impl Target {
    /// The need for the maker of a file that the command reads, unless it is needed already.
    pub fn finds(&self, file: &str, maker: &Word) -> Option<Word> {
        let known = self.needs.iter().chain([&self.name]);
        let at = self.command.as_ref()?.at.finding(file);
        let text = maker.text.clone();
        let is_new = known.into_iter().all(|need| need.text != text);
        is_new.then_some(Word { text, at })
    }

    pub fn makes(&self, file: &str) -> bool {
        let file = identity(Path::new(file));
        let mut outputs = self.outputs.iter();
        outputs.any(|output| identity(Path::new(&output.text)) == file)
    }
}

pub struct BuildFile {
    pub targets: Vec<Target>,
    /// What the file is for.
    pub needs: Vec<Word>,
}

/// As serde reads it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[serde(default)]
    targets: BTreeMap<Spanned<String>, RawTarget>,
    needs: Option<Vec<Spanned<String>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTarget {
    command: Option<Spanned<String>>,
    #[serde(default)]
    inputs: Vec<Spanned<String>>,
    #[serde(default)]
    outputs: Vec<Spanned<String>>,
    #[serde(default)]
    needs: Vec<Spanned<String>>,
    generates: Option<Spanned<String>>,
}

pub fn read(path: &str) -> Result<BuildFile, Complaint> {
    let text = fs::read_to_string(path)
        .map_err(|error| Complaint::new(format!("cannot read {path}: {error}")))?;
    parse(path, text)
}

fn parse(path: &str, text: String) -> Result<BuildFile, Complaint> {
    let path = path.to_owned();
    let source = Arc::new(Source { path, text });
    let at = |span| At { source: Arc::clone(&source), span, found: None };
    let raw: RawFile = toml::from_str(&source.text).map_err(|error| Complaint {
        message: error.message().to_owned(),
        at: error.span().map(at),
    })?;
    let word =
        |spanned: Spanned<String>| Word { at: at(spanned.span()), text: spanned.into_inner() };
    let words = |list: Vec<_>| list.into_iter().map(word).collect::<Vec<_>>();
    let file = |spanned| {
        let Word { text, at } = word(spanned);
        let text = plain(&text);
        Word { text, at }
    };
    let files = |list: Vec<_>| list.into_iter().map(file).collect();

    let targets: Vec<_> = raw
        .targets
        .into_iter()
        .map(|(name, raw)| Target {
            name: word(name),
            command: raw.command.map(word),
            inputs: files(raw.inputs),
            outputs: files(raw.outputs),
            named: raw.needs.len(),
            needs: words(raw.needs),
            generates: raw.generates.map(file),
        })
        .collect();
    targets.iter().try_for_each(check)?;
    let all = || targets.iter().map(|target| target.name.clone()).collect();
    let needs = raw.needs.map_or_else(all, words);
    Ok(BuildFile { targets, needs })
}

/// What is wrong with a target whatever the others are.
fn check(target: &Target) -> Result<(), Complaint> {
    let name = &target.name.text;
    if let Some(empty) =
        [&target.inputs, &target.outputs].into_iter().flatten().find(|file| file.text.is_empty())
    {
        return Err(empty.at.complain("this names no file"));
    }
    let mut files = target.inputs.iter().chain(&target.outputs);
    if let Some(own) = files.find(|file| is_own(&file.text)) {
        let message = "names that begin with `.pbuild.` are for pbuild's own files";
        return Err(own.at.complain(message));
    }
    match &target.command {
        // The command writes its outputs under temporary names, so it has to mention them.
        Some(command) => {
            for (i, output) in target.outputs.iter().enumerate() {
                let one = format!("{{out{}}}", i + 1);
                if !command.text.contains("{out}") && !command.text.contains(&one) {
                    let file = &output.text;
                    return Err(command.at.complain(format!(
                        "the command of `{name}` must write `{file}` as {{out}} or {one}"
                    )));
                }
            }
        }
        None => {
            if let Some(output) = target.outputs.first() {
                return Err(output
                    .at
                    .complain(format!("`{name}` has an output, but no command to make it")));
            }
        }
    }
    match &target.generates {
        Some(file) if !target.makes(&file.text) => {
            Err(file.at.complain(format!("`{}` is no output of `{name}`", file.text)))
        }
        _ => Ok(()),
    }
}

impl At {
    /// The same place, where the command was found to read a file.
    pub fn finding(&self, file: &str) -> Self {
        let found = Some(file.to_owned());
        Self { found, ..self.clone() }
    }

    pub fn complain(&self, message: impl Into<String>) -> Complaint {
        Complaint { message: message.into(), at: Some(self.clone()) }
    }

    /// Both from 1; columns are characters.
    fn line_and_column(&self) -> (usize, usize) {
        let before = &self.source.text[..self.span.start];
        let line = before.rfind('\n').map_or(0, |newline| newline + 1);
        let number = before.matches('\n').count() + 1;
        (number, before[line..].chars().count() + 1)
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = self.line_and_column();
        write!(f, "{}:{line}:{column}", self.source.path)?;
        match &self.found {
            Some(file) => write!(f, " (its command reads {file})"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(at) = &self.at else {
            return f.write_str(&self.message);
        };
        let (line, column) = at.line_and_column();
        let text = at.source.text.lines().nth(line - 1).unwrap_or_default();
        let marked = at.source.text[at.span.clone()].lines().next();
        let width = marked.map_or(1, |marked| marked.chars().count().max(1));
        write!(f, "{at}: {}", self.message)?;
        // A tab stays a tab, so that the mark is below what it marks.
        let blank: String =
            text.chars().take(column - 1).map(|c| if c == '\t' { c } else { ' ' }).collect();
        write!(f, "\n{line:>5} | {text}\n      | {blank}{}", "^".repeat(width))
    }
}
