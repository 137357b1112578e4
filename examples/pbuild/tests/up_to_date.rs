//! What is built again, and why.

mod common;

use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use common::Project;
use pbuild::record::{changes, Changes, Check};

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
    assert!(ended.stdout.contains("0 built, 3 up to date"), "{}", ended.stdout);
    assert!(ran(&project).is_empty());
    project
}

#[test]
fn by_time() {
    let project = chain(&[]);
    // Another time is another file: also an older one, as of a file that was moved here.
    let hour = Duration::from_secs(3600);
    let future = ", its time is in the future (was the clock set back?)\n";
    for (time, told) in [(SystemTime::now() + hour, future), (SystemTime::now() - hour, "\n")] {
        touch(&project, "in.txt", time);
        let ended = project.build(&["--explain"]);
        assert_eq!(ran(&project), ["one", "two", "three"]);
        let told = format!("one: input in.txt has changed{told}");
        assert!(ended.stderr.contains(&told), "{}", ended.stderr);
        let told = "two: input made/one has changed\n";
        assert!(ended.stderr.contains(told), "{}", ended.stderr);
        // Once.
        project.build(&[]);
        assert!(ran(&project).is_empty());
    }
}

#[test]
fn by_content() {
    let project = chain(&["--hash"]);
    touch(&project, "in.txt", SystemTime::now() + Duration::from_secs(3600));
    project.build(&["--hash"]);
    assert!(ran(&project).is_empty());
    // The first letter of it is the same, and that is all that `three` sees.
    project.write("in.txt", "another one\n");
    let ended = project.build(&["--hash", "--explain"]);
    assert_eq!(ran(&project), ["one", "two"]);
    assert!(ended.stdout.contains("2 built, 1 up to date"), "{}", ended.stdout);
    assert_eq!(project.read("two-b"), "another one\n");
}

#[test]
fn outputs_and_commands_count() {
    let project = chain(&[]);
    fs::remove_file(project.path("two-b")).unwrap();
    let ended = project.build(&["--explain"]);
    assert_eq!(ran(&project), ["two", "three"]);
    assert!(ended.stderr.contains("two: output two-b is missing"), "{}", ended.stderr);

    project.write("three", "by hand");
    let ended = project.build(&["--explain"]);
    assert_eq!(ran(&project), ["three"]);
    assert!(ended.stderr.contains("three: output three is not as it was left"));

    project.write("pbuild.toml", &CHAIN.replace("cp {in} {out}", "cat {in} > {out}"));
    let ended = project.build(&["--explain"]);
    assert_eq!(ran(&project), ["three"]);
    assert!(ended.stderr.contains("three: its command has changed"), "{}", ended.stderr);

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
    assert!(ended.stderr.contains("failed, it has not made y:"), "{}", ended.stderr);
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
    assert!(ended.stderr.contains("a: header h has changed"), "{}", ended.stderr);
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

#[test]
fn when_a_file_was_changed_that_a_command_has_read() {
    // The clock can't be set here. So the file is from now, and the command ran at other times.
    let project = Project::new("");
    project.write("h", "text");
    let file = project.path("h").display().to_string();
    let now = SystemTime::now();
    let hours = |n: u64| Duration::from_secs(n * 3600);
    let later = now + hours(1)..now + hours(2);
    let meanwhile = now - hours(1)..now + hours(1);
    let earlier = now - hours(2)..now - hours(1);
    let known = changes([&file].into_iter());
    let other = Changes::from([(file.clone(), now - hours(3))]);
    let none = Changes::new();
    for check in [Check::Time, Check::Hash] {
        let stamp = |before, span| {
            let mut stamps = check.stamp_found(vec![file.clone()], before, span);
            stamps.remove(&file).unwrap()
        };
        let real = check.stamp_all([&file].into_iter()).remove(&file).unwrap();
        assert_eq!(stamp(&none, later.clone()), real);
        assert_eq!(stamp(&none, meanwhile.clone()), "changed meanwhile");
        assert_eq!(stamp(&none, earlier.clone()), "from the future");
        // It was like that before the command began, so it has not changed meanwhile.
        assert_eq!(stamp(&known, meanwhile.clone()), real);
        assert_eq!(stamp(&known, earlier.clone()), real);
        assert_eq!(stamp(&other, earlier.clone()), "from the future");
    }
}

#[test]
fn what_was_from_the_future_is_told_as_that_and_once() {
    let project = Project::new(
        "[targets.a]\noutputs = ['a']\ncommand = 'cat h > {out}; echo a: h > {depfile}'\n",
    );
    project.write("h", "text");
    project.build(&[]);
    let state = project.read(".pbuild.state");
    let (before, after) = state.split_once("h = \"time ").unwrap();
    let (_, after) = after.split_once('"').unwrap();
    let state = format!("{before}h = \"from the future\"{after}");
    let ended = project.build_with(".pbuild.state", &state, &["--explain"]);
    let told = "a: header h was from the future (was the clock set back?)\n";
    assert!(ended.stderr.contains(told), "{}", ended.stderr);
    let ended = project.build(&[]);
    assert!(ended.stdout.contains("0 built, 1 up to date"), "{ended:?}");
}
