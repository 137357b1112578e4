//! What a compiler says it has read: the makefile rule that `gcc -MMD -MF` writes.

use std::iter::Peekable;
use std::str::Chars;

use crate::file::plain;

/// The prerequisites of the rule. (Not those of further ones, such as `-MP` adds.)
pub fn parse(text: &str) -> Vec<String> {
    let text = text.replace("\\\r\n", " ").replace("\\\n", " ");
    let rule = text.lines().find(|line| !line.trim().is_empty());
    let Some((_, prerequisites)) = rule.and_then(|rule| rule.split_once(": ")) else {
        return Vec::new();
    };
    let mut chars = prerequisites.chars().peekable();
    std::iter::from_fn(|| word(&mut chars)).collect()
}

/// The next name, with make's quoting undone: `\ `, `\#` and `$$`.
fn word(chars: &mut Peekable<Chars>) -> Option<String> {
    while chars.next_if(|c| c.is_whitespace()).is_some() {}
    let mut word = String::new();
    while let Some(c) = chars.next_if(|c| !c.is_whitespace()) {
        let quoted = match c {
            '\\' => chars.next_if(|c| " #\\".contains(*c)),
            '$' => chars.next_if(|c| *c == '$'),
            _ => None,
        };
        word.push(quoted.unwrap_or(c));
    }
    (!word.is_empty()).then(|| plain(&word))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn what_gcc_writes() {
        let text = "a.o: src/a.c ./src/a.h \\\n  /usr/my\\ lib/b\\#1.h src/c$$d.h\n\nsrc/a.h:\n";
        let files = ["src/a.c", "src/a.h", "/usr/my lib/b#1.h", "src/c$d.h"];
        assert_eq!(parse(text), files);
        assert_eq!(parse("a.o: a.c\n"), ["a.c"]);
        assert!(parse("").is_empty());
        assert!(parse("a.o:\n").is_empty());
    }
}
