//! What a command says it has read: the rules that compilers write to a depfile, in make's syntax.
//!
//! All prerequisites of all rules count, for a file may be named in any of them. What is not
//! understood is an error: to skip it could hide a file, and the target would be stale.

#[derive(Debug, PartialEq, thiserror::Error)]
pub enum Error {
    #[error("it has no rule")]
    NoRule,
    #[error("line {0} is not a rule: {1}")]
    NotARule(usize, String),
}

/// A character, and whether it stands for itself. One that does not separates words or rules.
type Char = (char, bool);

const COLON: Char = (':', false);

pub fn parse(text: &str) -> Result<Vec<String>, Error> {
    let mut files = Vec::new();
    let mut rules = 0;
    for (number, line) in logical_lines(text) {
        let chars = unquote(&line);
        let words: Vec<&[Char]> = chars
            .split(|c| matches!(c, (' ' | '\t', false)))
            .filter(|word| !word.is_empty())
            .collect();
        if words.is_empty() || is_assignment(&words) {
            continue;
        }
        let Some((targets, prerequisites)) = split(&words) else {
            return Err(Error::NotARule(number, line));
        };
        // Says only that its prerequisites are not files.
        if targets == ".PHONY" {
            continue;
        }
        rules += 1;
        files.extend(prerequisites);
    }
    (rules > 0).then_some(files).ok_or(Error::NoRule)
}

/// Lines with their numbers, after a backslash at the end of one has joined it to the next.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    let mut continues = false;
    for (i, line) in text.lines().enumerate() {
        let line = line.strip_suffix('\r').unwrap_or(line);
        let backslashes = line.len() - line.trim_end_matches('\\').len();
        // Two backslashes are a quoted one.
        let (line, ends_open) = match line.strip_suffix('\\') {
            Some(line) if backslashes % 2 == 1 => (line, true),
            _ => (line, false),
        };
        match lines.last_mut().filter(|_| continues) {
            Some((_, begun)) => *begun += &format!(" {line}"),
            None => lines.push((i + 1, line.to_owned())),
        }
        continues = ends_open;
    }
    lines
}

/// Undoes make's quoting, up to a comment.
///
/// Backslashes quote only a blank, `#` or `:` behind them. Before a blank, two stand for one, as
/// gcc and make have it; elsewhere each stands for itself.
fn unquote(line: &str) -> Vec<Char> {
    let mut chars: Vec<Char> = Vec::new();
    let mut backslashes = 0;
    // A blank at the end closes the last word.
    let mut rest = line.chars().chain([' ']).peekable();
    while let Some(c) = rest.next() {
        if c == '\\' {
            backslashes += 1;
            continue;
        }
        let (kept, quoted) = match c {
            ' ' | '\t' => (backslashes / 2, backslashes % 2 == 1),
            '#' | ':' if backslashes > 0 => (backslashes - 1, true),
            '$' => (backslashes, rest.next_if_eq(&'$').is_some()),
            _ => (backslashes, !matches!(c, '#' | ':' | '|')),
        };
        chars.extend(std::iter::repeat_n(('\\', true), kept));
        backslashes = 0;
        // Within a word, `#` is part of it.
        let begins_word = matches!(chars.last(), None | Some((' ' | '\t', false)));
        if (c, quoted) == ('#', false) && begins_word {
            break;
        }
        chars.push((c, quoted));
    }
    chars
}

/// `NAME += value` and the like, which gcc writes for modules.
fn is_assignment(words: &[&[Char]]) -> bool {
    let operator = words.get(1).map(|word| text(word));
    let operators = ["=", ":=", "::=", "+=", "?="];
    // `a: =` is a rule.
    !words[0].contains(&COLON) && operator.is_some_and(|o| operators.contains(&&*o))
}

/// The first target of a rule, and the prerequisites. The colon between is the first at the end of
/// a word, for names may hold others (gcc does not quote them); if there is none, as in `a.o:a.c`,
/// it is the first of all.
fn split(words: &[&[Char]]) -> Option<(String, Vec<String>)> {
    let at_end = words.iter().position(|word| word.ends_with(&[COLON]));
    let index = at_end.or_else(|| words.iter().position(|word| word.contains(&COLON)))?;
    let word = words[index];
    let colon = match at_end {
        Some(_) => word.len() - 1,
        None => word.iter().position(|c| *c == COLON)?,
    };
    let target = text(if index > 0 { words[0] } else { &word[..colon] });
    let after = [&word[colon + 1..]].into_iter();
    let prerequisites = after.chain(words[index + 1..].iter().copied());
    // What comes after `|` need only be there; it is not read.
    let read = prerequisites.take_while(|word| *word != [('|', false)]);
    let read = read.filter(|word| !word.is_empty()).map(text).collect();
    (!target.trim_matches(':').is_empty()).then_some((target, read))
}

fn text(word: &[Char]) -> String {
    word.iter().map(|(c, _)| *c).collect()
}
