//! One file, however it is spelled.

mod common;

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::time::SystemTime;

use common::Project;

/// The file `x`, which may not be there yet. `link` leads to the project, `sub` is a directory,
/// `new` will be one, and `there` leads to `sub/deep`.
fn spellings(project: &Project) -> Vec<String> {
    let here = project.path(".").canonicalize().unwrap();
    let name = here.file_name().unwrap().display();
    let here = here.display();
    [
        "x".to_owned(),
        "./x".to_owned(),
        ".//./x".to_owned(),
        "sub/../x".to_owned(),
        "new/../x".to_owned(),
        "link/x".to_owned(),
        "link/sub/../x".to_owned(),
        "sub/up/x".to_owned(),
        "there/../../x".to_owned(),
        format!("{here}/x"),
        format!("{here}/link/./x"),
        format!("../{name}/x"),
    ]
    .into()
}

fn project() -> Project {
    let project = Project::new("");
    fs::create_dir_all(project.path("sub/deep")).unwrap();
    symlink(project.path("."), project.path("link")).unwrap();
    symlink("..", project.path("sub/up")).unwrap();
    // `there/..` is `sub`, not the directory that holds `there`.
    symlink("sub/deep", project.path("there")).unwrap();
    project
}

#[test]
fn two_makers_of_one_file_are_refused() {
    let project = project();
    for spelling in spellings(&project) {
        project.write(
            "pbuild.toml",
            &format!(
                "[targets.a]\noutputs = ['x']\ncommand = 'echo a > {{out}}'\n\
                 [targets.b]\noutputs = ['{spelling}']\ncommand = 'echo b > {{out}}'\n"
            ),
        );
        let ended = project.run(&[]);
        assert_eq!(ended.code, Some(2), "{spelling}");
        let told = "error: pbuild.toml:5:12: `";
        assert!(ended.stderr.starts_with(told), "{spelling}: {}", ended.stderr);
        let told = "is made twice: by `b`, and by `a` at pbuild.toml:2:12";
        assert!(ended.stderr.contains(told), "{}", ended.stderr);
        assert!(!project.exists("x"));
    }
}

#[test]
fn one_target_does_not_make_a_file_twice() {
    let project = Project::new(
        "[targets.a]\noutputs = ['x', './x']\ncommand = 'echo > {out1}; echo > {out2}'\n",
    );
    let ended = project.run(&[]);
    let told = "2:17: `x` is made twice: by `a`, and by `a` at pbuild.toml:2:12";
    assert!(ended.stderr.contains(told), "{}", ended.stderr);
}

#[test]
fn an_input_is_made_first_in_any_spelling() {
    for hidden in [false, true] {
        let project = project();
        project.write("x", "stale");
        for spelling in spellings(&project) {
            let (inputs, depfile) = if hidden {
                (String::new(), format!("&& echo \"a: {spelling}\" > {{depfile}}"))
            } else {
                (format!("inputs = ['{spelling}']\n"), String::new())
            };
            project.write(
                "pbuild.toml",
                &format!(
                    "[targets.a]\n{inputs}outputs = ['a']\ncommand = '''cat x > {{out}} {depfile}'''\n\
                     [targets.m]\ninputs = ['in']\noutputs = ['x']\ncommand = 'cp {{in}} {{out}}'\n"
                ),
            );
            for text in ["first", "the second"] {
                project.write("in", text);
                project.build(&["-j1"]);
                assert_eq!(project.read("a"), text, "{spelling}");
            }
            let ended = project.build(&[]);
            assert!(ended.stdout.contains("0 built, 2 up to date"), "{ended:?}");
        }
    }
}

#[test]
fn an_output_is_one_file_in_any_spelling() {
    let project = project();
    for spelling in spellings(&project) {
        project.write(
            "pbuild.toml",
            &format!(
                "[targets.a]\ninputs = ['x']\noutputs = ['a']\ncommand = 'cat {{in}} > {{out}}'\n\
                 [targets.m]\noutputs = ['{spelling}']\ngenerates = 'x'\n\
                 command = 'echo \"[targets.t]\" > {{out}}'\n"
            ),
        );
        let _ = fs::remove_file(project.path("x"));
        let ended = project.build(&["-j1"]);
        assert_eq!(project.read("a"), "[targets.t]\n", "{spelling}");
        assert!(ended.stdout.contains(" built, "), "{ended:?}");
        let ended = project.build(&[]);
        assert!(ended.stdout.contains("0 built, 2 up to date"), "{ended:?}");
    }
}

#[test]
fn a_link_to_what_is_made_is_an_input_like_it() {
    let project = Project::new(
        "[targets.a]\ninputs = ['link']\noutputs = ['a']\ncommand = 'cp {in} {out}'\n\
         [targets.m]\ninputs = ['in']\noutputs = ['x']\ncommand = 'cp {in} {out}'\n",
    );
    symlink("other", project.path("link")).unwrap();
    symlink("x", project.path("other")).unwrap();
    for text in ["first", "the second"] {
        project.write("in", text);
        project.build(&["-j1"]);
        assert_eq!(project.read("a"), text);
    }
}

#[test]
fn an_output_takes_the_place_of_a_link() {
    // Not that of the file that it leads to, which another target makes.
    let project = Project::new(
        "[targets.a]\noutputs = ['link']\ncommand = 'echo a > {out}'\n\
         [targets.b]\noutputs = ['x']\ncommand = 'echo b > {out}'\n",
    );
    symlink("x", project.path("link")).unwrap();
    project.build(&[]);
    assert_eq!(project.read("link") + &project.read("x"), "a\nb\n");
}

#[test]
fn links_in_a_circle_lead_nowhere() {
    let project = Project::new(
        "[targets.a]\ninputs = ['one']\noutputs = ['a']\ncommand = 'cat {in} > {out}'\n",
    );
    symlink("two", project.path("one")).unwrap();
    symlink("one", project.path("two")).unwrap();
    let ended = project.run(&[]);
    assert!(ended.stderr.contains("no file `one`"), "{}", ended.stderr);
}

#[test]
fn a_link_that_leads_elsewhere_is_a_change() {
    // Both files have one time and one size.
    let project = Project::new(
        "[targets.a]\ninputs = ['now/v']\noutputs = ['a']\n\
         command = '''cat now/v now/h > {out}; echo a: now/h > {depfile}'''\n",
    );
    let time = SystemTime::now();
    for version in ["1", "2"] {
        fs::create_dir(project.path(version)).unwrap();
        for file in ["v", "h"] {
            let path = format!("{version}/{file}");
            project.write(&path, version);
            let file = File::options().append(true).open(project.path(&path));
            file.unwrap().set_modified(time).unwrap();
        }
    }
    for version in ["1", "2"] {
        let _ = fs::remove_file(project.path("now"));
        symlink(version, project.path("now")).unwrap();
        project.build(&[]);
        assert_eq!(project.read("a"), format!("{version}{version}"));
    }
}
