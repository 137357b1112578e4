//! One builds, the others wait: for success, for failure, and for what can never be.

mod common;

use common::{open_gate, until, Project};

/// Twenty targets that need `shared`, each of which makes a file of its own.
fn twenty() -> String {
    let target = |i| {
        let name = format!("[targets.t{i}]\nneeds = ['shared']\noutputs = ['t{i}']\n");
        name + &format!("command = 'echo {i} > {{out}}'\n")
    };
    (1..=20).map(target).collect()
}

#[test]
fn twenty_ask_at_once_and_one_builds() {
    let shared = "[targets.shared]\noutputs = ['shared']\n\
        command = 'echo run >> count; read go < gate; echo made > {out}'\n";
    let project = Project::new(&format!("{shared}{}", twenty()));
    project.fifos(&["gate"]);
    // One builds and twenty wait. That they do, they say when they have their place.
    let running = project.start(&["-j21", "--explain"]);
    let waiting = || running.stderr().matches("waits for shared").count();
    until("twenty wait", || waiting() == 20);
    open_gate(&project.path("gate"));
    let ended = running.end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stdout.contains("21 built"), "{}", ended.stdout);
    assert_eq!(project.read("count"), "run\n");

    let mut lines = ended.stderr.lines();
    let line = lines.find(|line| line.starts_with("shared was waited for by "));
    let line = line.unwrap_or_else(|| panic!("{}", ended.stderr));
    for i in 1..=20 {
        assert!(line.contains(&format!("t{i} (")), "{line}");
    }
}

#[test]
fn a_failure_is_shared_and_told_once() {
    let shared = "[targets.shared]\noutputs = ['shared']\n\
        command = 'echo run >> count; seq 100 150; echo half > {out}; exit 7'\n\
        [targets.zz-independent]\n\
        command = 'echo run >> independent; printf \"\\033[31mred\\033[0m\\n\"'\n";
    for threads in ["-j1", "-j4", "-j30"] {
        let project = Project::new(&format!("{shared}{}", twenty()));
        let ended = project.run(&[threads, "-k"]);
        assert_eq!(ended.code, Some(1));
        assert_eq!(project.read("count"), "run\n");
        assert_eq!(project.read("independent"), "run\n");
        assert_eq!(project.files(), ["count", "independent", "pbuild.toml"]);

        let stderr = &ended.stderr;
        assert!(!stderr.contains('\x1b'), "colour, though this is no terminal");
        let once = "`shared` (pbuild.toml:1:10) failed, exit code 7:\n  echo run >> count; seq";
        assert_eq!(stderr.matches("failed, exit code").count(), 1, "{stderr}");
        assert!(stderr.contains(once), "{stderr}");
        // The beginning and the end of the output.
        let middle = "  | 109\n  | (31 lines more in .pbuild.logs/shared.log)\n  | 141\n";
        assert!(stderr.contains(middle), "{stderr}");
        assert!(stderr.contains("| 100\n"), "{stderr}");
        assert!(stderr.contains("| 150\n"), "{stderr}");
        let dependents = stderr.lines().find(|line| line.starts_with("not built"));
        let dependents = dependents.unwrap().split([' ', ',']);
        assert_eq!(dependents.filter(|word| word.starts_with('t')).count(), 21); // And "that:".
        let summary = "1 built, 0 up to date, 1 failed, 20 not built";
        assert!(ended.stdout.contains(summary), "{}", ended.stdout);
    }
}

#[test]
fn after_a_failure_nothing_more_begins_without_k() {
    let project = Project::new(
        "[targets.a]\ncommand = 'kill -9 $$'\n\
         [targets.b]\ncommand = 'echo run >> independent'\n",
    );
    let ended = project.run(&["-j1"]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("killed by signal 9 (SIGKILL)"), "{}", ended.stderr);
    assert!(!project.exists("independent"));
    assert!(ended.stdout.contains("0 built, 0 up to date, 1 failed, 1 not built"));
}

#[test]
fn nor_does_what_a_thread_was_about_to_build() {
    // One thread is inside `gen`, which needs `last`, which needs `first`, when `bad` fails.
    let bad = "[targets.bad]\ncommand = 'read go < begun; exit 1'\n";
    let project = Project::new(&format!("{}{bad}", generator("gen", "")));
    project.fifos(&["begun", "gate"]);
    project.write(
        "gen.in",
        "needs = ['last']\n\
         [targets.first]\ncommand = 'echo > begun; read go < gate'\n\
         [targets.last]\nneeds = ['first']\ncommand = 'echo run >> trace'\n",
    );
    let running = project.start(&["-j2"]);
    until("it has failed", || running.stderr().contains("bad failed\n"));
    open_gate(&project.path("gate"));
    let ended = running.end();
    assert_eq!(ended.code, Some(1));
    assert!(!project.exists("trace"));
    assert!(ended.stdout.contains("2 built, 0 up to date, 1 failed, 2 not built"));
}

#[test]
fn a_thread_never_waits_while_something_is_ready() {
    // While `long` runs, `short` lands, and then `left` and `right` are ready, each of which needs
    // the other to run. A thread that had gone to wait for `long`, inside `a`, would be missing.
    // (The sleep only gives it the time to do so.)
    let project = Project::new(
        "[targets.long]\noutputs = ['long']\ncommand = 'read go < end; echo > {out}'\n\
         [targets.a]\nneeds = ['long']\noutputs = ['a']\ncommand = 'echo > {out}'\n\
         [targets.short]\noutputs = ['short']\ncommand = 'sleep 0.3; echo > {out}'\n\
         [targets.left]\nneeds = ['short']\ncommand = 'echo > one; read go < two'\n\
         [targets.right]\nneeds = ['short']\ncommand = 'read go < one; echo > two; echo > end'\n",
    );
    project.fifos(&["one", "two", "end"]);
    project.build(&["-j3"]);
}

/// `name` makes `name.toml`, which is `name.in`, after it has done what it is told.
fn generator(name: &str, first: &str) -> String {
    format!(
        "[targets.{name}]\noutputs = ['{name}.toml']\ngenerates = '{name}.toml'\n\
         inputs = ['{name}.in']\ncommand = '{first} cp {{in}} {{out}}'\n"
    )
}

#[test]
fn a_generated_file_adds_targets() {
    let needs_it = "[targets.end]\nneeds = ['gen']\noutputs = ['end']\n\
        command = 'cat one two > {out}'\n";
    let project = Project::new(&format!("{}{needs_it}", generator("gen", "")));
    project.write(
        "gen.in",
        "[targets.one]\noutputs = ['one']\ncommand = 'echo 1 > {out}'\n\
         [targets.two]\ninputs = ['one']\noutputs = ['two']\ncommand = 'cat {in} {in} > {out}'\n",
    );
    let ended = project.build(&["-j2"]);
    assert!(ended.stdout.contains("4 built, 0 up to date"), "{}", ended.stdout);
    assert_eq!(project.read("end"), "1\n1\n1\n");
    let ended = project.build(&["-j2"]);
    assert!(ended.stdout.contains("0 built, 4 up to date"), "{}", ended.stdout);

    project.write("gen.in", "[targets.one]\nneeds = ['none']\n");
    let ended = project.run(&[]);
    assert_eq!(ended.code, Some(2));
    assert!(ended.stderr.contains("gen.toml:2:10: there is no target `none`"), "{}", ended.stderr);
}

#[test]
fn a_long_generated_chain_is_no_trouble() {
    let mut chain = "needs = ['t1000']\n[targets.t0]\n".to_owned();
    for i in 1..=1000 {
        chain += &format!("[targets.t{i}]\nneeds = ['t{}']\n", i - 1);
    }
    let project = Project::new(&generator("gen", ""));
    project.write("gen.in", &chain);
    for threads in ["-j1", "-j3"] {
        project.build(&[threads]);
    }
}

#[test]
fn what_a_generated_file_asks_for_is_an_input_too() {
    let end = "[targets.end]\nneeds = ['gen']\noutputs = ['end']\ncommand = 'cat one > {out}'\n";
    let project = Project::new(&format!("{}{end}", generator("gen", "")));
    project.write("source", "first");
    project.write(
        "gen.in",
        "[targets.one]\ninputs = ['source']\noutputs = ['one']\ncommand = 'cp {in} {out}'\n",
    );
    project.build(&[]);
    assert_eq!(project.read("end"), "first");
    project.write("source", "the second");
    project.build(&[]);
    assert_eq!(project.read("end"), "the second");
}

#[test]
fn no_thread_waits_for_a_generator_while_its_targets_are_ready() {
    // `left` and `right` each need the other to run, while `end` needs `gen`. (The sleep only gives
    // a thread the time to wait for `gen`.)
    let end = "[targets.end]\nneeds = ['gen']\n";
    let project = Project::new(&format!("{}{end}", generator("gen", "sleep 0.3;")));
    project.fifos(&["one", "two"]);
    project.write(
        "gen.in",
        "[targets.left]\ncommand = 'echo > one; read go < two'\n\
         [targets.right]\ncommand = 'read go < one; echo > two'\n",
    );
    project.build(&["-j2"]);
}

#[test]
fn what_was_taken_for_a_source_can_not_be_made_later() {
    let early = "[targets.early]\ninputs = ['made']\noutputs = ['x']\ncommand = 'cp {in} {out}'\n";
    let project = Project::new(&format!("{early}{}", generator("gen", "")));
    project.write("made", "old");
    project.write("gen.in", "[targets.late]\noutputs = ['made']\ncommand = 'echo new > {out}'\n");
    let ended = project.run(&["-j1"]);
    assert_eq!(ended.code, Some(2));
    let told =
        "gen.toml:2:12: `made` is made by `late`, but was taken for a source at pbuild.toml:2:11";
    assert!(ended.stderr.contains(told), "{}", ended.stderr);
    assert_eq!(project.read("made"), "old");
}

#[test]
fn a_wrong_generated_file_adds_nothing() {
    // `b` names a target of `a`'s file, which needs something that there is not.
    let project = Project::new(&["a", "b", "c", "d"].map(|name| generator(name, "")).concat());
    project.write("a.in", "[targets.half]\nneeds = ['none']\n");
    project.write("b.in", "needs = ['half']\n");
    project.write("c.in", "[targets.more]\noutputs = ['a.toml']\ncommand = 'echo > {out}'\n");
    project.write("d.in", "[targets.a]\n");
    let ended = project.run(&["-j1", "-k"]);
    assert_eq!(ended.code, Some(2));
    for told in [
        "a.toml:2:10: there is no target `none`",
        "b.toml:1:10: there is no target `half`",
        "c.toml:2:12: `a.toml` is made twice: by `more`, and by `a` at pbuild.toml:2:12",
        "d.toml:1:10: there is a target `a` already, at pbuild.toml:1:10",
    ] {
        assert!(ended.stderr.contains(told), "{}", ended.stderr);
    }
}

#[test]
fn a_generated_cycle_is_refused() {
    // `a` asks for `mid`, which needs `a`; and before, for something harmless.
    let mid = "[targets.mid]\nneeds = ['a']\n";
    let project = Project::new(&format!("{}{mid}", generator("a", "")));
    project.write("a.in", "needs = ['free', 'mid']\n[targets.free]\n");
    for threads in ["-j1", "-j4"] {
        let ended = project.run(&[threads]);
        assert_eq!(ended.code, Some(2));
        let stderr = &ended.stderr;
        // With four threads, one may wait inside `mid` while another is at `a`.
        let cycles = ["a cycle: mid -> a -> mid", "a cycle: a -> mid -> a"];
        assert!(cycles.iter().any(|cycle| stderr.contains(cycle)), "{stderr}");
        assert!(stderr.contains("mid needs a at pbuild.toml:7:10"), "{stderr}");
        assert!(stderr.contains("a needs mid at a.toml:1:18"), "{stderr}");
    }
}

#[test]
fn a_generated_cycle_over_two_threads_is_refused() {
    // Each leads one of the two before either asks for the other.
    let a = generator("a", "echo > one; read go < two;");
    let b = generator("b", "read go < one; echo > two;");
    let project = Project::new(&format!("{a}{b}"));
    project.fifos(&["one", "two"]);
    // And for something harmless afterwards.
    project.write("a.in", "needs = ['b', 'free-a']\n[targets.free-a]\n");
    project.write("b.in", "needs = ['a', 'free-b']\n[targets.free-b]\n");
    let ended = project.run(&["-j2"]);
    assert_eq!(ended.code, Some(2));
    let stderr = &ended.stderr;
    let cycles = ["a cycle: a -> b -> a", "a cycle: b -> a -> b"];
    assert!(cycles.iter().any(|cycle| stderr.contains(cycle)), "{stderr}");
    assert!(stderr.contains("a needs b at a.toml:1:10"), "{stderr}");
    assert!(stderr.contains("b needs a at b.toml:1:10"), "{stderr}");
    assert!(stderr.contains("not built because of that: a, b"), "{stderr}");
}
