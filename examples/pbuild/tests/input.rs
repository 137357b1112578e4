//! What is wrong with the input is told with its place, and nothing is run.

mod common;

use common::Project;

/// Everything that pbuild says on stderr, for this build file.
fn complaint(build_file: &str, arguments: &[&str]) -> String {
    let project = Project::new(build_file);
    let ended = project.run(arguments);
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert_eq!(ended.stdout, "");
    assert_eq!(project.files(), ["pbuild.toml"]);
    ended.stderr
}

#[test]
fn every_mistake_has_its_place() {
    let ok = "[targets.ok]\noutputs = ['ok']\ncommand = 'echo > {out}'\n";
    for (build_file, expected) in [
        ("[targets.a\n", "1:11: unclosed table"),
        ("x = 1\n", "1:1: unknown field `x`"),
        ("[targets.a]\ncomand = 'x'\n", "2:1: unknown field `comand`"),
        ("[targets.a]\ncommand = 3\n", "2:11: invalid type: integer `3`, expected a string"),
        ("[targets.a]\ninputs = ['a', 1]\n", "2:16: invalid type"),
        ("[targets.a]\n[targets.a]\n", "2:10: duplicate key"),
        ("needs = ['b']\n[targets.a]\n", "1:10: there is no target `b`"),
        ("[targets.a]\nneeds = [\n 'b']\n", "3:2: there is no target `b`"),
        ("[targets.'ä']\nneeds = [\"ü\", 'b']\n[targets.ü]\n", "3:10: invalid"),
        ("[targets.a]\ninputs = ['no.c']\n", "2:11: no file `no.c`, and no target makes it"),
        ("[targets.a]\ninputs = ['']\n", "2:11: this names no file"),
        ("[targets.a]\ninputs = ['..']\n", "2:11: `..` is a directory"),
        (
            "[targets.a]\ninputs = ['sub/.pbuild.state']\n",
            "2:11: names that begin with `.pbuild.` are for pbuild's own files",
        ),
        (
            "[targets.a]\noutputs = ['x', '.pbuild.lock']\ncommand = 'echo > {out}'\n",
            "2:17: names that begin with `.pbuild.` are",
        ),
        ("[targets.a]\noutputs = ['x']\n", "2:12: `a` has an output, but no command"),
        (
            "[targets.a]\noutputs = ['x']\ncommand = 'echo > x'\n",
            "3:11: the command of `a` must write `x` as {out} or {out1}",
        ),
        (
            "[targets.a]\noutputs = ['x', 'y']\ncommand = 'echo > {out1}'\n",
            "3:11: the command of `a` must write `y` as {out} or {out2}",
        ),
        ("[targets.a]\ngenerates = 'x'\n", "2:13: `x` is no output of `a`"),
        (
            &format!("{ok}[targets.b]\noutputs = ['./ok']\ncommand = 'echo > {{out}}'\n"),
            "2:12: `ok` is made twice: by `ok`, and by `b` at pbuild.toml:5:12",
        ),
    ] {
        let told = complaint(build_file, &[]);
        let begin = format!("error: pbuild.toml:{expected}");
        assert!(told.starts_with(&begin), "{build_file}\n{told}");
    }
}

#[test]
fn the_place_is_shown() {
    let told = complaint("[targets.a]\n\tneeds = ['ä', 'none']\n[targets.'ä']\n", &[]);
    let shown = "error: pbuild.toml:2:16: there is no target `none`\n    \
                     2 | \tneeds = ['ä', 'none']\n      \
                       | \t              ^^^^^^\n";
    assert_eq!(told, shown);
}

#[test]
fn a_cycle_is_told_before_anything_runs() {
    let build_file = "\
[targets.first]
command = 'touch trace'
[targets.a]
needs = ['first', 'b']
[targets.b]
inputs = ['c.txt']
[targets.c]
outputs = ['c.txt']
command = 'echo > {out}'
needs = ['a']
";
    let told = complaint(build_file, &[]);
    let shown = "error: pbuild.toml:4:19: a cycle: a -> b -> c -> a
  a needs b at pbuild.toml:4:19
  b needs c at pbuild.toml:6:11
  c needs a at pbuild.toml:10:10
    4 | needs = ['first', 'b']
      |                   ^^^
";
    assert_eq!(told, shown);
    let told = complaint("[targets.a]\nneeds = ['a']\n", &[]);
    assert!(told.contains("a cycle: a -> a\n"), "{told}");
}

#[test]
fn mistakes_on_the_command_line() {
    let build_file = "[targets.a]\ncommand = 'touch trace'\n";
    for (arguments, expected) in [
        (vec!["b"], "there is no target `b` in pbuild.toml"),
        (vec!["-f", "no.toml"], "cannot read no.toml: No such file"),
        (vec!["-C", "nowhere"], "cannot go to nowhere: No such file"),
        (vec!["-j0"], "invalid value '0' for '--jobs <N>'"),
        (vec!["--what"], "unexpected argument '--what'"),
    ] {
        let told = complaint(build_file, &arguments);
        assert!(told.contains(expected), "{told}");
    }
}

#[test]
fn a_deep_chain_is_no_trouble() {
    let mut build_file = "[targets.t0]\n".to_owned();
    for i in 1..3000 {
        build_file += &format!("[targets.t{i}]\nneeds = ['t{}']\n", i - 1);
    }
    let project = Project::new(&build_file);
    project.build(&["-j2"]);
    project.build(&["-j2", "t2999"]);
}
