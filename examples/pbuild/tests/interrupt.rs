//! Ctrl-C and its kin: the children end, and nothing half-written is left. Ctrl-Z: they stop. And
//! the terminal, which they do not get.

mod common;

use std::fs;
use std::sync::mpsc;
use std::thread;

use common::{open_gate, until, Project, LIMIT, PBUILD};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

/// Each process of the build that still lives holds `life` open for writing. Tells when none does.
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
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT] {
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
        assert!(ended.stdout.contains("2 not built, interrupted"), "{}", ended.stdout);
        end.recv_timeout(LIMIT).expect("a child lives on");
        assert_eq!(project.files(), ["before", "begun", "life", "pbuild.toml"]);
        // What was done is remembered.
        let ended = project.build(&["before"]);
        assert!(ended.stdout.contains("0 built, 1 up to date"), "{}", ended.stdout);
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
    open_gate(&project.path("gate"));
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
    open_gate(&project.path("gate"));
    assert_eq!(project.files(), [".pbuild.new.a", "begun", "gate", "pbuild.toml"]);
    project.build(&[]);
    assert_eq!(project.read("a"), "line\n");
    assert_eq!(project.files(), ["a", "begun", "gate", "pbuild.toml"]);
}

#[test]
fn what_is_ignored_at_the_start_stays_ignored() {
    // As nohup does, and a shell for what it starts with `&`.
    let project = Project::new(
        "[targets.a]\n\
         command = 'echo > begun; read go < gate; grep SigIgn /proc/self/status > mask'\n",
    );
    project.fifos(&["gate"]);
    let ignoring = ["env", "--default-signal", "--ignore-signal=HUP,INT,QUIT,TSTP"];
    let running = project.start_by(&ignoring, &[]);
    until("it has begun", || project.exists("begun"));
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTSTP] {
        running.signal(signal);
    }
    open_gate(&project.path("gate"));
    let ended = running.end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    // Commands ignore them, too: SIGHUP 1, SIGINT 2, SIGQUIT 3, SIGTSTP 20.
    let mask = project.read("mask");
    let mask = u64::from_str_radix(mask.trim().rsplit('\t').next().unwrap(), 16).unwrap();
    assert_eq!(mask & 0x80007, 0x80007, "{mask:x}");

    // SIGTERM is not ignored.
    let project = Project::new("[targets.a]\ncommand = 'echo > begun; sleep 1000'\n");
    let running = project.start_by(&ignoring, &[]);
    until("it has begun", || project.exists("begun"));
    running.signal(Signal::SIGTERM);
    assert_eq!(running.end().code, Some(130));
}

#[test]
fn commands_get_no_signals_blocked() {
    let project =
        Project::new("[targets.a]\ncommand = 'exec grep SigBlk /proc/self/status > mask'\n");
    project.build(&[]);
    assert_eq!(project.read("mask"), "SigBlk:\t0000000000000000\n");
}

/// The letter that the system has for what a process does: `T` for stopped.
fn state(pid: &str) -> char {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap();
    let (_, state) = stat.rsplit_once(") ").unwrap();
    state.chars().next().unwrap()
}

const GATE: &str = "[targets.a]\ncommand = 'echo $$ > pid; mv pid begun; read go < gate'\n";

#[test]
fn a_stop_stops_the_children_too() {
    let project = Project::new(GATE);
    project.fifos(&["gate"]);
    let running = project.start(&[]);
    until("it has begun", || project.exists("begun"));
    let pids = [project.read("begun"), running.pid().to_string()];
    for _ in 0..2 {
        running.signal(Signal::SIGTSTP);
        until("all is stopped", || pids.iter().all(|pid| state(pid) == 'T'));
        running.signal(Signal::SIGCONT);
        until("all goes on", || pids.iter().all(|pid| state(pid) != 'T'));
    }
    open_gate(&project.path("gate"));
    assert_eq!(running.end().code, Some(0));
}

#[test]
fn what_is_stopped_can_be_interrupted() {
    let project = Project::new(
        "[targets.a]\ncommand = '''exec 3> life; trap 'echo > told; exit' TERM
            echo $$ > pid; mv pid begun; kill -STOP $$; sleep 1000 & wait'''\n",
    );
    project.fifos(&["life"]);
    let end = end_of_life(&project);
    let running = project.start(&[]);
    until("it has begun", || project.exists("begun"));
    let child = project.read("begun");
    until("it has stopped itself", || state(&child) == 'T');
    running.signal(Signal::SIGTERM);
    assert_eq!(running.end().code, Some(130));
    end.recv_timeout(LIMIT).expect("a child lives on");
    assert!(project.exists("told"), "it was killed, not told");
}

#[test]
fn it_does_not_stop_where_nobody_could_continue_it() {
    // The first process of a session, as in a container.
    let project = Project::new(GATE);
    project.fifos(&["gate"]);
    let in_a_session = format!("setsid --wait {PBUILD}; exit $?");
    let running = project.start_other("sh", &["-c", &in_a_session]);
    until("it has begun", || project.exists("begun"));
    let child = project.read("begun");
    let status = fs::read_to_string(format!("/proc/{}/status", child.trim())).unwrap();
    let mut lines = status.lines();
    let pbuild = lines.find_map(|line| line.strip_prefix("PPid:\t")).unwrap();
    kill(Pid::from_raw(pbuild.parse().unwrap()), Signal::SIGTSTP).unwrap();
    open_gate(&project.path("gate"));
    assert_eq!(running.end().code, Some(0));
}

#[test]
fn a_command_that_asks_for_the_terminal_fails() {
    // In the background of a terminal it would be stopped, and pbuild would wait for ever.
    for command in ["read line < /dev/tty", "echo x > /dev/tty", "stty -echo < /dev/tty"] {
        let project = Project::new(&format!("[targets.a]\ncommand = '{command}'\n"));
        let on_a_terminal = format!("stty tostop; {PBUILD}");
        let running = project.start_other("script", &["-qec", &on_a_terminal, "/dev/null"]);
        let ended = running.end();
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stdout.contains("/dev/tty: No such device"), "{}", ended.stdout);
    }
}

#[test]
fn a_third_interrupt_ends_pbuild_at_least() {
    // It hangs where it writes to a FIFO that nobody reads.
    let project = Project::new("[targets.a]\ncommand = 'echo > done'\n");
    project.fifos(&["trace"]);
    let mut running = project.start(&["--trace", "trace"]);
    until("it has built", || project.exists("done"));
    until("it has ended", || {
        running.signal(Signal::SIGINT);
        running.has_ended()
    });
    assert_eq!(running.end().code, Some(130));
}
