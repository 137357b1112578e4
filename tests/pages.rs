//! The pages say what is there: the code of `docs/algorithm.md` is the code that its model runs, the
//! files that they name exist, and they read well on GitHub, too.

use std::fs;
use std::path::{Path, PathBuf};

#[path = "../docs/algorithm.rs"]
mod algorithm;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The README, what stands beside it, and every page in `docs/`.
fn pages() -> Vec<(PathBuf, String)> {
    let dirs = [root().to_owned(), root().join("docs")];
    let files = dirs.iter().flat_map(|dir| fs::read_dir(dir).unwrap());
    let paths = files.map(|file| file.unwrap().path());
    let pages = paths.filter(|path| path.extension().is_some_and(|it| it == "md"));
    pages.map(|path| (path.clone(), read(path))).collect()
}

/// The lines inside fences, each with the fence's language.
fn code(page: &str) -> Vec<(&str, &str)> {
    let mut language = None;
    let mut code = Vec::new();
    for line in page.lines() {
        match (line.strip_prefix("```"), language) {
            (Some(opened), None) => language = Some(opened),
            (Some(_), Some(_)) => language = None,
            (None, Some(language)) => code.push((language, line)),
            (None, None) => {}
        }
    }
    code
}

#[test]
fn the_algorithm_page_shows_the_code_that_its_model_runs() {
    let page = read("docs/algorithm.md");
    let (_, rest) = page.split_once("```rust\n").expect("a Rust fence");
    let (shown, _) = rest.split_once("```").expect("the fence's end");
    assert_eq!(shown, read("docs/algorithm.rs"));
}

#[test]
fn the_forty_lines_share() {
    let group = algorithm::Group::new();
    let (led, leads) = std::sync::mpsc::channel();
    let (go, wait) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let group = &group;
        let leader = scope.spawn(move || {
            group.call("key", || {
                led.send(()).unwrap();
                wait.recv().unwrap();
                1
            })
        });
        leads.recv().unwrap();
        let other = scope.spawn(|| group.call("other key", || 2));
        assert_eq!(other.join().unwrap(), 2);
        go.send(()).unwrap();
        assert_eq!(leader.join().unwrap(), 1);
    });
    assert_eq!(group.call("key", || 3), 3);
}

#[test]
fn the_forty_lines_are_at_most_forty_without_comments_and_blanks() {
    let code = read("docs/algorithm.rs");
    let lines = code.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with("//"));
    assert!(lines.count() <= 40);
}

#[test]
fn every_seeded_bug_that_a_page_names_exists() {
    let page = read("docs/algorithm.md");
    let mut sentences = page.split("Seeded bug").skip(1).peekable();
    assert!(sentences.peek().is_some());
    for sentence in sentences {
        let (sentence, _) = sentence.split_once(')').expect("the sentence's end");
        for name in sentence.split('`').skip(1).step_by(2) {
            let file = root().join(format!("loom-tests/bugs/{name}.patch"));
            assert!(file.exists(), "no seeded bug {name}");
        }
    }
}

/// rustdoc hides lines that begin with `# `; GitHub shows them.
#[test]
fn no_page_has_hidden_lines() {
    for (path, page) in pages() {
        for (language, line) in code(&page) {
            let hidden = language.starts_with("rust") && line.trim_start().starts_with("# ");
            assert!(!hidden, "{}: {line}", path.display());
        }
    }
}

#[test]
fn every_fence_says_its_language() {
    for (path, page) in pages() {
        for (language, line) in code(&page) {
            assert!(!language.is_empty(), "{}: {line}", path.display());
        }
    }
}

/// A longer line is cut off in the pages that rustdoc makes.
#[test]
fn no_line_of_code_on_a_page_is_longer_than_88_columns() {
    for (path, page) in pages() {
        let docs = path.parent().is_some_and(|dir| dir.ends_with("docs"));
        for (_, line) in code(&page) {
            assert!(!docs || line.chars().count() <= 88, "{}: {line}", path.display());
        }
    }
}

/// Links to files of this repository, and pictures.
#[test]
fn every_file_that_a_page_links_to_exists() {
    for (path, page) in pages() {
        for target in page.split("](").skip(1) {
            let (target, _) = target.split_once(')').expect("the link's end");
            let (file, _) = target.split_once('#').unwrap_or((target, ""));
            if file.contains("://") || file.contains("::") || file.is_empty() {
                continue;
            }
            let file = path.with_file_name(file);
            assert!(file.exists(), "{}: {target}", path.display());
        }
    }
}

/// As both rustdoc and GitHub make them: letters, digits and hyphens, in lower case.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || " -_".contains(*c);
    let anchor = heading.chars().filter(kept).collect::<String>();
    anchor.to_lowercase().replace(' ', "-")
}

#[test]
fn every_heading_that_a_page_links_to_exists() {
    for (path, page) in pages() {
        let code: Vec<_> = code(&page).into_iter().map(|(_, line)| line).collect();
        let headings = page.lines().filter(|line| line.starts_with('#') && !code.contains(line));
        let anchors: Vec<_> =
            headings.map(|line| anchor(line.trim_start_matches('#').trim())).collect();
        for target in page.split("](#").skip(1) {
            let (target, _) = target.split_once(')').expect("the link's end");
            let found = anchors.iter().any(|anchor| anchor == target);
            assert!(found, "{}: #{target} of {anchors:?}", path.display());
        }
    }
}

#[test]
fn the_readme_has_at_most_a_thousand_words() {
    let readme = read("README.md");
    let words = readme.split_whitespace();
    let words = words.filter(|word| word.contains(char::is_alphanumeric));
    assert!(words.count() <= 1_000);
}
