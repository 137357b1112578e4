//! All targets by their names: who makes what, who needs whom, and in which order.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use crate::file::{BuildFile, Complaint, Target, Word};

#[derive(Default)]
pub struct Graph {
    targets: BTreeMap<String, Arc<Target>>,
    /// Which target makes a file.
    makers: HashMap<String, Word>,
}

impl Graph {
    /// Adds a file's targets and tells what the file is for. Or tells what is wrong with it, and
    /// adds nothing.
    pub fn add(&mut self, file: BuildFile) -> Result<Vec<Word>, Complaint> {
        let mut new = Self::default();
        // Files that are read and that no target is known to make. If one did, those who read it
        // would have had to wait for it.
        let read = self.targets.values().flat_map(|target| &target.inputs);
        let sources: HashMap<_, _> = read
            .filter(|input| !self.makers.contains_key(&input.text))
            .map(|input| (&input.text, &input.at))
            .collect();
        for target in &file.targets {
            let Word { text: name, at } = &target.name;
            if let Some(other) = self.targets.get(name) {
                let other = &other.name.at;
                return Err(at.complain(format!("there is a target `{name}` already, at {other}")));
            }
            for Word { text: output, at } in &target.outputs {
                if let Some(there) = sources.get(output) {
                    return Err(at.complain(format!(
                        "`{output}` is made by `{name}`, but was taken for a source at {there}, \
                         which was read before this"
                    )));
                }
                let maker = target.name.clone();
                let other = new.makers.insert(output.clone(), maker);
                if let Some(other) = other.as_ref().or(self.makers.get(output)) {
                    let Word {
                        text: other,
                        at: there,
                    } = other;
                    return Err(at.complain(format!(
                        "`{output}` is made twice: by `{name}`, and by `{other}` at {there}"
                    )));
                }
            }
        }
        for mut target in file.targets {
            for Word { text: input, at } in &target.inputs {
                if let Some(maker) = new.makers.get(input).or(self.makers.get(input)) {
                    let (text, at) = (maker.text.clone(), at.clone());
                    target.needs.push(Word { text, at });
                } else if !Path::new(input).exists() {
                    return Err(at.complain(format!("no file `{input}`, and no target makes it")));
                } else if Path::new(input).is_dir() {
                    return Err(at.complain(format!("`{input}` is a directory, not a file")));
                }
            }
            let name = target.name.text.clone();
            new.targets.insert(name, Arc::new(target));
        }
        let needs = new.targets.values().flat_map(|target| &target.needs);
        for Word { text: need, at } in needs.chain(&file.needs) {
            if new.get(need).or(self.get(need)).is_none() {
                return Err(at.complain(format!("there is no target `{need}`")));
            }
        }
        self.targets.extend(new.targets);
        self.makers.extend(new.makers);
        Ok(file.needs)
    }

    pub fn get(&self, name: &str) -> Option<&Arc<Target>> {
        self.targets.get(name)
    }

    /// These and all that they need, each after what it needs itself. Beside it the first cycle,
    /// if there is one: each of its targets is needed by the one before, and the first by the last.
    pub fn order(&self, wanted: &[String]) -> (Vec<Arc<Target>>, Option<Vec<Word>>) {
        let mut order = Vec::new();
        let mut cycle = None;
        let mut seen = HashSet::new();
        for name in wanted {
            // Where a walk into the depth is now; no recursion, lest a long chain overflow the
            // stack. With each target, how many of its needs were looked at.
            let mut path: Vec<(&Arc<Target>, usize)> = Vec::new();
            if seen.insert(name.as_str()) {
                path.extend(self.get(name).map(|target| (target, 0)));
            }
            while let Some((target, looked)) = path.last_mut() {
                let Some(need) = target.needs.get(*looked) else {
                    order.push(Arc::clone(target));
                    path.pop();
                    continue;
                };
                *looked += 1;
                if seen.insert(need.text.as_str()) {
                    path.push((&self.targets[&need.text], 0));
                } else if cycle.is_none() {
                    let begin = path.iter().position(|(t, _)| t.name.text == need.text);
                    cycle = begin.map(|begin| {
                        let steps = path[begin..].iter();
                        steps
                            .map(|(t, looked)| t.needs[looked - 1].clone())
                            .collect()
                    });
                }
            }
        }
        (order, cycle)
    }
}

/// `needs` as in [`Graph::order`]: the last one named needs the first.
pub fn describe_cycle(needs: &[Word]) -> Complaint {
    let last = &needs[needs.len() - 1];
    let mut message = format!("a cycle: {}", last.text);
    for need in needs {
        let _ = write!(message, " -> {}", need.text);
    }
    let mut from = last;
    for need in needs {
        let _ = write!(
            message,
            "\n  {} needs {} at {}",
            from.text, need.text, need.at
        );
        from = need;
    }
    needs[0].at.complain(message)
}
