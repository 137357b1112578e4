//! A history of calls, and the rules that it must follow whatever the threads did.
//!
//! All moments are ticks of one clock that every thread advances, so any two can be compared. A
//! call's moments are recorded just outside what they enclose: a call was not at work before `began`
//! nor after `returned`, and its function was at work at least from `ran.began` to `ran.ended`. So no
//! rule ever blames a group that is right.
//!
//! Nothing public says which flight was given up, or in how many flights that failed a caller had a
//! seat before it took over. There the rules ask no more than what must be so in any case: if two
//! functions ran at once, some call gave up a flight at the right time; and a caller that may have
//! had a seat may have been counted. One exception: a function that was told that nobody wants its
//! result knows that its own flight was given up, and when.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use shared_calls::Role;

/// A moment.
pub type Tick = u64;
/// Names a call, and the flight that it led.
pub type Id = u64;

/// What is known of one call.
#[derive(Clone, Debug)]
pub struct Call {
    pub id: Id,
    pub key: u64,
    pub asked: Asked,
    pub began: Tick,
    pub returned: Tick,
    /// The keys whose functions its thread was running when it called, if that is known.
    pub inside: Option<Vec<u64>>,
    /// The batch that it is a key of.
    pub batch: Option<Batch>,
    /// When its function ran, if it led. Where it led by `join`, what it did before it completed or
    /// dropped the `Leader` counts as its function; where by `start`, what was done before the job
    /// was dropped, if it was.
    pub ran: Option<Run>,
    /// If it led: since when it may not want the result any more. A call with a time limit may not
    /// from the start, one with a ticket since it began to drop it or to wait with a limit. `None` if
    /// it wants the result for as long as the function runs.
    pub let_go: Option<Tick>,
    pub got: Got,
    /// The role and the number of followers that it was told, if it got an outcome.
    pub told: Option<(Role, usize)>,
}

/// The options of a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked {
    pub timeout: Option<Duration>,
    pub next_flight: bool,
    pub max_age: Option<Duration>,
    pub takeovers: u32,
    /// Whether it takes over after an error that is the leader's own as well.
    pub by_error: bool,
    pub max_followers: Option<usize>,
    pub alone_on_deadlock: bool,
    pub without_defaults: bool,
}

/// Whether an error is the leader's own, so that others may take over.
pub fn is_own(error: Id) -> bool {
    error & 1 == 0
}

impl Asked {
    /// Whether a call that leads may have given up another flight by its age.
    fn gives_up(&self) -> bool {
        self.max_age.is_some()
    }

    /// Whether every flight is too old for the call.
    fn never_follows(&self) -> bool {
        self.max_age == Some(Duration::ZERO)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Run {
    pub began: Tick,
    pub ended: Tick,
    /// When it was told that nobody wants its result: before the question and after the answer.
    pub unwanted: Option<[Tick; 2]>,
}

/// Each distinct key of a `call_many` is a call of its own. They are recorded in the order of the
/// keys.
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    /// The same for all keys of the batch.
    pub id: Id,
    /// When the function of the batch ran.
    pub ran: Option<Run>,
    /// Which of the function's keys this one was, if it was given to the function.
    pub given: Option<usize>,
}

/// How a call ended. Values, errors and panics with a text say which flight they come from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Got {
    Value(Id),
    Failed(Id),
    /// The leader unwound with it, a follower was told of it.
    Panicked(Option<Id>),
    /// The leader was dropped, a follower was told of it.
    Abandoned,
    /// A follower that did not wait. It had its seat at `seated` and began to leave at `leaving`.
    Left {
        seated: Tick,
        leaving: Tick,
    },
    TimedOut,
    /// It found a full flight, or a full queue.
    Overloaded,
    /// Its wait would never have ended.
    Deadlocked,
    /// A key that its batch did not lead, and whose result is not known because the batch unwound.
    Unwound,
    /// It was `forget` or `forget_unshared`, and it was true.
    Forgot,
}

impl Got {
    /// Whether the call has no flight's outcome.
    fn is_refusal(self) -> bool {
        self.left_unnoticed() || self == Got::Overloaded
    }

    /// Whether it may have had a place on a flight, and has given it up at a time that is not known.
    fn left_unnoticed(self) -> bool {
        matches!(self, Got::TimedOut | Got::Deadlocked | Got::Unwound)
    }

    /// Whose outcome it is, where it says so.
    fn flight(self) -> Option<Id> {
        match self {
            Got::Value(id) | Got::Failed(id) => Some(id),
            Got::Panicked(id) => id,
            Got::Abandoned | Got::Left { .. } => None,
            Got::TimedOut | Got::Overloaded | Got::Deadlocked | Got::Unwound => None,
            Got::Forgot => None,
        }
    }
}

/// What a history can be at fault with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// The record itself makes sense.
    InOrder,
    /// Of each key, one function runs at a time, unless its flight was given up (G1).
    OneAtATime,
    /// A call led if and only if its function ran, and then it got its own outcome (G3).
    OneLeader,
    /// A follower got the outcome of a flight on its own key, as the leader brought it about (G3).
    OneOutcome,
    /// No caller has an outcome before the function has ended.
    NotTooEarly,
    /// No call began after the first member of the flight, the leader included, was back (G2).
    NotTooLate,
    /// No call began after the flight was given up or another had taken its place (G6).
    NotReplaced,
    /// Where the next flight was asked for, the function began after the call (G7).
    NextFlight,
    /// Where a follower cannot tell whose panic or abandonment it got, there is one that it may be.
    Caused,
    /// All members were told the same number of followers, and it is the right one.
    Counted,
    /// With a maximum age of zero a call leads, unless its thread leads the key already.
    NeverFollows,
    /// No flight had more followers than its callers allow, and a call that was refused for that
    /// found as many others (G13).
    Capped,
    /// Only a wait that is part of a cycle is refused as a deadlock (G9).
    InACycle,
    /// A batch runs its function once, for all keys that it leads, in their order.
    OneBatch,
    /// A batch has joined the flights of the others before its function runs.
    JoinsFirst,
    /// A function is told that nobody wants its result only if that is so.
    Wanted,
    /// After that answer the flight has no follower, and nobody follows it any more.
    Unwanted,
}

/// The rule that was broken, and by which calls.
#[derive(Debug)]
pub struct Fault {
    pub rule: Rule,
    #[allow(dead_code)] // read by whoever reads a failed test's output
    pub evidence: Vec<Call>,
}

macro_rules! tally {
    ($($(#[$doc:meta])* $count:ident,)*) => {
        /// How often the interesting things happened.
        #[derive(Clone, Copy, Debug, Default, PartialEq)]
        pub struct Tally {
            $($(#[$doc])* pub $count: usize,)*
        }

        impl Tally {
            pub fn add(&mut self, other: &Self) {
                $(self.$count += other.$count;)*
            }

            /// Every count, by its name.
            pub fn counts(&self) -> impl Iterator<Item = (&'static str, usize)> {
                [$((stringify!($count), self.$count),)*].into_iter()
            }
        }
    };
}

tally! {
    calls,
    led,
    /// What followers got.
    values,
    failures,
    panics,
    textless_panics,
    abandonments,
    /// Followers that left, and those of them that were counted for certain.
    left,
    left_too_late,
    /// Callers whose time was up.
    timed_out,
    /// Callers that found a full flight.
    overloaded,
    /// Callers whose wait would never have ended.
    deadlocked,
    /// Keys that batches led, and keys whose flights they joined.
    batched,
    joined_by_batch,
    /// Functions that were told that nobody wants their results.
    unwanted,
    /// Followers that had asked for the next flight.
    queued,
    /// Flights that were given up by `forget`; and functions that ran while the next one did.
    forgotten,
    overlaps,
}

/// What is known of a flight.
struct Flight<'h> {
    leader: &'h Call,
    ran: Run,
    /// The earliest return of a member that is known. The flight was unlinked before.
    first_return: Tick,
    /// How many followers must have been counted, and how many more may have been.
    certain: usize,
    possible: usize,
    /// What a member was told.
    told: Option<usize>,
}

impl<'h> Flight<'h> {
    fn led_by(leader: &'h Call) -> Option<Self> {
        Some(Self {
            leader,
            ran: leader.ran?,
            first_return: leader.returned,
            certain: 0,
            possible: 0,
            told: leader.told.map(|(_, followers)| followers),
        })
    }

    /// Whether the call may have come upon this flight at some time.
    fn may_have_met(&self, call: &Call) -> bool {
        self.leader.began < call.returned
            && call.began < self.first_return
            && self.joins_first(call)
    }

    /// Whether the flight was there before the function of the call's batch ran.
    fn joins_first(&self, call: &Call) -> bool {
        let ran = call.batch.and_then(|batch| batch.ran);
        ran.map_or(true, |ran| self.leader.began < ran.began)
    }

    /// Whether the call has left the flight, if it was on it, before its function was told that
    /// nobody wants the result.
    fn may_have_left(&self, call: &Call) -> bool {
        let leaving = match call.got {
            Got::Left { leaving, .. } => leaving,
            _ => call.began,
        };
        let [_, answered] = self.ran.unwanted.unwrap_or([Tick::MAX; 2]);
        leaving < answered
    }

    /// Whether a follower that cannot tell may have been on this flight when it returned or left.
    fn may_have_had(&self, call: &Call) -> bool {
        let same_outcome_if_any = match call.got {
            Got::Left { seated, .. } => self.leader.began < seated && self.may_have_left(call),
            // An outcome that is there when a batch begins to wait beats a deadline.
            Got::TimedOut if call.batch.is_some() => {
                let ran = call.batch.and_then(|batch| batch.ran);
                let in_flight = ran.map_or(true, |ran| ran.ended < self.first_return);
                in_flight && self.may_have_left(call)
            }
            got if got.left_unnoticed() => self.may_have_left(call),
            got => {
                let same = got == self.leader.got && self.ran.unwanted.is_none();
                same && self.ran.ended < call.returned && self.is_next(call)
            }
        };
        same_outcome_if_any && self.may_have_met(call)
    }

    /// Whether it began after the call, where that matters.
    fn is_next(&self, call: &Call) -> bool {
        !call.asked.next_flight || call.began < self.ran.began
    }

    /// All members were told the same.
    fn tells(&mut self, call: &Call) -> Result<(), Fault> {
        let Some((_, followers)) = call.told else {
            return Ok(());
        };
        let told = *self.told.get_or_insert(followers);
        hold(Rule::Counted, told == followers, &[call, self.leader])
    }
}

fn hold(rule: Rule, holds: bool, evidence: &[&Call]) -> Result<(), Fault> {
    if holds {
        Ok(())
    } else {
        let evidence = evidence.iter().copied().cloned().collect();
        Err(Fault { rule, evidence })
    }
}

/// Checks a history that is complete: that has every call on its keys.
pub fn check(history: &[Call]) -> Result<Tally, Fault> {
    for call in history {
        in_order(call)?;
        one_leader(call)?;
        let may_not_lead = matches!(call.got, Got::Forgot | Got::Deadlocked | Got::Unwound);
        let follows = call.ran.is_none() && !may_not_lead;
        let leads = !(call.asked.never_follows() && follows);
        hold(Rule::NeverFollows, leads, &[call])?;
        let limited = call.asked.timeout.is_some();
        hold(Rule::Caused, call.got != Got::TimedOut || limited, &[call])?;
    }
    batches(history)?;
    deadlocks(history)?;
    let mut flights = flights(history);
    let forgotten = history.iter().filter(|call| call.got == Got::Forgot);
    let forgotten: Vec<_> = forgotten.collect();
    let overlaps = one_at_a_time(&flights, &forgotten)?;
    let ends = Ends::of(&flights, &forgotten);

    // Those who know whose outcome they got. All of them first, to know when the first was back.
    let index: HashMap<Id, usize> = (0..).zip(&flights).map(|(i, f)| (f.leader.id, i)).collect();
    let mut knowing = Vec::new();
    for call in history {
        if let (None, Some(id)) = (call.ran, call.got.flight()) {
            let flight = index.get(&id).map(|&i| &mut flights[i]);
            let flight = flight.filter(|f| (f.leader.key, f.leader.got) == (call.key, call.got));
            hold(Rule::OneOutcome, flight.is_some(), &[call])?;
            let flight = flight.expect("it holds");
            let ended = flight.ran.ended < call.returned;
            hold(Rule::NotTooEarly, ended, &[call, flight.leader])?;
            flight.first_return = flight.first_return.min(call.returned);
            knowing.push((call, index[&id]));
        }
    }
    for (call, i) in knowing {
        let flight = &mut flights[i];
        let in_time = call.began < flight.first_return;
        hold(Rule::NotTooLate, in_time, &[call, flight.leader])?;
        hold(Rule::NextFlight, flight.is_next(call), &[call, flight.leader])?;
        hold(Rule::JoinsFirst, flight.joins_first(call), &[call, flight.leader])?;
        let wanted = flight.ran.unwanted.is_none();
        hold(Rule::Unwanted, wanted, &[call, flight.leader])?;
        let replaced = ends.between(call.key, flight.ran.began, call.began);
        hold(Rule::NotReplaced, !replaced, &[call, flight.leader])?;
        flight.certain += 1;
        flight.tells(call)?;
    }

    let spans = Spans::of(&flights);

    // Those who do not, or who left.
    let mut left_too_late = 0;
    for call in history {
        if call.ran.is_some() || call.got.flight().is_some() || call.got == Got::Forgot {
            continue;
        }
        if call.got == Got::Overloaded {
            found_a_full_flight(history, call)?;
            continue;
        }
        let around = spans.around(&mut flights, call);
        let mut candidates: Vec<_> = around.filter(|f| f.may_have_had(call)).collect();
        hold(Rule::Caused, !candidates.is_empty(), &[call])?;
        let alone = candidates.len() == 1;
        for flight in &mut candidates {
            let (certain, possible) = match call.got {
                Got::Left { .. } if call.returned < flight.ran.ended => (false, false),
                Got::Left { leaving, .. } => (alone && flight.first_return < leaving, true),
                got if got.left_unnoticed() => (false, flight.ran.ended < call.returned),
                _ => (alone, true),
            };
            flight.certain += usize::from(certain);
            flight.possible += usize::from(possible && !certain);
            left_too_late += usize::from(certain && matches!(call.got, Got::Left { .. }));
        }
        if call.got.is_refusal() {
            let none = call.told.map_or(true, |(_, followers)| followers == 0);
            hold(Rule::Counted, none, &[call])?;
        } else if alone {
            candidates[0].tells(call)?;
        }
    }

    // Those who may have had seats on flights that failed, before they asked again.
    for call in history.iter().filter(|call| call.asked.takeovers > 0) {
        for flight in spans.around(&mut flights, call) {
            let failed = match flight.leader.got {
                Got::Panicked(_) | Got::Abandoned => true,
                Got::Failed(id) => call.asked.by_error && is_own(id),
                _ => false,
            };
            let may_have = failed && flight.leader.id != call.id && flight.may_have_met(call);
            flight.possible += usize::from(may_have);
        }
    }
    capped(history, &flights)?;
    for flight in &flights {
        if let Some([_, answered]) = flight.ran.unwanted {
            let let_go = flight.leader.let_go.is_some_and(|at| at < answered);
            hold(Rule::Wanted, let_go, &[flight.leader])?;
            let alone = flight.certain == 0 && flight.told.unwrap_or(0) == 0;
            hold(Rule::Unwanted, alone, &[flight.leader])?;
        }
        let right = flight.certain..=flight.certain + flight.possible;
        let right = flight.told.map_or(true, |told| right.contains(&told));
        hold(Rule::Counted, right, &[flight.leader])?;
    }
    Ok(Tally { left_too_late, overlaps, forgotten: forgotten.len(), ..tally(history) })
}

/// Each batch ran its function once, with all keys that it led, in their order, and not without any.
fn batches(history: &[Call]) -> Result<(), Fault> {
    let mut batches = HashMap::<Id, Vec<(&Call, Batch)>>::new();
    for call in history {
        if let Some(batch) = call.batch {
            batches.entry(batch.id).or_default().push((call, batch));
        }
    }
    for keys in batches.values() {
        let (_, Batch { ran, .. }) = keys[0];
        let given: Vec<_> = keys.iter().filter_map(|(_, batch)| batch.given).collect();
        let in_order = given.iter().copied().eq(0..given.len());
        let same = keys.iter().all(|(call, batch)| {
            batch.ran == ran && call.ran == ran.filter(|_| batch.given.is_some())
        });
        let distinct: HashSet<_> = keys.iter().map(|(call, _)| call.key).collect();
        let holds =
            in_order && same && given.is_empty() == ran.is_none() && distinct.len() == keys.len();
        let evidence: Vec<_> = keys.iter().map(|(call, _)| *call).collect();
        hold(Rule::OneBatch, holds, &evidence)?;
    }
    Ok(())
}

/// A call that was refused for a deadlock was made inside a function for a key, and waits of other
/// calls inside functions, all without a limit, led from its own key to that one.
fn deadlocks(history: &[Call]) -> Result<(), Fault> {
    for call in history.iter().filter(|call| call.got == Got::Deadlocked) {
        let Some(own) = &call.inside else { continue };
        let waits = history.iter().filter_map(|other| {
            let at_once = other.began < call.returned && call.began < other.returned;
            // The age limit of a batch counts on arrival only.
            let ends = other.asked.timeout.is_some()
                || (other.asked.max_age.is_some() && other.batch.is_none());
            let inside = other.inside.as_ref().filter(|_| at_once && !ends);
            inside.map(|inside| (inside, other.key))
        });
        let waits: Vec<_> = waits.filter(|(inside, _)| !inside.is_empty()).collect();
        let mut reached = vec![call.key];
        let mut next = 0;
        while let Some(&key) = reached.get(next) {
            let on = waits.iter().filter(|(inside, _)| inside.contains(&key));
            for (_, key) in on {
                if !reached.contains(key) {
                    reached.push(*key);
                }
            }
            next += 1;
        }
        let in_a_cycle = reached.iter().any(|key| own.contains(key));
        hold(Rule::InACycle, in_a_cycle, &[call])?;
    }
    Ok(())
}

/// A caller that was refused a place was not alone: there was a leader, and as many callers that
/// followed or were queued as it allows.
fn found_a_full_flight(history: &[Call], call: &Call) -> Result<(), Fault> {
    let none = call.told.map_or(true, |(_, followers)| followers == 0);
    hold(Rule::Counted, none, &[call])?;
    let others = history.iter().filter(|other| {
        let at_once = other.began < call.returned && call.began < other.returned;
        at_once && other.key == call.key && other.id != call.id && other.got != Got::Forgot
    });
    let enough = call.asked.max_followers.map(|n| others.count() > n);
    hold(Rule::Capped, enough == Some(true), &[call])
}

/// Where all callers of a key have a limit, no flight has more followers than the highest.
fn capped(history: &[Call], flights: &[Flight<'_>]) -> Result<(), Fault> {
    let mut highest = HashMap::<u64, Option<usize>>::new();
    for call in history.iter().filter(|call| call.got != Got::Forgot) {
        let own = call.asked.max_followers;
        let highest = highest.entry(call.key).or_insert(own);
        *highest = highest.zip(own).map(|(highest, own)| highest.max(own));
    }
    for flight in flights {
        let most = highest[&flight.leader.key].unwrap_or(usize::MAX);
        let right = flight.told.map_or(true, |told| told <= most);
        hold(Rule::Capped, right && flight.certain <= most, &[flight.leader])?;
    }
    Ok(())
}

fn in_order(call: &Call) -> Result<(), Fault> {
    let moments = match (call.ran, call.got) {
        (Some(ran), Got::Left { .. }) => vec![ran.ended, ran.began], // a leader does not leave
        (Some(ran), _) => vec![call.began, ran.began, ran.ended, call.returned],
        (None, Got::Left { seated, leaving }) => vec![call.began, seated, leaving, call.returned],
        (None, _) => vec![call.began, call.returned],
    };
    let unwanted = call.ran.and_then(|ran| Some((ran, ran.unwanted?)));
    let told = unwanted.map(|(ran, [asked, answered])| vec![ran.began, asked, answered, ran.ended]);
    let mut pairs = moments.windows(2).chain(told.iter().flat_map(|it| it.windows(2)));
    let in_order = pairs.all(|pair| pair[0] < pair[1]);
    hold(Rule::InOrder, in_order, &[call])
}

fn one_leader(call: &Call) -> Result<(), Fault> {
    let own = call.got.flight().map_or(true, |id| id == call.id);
    let role = call.told.map(|(role, _)| role == Role::Led);
    let holds = match call.ran {
        Some(_) if call.got.is_refusal() || call.got == Got::Forgot => false,
        Some(_) => own && role != Some(false),
        None => role != Some(true),
    };
    hold(Rule::OneLeader, holds, &[call])
}

/// The flights of a history, sorted by key and then by when their functions began.
fn flights(history: &[Call]) -> Vec<Flight<'_>> {
    let mut flights: Vec<_> = history.iter().filter_map(Flight::led_by).collect();
    flights.sort_by_key(|flight| (flight.leader.key, flight.ran.began));
    flights
}

/// When flights were there, so that those that a call may have met are found without a look at all.
struct Spans {
    /// For each flight: the last return of it or of one before it, of those of its key.
    returns: Vec<Tick>,
    /// For each flight: the first beginning of it or of one behind it, of those of its key.
    begins: Vec<Tick>,
}

impl Spans {
    /// Of sorted flights whose first returns are known.
    fn of(flights: &[Flight<'_>]) -> Self {
        let mut returns: Vec<_> = flights.iter().map(|f| f.first_return).collect();
        let mut begins: Vec<_> = flights.iter().map(|f| f.leader.began).collect();
        let same_key = |i: usize| flights[i - 1].leader.key == flights[i].leader.key;
        for i in (1..flights.len()).filter(|i| same_key(*i)) {
            returns[i] = returns[i].max(returns[i - 1]);
        }
        for i in (1..flights.len()).rev().filter(|i| same_key(*i)) {
            begins[i - 1] = begins[i - 1].min(begins[i]);
        }
        Self { returns, begins }
    }

    /// All flights that the call may have met, and maybe others of its key.
    fn around<'f, 'h>(
        &self,
        flights: &'f mut [Flight<'h>],
        call: &Call,
    ) -> impl Iterator<Item = &'f mut Flight<'h>> {
        let from = flights.partition_point(|f| f.leader.key < call.key);
        let to = flights.partition_point(|f| f.leader.key <= call.key);
        let over = self.returns[from..to].partition_point(|at| *at <= call.began);
        let begun = self.begins[from..to].partition_point(|at| *at < call.returned);
        flights[from..to].iter_mut().take(begun).skip(over)
    }
}

/// Gives how many functions ran while the next one of their key did.
fn one_at_a_time(flights: &[Flight<'_>], forgotten: &[&Call]) -> Result<usize, Fault> {
    // When somebody may have given up a flight: `[key, from, to]`.
    let by_forget = forgotten.iter().map(|f| [f.key, f.began, f.returned]);
    let by_age = flights.iter().filter(|f| f.leader.asked.gives_up());
    let by_age = by_age.map(|f| [f.leader.key, f.leader.began, f.ran.began]);
    let given_up: Vec<_> = by_forget.chain(by_age).collect();

    let mut unwanted = HashMap::<u64, usize>::new();
    for flight in flights.iter().filter(|f| f.ran.unwanted.is_some()) {
        *unwanted.entry(flight.leader.key).or_default() += 1;
    }
    let mut overlaps = HashMap::<u64, usize>::new();
    for pair in flights.windows(2) {
        let (one, next) = (&pair[0], &pair[1]);
        let key = one.leader.key;
        if key != next.leader.key || one.ran.ended < next.ran.began {
            continue;
        }
        // One of the two was given up before the other came into the map. It may be the second, if
        // it had not come to begin its function yet.
        let between = |x: &Flight<'_>, y: &Flight<'_>| {
            let in_time =
                |&[of, from, to]: &[u64; 3]| of == key && x.leader.began < to && from < y.ran.began;
            given_up.iter().any(in_time)
        };
        let knows = one.ran.unwanted;
        let knows = knows.is_some_and(|[asked, _]| asked < next.ran.began);
        let was_given_up = knows || between(one, next) || between(next, one);
        hold(Rule::OneAtATime, was_given_up, &[one.leader, next.leader])?;
        // Nobody gives up two, and one given up has at most two neighbours.
        let overlaps = overlaps.entry(key).or_default();
        *overlaps += 1;
        let of_key = given_up.iter().filter(|[of, ..]| *of == key).count();
        let unwanted = unwanted.get(&key).unwrap_or(&0);
        let enough = *overlaps <= 2 * (of_key + unwanted);
        hold(Rule::OneAtATime, enough, &[one.leader, next.leader])?;
    }
    Ok(overlaps.into_values().sum())
}

/// When the flights that were in the map before are there no more: when somebody has forgotten
/// them, or leads a new one. `(key, from, to)`, sorted.
struct Ends(Vec<(u64, Tick, Tick)>);

impl Ends {
    fn of(flights: &[Flight<'_>], forgotten: &[&Call]) -> Self {
        let forgets = forgotten.iter().map(|f| (f.key, f.began, f.returned));
        let leads = flights.iter();
        let leads = leads.map(|f| (f.leader.key, f.leader.began, f.ran.began));
        let mut ends: Vec<_> = forgets.chain(leads).collect();
        ends.sort_unstable();
        Self(ends)
    }

    /// Whether there is one that lies between these two moments.
    fn between(&self, key: u64, after: Tick, before: Tick) -> bool {
        let first = self.0.partition_point(|&(k, from, _)| (k, from) < (key, after));
        let begin_before = |&&(k, from, _): &&(u64, Tick, Tick)| k == key && from < before;
        let mut between = self.0[first..].iter().take_while(begin_before);
        between.any(|&(_, _, to)| to < before)
    }
}

/// What can be counted without knowing the flights.
fn tally(history: &[Call]) -> Tally {
    let followers = |kind: fn(Got) -> bool| {
        let follows_and_is = |call: &&Call| call.ran.is_none() && kind(call.got);
        history.iter().filter(follows_and_is).count()
    };
    let follows_the_next =
        |call: &&Call| call.asked.next_flight && call.ran.is_none() && !call.got.is_refusal();
    let is_of_batch = |call: &&Call| call.batch.is_some();
    let followers_of_batch = history.iter().filter(is_of_batch);
    let followers_of_batch = followers_of_batch.filter(|call| call.got.flight().is_some());
    let followers_of_batch = followers_of_batch.filter(|call| call.ran.is_none()).count();
    let is_unwanted = |call: &Call| call.ran.is_some_and(|ran| ran.unwanted.is_some());
    Tally {
        calls: history.len(),
        led: history.iter().filter(|call| call.ran.is_some()).count(),
        values: followers(|got| matches!(got, Got::Value(_))),
        failures: followers(|got| matches!(got, Got::Failed(_))),
        panics: followers(|got| matches!(got, Got::Panicked(Some(_)))),
        textless_panics: followers(|got| got == Got::Panicked(None)),
        abandonments: followers(|got| got == Got::Abandoned),
        left: followers(|got| matches!(got, Got::Left { .. })),
        timed_out: followers(|got| got == Got::TimedOut),
        overloaded: followers(|got| got == Got::Overloaded),
        deadlocked: followers(|got| got == Got::Deadlocked),
        batched: history.iter().filter(|call| call.batch.is_some() && call.ran.is_some()).count(),
        joined_by_batch: followers_of_batch,
        unwanted: history.iter().filter(|call| is_unwanted(call)).count(),
        queued: history.iter().filter(follows_the_next).count(),
        ..Tally::default()
    }
}
