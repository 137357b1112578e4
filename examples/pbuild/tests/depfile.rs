//! Make's dependency syntax, as compilers write it.

mod common;

use common::Project;
use pbuild::depfile::{parse, Error};
use proptest::prelude::*;

#[test]
fn every_prerequisite_of_every_rule_counts() {
    for (text, files) in [
        ("a.o: a.c\n", vec!["a.c"]),
        ("a.o: a.c\na.o: second.h\n", vec!["a.c", "second.h"]),
        ("a.o: a.c\na.d: second.h\n", vec!["a.c", "second.h"]),
        ("a.o:\na.o: a.c", vec!["a.c"]),
        ("a.o a.d: a.c a.h\n", vec!["a.c", "a.h"]),
        ("a.o:a.c\n", vec!["a.c"]),
        ("a.o:a.c a.h\n", vec!["a.c", "a.h"]),
        ("a.o :a.c\n", vec!["a.c"]),
        ("a.o : a.c\n", vec!["a.c"]),
        ("a.o:: a.c\n", vec!["a.c"]),
        ("a.o:\ta.c\ta.h\t\n", vec!["a.c", "a.h"]),
        ("/tmp/a.o:/usr/a.c /usr/a.h\n", vec!["/usr/a.c", "/usr/a.h"]),
        // Continuation lines.
        ("a.o: a.c \\\n  a.h \\\n  b.h\n", vec!["a.c", "a.h", "b.h"]),
        ("a.o: a.c\\\na.h\n", vec!["a.c", "a.h"]),
        ("a.o:\\\n a.c\n", vec!["a.c"]),
        ("a.o \\\n a.d: \\\n\\\n a.c \\\n\na.d: b.h", vec!["a.c", "b.h"]),
        ("a.o: a.c \\", vec!["a.c"]),
        ("a.o: a\\\\\nb.o: c\n", vec!["a\\", "c"]),
        // The ends of lines.
        ("a.o: a.c \\\r\n  a.h\r\n\r\na.h:\r\n", vec!["a.c", "a.h"]),
        ("\n\n  \na.o: a.c\n\n", vec!["a.c"]),
        // Quoting.
        ("a\\ b.o: a\\ b.c\n", vec!["a b.c"]),
        ("a.o: a\\\tb.c c\\\\ d\n", vec!["a\tb.c", "c\\", "d"]),
        ("a.o: k\\\\\\ l.h\n", vec!["k\\ l.h"]),
        ("a.o: b\\#1.h c#2.h $$d.h e\\$$.h\n", vec!["b#1.h", "c#2.h", "$d.h", "e\\$.h"]),
        ("a.o: i\\j.h $(x) a\\:b\n", vec!["i\\j.h", "$(x)", "a:b"]),
        // Other blanks are none.
        ("a.o: a\u{a0}b.c c\u{3000}d.h\n", vec!["a\u{a0}b.c", "c\u{3000}d.h"]),
        // Colons in names, which gcc 12 does not quote.
        ("a.o: a.c g:h.h\n\ng:h.h:\n", vec!["a.c", "g:h.h"]),
        ("g:h.o: a.c\n", vec!["a.c"]),
        // What has no prerequisites, or none that is read.
        ("a.o: a.c\n\na.c:\n\na.h:\n", vec!["a.c"]),
        ("a.o:\n", vec![]),
        (".PHONY: x.c++m\na.o: a.c | gcm.cache\nCXX_IMPORTS += y.c++m\n", vec!["a.c"]),
        ("# env-dep:HOME=a: b\na.rlib: a.rs # x: y\n # z\n", vec!["a.rs"]),
    ] {
        assert_eq!(parse(text).unwrap(), files, "{text:?}");
    }
}

#[test]
fn what_is_not_understood_is_an_error() {
    for text in ["", "\n \r\n", "# a.o: a.c\n", ".PHONY: a\n", "X = a.c\n"] {
        assert_eq!(parse(text), Err(Error::NoRule), "{text:?}");
    }
    for (text, number) in [
        ("a.o\n", 1),
        ("a.o: a.c\n\n\nsecond.h\n", 4),
        ("a.o: a.c \\\n b.h\nc.h \\\n d.h\n", 3),
        (": a.c\n", 1),
        ("a.o: a.c\n:\n", 2),
        ("{\"a.o\" \"a.c\"}\n", 1),
        ("a\\:b\n", 1),
    ] {
        match parse(text) {
            Err(Error::NotARule(n, _)) => assert_eq!(n, number, "{text:?}"),
            other => panic!("{text:?}: {other:?}"),
        }
    }
}

/// A name as gcc writes it.
fn quote(name: &str) -> String {
    let mut quoted = String::new();
    let mut backslashes = 0;
    for c in name.chars() {
        match c {
            ' ' | '\t' => quoted += &"\\".repeat(backslashes + 1),
            '#' => quoted.push('\\'),
            '$' => quoted.push('$'),
            _ => {}
        }
        backslashes = if c == '\\' { backslashes + 1 } else { 0 };
        quoted.push(c);
    }
    quoted
}

fn name() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        4 => "[a-zA-Z0-9._/+=%~-]{1,6}",
        1 => "[ \t#$:\\\\|*?()'\"&;,é\u{a0}\u{3000}]{1,3}",
    ];
    prop::collection::vec(part, 1..5)
        .prop_map(|parts| parts.concat())
        // What no compiler can write so that it is read back.
        .prop_filter("ambiguous", |name| {
            !name.ends_with(['\\', ':']) && !name.contains("\\:") && name != "|"
        })
}

/// How a file may be laid out: with each prerequisite, what comes before it.
fn layout() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        " ",
        "\t",
        "  ",
        " \\\n ",
        "\\\n ",
        " \\\r\n  ",
        "\nt.o: ",
        "\r\nt.o u.o : ",
        "\nt.o:\\\n ",
        "\n\nphony:\nt.o: ",
        "\n# x: y\nt.o: ",
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn what_is_written_is_read(
        target in "[a-z]{1,4}",
        files in prop::collection::vec((layout(), name()), 0..8),
        end in prop::sample::select(vec!["", "\n", "\r\n", " \\\n"]),
    ) {
        let mut text = format!("{target}:");
        for (before, name) in &files {
            text += before;
            text += &quote(name);
        }
        text += end;
        let names: Vec<_> = files.into_iter().map(|(_, name)| name).collect();
        prop_assert_eq!(parse(&text).unwrap(), names, "{:?}", text);
    }

    #[test]
    fn nothing_makes_it_panic_or_invent(text in "[a-c:\\\\ \t\r\n#$|=+.é]{0,40}") {
        if let Ok(files) = parse(&text) {
            prop_assert!(files.iter().all(|file| !file.is_empty()));
        }
    }

    #[test]
    fn nor_does_any_other_text(text in any::<String>()) {
        let _ = parse(&text);
    }
}

#[test]
fn what_gcc_writes_of_awkward_names() {
    let headers = ["a b.h", "c$d.h", "e#f.h", "g:h.h", "i\\j.h", "k\\ l.h", "m\u{a0}n.h"];
    let project = Project::new(
        "[targets.a]\ninputs = ['x.c']\noutputs = ['x y.o']\n\
         command = 'gcc -MMD -MP -MF {depfile} -c {in} -o {out}'\n",
    );
    let include = |name: &&str| format!("#include \"{name}\"\n");
    project.write("x.c", &headers.iter().map(include).collect::<String>());
    for header in headers {
        project.write(header, "");
    }
    project.build(&[]);
    for header in headers {
        project.write(header, "int changed;");
        let ended = project.build(&["--explain"]);
        let why = format!("a: header {header} has changed");
        assert!(ended.stderr.contains(&why), "{}", ended.stderr);
    }
    let ended = project.build(&[]);
    assert!(ended.stdout.contains("0 built, 1 up to date"));
}

#[test]
fn a_depfile_without_a_rule_is_told_by_its_name() {
    for (written, told) in [
        (": > {depfile}", "its depfile .pbuild.d.x is not understood: it has no rule"),
        (
            "echo a.h > {depfile}",
            "depfile .pbuild.d.x is not understood: line 1 is not a rule: a.h",
        ),
        ("printf '\\377' > {depfile}", "depfile .pbuild.d.x cannot be read: "),
        (": {depfile}", "its depfile .pbuild.d.x cannot be read: No such file"),
        ("echo a: . > {depfile}", "its depfile .pbuild.d.x names a directory: ."),
    ] {
        let project = Project::new(&format!(
            "[targets.a]\noutputs = ['x']\ncommand = \"\"\"echo > {{out}}; {}\"\"\"\n",
            written.replace('\\', "\\\\")
        ));
        let ended = project.run(&[]);
        assert_eq!(ended.code, Some(1), "{written}");
        assert!(ended.stderr.contains(told), "{}", ended.stderr);
        assert_eq!(project.files(), ["pbuild.toml"]);
    }
}

#[test]
fn a_file_of_the_second_rule_is_not_missed() {
    for rules in [
        "a.o: a.c\na.o: second.h\n",
        "a.o: a.c\na.d: second.h\n",
        "a.o:a.c second.h",
        "a.o: a.c \\\r\n second.h\r\n",
    ] {
        let project = Project::new(
            "[targets.a]\ninputs = ['a.c']\noutputs = ['a.o']\n\
             command = 'cat a.c second.h > {out}; cp rules {depfile}'\n",
        );
        project.write("rules", rules);
        project.write("a.c", "a");
        project.write("second.h", "old");
        project.build(&[]);
        project.write("second.h", "newer");
        project.build(&[]);
        assert_eq!(project.read("a.o"), "anewer", "{rules}");
    }
}
