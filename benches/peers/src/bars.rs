//! The bars: what shared-calls promises of its cost.

use peers::SHARED_CALLS;

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

    let by_hand = results.lone("hand-written").expect("it is measured");
    let alike = results.fastest_alike();
    for name in [SHARED_CALLS, "shared-calls, without ages"] {
        let ours = results.lone(name).expect("it is measured");
        let text = ours.text;
        for peer in [by_hand, alike] {
            bars.time(
                &format!("1 lone call of {name} / {}", peer.name),
                text.nanos / peer.text.nanos,
                0.6,
            );
            if let (Some(ours), Some(theirs)) = (ours.turns, peer.turns) {
                bars.time(
                    "1 the same, of keys in turn",
                    ours.nanos / theirs.nanos,
                    0.6,
                );
            }
        }
        bars.time(
            &format!("1 lone call of {name} / two lock pairs"),
            text.nanos / results.lone.floor,
            3.0,
        );
        let costs = [Some(text), ours.number, ours.fast];
        let sum = |of: fn(Cost) -> f64| costs.iter().flatten().map(|cost| of(*cost)).sum();
        bars.count(
            &format!("1 allocations of {name}"),
            sum(|cost| cost.allocations),
            0.0,
        );
        bars.count(&format!("1 clones of {name}"), sum(|cost| cost.clones), 0.0);
    }

    let hot = results.hot(SHARED_CALLS);
    let hot = hot.expect("it is measured");
    bars.time(
        "3 executions for each 7.99 calls of 8 threads",
        7.99 / hot.calls_per_run,
        1.0,
    );
    for (crowd, runs) in CROWDS.into_iter().zip(hot.runs_of_crowds) {
        let what = format!("3 executions for {} at once", thousands(crowd as u64));
        bars.count(&what, runs.expect("it is measured") as f64, 1.0);
    }

    let ours = results.release(SHARED_CALLS).expect("it is measured");
    for (size, followers) in FOLLOWERS.into_iter().enumerate().skip(1) {
        let what = format!(
            "4 release of {} / bare broadcast",
            thousands(followers as u64)
        );
        bars.time(&what, results.beside_broadcast(ours, size), 1.1);
    }
    bars.time(
        "4 leader's return with 512 followers / with 1",
        ours.leader_ratio(),
        2.0,
    );

    let grown = results.growth(SHARED_CALLS);
    let grown = grown.expect("it is measured");
    let (small, large) = (grown.sizes[0], grown.sizes[grown.sizes.len() - 1]);
    let keys = thousands(large.keys as u64);
    bars.time(
        &format!("5 call with {keys} keys in flight / with 1"),
        large.same / small.same,
        2.0,
    );
    bars.time(
        "5 the same, of other keys in turn",
        large.others / small.others,
        2.0,
    );
    bars.count(
        "5 KiB left after the spike",
        grown.left as f64 / 1_024.0,
        64.0,
    );
    bars.time(
        "5 slowest single step down / up",
        grown.slowest_land / grown.slowest_join,
        1.0,
    );

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
        let verdict = if self.quick {
            "not judged"
        } else {
            verdict(measured, bar)
        };
        self.row(what, measured, bar, verdict);
    }

    /// One that holds however slow the machine is.
    fn count(&mut self, what: &str, measured: f64, bar: f64) {
        self.met &= measured <= bar;
        self.row(what, measured, bar, verdict(measured, bar));
    }

    fn row(&mut self, what: &str, measured: f64, bar: f64, verdict: &str) {
        let [measured, bar] = [measured, bar].map(number);
        self.table
            .row([what.to_owned(), measured, bar, verdict.to_owned()]);
    }
}

fn verdict(measured: f64, bar: f64) -> &'static str {
    if measured <= bar {
        "met"
    } else {
        "MISSED"
    }
}
