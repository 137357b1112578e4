//! What a failed command had to say; and command lines of any length.

mod common;

use common::Project;

#[test]
fn the_first_error_is_kept() {
    let project = Project::new(
        "[targets.'a/b c']\noutputs = ['x']\n\
         command = '''echo the first error; seq 1000; echo the last; test -e ok && echo > {out}'''\n",
    );
    let ended = project.run(&[]);
    assert_eq!(ended.code, Some(1));
    let stderr = &ended.stderr;
    assert!(stderr.contains("| the first error\n  | 1\n"), "{stderr}");
    assert!(stderr.contains("| 1000\n  | the last\n"), "{stderr}");
    assert!(!stderr.contains("| 500\n"), "{stderr}");
    let (_, log) = stderr.split_once("(982 lines more in ").unwrap();
    let log = log.split_once(')').unwrap().0.to_owned();
    let kept = project.read(&log);
    assert!(kept.starts_with("echo the first error; seq"), "{kept}");
    assert!(kept.contains("\nthe first error\n1\n2\n"), "{kept}");
    assert!(kept.ends_with("\n1000\nthe last\n\nexit code 1\n"), "{kept}");

    let ended = project.run(&["-v"]);
    assert!(ended.stderr.contains("| the first error\n"), "{}", ended.stderr);
    assert!(ended.stderr.contains("| 500\n"), "{}", ended.stderr);

    // What is built has no log.
    project.build_with("ok", "", &[]);
    assert!(!project.exists(".pbuild.logs"));
}

#[test]
fn commands_are_shown_if_asked_for() {
    let project = Project::new("[targets.a]\noutputs = ['x']\ncommand = 'echo hello > {out}'\n");
    let ended = project.build(&["-v"]);
    assert_eq!(ended.stderr, "a\n  echo hello > .pbuild.new.x\n");
}

#[test]
fn each_failed_target_has_its_log() {
    let fails = |name: &str| format!("[targets.'{name}']\ncommand = 'echo of {name}; exit 1'\n");
    let names = ["a/b", "a_b", "..", "ä", &"long".repeat(100)];
    let project = Project::new(&names.map(fails).concat());
    let ended = project.run(&["-k"]);
    assert_eq!(ended.code, Some(1));
    let logs = std::fs::read_dir(project.path(".pbuild.logs")).unwrap();
    let mut logs: Vec<_> = logs
        .map(|log| std::fs::read_to_string(log.unwrap().path()).unwrap())
        .map(|log| log.lines().nth(1).unwrap().to_owned())
        .collect();
    logs.sort();
    let mut expected = names.map(|name| format!("of {name}"));
    expected.sort();
    assert_eq!(logs, expected);
}

#[test]
fn of_endless_output_both_ends_are_kept() {
    let project = Project::new(
        "[targets.a]\ncommand = 'echo first; yes | head -c 10000000; echo last; exit 1'\n",
    );
    project.run(&[]);
    let log = project.read(".pbuild.logs/a.log");
    assert!(log.contains("\nfirst\ny\n") && log.ends_with("\ny\nlast\n\nexit code 1\n"));
    assert!(log.contains("\n(and more, not kept)\n"));
    assert!(log.len() < 4 << 20, "{}", log.len());
}

#[test]
fn a_command_line_that_is_too_long_is_told() {
    let project = Project::new("");
    let names: Vec<_> = (0..2000).map(|i| format!("{}{i}", "long".repeat(20))).collect();
    for name in &names {
        project.write(name, "x");
    }
    let inputs = format!("{names:?}");
    let target = |command| {
        format!("[targets.a]\ninputs = {inputs}\noutputs = ['a']\ncommand = '''{command}'''\n")
    };
    project.write("pbuild.toml", &target("cat {in} > {out}"));
    let ended = project.run(&[]);
    assert_eq!(ended.code, Some(1));
    let told = "failed, cannot run it: Argument list too long (os error 7) (168";
    assert!(ended.stderr.contains(told), "{}", &ended.stderr[..400]);
    let told = "use @{rsp} in place of {in}: it is a response file with the inputs)";
    assert!(ended.stderr.contains(told), "{}", &ended.stderr[..400]);
    assert!(ended.stderr.len() < 4000, "the whole command is shown");

    project.write("pbuild.toml", &target("xargs cat < {rsp} > {out}"));
    project.build(&[]);
    assert_eq!(project.read("a"), "x".repeat(2000));
    assert!(!project.files().iter().any(|file| file.contains("rsp")));
}

#[test]
fn the_inputs_in_a_response_file_are_part_of_the_command() {
    let target = |inputs| {
        format!("[targets.a]\ninputs = {inputs}\noutputs = ['a']\ncommand = 'xargs cat < {{rsp}} > {{out}}'\n")
    };
    let project = Project::new(&target("['one', 'two']"));
    project.write("one", "1");
    project.write("two", "2");
    project.build(&[]);
    let ended = project.build(&[]);
    assert!(ended.stdout.contains("0 built, 1 up to date"), "{ended:?}");
    // The order counts.
    project.build_with("pbuild.toml", &target("['two', 'one']"), &[]);
    assert_eq!(project.read("a"), "21");
}

#[test]
fn compilers_read_the_response_file() {
    let names = ["a b.c", "it's.c", "q\\\"uote.c", "back\\slash.c", "plain.c", "$x.c"];
    let inputs = names.map(|name| format!("'''{name}'''")).join(", ");
    let project = Project::new(&format!(
        "[targets.a]\ninputs = [{inputs}]\noutputs = ['a']\ncommand = 'gcc -o {{out}} @{{rsp}}'\n"
    ));
    for (i, name) in names.iter().enumerate() {
        let function = if i == 0 { "main".to_owned() } else { format!("f{i}") };
        project.write(name, &format!("int {function}(void) {{ return 0; }}\n"));
    }
    project.build(&[]);
    assert!(project.exists("a"));
}

#[test]
fn names_may_be_as_long_as_the_system_has_them() {
    let name = format!("{}.c", "n".repeat(253));
    let project = Project::new(&format!(
        "[targets.a]\noutputs = ['{name}']\ncommand = 'echo {{out}} > {{out}}; echo a: > {{depfile}}'\n"
    ));
    project.build(&[]);
    // Compilers look at the extension.
    assert!(project.read(&name).ends_with(".c\n"));
    let ended = project.build(&[]);
    assert!(ended.stdout.contains("0 built, 1 up to date"), "{ended:?}");
}
