//! A directory with a build file in it, and pbuild as a user starts it.

#![allow(dead_code)] // Not every test uses all of it.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use tempfile::{NamedTempFile, TempDir};

/// How long anything may take. What takes longer hangs.
pub const LIMIT: Duration = Duration::from_secs(60);

pub const PBUILD: &str = env!("CARGO_BIN_EXE_pbuild");

pub struct Project {
    directory: TempDir,
}

/// A program that runs, most often pbuild.
pub struct Running {
    child: Child,
    stdout: NamedTempFile,
    stderr: NamedTempFile,
}

/// One that has ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Project {
    pub fn new(build_file: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let project = Self { directory };
        project.write("pbuild.toml", build_file);
        project
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    pub fn write(&self, file: &str, text: &str) {
        fs::write(self.path(file), text).unwrap();
    }

    pub fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path(file)).unwrap()
    }

    pub fn exists(&self, file: &str) -> bool {
        self.path(file).exists()
    }

    pub fn fifos(&self, names: &[&str]) {
        let mode = nix::sys::stat::Mode::S_IRWXU;
        for name in names {
            nix::unistd::mkfifo(&self.path(name), mode).unwrap();
        }
    }

    /// Everything that is left in the project, except for what pbuild keeps for itself.
    pub fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names
            .filter(|name| ![".pbuild.state", ".pbuild.lock", ".pbuild.logs"].contains(&&**name))
            .collect();
        names.sort();
        names
    }

    /// Starts pbuild. It ignores no signal, even if the tests were started with nohup.
    pub fn start(&self, arguments: &[&str]) -> Running {
        self.start_by(&["env", "--default-signal"], arguments)
    }

    /// Starts pbuild by a program that becomes it.
    pub fn start_by(&self, program: &[&str], arguments: &[&str]) -> Running {
        let arguments = [&program[1..], &[PBUILD], arguments].concat();
        self.start_other(program[0], &arguments)
    }

    pub fn start_other(&self, program: &str, arguments: &[&str]) -> Running {
        let [stdout, stderr] = [(); 2].map(|()| NamedTempFile::new().unwrap());
        let child = Command::new(program)
            .args(arguments)
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(stdout.reopen().unwrap())
            .stderr(stderr.reopen().unwrap())
            .process_group(0) // As a shell does. So the system lets it be stopped.
            .spawn()
            .unwrap();
        Running { child, stdout, stderr }
    }

    pub fn run(&self, arguments: &[&str]) -> Ended {
        self.start(arguments).end()
    }

    /// Builds after a change, and has to succeed.
    pub fn build_with(&self, file: &str, text: &str, arguments: &[&str]) -> Ended {
        self.write(file, text);
        self.build(arguments)
    }

    /// Builds, and has to succeed.
    pub fn build(&self, arguments: &[&str]) -> Ended {
        let ended = self.run(arguments);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        ended
    }
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        kill(pid, signal).unwrap();
    }

    /// What it has said on stderr so far.
    pub fn stderr(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap()
    }

    pub fn end(mut self) -> Ended {
        let began = Instant::now();
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None if began.elapsed() < LIMIT => thread::sleep(Duration::from_millis(5)),
                None => panic!("it hangs: {}", self.stderr()), // Dropped, it is ended.
            }
        };
        Ended {
            code: status.code(),
            stdout: fs::read_to_string(&self.stdout).unwrap(),
            stderr: self.stderr(),
        }
    }
}

/// A test that fails leaves no pbuild behind, nor its commands, if it can be helped.
impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.signal(Signal::SIGTERM);
            let began = Instant::now();
            while matches!(self.child.try_wait(), Ok(None)) && began.elapsed() < LIMIT {
                thread::sleep(Duration::from_millis(5));
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Looks again and again until it is so.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < LIMIT, "in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Opens a FIFO that a command waits to read from.
pub fn open_gate(fifo: &Path) {
    fs::write(fifo, "go\n").unwrap();
}
