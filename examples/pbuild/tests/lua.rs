//! The real thing: the Lua interpreter from its C sources, with gcc.

mod common;
#[path = "../examples/lua/project.rs"]
mod project;
#[path = "../examples/lua/timeline.rs"]
mod timeline;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use common::Project;

const PRIMES: &str =
    "Lua 5.4: 2 3 5 7 11 13 17 19 23 29 31 37 41 43 47 53 59 61 67 71 73 79 83 89 97\n";

/// With the time of each file in the project's directory.
fn times(project: &Project) -> BTreeMap<String, SystemTime> {
    let time = |name: &String| fs::metadata(project.path(name)).unwrap().modified().unwrap();
    let files = project.files().into_iter();
    files.map(|name| (name.clone(), time(&name))).collect()
}

/// Those that were written since, by their times.
fn written(project: &Project, before: &BTreeMap<String, SystemTime>) -> BTreeSet<String> {
    let now = times(project).into_iter();
    let written = now.filter(|(name, time)| before.get(name) != Some(time));
    written.map(|(name, _)| name).collect()
}

/// The object files that include a header, by gcc's own word.
fn includers(project: &Project, header: &str) -> BTreeSet<String> {
    let list = "gcc -DLUA_USE_LINUX -MM src/*.c";
    let ended = project.start_other("sh", &["-c", list]).end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let rules = ended.stdout.replace("\\\n", " ");
    let rules = rules.lines().filter_map(|rule| rule.split_once(':'));
    let includes = rules.filter(|(_, files)| files.split_whitespace().any(|f| f == header));
    includes.map(|(object, _)| object.to_owned()).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn run_lua(project: &Project, script: &str) -> String {
    project.write("script.lua", script);
    let lua = project.path("lua");
    let arguments = ["script.lua", "an argument"];
    let ended = project.start_other(lua.to_str().unwrap(), &arguments).end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended.stdout
}

#[test]
fn lua_is_built_and_only_what_has_changed_is_built_again() {
    // (The project's own build file is written over this one.)
    let project = Project::new("");
    let metadata = project::metadata().unwrap();
    project::write(&project.path("."), &metadata, "-O0").unwrap();
    let sources = fs::read_dir(project.path("src")).unwrap();
    let names = sources.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let objects = names.filter(|name| name.ends_with(".c")).count();
    assert!(objects > 30, "{objects}");

    let ended = project.build(&["-j4", "--explain", "--trace", "trace.json"]);
    let all = objects + 3;
    let summary = format!("pbuild: {all} built, 0 up to date in");
    assert!(ended.stdout.contains(&summary), "{}", ended.stdout);
    assert_eq!(project.read("primes.txt"), PRIMES);
    let script = "print(#arg, arg[1], (string.format('%d', 2^53):reverse()))";
    assert_eq!(run_lua(&project, script), "1\tan argument\t2990474529917009\n");
    let trace = project.read("trace.json");
    let events: Vec<timeline::Event> = serde_json::from_str(&trace).unwrap();
    let picture = timeline::draw(&events).to_string();
    assert!(picture.contains("lvm.o") && picture.contains("thread 4"));
    fs::remove_file(project.path("trace.json")).unwrap();

    let before = times(&project);
    let ended = project.build(&["-j4"]);
    let summary = format!("pbuild: 0 built, {all} up to date in");
    assert!(ended.stdout.contains(&summary), "{}", ended.stdout);
    assert_eq!(written(&project, &before), set(&[]));

    let ends = set(&["liblua.a", "lua", "primes.txt"]);
    for header in ["src/lvm.h", "src/lualib.h", "src/lua.h"] {
        let includers = includers(&project, header);
        assert!(!includers.is_empty() && includers.len() <= objects);
        let before = times(&project);
        let file = File::options().append(true).open(project.path(header));
        file.unwrap().set_modified(SystemTime::now()).unwrap();
        let ended = project.build(&["-j4", "--explain"]);
        assert_eq!(written(&project, &before), &includers | &ends, "{header}");
        let why = format!("header {header} has changed");
        assert_eq!(ended.stderr.matches(&why).count(), includers.len(), "{}", ended.stderr);
    }

    // By content, a comment has the includers compiled; they come out the same, and that is all.
    project.build(&["-j4", "--hash"]);
    let includers = includers(&project, "src/lvm.h");
    let text = project.read("src/lvm.h") + "/* the end */\n";
    project.write("src/lvm.h", &text);
    let before = times(&project);
    project.build(&["-j4", "--hash"]);
    assert_eq!(written(&project, &before), includers);
    // And a time is nothing.
    let file = File::options().append(true).open(project.path("src/lua.h")).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(60)).unwrap();
    let ended = project.build(&["-j4", "--hash"]);
    assert!(ended.stdout.contains(&summary), "{}", ended.stdout);
}
