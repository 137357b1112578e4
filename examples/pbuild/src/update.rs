//! One target, when all that it needs is there: is it up to date, and if not, its command.

use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use crate::command::{describe, Scratch};
use crate::file::Target;
use crate::lock;
use crate::log::What;
use crate::outcome::{Broken, Failure};
use crate::record::Record;
use crate::run::Run;

impl Run {
    /// Runs the target's command, unless all is up to date. `needed`: what others have made for
    /// it, beside its inputs.
    pub fn update(&self, thread: usize, target: &Target, needed: &[String]) -> Result<(), Broken> {
        let name = &target.name.text;
        let check = self.options.check;
        let scratch = Scratch::new(target);
        let Some(command) = scratch.command(target) else {
            return Ok(());
        };
        let inputs = target.inputs.iter().map(|input| &input.text).chain(needed);
        let outputs = || target.outputs.iter().map(|output| &output.text);
        let mut record = Record {
            command: blake3::hash(command.as_bytes()).to_string(),
            inputs: check.stamp_all(inputs),
            found: Default::default(),
            outputs: check.stamp_all(outputs()),
        };
        let why = if target.outputs.is_empty() {
            Some("it has no outputs".to_owned())
        } else {
            let last = lock(&self.records).get(name).cloned();
            check.why(last.as_ref(), &record)
        };
        let Some(why) = why else {
            self.up_to_date.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        };

        let fail = |how: String, output: &str| {
            Broken::Failed(Arc::new(Failure {
                target: target.name.clone(),
                command: command.clone(),
                how,
                output: output.to_owned(),
            }))
        };
        let prepared = scratch.prepare();
        prepared.map_err(|e| fail(format!("no room for its outputs: {e}"), ""))?;
        let began = Instant::now();
        let clock = SystemTime::now();
        self.screen.begin(name, &why);
        let ended = self.commands.run(&command);
        self.log.add(thread, name, began, What::Ran(why));
        self.screen.end(name);
        if self.commands.interrupted() {
            return Err(Broken::Stopped); // Whatever it has made goes with `scratch`.
        }
        let (status, output) = ended.map_err(|e| fail(format!("cannot run it: {e}"), ""))?;
        if !status.success() {
            return Err(fail(describe(status), &output));
        }
        if let Some(missing) = scratch.missing() {
            return Err(fail(format!("it has {missing}"), &output));
        }
        let found = scratch.found(target).map_err(|how| fail(how, &output))?;
        let kept = scratch.keep();
        kept.map_err(|e| fail(format!("its outputs can't be renamed: {e}"), &output))?;
        self.screen.output(name, &output);
        self.ran.fetch_add(1, Ordering::Relaxed);
        let found = found.into_iter().filter(|f| !record.inputs.contains_key(f));
        record.found = check.stamp_found(found.collect(), clock);
        record.outputs = check.stamp_all(outputs());
        lock(&self.records).put(name, record);
        Ok(())
    }
}
