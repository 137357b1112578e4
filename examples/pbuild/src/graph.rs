//! All targets by their names: who makes what, who needs whom, and in which order.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use crate::file::{BuildFile, Complaint, Target, Word};
use crate::name::{identities, identity};
use crate::record::Records;

#[derive(Default)]
pub struct Graph {
    targets: BTreeMap<String, Arc<Target>>,
    /// By a file's identity, the target that makes it, and where it says so.
    makers: HashMap<String, Word>,
}

impl Graph {
    /// Adds a file's targets and tells what the file is for. Or tells what is wrong with it, and
    /// adds nothing. A target also needs what makes the files that its last depfile named.
    pub fn add(&mut self, file: BuildFile, records: &Records) -> Result<Vec<Word>, Complaint> {
        let mut new = Self::default();
        // Files that are read and that no target is known to make. If one did, those who read it
        // would have had to wait for it.
        let mut sources = HashMap::new();
        for input in self.targets.values().flat_map(|target| &target.inputs) {
            let read = identities(&input.text).filter(|file| self.maker(file).is_none());
            sources.extend(read.map(|file| (file, &input.at)));
        }
        for target in &file.targets {
            let Word { text: name, at } = &target.name;
            if let Some(other) = self.targets.get(name) {
                let other = &other.name.at;
                return Err(at.complain(format!("there is a target `{name}` already, at {other}")));
            }
            for Word { text: output, at } in &target.outputs {
                let file = identity(Path::new(output));
                if let Some(there) = sources.get(&file) {
                    return Err(at.complain(format!(
                        "`{output}` is made by `{name}`, but was taken for a source at {there}, \
                         which was read before this"
                    )));
                }
                let (text, at) = (name.clone(), at.clone());
                let here = at.clone();
                let other = new.makers.insert(file.clone(), Word { text, at });
                if let Some(other) = other.as_ref().or(self.maker(&file)) {
                    let Word { text: other, at } = other;
                    return Err(here.complain(format!(
                        "`{output}` is made twice: by `{name}`, and by `{other}` at {at}"
                    )));
                }
            }
        }
        let makers = |file: &str| {
            let maker = |file: String| new.makers.get(&file).or(self.maker(&file)).cloned();
            identities(file).filter_map(maker).collect::<Vec<_>>()
        };
        for mut target in file.targets {
            for Word { text: input, at } in &target.inputs {
                let makers = makers(input);
                if makers.is_empty() && !Path::new(input).exists() {
                    return Err(at.complain(format!("no file `{input}`, and no target makes it")));
                } else if makers.is_empty() && Path::new(input).is_dir() {
                    return Err(at.complain(format!("`{input}` is a directory, not a file")));
                }
                let needs = makers.into_iter().map(|maker| maker.text);
                let at = || at.clone();
                target.needs.extend(needs.map(|text| Word { text, at: at() }));
            }
            for file in records.found(&target.name.text) {
                let makers = makers(file);
                let needs = makers.iter().filter_map(|maker| target.finds(file, maker));
                let needs: Vec<_> = needs.collect();
                target.needs.extend(needs);
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

    /// The target that makes a file, given by its identity.
    pub fn maker(&self, file: &str) -> Option<&Word> {
        self.makers.get(file)
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
            // The path of a depth-first walk. With each target, how many of its needs were looked
            // at. Not recursive, because a long chain would overflow the stack.
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
                        steps.map(|(t, looked)| t.needs[looked - 1].clone()).collect()
                    });
                }
            }
        }
        (order, cycle)
    }
}

/// What the last build's depfile says may be outdated. If such a need is part of a cycle, this
/// forgets the target's record: the target is built again, and writes a new depfile. Returns whether
/// there was such a need.
pub fn forget_found(needs: &[Word], records: &mut Records) -> bool {
    let from = needs.iter().cycle().skip(needs.len() - 1);
    let found = from.zip(needs).filter(|(_, need)| need.at.found.is_some());
    found.map(|(from, _)| records.forget(&from.text)).count() > 0
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
        let _ = write!(message, "\n  {} needs {} at {}", from.text, need.text, need.at);
        from = need;
    }
    needs[0].at.complain(message)
}
