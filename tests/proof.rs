//! `docs/proof.md` and `docs/user-code.md` name tests and models that exist, and leave out no sentence
//! that has to be there.
#![cfg(not(loom))]

use std::fs;
use std::path::Path;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The names such as `stats::each_group_counts_for_itself` on a page.
fn names(page: &str) -> Vec<(&str, &str)> {
    let code = page.split('`').skip(1).step_by(2);
    let paths = code.filter_map(|code| code.rsplit_once("::"));
    let lower = |name: &str| name.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '_' | '/'));
    paths.filter(|(file, test)| lower(file) && lower(test)).collect()
}

/// Where the page's `file` is.
fn source(file: &str) -> String {
    let path = match file {
        _ if file.starts_with("model_") => format!("loom-tests/{file}.rs"),
        _ if file.starts_with("src/") => format!("{file}.rs"),
        _ => format!("tests/{file}.rs"),
    };
    read(path)
}

fn has_test(source: &str, test: &str) -> bool {
    let lines: Vec<_> = source.lines().map(str::trim).collect();
    let tests = lines.iter().enumerate().filter(|(_, line)| {
        let name = line.strip_prefix("fn ").and_then(|it| it.split_once('('));
        name.is_some_and(|(name, _)| name == test)
    });
    let attributes = tests.map(|(i, _)| lines[..i].iter().rev());
    attributes.into_iter().any(|mut above| {
        let mut attributes = above.by_ref().take_while(|line| line.starts_with("#["));
        attributes.any(|line| *line == "#[test]")
    })
}

#[test]
fn every_test_that_a_page_names_exists() {
    for path in ["docs/proof.md", "docs/user-code.md"] {
        let page = read(path);
        let names = names(&page);
        assert!(names.len() > 30, "{path} names {} tests", names.len());
        for (file, test) in names {
            assert!(has_test(&source(file), test), "{path}: {file}::{test}");
        }
    }
}

#[test]
fn a_function_that_is_no_test_is_not_found() {
    let source = "fn helper() {}\n#[test]\nfn a_test() {}\n";
    assert!(has_test(source, "a_test"));
    assert!(!has_test(source, "helper") && !has_test(source, "a_tes"));
}

/// Without what Markdown adds: emphasis, code, links.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("](") {
        plain.push_str(before);
        plain.push(']');
        rest = after.split_once(')').expect("the link's end").1;
    }
    plain.push_str(rest);
    plain.retain(|c| !"*`[]".contains(c));
    plain.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The sentences of documentation, of which each line begins with `marker`. Tables, headings and code
/// are left out.
fn sentences<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut paragraphs = vec![String::new()];
    let mut is_code = false;
    for line in lines.map(str::trim) {
        is_code ^= line.starts_with("```");
        let text = line.strip_prefix("- ").unwrap_or(line);
        if is_code
            || text.is_empty()
            || text != line
            || line.starts_with("```")
            || line.starts_with(['#', '|'])
        {
            paragraphs.push(String::new());
        }
        if !is_code && !line.starts_with("```") && !line.starts_with(['#', '|']) {
            let paragraph = paragraphs.last_mut().expect("there is one");
            paragraph.push_str(text);
            paragraph.push(' ');
        }
    }
    let mut sentences = Vec::new();
    for paragraph in &paragraphs {
        // `G1 One at a time.` is a heading.
        let text = match paragraph.strip_prefix("**G") {
            Some(rest) => rest.split_once("**").expect("the heading's end").1,
            None => paragraph,
        };
        let text = plain(text);
        sentences.extend(text.split_inclusive(". ").map(|it| it.trim().to_owned()));
    }
    sentences.retain(|sentence| !sentence.is_empty());
    sentences
}

/// The lines of the crate's own documentation.
fn crate_docs(source: &str) -> Vec<&str> {
    let lines = source.lines();
    lines.filter_map(|line| line.strip_prefix("//!")).collect()
}

/// The sentences of the documentation of public items.
fn item_docs(source: &str) -> Vec<String> {
    let (source, _) = source.split_once("#[cfg(all(test").unwrap_or((source, ""));
    let (mut docs, mut found) = (Vec::new(), Vec::new());
    for line in source.lines().map(str::trim) {
        if let Some(doc) = line.strip_prefix("///") {
            docs.push(doc);
        } else if !line.starts_with("#[") {
            let private = ["pub(crate)", "const ", "static ", "struct ", "enum "];
            if !private.iter().any(|it| line.starts_with(it)) {
                found.extend(sentences(docs.iter().copied()));
            }
            docs.clear();
        }
    }
    found
}

fn is_strong(sentence: &str) -> bool {
    let lower = sentence.to_lowercase();
    let words: Vec<_> = lower.split(|c: char| !c.is_alphanumeric()).collect();
    let strong = |word: &&str| ["never", "always", "exact", "exactly"].contains(word);
    words.iter().any(strong) || words.windows(2).any(|pair| pair == ["at", "once"])
}

#[test]
fn no_sentence_that_needs_a_test_is_missing() {
    let proof = plain(&read("docs/proof.md"));
    let lib = read("src/lib.rs");
    let docs = crate_docs(&lib);
    let part = |from: &str, to: &str| {
        let at = |heading: &str| docs.iter().position(|line| line.trim() == heading);
        let (from, to) = (at(from).expect(from), at(to).expect(to));
        sentences(docs[from + 1..to].iter().copied())
    };
    let mut needed: Vec<_> = part("# Guarantees", "# Deadlocks");
    needed.retain(|it| !it.starts_with("See ") && !it.starts_with("Docs, tests and models"));
    assert!(needed.len() > 20, "{needed:?}");
    let strong = |it: &String| is_strong(it);
    needed.extend(sentences(docs.into_iter()).into_iter().filter(strong));
    for file in fs::read_dir(root().join("src")).expect("src") {
        let path = file.expect("a file").path();
        // They have no public items.
        let private = ["options", "sync"].map(|name| format!("{name}.rs"));
        if !private.iter().any(|name| path.ends_with(name)) {
            let items = item_docs(&read(path));
            needed.extend(items.into_iter().filter(strong));
        }
    }
    let missing: Vec<_> = needed.iter().filter(|it| !proof.contains(*it)).collect();
    assert!(missing.is_empty(), "docs/proof.md lacks {missing:#?}");
}

/// Each row has a test, or refers to the row before.
#[test]
fn every_row_names_a_test() {
    for path in ["docs/proof.md", "docs/user-code.md"] {
        let page = read(path);
        let rows = page.lines().filter(|line| line.starts_with("| "));
        let rows = rows.filter(|line| !line.starts_with("| ---"));
        for row in rows {
            let cells: Vec<_> = row.trim_matches('|').split(" | ").collect();
            let last = cells.last().expect("a row has cells").trim();
            let heading = ["Fails if it is false", "Tests"].contains(&last);
            assert!(heading || last == "the same" || !names(last).is_empty(), "{path}: {row}");
        }
    }
}

/// What the page says of orderings.
#[test]
fn atomics_are_relaxed_counters() {
    for file in fs::read_dir(root().join("src")).expect("src") {
        let path = file.expect("a file").path();
        let source = read(&path);
        let code = source.lines().filter(|it| !it.trim().starts_with("//"));
        for line in code.filter(|line| line.contains("atomic::") || line.contains("Ordering")) {
            assert!(path.ends_with("sync.rs"), "{}: {line}", path.display());
            assert!(
                line.starts_with("type Count = ")
                    || line.contains("fetch_add(n, ") && line.contains("Ordering::Relaxed"),
                "{line}"
            );
        }
    }
}
