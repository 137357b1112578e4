//! Ctrl-C, and its kin: the children end, and nothing half-written is left.

mod common;

use std::fs;
use std::sync::mpsc;
use std::thread;

use common::{until, Project, LIMIT};
use nix::sys::signal::Signal;

/// Whoever of the build still lives holds `life` open for writing. Tells when nobody does.
fn end_of_life(project: &Project) -> mpsc::Receiver<()> {
    let life = project.path("life");
    let (ended, end) = mpsc::channel();
    thread::spawn(move || {
        fs::read(life).unwrap(); // To its end.
        ended.send(()).unwrap();
    });
    end
}

#[test]
fn an_interrupt_ends_children_and_leaves_nothing_half() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        // The child of a child, which would run on; and one that has ended well before.
        let project = Project::new(
            "[targets.before]\noutputs = ['before']\ncommand = 'echo whole > {out}'\n\
             [targets.half]\nneeds = ['before']\noutputs = ['half', 'other']\n\
             command = '''exec 3> life; echo half | tee {out1} > {out2}
                          sh -c 'echo > begun; sleep 1000' & sleep 1000'''\n\
             [targets.after]\ninputs = ['half']\noutputs = ['after']\ncommand = 'cp {in} {out}'\n",
        );
        project.fifos(&["life"]);
        let end = end_of_life(&project);
        let running = project.start(&["-j3"]);
        until("it has begun", || project.exists("begun"));
        running.signal(signal);
        let ended = running.end();
        assert_eq!(ended.code, Some(130), "{}", ended.stderr);
        assert!(ended.stdout.contains("1 built"), "{}", ended.stdout);
        assert!(
            ended.stdout.contains("2 not built, interrupted"),
            "{}",
            ended.stdout
        );
        end.recv_timeout(LIMIT).expect("a child lives on");
        assert_eq!(project.files(), ["before", "begun", "life", "pbuild.toml"]);
        // What was done is remembered.
        let ended = project.build(&["before"]);
        assert!(
            ended.stdout.contains("0 built, 1 up to date"),
            "{}",
            ended.stdout
        );
    }
}

#[test]
fn a_second_interrupt_is_not_polite() {
    // This one does not mind SIGTERM.
    let project = Project::new(
        "[targets.half]\noutputs = ['half']\n\
         command = '''exec 3> life; echo half > {out}; trap 'echo > told' TERM; echo > begun
                      while :; do sleep 1000 & wait; done'''\n",
    );
    project.fifos(&["life"]);
    let end = end_of_life(&project);
    let running = project.start(&[]);
    until("it has begun", || project.exists("begun"));
    running.signal(Signal::SIGINT);
    until("the command is told", || project.exists("told"));
    running.signal(Signal::SIGINT);
    assert_eq!(running.end().code, Some(130));
    end.recv_timeout(LIMIT).expect("a child lives on");
    assert_eq!(project.files(), ["begun", "life", "pbuild.toml", "told"]);
}

#[test]
fn nor_do_those_live_on_that_have_let_go_of_the_output() {
    let project = Project::new(
        "[targets.a]\ncommand = '''exec 3> life
            sh -c 'trap \"\" TERM; echo > begun; sleep 1000; :' > log 2>&1 & wait'''\n",
    );
    project.fifos(&["life"]);
    let end = end_of_life(&project);
    let running = project.start(&[]);
    until("it has begun", || project.exists("begun"));
    running.signal(Signal::SIGINT);
    assert_eq!(running.end().code, Some(130));
    end.recv_timeout(LIMIT).expect("a child lives on");
}

#[test]
fn one_that_has_left_its_group_does_not_hold_up_the_end() {
    let project = Project::new(
        "[targets.a]\ncommand = '''setsid sh -c 'echo > begun; read go < gate' & wait'''\n",
    );
    project.fifos(&["gate"]);
    let running = project.start(&[]);
    until("it has begun", || project.exists("begun"));
    running.signal(Signal::SIGINT); // And SIGKILL follows.
    assert_eq!(running.end().code, Some(130));
    common::open_gate(&project.path("gate"));
}

#[test]
fn what_a_killed_build_leaves_is_cleared_away() {
    let project = Project::new(
        "[targets.a]\noutputs = ['a']\n\
         command = 'echo line >> {out}; test -e begun || { echo > begun; read go < gate; }'\n",
    );
    project.fifos(&["gate"]);
    let running = project.start(&[]);
    until("it has begun", || project.exists("begun"));
    running.signal(Signal::SIGKILL);
    assert_eq!(running.end().code, None);
    // Nobody ends the children of a process that was killed so; the test does.
    common::open_gate(&project.path("gate"));
    assert_eq!(
        project.files(),
        [".pbuild.new.a", "begun", "gate", "pbuild.toml"]
    );
    project.build(&[]);
    assert_eq!(project.read("a"), "line\n");
    assert_eq!(project.files(), ["a", "begun", "gate", "pbuild.toml"]);
}
