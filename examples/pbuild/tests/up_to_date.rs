//! What is built again, and why.

mod common;

use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use common::Project;

/// Each command leaves a line in `ran`, so what has run is not only what pbuild says.
const CHAIN: &str = "\
[targets.one]
inputs = ['in.txt']
outputs = ['made/one']
command = 'echo one >> ran; cat {in} > {out}'
[targets.two]
inputs = ['made/one']
outputs = ['two-a', 'two-b']
command = 'echo two >> ran; head -c1 {in} > {out1}; cp {in} {out2}'
[targets.three]
inputs = ['two-a']
outputs = ['three']
command = 'echo three >> ran; cp {in} {out}'
";

/// What has run since the last time.
fn ran(project: &Project) -> Vec<String> {
    let ran = fs::read_to_string(project.path("ran")).unwrap_or_default();
    let _ = fs::remove_file(project.path("ran"));
    ran.lines().map(str::to_owned).collect()
}

fn touch(project: &Project, file: &str, time: SystemTime) {
    let file = File::options().append(true).open(project.path(file));
    file.unwrap().set_modified(time).unwrap();
}

fn chain(arguments: &[&str]) -> Project {
    let project = Project::new(CHAIN);
    project.write("in.txt", "a long one\n");
    project.build(arguments);
    assert_eq!(ran(&project), ["one", "two", "three"]);
    let ended = project.build(arguments);
    assert!(
        ended.stdout.contains("0 built, 3 up to date"),
        "{}",
        ended.stdout
    );
    assert!(ran(&project).is_empty());
    project
}

#[test]
fn by_time() {
    let project = chain(&[]);
    // Another time is another file: also an older one, as of a file that was moved here.
    let hour = Duration::from_secs(3600);
    for time in [SystemTime::now() + hour, SystemTime::now() - hour] {
        touch(&project, "in.txt", time);
        let ended = project.build(&["--explain"]);
        assert_eq!(ran(&project), ["one", "two", "three"]);
        assert!(
            ended.stderr.contains("one: input in.txt has changed"),
            "{}",
            ended.stderr
        );
        assert!(
            ended.stderr.contains("two: input made/one has changed"),
            "{}",
            ended.stderr
        );
    }
}

#[test]
fn by_content() {
    let project = chain(&["--hash"]);
    touch(
        &project,
        "in.txt",
        SystemTime::now() + Duration::from_secs(3600),
    );
    project.build(&["--hash"]);
    assert!(ran(&project).is_empty());
    // The first letter of it is the same, and that is all that `three` sees.
    project.write("in.txt", "another one\n");
    let ended = project.build(&["--hash", "--explain"]);
    assert_eq!(ran(&project), ["one", "two"]);
    assert!(
        ended.stdout.contains("2 built, 1 up to date"),
        "{}",
        ended.stdout
    );
    assert_eq!(project.read("two-b"), "another one\n");
}

#[test]
fn outputs_and_commands_count() {
    let project = chain(&[]);
    fs::remove_file(project.path("two-b")).unwrap();
    let ended = project.build(&["--explain"]);
    assert_eq!(ran(&project), ["two", "three"]);
    assert!(
        ended.stderr.contains("two: output two-b is missing"),
        "{}",
        ended.stderr
    );

    project.write("three", "by hand");
    let ended = project.build(&["--explain"]);
    assert_eq!(ran(&project), ["three"]);
    assert!(ended
        .stderr
        .contains("three: output three is not as it was left"));

    project.write(
        "pbuild.toml",
        &CHAIN.replace("cp {in} {out}", "cat {in} > {out}"),
    );
    let ended = project.build(&["--explain"]);
    assert_eq!(ran(&project), ["three"]);
    assert!(
        ended.stderr.contains("three: its command has changed"),
        "{}",
        ended.stderr
    );

    project.write(".pbuild.state", "half of a re");
    project.build(&[]);
    assert_eq!(ran(&project), ["one", "two", "three"]);
}

#[test]
fn a_failed_target_is_tried_again() {
    let project = chain(&[]);
    project.write("in.txt", "");
    let broken = CHAIN.replace("cat {in} > {out}", "cat {in} > {out}; test -s {in}");
    project.write("pbuild.toml", &broken);
    for _ in 0..2 {
        assert_eq!(project.run(&[]).code, Some(1));
        assert_eq!(ran(&project), ["one"]);
        // What was there before is still there, whole.
        assert_eq!(project.read("made/one"), "a long one\n");
    }
    project.write("in.txt", "b\n");
    project.build(&[]);
    assert_eq!(ran(&project), ["one", "two", "three"]);
}

#[test]
fn only_what_is_asked_for() {
    let project = Project::new(&format!("needs = ['two']\n{CHAIN}"));
    project.write("in.txt", "a\n");
    project.build(&["one"]);
    assert_eq!(ran(&project), ["one"]);
    project.build(&[]);
    assert_eq!(ran(&project), ["two"]);
}

#[test]
fn a_command_must_make_what_it_says() {
    let project =
        Project::new("[targets.a]\noutputs = ['x', 'y']\ncommand = 'echo > {out1}; : {out2}'\n");
    let ended = project.run(&[]);
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.stderr.contains("failed, it has not made y:"),
        "{}",
        ended.stderr
    );
    assert_eq!(project.files(), ["pbuild.toml"]);
}

#[test]
fn a_header_that_changes_meanwhile_is_read_again() {
    // The command reads `h`, and somebody changes it before the command has ended.
    let project = Project::new(
        "[targets.a]\noutputs = ['a']\n\
         command = '''cat h > {out}; echo 'a: h' > {depfile}; echo run >> ran; cat next > h'''\n",
    );
    project.write("h", "old");
    project.write("next", "new");
    touch(&project, "h", SystemTime::now() - Duration::from_secs(60));
    project.build(&[]);
    assert_eq!(project.read("a"), "old");
    project.write("next", "new"); // The command changes `h` again; it never comes to an end.
    let ended = project.build(&["--explain"]);
    assert!(
        ended.stderr.contains("a: header h has changed"),
        "{}",
        ended.stderr
    );
    assert_eq!(project.read("a"), "new");
}

#[test]
fn a_header_that_is_moved_there_meanwhile_is_read_again() {
    // As above, but the new one is older.
    let project = Project::new(
        "[targets.a]\noutputs = ['a']\n\
         command = '''cat h > {out}; echo 'a: h' > {depfile}; sleep 0.1; mv -f next h || :'''\n",
    );
    let hour = Duration::from_secs(3600);
    project.write("h", "old");
    project.write("next", "new");
    touch(&project, "next", SystemTime::now() - hour);
    project.build(&[]);
    assert_eq!(project.read("a"), "old");
    project.build(&[]);
    assert_eq!(project.read("a"), "new");
    // And one from the future is not always new.
    touch(&project, "h", SystemTime::now() + hour);
    project.build(&[]);
    let ended = project.build(&[]);
    assert!(ended.stdout.contains("0 built, 1"), "{}", ended.stdout);
}

#[test]
fn a_target_without_outputs_passes_on_what_it_has() {
    let project = Project::new(
        "[targets.made]\ninputs = ['source']\noutputs = ['made']\ncommand = 'cp {in} {out}'\n\
         [targets.both]\ninputs = ['made', 'other']\n\
         [targets.end]\nneeds = ['both']\noutputs = ['end']\n\
         command = 'cat made other > {out}'\n",
    );
    project.write("source", "a");
    project.write("other", "b");
    project.build(&[]);
    project.write("source", "aa");
    project.build(&[]);
    assert_eq!(project.read("end"), "aab");
    project.write("other", "bb");
    project.build(&[]);
    assert_eq!(project.read("end"), "aabb");
}

#[test]
fn temporary_names_are_no_others() {
    // pbuild itself has a `.pbuild.state` and a `.pbuild.lock`.
    let one = |name: &str| {
        format!(
            "[targets.{name}]\noutputs = ['{name}']\n\
             command = 'test -e .pbuild.lock && echo > {{out}}'\n"
        )
    };
    let project = Project::new(&["lock", "state", "z"].map(one).concat());
    project.build(&["-j1"]);
    let ended = project.build(&["-j1"]);
    assert!(ended.stdout.contains("0 built, 3"), "{}", ended.stdout);
}

#[test]
fn a_directory_is_no_file() {
    let project = Project::new("[targets.a]\noutputs = ['x']\ncommand = 'mkdir {out}'\n");
    for _ in 0..2 {
        let ended = project.run(&[]);
        assert_eq!(ended.code, Some(1));
        let told = "failed, it has made a directory, not a file: x:";
        assert!(ended.stderr.contains(told), "{}", ended.stderr);
        assert_eq!(project.files(), ["pbuild.toml"]);
    }
}

#[test]
fn names_may_be_awkward() {
    let project = Project::new(
        "[targets.a]\ninputs = ['an $input.txt']\noutputs = [\"o'ut (1)\"]\n\
         command = '''cat {in} > {out}; awk '{in2 = 1; print \"${HOME}\"}' {in} > /dev/null'''\n",
    );
    project.write("an $input.txt", "text");
    project.build(&[]);
    assert_eq!(project.read("o'ut (1)"), "text");
}

#[test]
fn one_build_at_a_time() {
    let project = Project::new("[targets.a]\ncommand = 'echo > begun; read go < gate'\n");
    project.fifos(&["gate"]);
    let first = project.start(&[]);
    common::until("it runs", || project.exists("begun"));
    let second = project.run(&[]);
    assert_eq!(second.code, Some(1));
    let told = "error: another pbuild is at work in this directory\n";
    assert_eq!(second.stderr, told);
    common::open_gate(&project.path("gate"));
    assert_eq!(first.end().code, Some(0));
}
