//! What was measured, in words and tables.

use std::fmt::Write as _;
use std::sync::Arc;

use peers::Peer;

use crate::bars;
use crate::failing::CALLERS;
use crate::figures::{count, micros, nanos, percent, runs, thousands};
use crate::lone::{Cost, Row};
use crate::release::{FOLLOWERS, LARGE};
use crate::results::Results;
use crate::table::Table;

const NONE: &str = "–";

/// All in one table.
pub fn glance(results: &Results) -> Table {
    let mut table = Table::new([
        "",
        "lone call",
        "allocations",
        "clones",
        "u64, fast hash",
        "8 threads",
        "10,000 at once",
        "release of 512",
        "leader, 512 / 1",
        "failing load",
        "stale",
    ]);
    let none = || NONE.to_owned();
    table.row(
        ["the floor".to_owned(), nanos(results.lone.floor)]
            .into_iter()
            .chain((0..5).map(|_| none()))
            .chain([
                micros(results.release[0].of[LARGE].last),
                format!("{:.1} ×", results.release[0].leader_ratio()),
                none(),
                none(),
            ]),
    );
    for row in &results.lone.rows {
        let name = row.name;
        let hot = results.hot(name);
        let released = results.release(name);
        let released = released.filter(|row| row.is_one(LARGE));
        let failing = results.failing(name);
        let stale = results.stale(name);
        table.row([
            keeps_mark(row),
            nanos(row.text.nanos),
            count(row.text.allocations),
            count(row.text.clones),
            row.fast.map_or_else(none, |cost| nanos(cost.nanos)),
            hot.map_or_else(none, |hot| format!("{:.2} / run", hot.calls_per_run)),
            hot.and_then(|hot| hot.runs_of_crowds[1]).map_or_else(none, runs),
            released.map_or_else(none, |row| {
                format!(
                    "{} ({:.2} ×)",
                    micros(row.of[LARGE].last),
                    results.beside_broadcast(row, LARGE)
                )
            }),
            released.map_or_else(none, |row| format!("{:.1} ×", row.leader_ratio())),
            failing.map_or_else(none, |row| format!("{}, {:.1} ×", runs(row.runs), row.loads_long)),
            stale.map_or_else(none, |row| percent(row.share())),
        ]);
    }
    table
}

/// The whole page.
pub fn markdown(results: &Results, peers: &[Arc<dyn Peer>]) -> String {
    let mut page = String::new();
    let out = &mut page;
    let mut section = |text: &str, table: Table| {
        // To write to a string cannot fail.
        let _ = write!(out, "{text}\n\n{table}\n");
    };

    let mut made_with = Table::new(["", ""]);
    for [what, is] in &results.machine {
        made_with.row([what.clone(), is.clone()]);
    }
    for peer in peers.iter().filter(|peer| peer.version() != "-") {
        made_with.row([peer.name().to_owned(), peer.version().to_owned()]);
    }
    let quick = if results.quick { " -- --quick --write" } else { "" };
    section(
        &format!(
            "# shared-calls beside what people would use instead\n\n\
             Written by `cargo run --release -p peers{quick}`. All figures are medians of one run, in \
             which each round takes all contenders in turn, so that whatever else the machine was doing \
             hit all alike: look at the ratios. How each library is used is in \
             [peers.rs](src/peers.rs), how each figure is come by in the file of its name beside that. \
             The first peer, which matters most, is [go-zero's algorithm written out literally]\
             (../literal.rs), at its best: a wake-up is made only if somebody waits."
        ),
        made_with,
    );

    section(
        "## At a glance\n\n\
         **To be fair**: those marked ¹ keep what they load. They are caches, and do more than \
         shared-calls does, which keeps nothing; but here the value can't be taken away again without \
         bereaving those who wait (once_map removes by `&mut` only, cached and lockmap have waiters look \
         for the value in the map). They get a fresh key each time, and what they keep is no stale join. \
         moka and quick_cache are caches, too; they can be had without keeping, by a capacity of 0 and by \
         removing at once. The column of the fast hasher has the same foldhash for all who take one. \
         “Leader” is how much longer the leader's own call takes to come back with 512 followers than \
         with one.",
        glance(results),
    );

    section(
        "## A lone call\n\n\
         ![The cost of a lone call](lone.svg)\n\n\
         Of one key again and again (beside two uncontended lock/unlock pairs), and of 5,000 keys in \
         turn. By default std's SipHash is the hasher of shared-calls, the literal version, \
         dashmap and moka; ahash that of once_map, singleflight and cached (which picks its lock by \
         SipHash); foldhash that of quick_cache and lockmap.",
        lone(results),
    );

    let mut hot = Table::new(["", "8 threads: calls / run", "1,000 at once", "10,000 at once"]);
    for row in &results.hot {
        let [thousand, ten_thousand] =
            row.runs_of_crowds.map(|most| most.map_or_else(|| NONE.to_owned(), runs));
        hot.row([row.name.to_owned(), format!("{:.3}", row.calls_per_run), thousand, ten_thousand]);
    }
    section(
        "## A hot key\n\n\
         Eight threads that call over and over for something that takes 1 ms; and a crowd that calls \
         at once. (More than eight calls to a run tell of results older than the call: see stale joins. \
         singleflight runs functions under its one lock; those who get that lock before the leader does \
         again share the result, and the next one runs its own.)",
        hot,
    );

    section(
        "## Release\n\n\
         ![Release against the number of followers](release.svg)\n\n\
         From the end of the function until the last follower has its value, and beside a bare \
         `Condvar` broadcast to as many threads. With singleflight some run their own function, which is \
         an instant one here; no figure where most do.",
        released(results),
    );
    section("And until the leader's own call is back:", leaders(results));

    let mut failing = Table::new(["", "runs", "time, in loads"]);
    for row in &results.failing {
        failing.row([row.name.to_owned(), row.runs.to_string(), format!("{:.2}", row.loads_long)]);
    }
    section(
        &format!(
            "## A load that fails\n\n\
             ![The fate of one failing load](failing.svg)\n\n\
             {CALLERS} callers at once for something that takes 20 ms and fails. A cache has no error to \
             give to those who wait: each of them tries again, one by one."
        ),
        failing,
    );

    let mut stale = Table::new(["", "calls", "followed", "stale", "of all calls"]);
    for row in &results.stale {
        stale.row([
            row.name.to_owned(),
            thousands(row.calls),
            thousands(row.calls.saturating_sub(row.led)),
            thousands(row.stale),
            percent(row.share()),
        ]);
    }
    section(
        "## Stale joins\n\n\
         64 threads, one key, an instant function: calls that got a result whose computation had ended \
         before they began.",
        stale,
    );

    section(
        "## Growth\n\n\
         So many keys in flight at once. A call meanwhile: of one other key again and again; and of \
         4,096 other keys in turn, each of which finds its place in the map cold.",
        grown(results),
    );
    section(
        "The slowest single step on the way up and on the way down, and what is left:",
        spikes(results),
    );

    section(
        "## The bars\n\n\
         Numbered as they were set. A lone call is measured against the literal version: the same \
         algorithm, with none of the options, counts and checks.",
        bars::judge(results).0,
    );
    page.truncate(page.trim_end().len());
    page.push('\n');
    page
}

fn lone(results: &Results) -> Table {
    let mut table = Table::new([
        "",
        "str",
        "× floor",
        "keys in turn",
        "u64",
        "u64, foldhash",
        "allocations",
        "clones",
    ]);
    let floor = results.lone.floor;
    let none = || NONE.to_owned();
    table.row([
        "two lock/unlock pairs".to_owned(),
        nanos(floor),
        "1.0".to_owned(),
        none(),
        none(),
        none(),
        none(),
        none(),
    ]);
    for row in &results.lone.rows {
        let of = |cost: Option<Cost>| cost.map_or_else(none, |cost| nanos(cost.nanos));
        table.row([
            keeps_mark(row),
            nanos(row.text.nanos),
            format!("{:.1}", row.text.nanos / floor),
            of(row.turns),
            of(row.number),
            of(row.fast),
            count(row.text.allocations),
            count(row.text.clones),
        ]);
    }
    table
}

fn released(results: &Results) -> Table {
    let mut table = Table::new(["", "8", "64", "512", "4,096"]);
    for row in &results.release {
        let cell = |size: usize| {
            let release = &row.of[size];
            let last = micros(release.last);
            let ratio = results.beside_broadcast(row, size);
            match release.strays {
                0 => format!("{last} ({ratio:.2} ×)"),
                _ if !row.is_one(size) => NONE.to_owned(),
                strays => format!("{last} ({ratio:.2} ×; {strays} ran)"),
            }
        };
        table.row([row.name.to_owned()].into_iter().chain((1..FOLLOWERS.len()).map(cell)));
    }
    table
}

fn leaders(results: &Results) -> Table {
    let mut table = Table::new(["", "1", "8", "64", "512", "4,096", "512 / 1"]);
    for row in &results.release {
        let cell = |size: usize| match row.is_one(size) {
            true => micros(row.of[size].leader),
            false => NONE.to_owned(),
        };
        let ratio = match row.is_one(LARGE) {
            true => format!("{:.1} ×", row.leader_ratio()),
            false => NONE.to_owned(),
        };
        let cells = (0..FOLLOWERS.len()).map(cell);
        table.row([row.name.to_owned()].into_iter().chain(cells).chain([ratio]));
    }
    table
}

fn grown(results: &Results) -> Table {
    let mut table = Table::new([
        "",
        "keys in flight",
        "one other key",
        "× that with 1",
        "other keys in turn",
        "× that with 1",
        "bytes / key",
    ]);
    for row in &results.growth {
        let one = row.sizes[0];
        for size in &row.sizes {
            table.row([
                row.name.to_owned(),
                thousands(size.keys as u64),
                nanos(size.same),
                format!("{:.2}", size.same / one.same),
                nanos(size.others),
                format!("{:.2}", size.others / one.others),
                format!("{:.0}", size.bytes_per_key),
            ]);
        }
    }
    table
}

fn spikes(results: &Results) -> Table {
    let mut table = Table::new(["", "slowest up", "slowest down", "down / up", "bytes left"]);
    for row in &results.growth {
        table.row([
            row.name.to_owned(),
            micros(row.slowest_join),
            micros(row.slowest_land),
            format!("{:.2}", row.slowest_land / row.slowest_join),
            row.left.to_string(),
        ]);
    }
    table
}

fn keeps_mark(row: &Row) -> String {
    let mark = if row.keeps_values { " ¹" } else { "" };
    format!("{}{mark}", row.name)
}
