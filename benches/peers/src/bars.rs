//! The bars: what shared-calls promises of its cost.

use peers::{LITERAL, SHARED_CALLS};

use crate::figures::{number, thousands};
use crate::hot::CROWDS;
use crate::lone::Cost;
use crate::release::FOLLOWERS;
use crate::results::Results;
use crate::stale::NEXT_FLIGHT;
use crate::table::Table;

/// Whether each is met, and whether all those that can be judged are met.
pub fn judge(results: &Results) -> (Table, bool) {
    let mut bars = Bars {
        table: Table::new(["bar", "measured", "at most", "verdict"]),
        quick: results.quick,
        met: true,
    };

    let [ours, literal] =
        [SHARED_CALLS, LITERAL].map(|name| results.lone(name).expect("it is measured"));
    bars.time("1 lone call / the literal version", ours.text.nanos / literal.text.nanos, 0.7);
    let [ours_in_turn, literal_in_turn] =
        [ours, literal].map(|row| row.turns.expect("it is measured").nanos);
    bars.time("1 the same, of keys in turn", ours_in_turn / literal_in_turn, 0.7);
    let costs = [Some(ours.text), ours.turns, ours.number, ours.fast];
    let sum = |of: fn(Cost) -> f64| costs.iter().flatten().map(|cost| of(*cost)).sum();
    bars.count("2 allocations of a lone call", sum(|cost| cost.allocations), 0.0);
    bars.count("2 clones of a lone call", sum(|cost| cost.clones), 0.0);

    let hot = results.hot(SHARED_CALLS);
    let hot = hot.expect("it is measured");
    bars.time("- executions for each 7.99 calls of 8 threads", 7.99 / hot.calls_per_run, 1.0);
    for (crowd, runs) in CROWDS.into_iter().zip(hot.runs_of_crowds) {
        let what = format!("- executions for {} at once", thousands(crowd as u64));
        bars.count(&what, runs.expect("it is measured") as f64, 1.0);
    }

    let ours = results.release(SHARED_CALLS).expect("it is measured");
    for (size, followers) in FOLLOWERS.into_iter().enumerate().skip(1) {
        let what = format!("5 release of {} / bare broadcast", thousands(followers as u64));
        bars.time(&what, results.beside_broadcast(ours, size), 1.1);
    }
    let grown = results.growth(SHARED_CALLS);
    let grown = grown.expect("it is measured");
    let (small, large) = (grown.sizes[0], grown.sizes[grown.sizes.len() - 1]);
    let keys = thousands(large.keys as u64);
    bars.time(&format!("6 call with {keys} keys in flight / with 1"), large.same / small.same, 2.0);
    bars.time("6 the same, of other keys in turn", large.others / small.others, 2.0);
    let bytes_per_key = grown.sizes[1..].iter().map(|size| size.bytes_per_key);
    bars.count(
        "6 bytes of a key in flight, beside its text",
        bytes_per_key.fold(0.0, f64::max),
        150.0,
    );
    bars.count("6 KiB left after the spike", grown.left as f64 / 1_024.0, 64.0);
    bars.time("6 slowest single step down / up", grown.slowest_land / grown.slowest_join, 1.0);

    let share = |name| {
        let row = results.stale(name);
        row.expect("it is measured").share()
    };
    bars.time("7 stale joins, % of calls", share(SHARED_CALLS), 0.1);
    bars.count("7 the same with `next_flight`", share(NEXT_FLIGHT), 0.0);
    (bars.table, bars.met)
}

struct Bars {
    table: Table,
    quick: bool,
    met: bool,
}

impl Bars {
    /// One that a busy machine or too few rounds may miss.
    fn time(&mut self, what: &str, measured: f64, bar: f64) {
        let verdict = if self.quick { "not judged" } else { verdict(measured, bar) };
        self.row(what, measured, bar, verdict);
    }

    /// One that holds however slow the machine is.
    fn count(&mut self, what: &str, measured: f64, bar: f64) {
        self.met &= measured <= bar;
        self.row(what, measured, bar, verdict(measured, bar));
    }

    fn row(&mut self, what: &str, measured: f64, bar: f64, verdict: &str) {
        let [measured, bar] = [measured, bar].map(number);
        self.table.row([what.to_owned(), measured, bar, verdict.to_owned()]);
    }
}

fn verdict(measured: f64, bar: f64) -> &'static str {
    if measured <= bar {
        "met"
    } else {
        "MISSED"
    }
}
