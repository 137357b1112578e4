//! The seeded bugs still apply: `cargo models`, which takes minutes, is not needed to find out that
//! the sources have moved on.

#[path = "../loom-tests/bugs.rs"]
mod bugs;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use bugs::{read_all, read_sources, Bug, Sources};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn every_seeded_bug_applies() {
    let sources = read_sources(root()).unwrap();
    let bugs = read_all(root()).unwrap();
    assert!(!bugs.is_empty(), "no seeded bug was found");
    let mut names = BTreeSet::new();
    let mut faults = Vec::new();
    for (file, bug) in bugs {
        match bug {
            Err(fault) => faults.push(format!("{file}: {fault}")),
            Ok(bug) => {
                let applied = bug.apply(&mut sources.clone());
                faults.extend(applied.err().map(|fault| format!("{file}: {fault}")));
                let missing = bug.caught_by.iter().filter(|model| !is_model(model));
                faults.extend(missing.map(|model| format!("{file}: no model {model}")));
                if !names.insert(bug.name.to_lowercase()) {
                    faults.push(format!("{file}: another bug has that name"));
                }
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

/// Whether `loom-tests` has a `#[test]` of the name `module::function`.
fn is_model(name: &str) -> bool {
    let Some((module, function)) = name.split_once("::") else {
        return false;
    };
    let path = root().join("loom-tests").join(module).with_extension("rs");
    let text = fs::read_to_string(path).unwrap_or_default();
    let signature = format!("fn {function}() {{");
    // Other attributes may stand between the two lines.
    text.split("#[test]\n").skip(1).any(|test| {
        let mut lines = test.lines().map(str::trim);
        lines.find(|line| !line.starts_with("#[")) == Some(&*signature)
    })
}

#[test]
fn a_model_is_a_test() {
    assert!(is_model("model_sharing::two_callers"));
    assert!(!is_model("model_sharing::callers_of_one_key"), "no test");
    assert!(!is_model("model_sharing::two_caller"));
    assert!(!is_model("model_shearing::two_callers"));
    assert!(!is_model("two_callers"));
}

const BUG: &str = "\
Says two

Two is more than one.

Caught by: model_a::b,
    model_a::c

diff --git a/src/a.rs b/src/a.rs
--- a/src/a.rs
+++ b/src/a.rs
@@ -7,3 +9,3 @@ fn one()
 fn one() {

-    1
+    2

--- a/src/b.rs
+++ b/src/b.rs
@@
-use one;
@@
 }
+// The end.
";

fn sources(a: &str, b: &str) -> Sources {
    let files = [("src/a.rs", a), ("src/b.rs", b)];
    files.map(|(file, text)| (file.into(), text.into())).into()
}

#[test]
fn a_bug_is_a_name_a_reason_its_models_and_a_diff() {
    let bug = Bug::parse(BUG).unwrap();
    assert_eq!(bug.name, "Says two");
    assert_eq!(bug.why, "Two is more than one.");
    assert_eq!(bug.caught_by, ["model_a::b", "model_a::c"]);
    let mut found = sources("\nfn one() {\n\n    1\n}\n", "use one;\nfn b() {\n}");
    bug.apply(&mut found).unwrap();
    let wanted = sources("\nfn one() {\n\n    2\n}\n", "fn b() {\n}\n// The end.\n");
    assert_eq!(found, wanted);
}

#[test]
fn a_hunk_that_does_not_fit_exactly_once_is_refused() {
    let bug = Bug::parse(BUG).unwrap();
    let apply = |a: &str, b: &str| bug.apply(&mut sources(a, b)).unwrap_err();

    let gone = apply("fn one() {\n\n    3\n", "use one;\n}\n");
    assert!(gone.contains("src/a.rs has these lines 0 times"), "{gone}");

    let a = "fn one() {\n\n    1\n";
    let twice = apply(a, "use one;\n}\n}\n");
    assert!(twice.contains("src/b.rs has these lines 2 times"), "{twice}");

    // Whole lines only.
    let part = apply(a, "pub use one;\n}\n");
    assert!(part.contains("src/b.rs has these lines 0 times"), "{part}");

    let file = bug.apply(&mut Sources::new()).unwrap_err();
    assert_eq!(file, "no file src/a.rs");
}

#[test]
fn a_bug_with_a_part_missing_is_refused() {
    let without = |part: &str| Bug::parse(&BUG.replacen(part, "", 1)).unwrap_err();
    assert!(without("Says two\n\n").contains("says why"));
    assert!(without("Two is more than one.\n\n").contains("says why"));
    assert!(without("Caught by:").contains("Caught by:"));
    assert!(without("model_a::b,\n    model_a::c").contains("no model"));
    assert!(without(&BUG[BUG.find("\n--- ").unwrap()..]).contains("--- a/FILE"));
    assert!(without(&BUG[BUG.find("@@").unwrap()..]).contains("no hunk"));

    let changes_nothing = BUG.replace("+    2", "+    1");
    let fault = Bug::parse(&changes_nothing).unwrap_err();
    assert!(fault.contains("changes nothing"), "{fault}");
    let garbled = BUG.replace("-use one;", "use one;");
    let fault = Bug::parse(&garbled).unwrap_err();
    assert!(fault.contains("not a line of a diff"), "{fault}");
}
