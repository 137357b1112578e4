//! One target, when all that it needs is there: is it up to date, and if not, its command.
//!
//! **What a command reads has to be made first.** A depfile may name a file that another target
//! makes, although the build file does not say so. In the next build, that is a need like others. In
//! this one, the other target is built as soon as the depfile has been read. If it made the file
//! after the command began, the command runs again.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use crate::command::{describe, Scratch};
use crate::file::{Target, Word};
use crate::lock;
use crate::log::What;
use crate::name::{identities, identity};
use crate::outcome::{log_file, Broken, Failure};
use crate::record::{changes, Record};
use crate::run::Worker;

impl Worker {
    /// Runs the target's command, unless all is up to date. `needed`: what others have made for
    /// it, beside its inputs.
    pub fn update(&self, target: &Target, needed: &[String]) -> Result<(), Broken> {
        let run = &*self.run;
        let name = &target.name.text;
        let check = run.options.check;
        let scratch = Scratch::new(target);
        let Some(command) = scratch.command(target) else {
            return Ok(());
        };
        let last = lock(&run.records).get(name).cloned();
        let known = last.iter().flat_map(|last| last.found.keys());
        self.need_makers(target, known.clone())?;
        let inputs = target.inputs.iter().map(|input| &input.text).chain(needed);
        let outputs = || target.outputs.iter().map(|output| &output.text);
        let mut record = Record {
            command: blake3::hash(scratch.all_words(&command).as_bytes()).to_string(),
            inputs: check.stamp_all(inputs),
            found: Default::default(),
            outputs: check.stamp_all(outputs()),
        };
        let Some(mut why) = check.why(last.as_ref(), &record) else {
            run.up_to_date.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        };
        let fail = |how, output| broken(target, &command, how, output);
        let output = loop {
            let made = lock(&run.board).made.len();
            let before = changes(known.clone());
            let began = SystemTime::now();
            let (output, found) = self.execute(target, &scratch, &command, why)?;
            let ended = SystemTime::now();
            let made_by_others = self.need_makers(target, found.iter())?;
            if let Some(file) = self.made_since(made, &made_by_others) {
                why = format!("{file} was made after it had been read");
                continue;
            }
            let is_made = |file: &String| made_by_others.contains(file);
            let (made, others): (Vec<_>, _) = found.into_iter().partition(is_made);
            record.found = check.stamp_found(others, &before, began..ended);
            record.found.extend(check.stamp_all(made.iter()));
            break output;
        };
        let log = log_file(name); // Of an earlier failure.
        let _ = fs::remove_file(&log).and_then(|()| log.parent().map_or(Ok(()), fs::remove_dir));
        let kept = scratch.keep();
        kept.map_err(|e| fail(format!("its outputs can't be renamed: {e}"), &output))?;
        run.screen.output(name, &output);
        run.ran.fetch_add(1, Ordering::Relaxed);
        record.outputs = check.stamp_all(outputs());
        lock(&run.records).put(name, record);
        self.put_in_place(target)
    }

    /// Runs the command once. Gives its output, and what its depfile says it has read.
    fn execute(
        &self,
        target: &Target,
        scratch: &Scratch,
        command: &str,
        why: String,
    ) -> Result<(String, Vec<String>), Broken> {
        let run = &*self.run;
        let name = &target.name.text;
        let fail = |how, output| broken(target, command, how, output);
        if lock(&run.board).stopped {
            return Err(Broken::Stopped);
        }
        let prepared = scratch.prepare();
        prepared.map_err(|e| fail(format!("no room for its outputs: {e}"), ""))?;
        let began = Instant::now();
        run.screen.begin(name, &why, command);
        let ended = run.commands.run(command);
        run.log.add(self.number, name, began, What::Ran(why));
        run.screen.end(name);
        if run.commands.interrupted() {
            return Err(Broken::Stopped); // Whatever it has made goes with `scratch`.
        }
        let (status, output) = ended.map_err(|e| fail(cannot_run(&e, command), ""))?;
        if !status.success() {
            return Err(fail(describe(status), &output));
        }
        if let Some(missing) = scratch.missing() {
            return Err(fail(format!("it has {missing}"), &output));
        }
        let mut found = scratch.found(target).map_err(|how| fail(how, &output))?;
        found.retain(|file| !target.makes(file));
        Ok((output, found))
    }

    /// Builds the targets that make these files, which this target was found to read. Returns those
    /// of the files that other targets make.
    fn need_makers<'a>(
        &self,
        target: &Target,
        found: impl Iterator<Item = &'a String>,
    ) -> Result<HashSet<String>, Broken> {
        let places = |file: &'a String| identities(file).map(move |place| (file, place));
        let found: Vec<_> = found.flat_map(places).collect();
        loop {
            let (mut made, mut needs) = (HashSet::new(), Vec::new());
            let mut board = lock(&self.run.board);
            for (file, place) in &found {
                if let Some(maker) = board.graph.maker(place) {
                    made.insert((*file).clone());
                    if !matches!(board.done.get(&maker.text), Some(Ok(_))) {
                        needs.extend(target.finds(file, maker));
                    }
                }
            }
            if needs.is_empty() {
                // Should a generated file add a target that makes one of them, it is too late.
                let read = found.into_iter().map(|(_, place)| (place, target.name.clone()));
                board.read.extend(read);
                return Ok(made);
            }
            drop(board);
            // Meanwhile, a generated file may add further makers.
            self.need(&target.name.text, &needs)?;
        }
    }

    /// One of these files that was made in this run, after the first `made` files.
    fn made_since<'a>(&self, made: usize, files: &'a HashSet<String>) -> Option<&'a String> {
        let board = lock(&self.run.board);
        let since = |file: &&String| identities(file).any(|id| board.made[made..].contains(&id));
        files.iter().find(since)
    }

    /// Writes down that the outputs are new. If another target has read one of them already, because
    /// nothing said that it needs this one, that is an error: the other target is stale.
    fn put_in_place(&self, target: &Target) -> Result<(), Broken> {
        let mut board = lock(&self.run.board);
        let mut late = Ok(());
        for Word { text: file, at } in &target.outputs {
            let identity = identity(Path::new(file));
            if let Some(reader) = board.read.get(&identity) {
                let (name, there, reader) = (&target.name.text, &reader.at, &reader.text);
                late = Err(Broken::Input(Arc::new(at.complain(format!(
                    "`{file}` was made by `{name}` after `{reader}` had read it: \
                     `{reader}` at {there} must need what generates `{name}`"
                )))));
            }
            board.made.push(identity);
        }
        late
    }
}

fn broken(target: &Target, command: &str, how: String, output: &str) -> Broken {
    let log = log_file(&target.name.text);
    let directory = log.parent().unwrap_or(&log);
    let text = format!("{command}\n{output}\n{how}\n");
    // The report says where it is, if it can be written.
    let _ = fs::create_dir_all(directory).and_then(|()| fs::write(&log, text));
    Broken::Failed(Arc::new(Failure {
        target: target.name.clone(),
        command: command.to_owned(),
        how,
        output: output.to_owned(),
    }))
}

fn cannot_run(error: &io::Error, command: &str) -> String {
    if error.kind() != io::ErrorKind::ArgumentListTooLong {
        return format!("cannot run it: {error}");
    }
    let bytes = command.len();
    format!(
        "cannot run it: {error} ({bytes} bytes are more than the system takes; use @{{rsp}} in \
         place of {{in}}: it is a response file with the inputs)"
    )
}
