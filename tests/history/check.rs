//! A history of calls, and the rules that it must follow whatever the threads did.
//!
//! All moments are ticks of one clock that every thread advances, so any two can be compared. A
//! call's moments are recorded just outside what they enclose: a call was not at work before `began`
//! nor after `returned`, and its function was at work at least from `ran.began` to `ran.ended`. So no
//! rule ever blames a group that is right.
//!
//! Nothing public says which flight was given up, or in how many flights that failed a caller had a
//! seat before it took over. There the rules ask no more than what must be so in any case: if two
//! functions ran at once, somebody gave up a flight at the right time; and whoever may have had a
//! seat may have been counted.

use std::collections::HashMap;
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
    /// When its function ran, if it led. Where it led by `join`, what it did before it completed or
    /// dropped the `Leader` counts as its function; where by `start`, what was done before the job
    /// was dropped, if it was.
    pub ran: Option<Run>,
    pub got: Got,
    /// The role and the number of followers that it was told, if it got an outcome.
    pub told: Option<(Role, usize)>,
}

/// The options of a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked {
    pub timeout: Option<Duration>,
    pub next_flight: bool,
    /// `max_age` zero.
    pub gives_up: bool,
    pub takeovers: u32,
    /// Whether it takes over after an error of the function as well.
    pub by_error: bool,
    pub max_followers: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub began: Tick,
    pub ended: Tick,
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
    /// It was `forget` or `forget_unshared`, and it was true.
    Forgot,
}

impl Got {
    /// Whether the call has no flight's outcome.
    fn is_refusal(self) -> bool {
        matches!(self, Got::TimedOut | Got::Overloaded)
    }

    /// Whose outcome it is, where it says so.
    fn flight(self) -> Option<Id> {
        match self {
            Got::Value(id) | Got::Failed(id) => Some(id),
            Got::Panicked(id) => id,
            Got::Abandoned | Got::Left { .. } => None,
            Got::TimedOut | Got::Overloaded | Got::Forgot => None,
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
    /// With a maximum age of zero a call leads.
    NeverFollows,
    /// No flight had more followers than its callers allow, and a call that was refused for that
    /// found as many others (G13).
    Capped,
}

/// The rule that was broken, and by which calls.
#[derive(Debug)]
pub struct Fault {
    pub rule: Rule,
    #[allow(dead_code)] // read by whoever reads a failed test's output
    pub evidence: Vec<Call>,
}

/// How often the interesting things happened.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tally {
    pub calls: usize,
    pub led: usize,
    /// What followers got.
    pub values: usize,
    pub failures: usize,
    pub panics: usize,
    pub textless_panics: usize,
    pub abandonments: usize,
    /// Followers that left, and those of them that were counted for certain.
    pub left: usize,
    pub left_too_late: usize,
    /// Callers whose time was up.
    pub timed_out: usize,
    /// Callers that found a full flight.
    pub overloaded: usize,
    /// Followers that had asked for the next flight.
    pub queued: usize,
    /// Flights that were given up by `forget`; and functions that ran while the next one did.
    pub forgotten: usize,
    pub overlaps: usize,
}

impl Tally {
    pub fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.led += other.led;
        self.values += other.values;
        self.failures += other.failures;
        self.panics += other.panics;
        self.textless_panics += other.textless_panics;
        self.abandonments += other.abandonments;
        self.left += other.left;
        self.left_too_late += other.left_too_late;
        self.timed_out += other.timed_out;
        self.overloaded += other.overloaded;
        self.queued += other.queued;
        self.forgotten += other.forgotten;
        self.overlaps += other.overlaps;
    }
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
        self.leader.began < call.returned && call.began < self.first_return
    }

    /// Whether a follower that cannot tell may have been on this flight when it returned or left.
    fn may_have_had(&self, call: &Call) -> bool {
        let same_outcome_if_any = match call.got {
            Got::Left { seated, .. } => self.leader.began < seated,
            Got::TimedOut => true,
            got => got == self.leader.got && self.ran.ended < call.returned && self.is_next(call),
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
        let follows = call.ran.is_none() && call.got != Got::Forgot;
        hold(
            Rule::NeverFollows,
            !(call.asked.gives_up && follows),
            &[call],
        )?;
    }
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
        hold(
            Rule::NextFlight,
            flight.is_next(call),
            &[call, flight.leader],
        )?;
        let replaced = ends.between(call.key, flight.ran.began, call.began);
        hold(Rule::NotReplaced, !replaced, &[call, flight.leader])?;
        flight.certain += 1;
        flight.tells(call)?;
    }

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
        let of_key = of_key(&mut flights, call.key);
        let mut candidates: Vec<_> = of_key.filter(|f| f.may_have_had(call)).collect();
        hold(Rule::Caused, !candidates.is_empty(), &[call])?;
        let alone = candidates.len() == 1;
        for flight in &mut candidates {
            let (certain, possible) = match call.got {
                Got::Left { .. } if call.returned < flight.ran.ended => (false, false),
                Got::Left { leaving, .. } => (alone && flight.first_return < leaving, true),
                Got::TimedOut => (false, flight.ran.ended < call.returned),
                _ => (alone, true),
            };
            flight.certain += usize::from(certain);
            flight.possible += usize::from(possible && !certain);
            left_too_late += usize::from(certain && matches!(call.got, Got::Left { .. }));
        }
        if call.got == Got::TimedOut {
            let none = call.told.map_or(true, |(_, followers)| followers == 0);
            hold(Rule::Counted, none, &[call])?;
        } else if alone {
            candidates[0].tells(call)?;
        }
    }

    // Those who may have had seats on flights that failed, before they asked again.
    for call in history.iter().filter(|call| call.asked.takeovers > 0) {
        for flight in of_key(&mut flights, call.key) {
            let failed = match flight.leader.got {
                Got::Panicked(_) | Got::Abandoned => true,
                Got::Failed(_) => call.asked.by_error,
                _ => false,
            };
            let may_have = failed && flight.leader.id != call.id && flight.may_have_met(call);
            flight.possible += usize::from(may_have);
        }
    }
    capped(history, &flights)?;
    for flight in &flights {
        let right = flight.certain..=flight.certain + flight.possible;
        let right = flight.told.map_or(true, |told| right.contains(&told));
        hold(Rule::Counted, right, &[flight.leader])?;
    }
    Ok(Tally {
        left_too_late,
        overlaps,
        forgotten: forgotten.len(),
        ..tally(history)
    })
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
        hold(
            Rule::Capped,
            right && flight.certain <= most,
            &[flight.leader],
        )?;
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
    let in_order = moments.windows(2).all(|pair| pair[0] < pair[1]);
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

/// The flights of one key.
fn of_key<'f, 'h>(
    flights: &'f mut [Flight<'h>],
    key: u64,
) -> impl Iterator<Item = &'f mut Flight<'h>> {
    let from = flights.partition_point(|f| f.leader.key < key);
    let of_key = flights[from..].iter_mut();
    of_key.take_while(move |f| f.leader.key == key)
}

/// Gives how many functions ran while the next one of their key did.
fn one_at_a_time(flights: &[Flight<'_>], forgotten: &[&Call]) -> Result<usize, Fault> {
    // When somebody may have given up a flight: `[key, from, to]`.
    let by_forget = forgotten.iter().map(|f| [f.key, f.began, f.returned]);
    let by_age = flights.iter().filter(|f| f.leader.asked.gives_up);
    let by_age = by_age.map(|f| [f.leader.key, f.leader.began, f.ran.began]);
    let given_up: Vec<_> = by_forget.chain(by_age).collect();

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
        let was_given_up = between(one, next) || between(next, one);
        hold(Rule::OneAtATime, was_given_up, &[one.leader, next.leader])?;
        // Nobody gives up two, and one given up has at most two neighbours.
        let overlaps = overlaps.entry(key).or_default();
        *overlaps += 1;
        let of_key = given_up.iter().filter(|[of, ..]| *of == key);
        let enough = *overlaps <= 2 * of_key.count();
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
        let first = self
            .0
            .partition_point(|&(k, from, _)| (k, from) < (key, after));
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
        queued: history.iter().filter(follows_the_next).count(),
        ..Tally::default()
    }
}
