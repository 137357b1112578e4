//! What a command was found to read, by its depfile, though its target does not name it.

mod common;

use std::fs;

use common::Project;

/// `a` reads `gen.h`, which `gen` makes of `gen.in`. Nothing but the depfile says so.
const HIDDEN: &str = "\
[targets.a]
inputs = ['a.c']
outputs = ['a.o']
command = '''echo a >> ran; cat a.c gen.h > {out} && echo 'a.o: a.c gen.h' > {depfile}'''
[targets.gen]
inputs = ['gen.in']
outputs = ['gen.h']
command = 'echo gen >> ran; cp {in} {out}'
";

fn hidden(build_file: &str) -> Project {
    let project = Project::new(build_file);
    project.write("a.c", "a ");
    project.write("gen.h", "stale");
    project.write("gen.in", "first");
    project
}

/// What has run since the last time.
fn ran(project: &Project) -> Vec<String> {
    let ran = fs::read_to_string(project.path("ran")).unwrap_or_default();
    let _ = fs::remove_file(project.path("ran"));
    ran.lines().map(str::to_owned).collect()
}

fn nothing_to_do(project: &Project, targets: usize) {
    let ended = project.build(&["--explain"]);
    let told = format!("0 built, {targets} up to date");
    assert!(ended.stdout.contains(&told), "{ended:?}");
}

#[test]
fn what_was_made_after_it_was_read_is_read_again() {
    let project = hidden(HIDDEN);
    let ended = project.build(&["-j1", "--explain"]);
    assert_eq!(project.read("a.o"), "a first");
    assert_eq!(ran(&project), ["a", "gen", "a"]);
    let told = "a: gen.h was made after it had been read";
    assert!(ended.stderr.contains(told), "{}", ended.stderr);
    nothing_to_do(&project, 2);
    assert!(ran(&project).is_empty());
}

#[test]
fn what_was_found_is_a_need_of_the_next_build() {
    for arguments in [vec!["-j1"], vec!["-j4"], vec!["-j1", "a"], vec!["--hash"]] {
        let project = hidden(HIDDEN);
        project.build(&arguments);
        ran(&project);
        for text in ["second", "the third"] {
            project.write("gen.in", text);
            project.build(&arguments);
            assert_eq!(project.read("a.o"), format!("a {text}"), "{arguments:?}");
            assert_eq!(ran(&project), ["gen", "a"]);
        }
        let ended = project.build(&arguments);
        assert!(ended.stdout.contains("0 built, 2 up to date"), "{ended:?}");
    }
}

#[test]
fn a_maker_that_runs_meanwhile_is_waited_for() {
    // `a` reads `gen.h`, and only then does `gen` go on to make it.
    let build_file = HIDDEN
        .replace("> {out} &&", "> {out} && { test -e once || { echo > once; echo > gate; }; } &&")
        .replace("cp {in}", "read go < gate; cp {in}");
    let project = hidden(&build_file);
    project.fifos(&["gate"]);
    project.build(&["-j2"]);
    assert_eq!(project.read("a.o"), "a first");
    nothing_to_do(&project, 2);
}

#[test]
fn a_maker_that_fails_fails_its_readers() {
    let project = hidden(HIDDEN);
    project.build(&[]);
    for broken in [HIDDEN.replace("cp {in} {out}", "cp {in} {out}; exit 1")] {
        project.write("pbuild.toml", &broken);
        // Known from the last build; and found only by the command.
        for _ in 0..2 {
            let ended = project.run(&["-k"]);
            assert_eq!(ended.code, Some(1));
            let told = "not built because of that: a\n";
            assert!(ended.stderr.contains(told), "{}", ended.stderr);
            let _ = fs::remove_file(project.path(".pbuild.state"));
            fs::write(project.path("a.o"), "not touched").unwrap();
        }
        assert_eq!(project.read("a.o"), "not touched");
    }
}

#[test]
fn a_cycle_that_only_a_depfile_closes_is_refused() {
    let project =
        hidden(&HIDDEN.replace("'gen.in'", "'gen.in', 'a.o'").replace("cp {in}", "cat {in} >"));
    for threads in ["-j1", "-j2"] {
        let ended = project.run(&[threads]);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains("a cycle: "), "{}", ended.stderr);
        let told = "a needs gen at pbuild.toml:4:11 (its command reads gen.h)";
        assert!(ended.stderr.contains(told), "{}", ended.stderr);
        assert!(!project.exists("a.o"));
    }
}

#[test]
fn what_is_not_read_any_more_closes_no_cycle() {
    // `a` reads what `list` says.
    let build_file = HIDDEN
        .replace("inputs = ['a.c']", "inputs = ['a.c', 'list']")
        .replace("cat a.c gen.h", "cat $(cat list)")
        .replace("'a.o: a.c gen.h'", "\"a.o: $(cat list)\"");
    let project = hidden(&build_file);
    project.write("list", "a.c gen.h");
    project.build(&[]);
    assert_eq!(project.read("a.o"), "a first");

    // Now `gen` reads `a.o`. While `a` still reads `gen.h`, that is a cycle.
    project.write("pbuild.toml", &build_file.replace("'gen.in'", "'a.o'"));
    let ended = project.run(&[]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    project.build_with("list", "a.c", &[]);
    assert_eq!(project.read("gen.h"), "a ");
    nothing_to_do(&project, 2);

    // And back, in one step.
    project.write("pbuild.toml", &build_file);
    project.build_with("list", "a.c gen.h", &[]);
    assert_eq!(project.read("a.o"), "a first");
    project.write("pbuild.toml", &build_file.replace("'gen.in'", "'a.o'"));
    project.build_with("list", "a.c", &[]);
    assert_eq!(project.read("gen.h"), "a ");
}

#[test]
fn what_a_generated_target_makes_too_late_is_an_error() {
    // Only `z` says that there is a target that makes `gen.h`.
    let (a, gen) = HIDDEN.split_at(HIDDEN.find("[targets.gen]").unwrap());
    let z = "[targets.z]\noutputs = ['z.toml']\ngenerates = 'z.toml'\ninputs = ['z.in']\n\
             command = 'cp {in} {out}'\n";
    let project = hidden(&format!("{a}{z}"));
    project.write("z.in", gen);
    for text in ["first", "the second"] {
        project.write("gen.in", text);
        let ended = project.run(&["-j1"]);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        let told = "z.toml:3:12: `gen.h` was made by `gen` after `a` had read it: \
                    `a` at pbuild.toml:1:10 must need what generates `gen`";
        assert!(ended.stderr.contains(told), "{}", ended.stderr);
        // By the next build it is there.
        project.build(&["-j1"]);
        assert_eq!(project.read("a.o"), format!("a {text}"));
        nothing_to_do(&project, 3);
    }
    // What the message asks for helps.
    project.write("pbuild.toml", &format!("{a}needs = ['z']\n{z}"));
    project.write("gen.in", "third");
    project.build(&["-j1"]);
    assert_eq!(project.read("a.o"), "a third");
}

#[test]
fn temporary_names_and_own_outputs_are_not_found() {
    for named in [
        ".pbuild.new.x",
        "./.pbuild.new.x",
        "$PWD/.pbuild.new.x",
        "sub/../.pbuild.new.y",
        ".pbuild.d.x .pbuild.state .pbuild.lock",
        "x $PWD/y",
    ] {
        let project = Project::new(&format!(
            "[targets.a]\ninputs = ['in']\noutputs = ['x', 'y']\n\
             command = '''cp {{in}} {{out1}}; cp {{in}} {{out2}}; echo \"x: {named}\" > {{depfile}}'''\n"
        ));
        project.write("in", "text");
        fs::create_dir(project.path("sub")).unwrap();
        project.build(&[]);
        nothing_to_do(&project, 1);
    }
}

#[test]
fn what_is_no_regular_file_is_not_read() {
    // To read a FIFO that nobody writes to would never end.
    let project = Project::new(
        "[targets.a]\ninputs = ['in']\noutputs = ['x']\n\
         command = 'cat /dev/null > {out}; echo x: /dev/null fifo > {depfile}'\n",
    );
    project.fifos(&["fifo", "in"]);
    for arguments in [[].as_slice(), &["--hash"]] {
        project.build(arguments);
        let ended = project.build(arguments);
        assert!(ended.stdout.contains("0 built, 1 up to date"), "{ended:?}");
    }
}

#[test]
fn what_is_not_there_is_told_as_that() {
    let project = Project::new(
        "[targets.a]\noutputs = ['x']\ncommand = 'echo > {out}; echo x: none > {depfile}'\n",
    );
    project.build(&[]);
    let ended = project.build(&["--explain"]);
    assert!(ended.stderr.contains("a: header none is missing"), "{ended:?}");
}
