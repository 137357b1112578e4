//! What the threads of a schedule do, as data: drawn from a seed, and made smaller after a failure.

use std::fmt;

use crate::dice::Dice;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    /// What each thread does.
    pub(crate) threads: Vec<Vec<Step>>,
    pub(crate) groups: Vec<GroupPlan>,
    /// Whether waits may end without a notification.
    pub(crate) spurious: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct GroupPlan {
    pub(crate) defaults: Options,
    pub(crate) shards: Option<usize>,
    pub(crate) observed: bool,
    /// All keys have one hash.
    pub(crate) collides: bool,
}

/// Of a group or a request. Times are in nanoseconds.
#[derive(Clone, Copy, Default, PartialEq)]
pub(crate) struct Options {
    pub(crate) timeout: Option<u64>,
    /// Given as an instant.
    pub(crate) as_deadline: bool,
    pub(crate) max_age: Option<u64>,
    pub(crate) max_followers: Option<usize>,
    pub(crate) takeover: Option<u32>,
    pub(crate) takeover_if: Option<Willing>,
    pub(crate) next_flight: bool,
    pub(crate) alone_on_deadlock: bool,
    pub(crate) without_defaults: bool,
}

/// What a predicate says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Willing {
    Yes,
    No,
    Panics,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Step {
    pub(crate) group: usize,
    pub(crate) key: u64,
    pub(crate) kind: Kind,
    pub(crate) options: Options,
    pub(crate) end: End,
    /// What the function does before it ends.
    pub(crate) inner: Vec<Step>,
    /// Whether a clone of the value panics on this thread.
    pub(crate) clone_panics: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    Call,
    /// By the trait.
    Dyn,
    Request,
    /// The function asks about its flight.
    CallWith,
    Join(Lead, Follow),
    Start {
        fate: Fate,
        follow: Follow,
        asks: bool,
    },
    Many(Vec<u64>),
    Forget,
    ForgetUnshared,
    Look,
    Sleep(u64),
}

/// What becomes of a `Leader`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Lead {
    /// Completed by hand, or dropped where the function would panic.
    Complete,
    /// The same on another thread.
    Elsewhere,
    Run,
}

/// What becomes of a `Follower` or a `Ticket`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Follow {
    Wait,
    /// With a limit first, and then without.
    WaitTimeout(u64),
    /// Polls, and waits then.
    TryWait,
    Leave,
}

/// What becomes of a `Job`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fate {
    Inline,
    Thread,
    Dropped,
    /// The spawner panics.
    SpawnerPanics,
}

/// How a function ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum End {
    Value,
    Error,
    Panic,
    TextlessPanic,
    /// In a batch, one value too few. Elsewhere a panic whose payload panics when it is dropped.
    Bad,
}

impl Plan {
    pub(crate) fn from_seed(seed: u64) -> Self {
        let dice = &mut Dice::new(seed);
        let groups: Vec<_> = (0..2).map(|_| GroupPlan::draw(dice)).collect();
        let threads = 5 + dice.below(4);
        let keys = 2 + dice.below(2);
        // Fewer kinds of steps at a time, so that they meet more often.
        let taste = dice.below(4);
        let step = |dice: &mut Dice| {
            (0..2 + dice.below(3)).map(|_| Step::draw(dice, keys, taste, 0)).collect()
        };
        let threads = (0..threads).map(|_| step(dice)).collect();
        let mut plan = Self { threads, groups, spurious: dice.one_in(2) };
        plan.make_sound();
        plan
    }

    /// What the checker relies on: a group with a cap has it for all calls; and a group whose calls
    /// may run alone tells so by its observer.
    fn make_sound(&mut self) {
        fn visit(step: &mut Step, groups: &mut [GroupPlan]) {
            let group = &mut groups[step.group];
            if let Some(cap) = group.defaults.max_followers {
                let options = &mut step.options;
                options.max_followers = options.max_followers.map(|own| own.min(cap));
                if options.without_defaults {
                    options.max_followers.get_or_insert(cap);
                }
            }
            group.observed |= step.options.alone_on_deadlock;
            step.inner.iter_mut().for_each(|step| visit(step, groups));
        }
        for group in &mut self.groups {
            group.observed |= group.defaults.alone_on_deadlock;
        }
        let steps = self.threads.iter_mut().flatten();
        steps.for_each(|step| visit(step, &mut self.groups));
    }

    /// Plans that do a little less each.
    pub(crate) fn smaller(&self) -> Vec<Self> {
        let mut all = Vec::new();
        let mut add = |change: &dyn Fn(&mut Self)| {
            let mut plan = self.clone();
            change(&mut plan);
            if plan != *self {
                all.push(plan);
            }
        };
        for thread in 0..self.threads.len() {
            add(&|plan| drop(plan.threads.remove(thread)));
        }
        for (thread, steps) in self.threads.iter().enumerate() {
            for step in 0..steps.len() {
                add(&|plan| drop(plan.threads[thread].remove(step)));
            }
        }
        for group in 0..self.groups.len() {
            add(&|plan| plan.groups[group].shards = None);
            add(&|plan| plan.groups[group].collides = false);
            add(&|plan| plan.groups[group].observed = false);
            for change in Options::SMALLER {
                add(&|plan| change(&mut plan.groups[group].defaults));
            }
        }
        for (thread, steps) in self.threads.iter().enumerate() {
            for step in 0..steps.len() {
                let mut add = |change: &dyn Fn(&mut Step)| {
                    add(&|plan| change(&mut plan.threads[thread][step]));
                };
                for inner in 0..self.threads[thread][step].inner.len() {
                    add(&|step| drop(step.inner.remove(inner)));
                    for change in Options::SMALLER {
                        add(&|step| change(&mut step.inner[inner].options));
                    }
                    add(&|step| step.inner[inner].inner.clear());
                    add(&|step| step.inner[inner].kind = Kind::Call);
                    add(&|step| step.inner[inner].end = End::Value);
                }
                for change in Options::SMALLER {
                    add(&|step| change(&mut step.options));
                }
                add(&|step| step.clone_panics = false);
                add(&|step| step.kind = Kind::Call);
                add(&|step| step.end = End::Value);
            }
        }
        add(&|plan| plan.spurious = false);
        all.retain(|plan| !plan.threads.is_empty());
        all.iter_mut().for_each(Self::make_sound);
        all
    }
}

/// One line for each group and step.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "spurious wake-ups: {}", self.spurious)?;
        for (i, group) in self.groups.iter().enumerate() {
            writeln!(f, "group {i}: {group:?}")?;
        }
        for (i, steps) in self.threads.iter().enumerate() {
            writeln!(f, "thread {i}:")?;
            for step in steps {
                writeln!(f, "    {step:?}")?;
            }
        }
        Ok(())
    }
}

/// Only what is given.
impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut given = f.debug_list();
        let mut add = |option: Option<String>| {
            given.entries(option.map(Text));
        };
        add(self.timeout.map(|it| format!("timeout({it})")));
        add(self.max_age.map(|it| format!("max_age({it})")));
        add(self.max_followers.map(|it| format!("max_followers({it})")));
        add(self.takeover.map(|it| format!("takeover({it})")));
        add(self.takeover_if.map(|it| format!("takeover_if({it:?})")));
        for (given, name) in [
            (self.as_deadline && self.timeout.is_some(), "as_deadline"),
            (self.next_flight, "next_flight"),
            (self.alone_on_deadlock, "alone_on_deadlock"),
            (self.without_defaults, "without_defaults"),
        ] {
            add(given.then(|| name.to_owned()));
        }
        given.finish()
    }
}

/// Shown without quotes.
struct Text(String);

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl GroupPlan {
    fn draw(dice: &mut Dice) -> Self {
        let plain = dice.one_in(3);
        let mut some = |n| !plain && dice.one_in(n);
        let (timeout, max_age, cap, takeover) = (some(5), some(6), some(3), some(5));
        let alone_on_deadlock = some(6);
        let (shards, observed) = (some(4), some(2));
        let defaults = Options {
            timeout: timeout.then(|| dice.below(400)),
            max_age: max_age.then(|| dice.below(200)),
            max_followers: cap.then(|| dice.below(3) as usize),
            takeover: takeover.then(|| 1 + dice.below(2) as u32),
            alone_on_deadlock,
            ..Options::default()
        };
        Self { defaults, shards: shards.then_some(2), observed, collides: dice.one_in(4) }
    }
}

impl Options {
    const SMALLER: [fn(&mut Self); 9] = [
        |it| it.timeout = None,
        |it| it.as_deadline = false,
        |it| it.max_age = None,
        |it| it.max_followers = None,
        |it| it.takeover = None,
        |it| it.takeover_if = None,
        |it| it.next_flight = false,
        |it| it.alone_on_deadlock = false,
        |it| it.without_defaults = false,
    ];

    fn draw(dice: &mut Dice) -> Self {
        let mut some = |n| dice.one_in(n);
        let options = Self {
            as_deadline: some(2),
            next_flight: some(2),
            alone_on_deadlock: some(5),
            without_defaults: some(6),
            ..Self::default()
        };
        let (timeout, max_age, cap) = (some(3), some(4), some(4));
        let (takeover, takeover_if) = (some(4), some(4));
        let willing = match dice.below(8) {
            0 => Willing::Panics,
            1 => Willing::No,
            _ => Willing::Yes,
        };
        Self {
            timeout: timeout.then(|| dice.below(400).saturating_sub(60)),
            max_age: max_age.then(|| dice.below(200).saturating_sub(20)),
            max_followers: cap.then(|| dice.below(3) as usize),
            takeover: takeover.then(|| dice.below(3) as u32),
            takeover_if: takeover_if.then_some(willing),
            ..options
        }
    }
}

impl Step {
    fn draw(dice: &mut Dice, keys: u64, taste: u64, depth: u64) -> Self {
        let end = match dice.below(20) {
            0 | 1 => End::Panic,
            2 => End::TextlessPanic,
            3..=5 => End::Error,
            6 => End::Bad,
            _ => End::Value,
        };
        let kind = Kind::draw(dice, keys, taste);
        let has_options = taste != 0 || dice.one_in(2);
        let options = match kind {
            Kind::Request | Kind::CallWith | Kind::Join(..) | Kind::Start { .. } if has_options => {
                Options::draw(dice)
            }
            _ => Options::default(),
        };
        let mut inner = Vec::new();
        if depth < 2 && dice.one_in(4) {
            for _ in 0..1 + dice.below(2) {
                inner.push(Self::draw(dice, keys, taste, depth + 1));
            }
        }
        Self {
            group: dice.one_in(3).into(),
            key: dice.below(keys),
            kind,
            options,
            end,
            inner,
            clone_panics: dice.one_in(16),
        }
    }
}

impl Kind {
    fn draw(dice: &mut Dice, keys: u64, taste: u64) -> Self {
        let follow = match dice.below(6) {
            0 => Follow::WaitTimeout(dice.below(40)),
            1 => Follow::TryWait,
            2 => Follow::Leave,
            _ => Follow::Wait,
        };
        let lead = match dice.below(4) {
            0 => Lead::Elsewhere,
            1 => Lead::Run,
            _ => Lead::Complete,
        };
        let fate = match dice.below(8) {
            0 => Fate::Dropped,
            1 => Fate::SpawnerPanics,
            2 | 3 => Fate::Inline,
            _ => Fate::Thread,
        };
        let (asks, first) = (dice.one_in(2), dice.below(keys));
        let start = Self::Start { fate, follow, asks };
        match (taste, dice.below(20)) {
            (_, 0) => Self::Forget,
            (_, 1) => Self::ForgetUnshared,
            (_, 2) => Self::Look,
            (_, 3) => Self::Sleep(dice.below(60)),
            (1, 4..=16) => Self::Request,
            (2, 4..=14) => start,
            (3, 4..=9) => Self::Many((0..keys).map(|i| (first + i) % keys).collect()),
            (_, 4..=6) => Self::Call,
            (_, 7) => Self::Dyn,
            (_, 8..=11) => Self::Request,
            (_, 12) => Self::CallWith,
            (_, 13 | 14) => Self::Join(lead, follow),
            (_, 15..=17) => start,
            _ => {
                let some = 1 + dice.below(keys + 1);
                Self::Many((0..some).map(|i| (first + i) % keys).collect())
            }
        }
    }
}
