//! One command: its words, the temporary names it writes to, and its session, which an interrupt
//! ends as a whole.

use std::collections::HashSet;
use std::fs;
use std::io::{self, PipeReader, PipeWriter, Read};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Mutex;

use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::signal::{killpg, Signal};
use nix::sys::wait::{waitid, Id, WaitPidFlag};
use nix::unistd::Pid;
use process_wrap::std::{CommandWrap, ProcessSession, ResetSigmask};

use crate::depfile;
use crate::file::Target;
use crate::lock;
use crate::name::{is_own, plain};

/// So much of a command's output is kept of its beginning, and so much of its end.
const OUTPUT: usize = 1 << 20;

/// A target's outputs, first under temporary names in the same directories. Dropped, it leaves
/// none of those behind.
pub struct Scratch {
    outputs: Vec<(String, String)>,
    depfile: String,
    /// A response file, and what it says if the command asks for it.
    response: (String, Option<String>),
}

impl Scratch {
    pub fn new(target: &Target) -> Self {
        let outputs: Vec<_> = target
            .outputs
            .iter()
            .map(|output| (beside(&output.text, "new"), output.text.clone()))
            .collect();
        let [depfile, response] = ["d", "rsp"].map(|kind| match outputs.first() {
            Some((_, output)) => beside(output, kind),
            // A name may be anything, and `a/b` is not `a-b`.
            None => {
                let hash = blake3::hash(target.name.text.as_bytes());
                format!(".pbuild.{kind}.target.{hash}")
            }
        });
        let asks =
            |word| target.command.as_ref().is_some_and(|command| command.text.contains(word));
        let inputs = || target.inputs.iter().map(|input| respond(&input.text));
        let response = (response, asks("{rsp}").then(|| inputs().collect()));
        Self { outputs, depfile, response }
    }

    /// The command for a shell. `{in}`, `{rsp}`, `{out}`, `{out1}`, `{out2}` and so on, and
    /// `{depfile}` are replaced, and nothing else, so that `${HOME}` and awk's braces need no quoting.
    pub fn command(&self, target: &Target) -> Option<String> {
        let template = &target.command.as_ref()?.text;
        let inputs: Vec<_> = target.inputs.iter().map(|input| &*input.text).collect();
        let outputs: Vec<_> = self.outputs.iter().map(|(new, _)| &**new).collect();
        let mut words = vec![
            ("{in}".to_owned(), quote(&inputs)),
            ("{out}".to_owned(), quote(&outputs)),
            ("{depfile}".to_owned(), quote(&[&self.depfile])),
            ("{rsp}".to_owned(), quote(&[&self.response.0])),
        ];
        for (i, output) in outputs.iter().enumerate() {
            words.push((format!("{{out{}}}", i + 1), quote(&[output])));
        }
        let mut command = String::new();
        let mut rest = &**template;
        while let Some(brace) = rest.find('{') {
            command.push_str(&rest[..brace]);
            rest = &rest[brace..];
            let word = words.iter().find(|(word, _)| rest.starts_with(word));
            let (word, text) = word.map_or(("{", "{"), |(word, text)| (word, text));
            command.push_str(text);
            rest = &rest[word.len()..];
        }
        command.push_str(rest);
        Some(command)
    }

    /// What the command is about: itself, and its inputs if they are only in a response file.
    pub fn all_words(&self, command: &str) -> String {
        command.to_owned() + self.response.1.as_deref().unwrap_or_default()
    }

    /// Makes room: directories are made, and what a killed build may have left is removed. (`ar`
    /// would add to it.)
    pub fn prepare(&self) -> io::Result<()> {
        for (new, _) in &self.outputs {
            if let Some(directory) = Path::new(new).parent() {
                fs::create_dir_all(directory)?;
            }
        }
        self.clear();
        let (file, text) = &self.response;
        text.as_ref().map_or(Ok(()), |text| fs::write(file, text))
    }

    /// The files that the command says it has read, or what is wrong with its depfile.
    pub fn found(&self, target: &Target) -> Result<Vec<String>, String> {
        let command = target.command.as_ref().map_or("", |command| &command.text);
        if !command.contains("{depfile}") {
            return Ok(Vec::new());
        }
        let depfile = &self.depfile;
        let text = fs::read_to_string(depfile)
            .map_err(|error| format!("its depfile {depfile} cannot be read: {error}"))?;
        let found = depfile::parse(&text)
            .map_err(|error| format!("its depfile {depfile} is not understood: {error}"))?;
        match found.iter().find(|file| Path::new(file).is_dir()) {
            Some(file) => Err(format!("its depfile {depfile} names a directory: {file}")),
            // Outputs have a temporary name yet. They count as outputs.
            None => Ok(found.iter().filter(|file| !is_own(file)).map(|file| plain(file)).collect()),
        }
    }

    /// The first output that the command has not made, or not as a file, which could not be put
    /// in the place of an older one.
    pub fn missing(&self) -> Option<String> {
        self.outputs.iter().find_map(|(new, output)| {
            let new = Path::new(new);
            if new.is_dir() {
                return Some(format!("made a directory, not a file: {output}"));
            }
            (!new.exists()).then(|| format!("not made {output}"))
        })
    }

    /// The outputs are whole: they get their names.
    pub fn keep(self) -> io::Result<()> {
        let mut outputs = self.outputs.iter();
        outputs.try_for_each(|(new, output)| fs::rename(new, output))
    }

    fn clear(&self) {
        let new = self.outputs.iter().map(|(new, _)| new);
        for file in new.chain([&self.depfile, &self.response.0]) {
            // It is most often not there.
            if Path::new(file).is_dir() && !Path::new(file).is_symlink() {
                let _ = fs::remove_dir_all(file);
            } else {
                let _ = fs::remove_file(file);
            }
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.clear();
    }
}

/// In the same directory, or it could not be renamed; with the same extension, for compilers that
/// look at it. `kind` keeps them apart from each other, and from `.pbuild.state` and `.pbuild.lock`.
fn beside(file: &str, kind: &str) -> String {
    let path = Path::new(file);
    let mut name = path.file_name().unwrap_or_default().to_string_lossy();
    // No system takes much longer ones.
    if name.len() > 200 {
        let hash = blake3::hash(name.as_bytes());
        let extension = path.extension().unwrap_or_default().to_string_lossy();
        let extension: String = extension.chars().take(20).collect();
        name = format!("{hash}.{extension}").into();
    }
    let temporary = path.with_file_name(format!(".pbuild.{kind}.{name}"));
    temporary.display().to_string()
}

/// A line of a response file, as gcc, clang, ld and ar read it.
fn respond(word: &str) -> String {
    let special = |c: char| c.is_whitespace() || "\\'\"".contains(c);
    let quoted = word.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c]));
    quoted.chain(['\n']).collect()
}

fn quote(words: &[&str]) -> String {
    // Fails for a NUL byte; then so will the command.
    shlex::try_join(words.iter().copied()).unwrap_or_else(|_| words.join(" "))
}

/// The commands that run now.
pub struct Commands {
    now: Mutex<Now>,
    /// Comes to its end when nobody's output is awaited any more.
    killed: PipeReader,
}

struct Now {
    groups: HashSet<Pid>,
    interrupted: bool,
    /// Dropped at SIGKILL.
    until_killed: Option<PipeWriter>,
}

impl Now {
    fn send(&self, signal: Signal) {
        for group in &self.groups {
            // Fails if all of it has ended by itself.
            let _ = killpg(*group, signal);
        }
    }
}

impl Commands {
    pub fn new() -> io::Result<Self> {
        let (killed, until_killed) = io::pipe()?;
        let now = Mutex::new(Now {
            groups: HashSet::new(),
            interrupted: false,
            until_killed: Some(until_killed),
        });
        Ok(Self { now, killed })
    }

    /// Runs a command to its end and gives its output, stdout and stderr as they came. It has ended
    /// when its shell has, and all who may write to its output; after SIGKILL, when its shell has.
    pub fn run(&self, command: &str) -> io::Result<(ExitStatus, String)> {
        let (mut reader, writer) = io::pipe()?;
        let mut now = lock(&self.now);
        if now.interrupted {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let mut shell = Command::new("sh");
        shell.args(["-c", command]).stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
        // A session is a group, too, which is ended with all its children. It has no terminal: what
        // asks for one fails, where in the background of ours it would be stopped for ever.
        let mut child = CommandWrap::from(shell).wrap(ProcessSession).wrap(ResetSigmask).spawn()?;
        // (The `Command` is gone, and with it our ends for writing.)
        let group = Pid::from_raw(child.id().cast_signed());
        // Under the lock since it was looked for an interrupt, which so misses none.
        now.groups.insert(group);
        drop(now);
        let output = self.read_end(&mut reader);
        // Until it is waited for, nobody else gets its number: so it leaves the list before that.
        let ended = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        while waitid(Id::Pid(group), ended) == Err(nix::errno::Errno::EINTR) {}
        let mut now = lock(&self.now);
        now.groups.remove(&group);
        if now.interrupted {
            // Children that have let go of the output, and may not mind SIGTERM.
            let _ = killpg(group, Signal::SIGKILL);
        }
        drop(now);
        let status = child.wait()?;
        Ok((status, String::from_utf8_lossy(&output?).into_owned()))
    }

    /// Sends a signal to all commands and their children. No other begins.
    pub fn interrupt(&self, signal: Signal) {
        let mut now = lock(&self.now);
        now.interrupted = true;
        if signal == Signal::SIGKILL {
            now.until_killed = None;
        }
        now.send(signal);
        // Someone may have stopped it.
        now.send(Signal::SIGCONT);
    }

    /// Stops all commands as long as this takes. None begins meanwhile.
    pub fn pause(&self, meanwhile: impl FnOnce()) {
        let now = lock(&self.now);
        now.send(Signal::SIGSTOP);
        meanwhile();
        now.send(Signal::SIGCONT);
    }

    pub fn interrupted(&self) -> bool {
        lock(&self.now).interrupted
    }

    fn read_end(&self, reader: &mut PipeReader) -> io::Result<Vec<u8>> {
        let mut output = Vec::new();
        let mut part = [0; 8192];
        loop {
            // Who has left its group may hold the output open for ever.
            let mut either =
                [&*reader, &self.killed].map(|r| PollFd::new(r.as_fd(), PollFlags::POLLIN));
            match poll(&mut either, PollTimeout::NONE) {
                Err(nix::errno::Errno::EINTR) => continue,
                other => other?,
            };
            if either[1].any() == Some(true) {
                return Ok(output);
            }
            match reader.read(&mut part)? {
                0 => return Ok(output),
                n => output.extend(&part[..n]),
            }
            // The first error counts, and so do the last words.
            if output.len() > 3 * OUTPUT {
                output.splice(OUTPUT..output.len() - OUTPUT, *b"\n(and more, not kept)\n");
            }
        }
    }
}

pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (_, Some(signal)) => match Signal::try_from(signal) {
            Ok(name) => format!("killed by signal {signal} ({name})"),
            Err(_) => format!("killed by signal {signal}"),
        },
        _ => status.to_string(),
    }
}
