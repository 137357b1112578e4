//! The whole comparison, in one run: a table, `results.md` and three charts.
//!
//! ```text
//! cargo run --release -p peers              # under five minutes, on a quiet machine
//! cargo run --release -p peers -- --quick   # few rounds of everything, half a minute; writes nothing
//! ```
//!
//! The exit code is 1 if a bar is missed that no clock has a part in. `--quick` judges no others.

mod allocator;
mod bars;
mod charts;
#[path = "../../crew.rs"]
mod crew;
mod failing;
mod figures;
mod growth;
mod hot;
mod lone;
mod machine;
mod release;
mod report;
mod results;
mod rounds;
mod stale;
mod table;

use std::env;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use peers::Peer;
use results::Results;
use rounds::Effort;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut effort = Effort { quick: false };
    let mut write = false;
    for arg in env::args().skip(1) {
        match &*arg {
            "--quick" => effort.quick = true,
            "--write" => write = true,
            _ => return Err("usage: peers [--quick [--write]]".into()),
        }
    }

    let begun = Instant::now();
    let machine = machine::describe();
    // Ours first.
    let mut peers: Vec<Arc<dyn Peer>> = peers::all().into_iter().map(Arc::from).collect();
    peers.rotate_right(1);
    let results = Results {
        machine,
        quick: effort.quick,
        lone: lone::measure(effort),
        hot: hot::measure(&peers, effort),
        release: release::measure(&peers, effort),
        failing: failing::measure(&peers, effort),
        stale: stale::measure(&peers, effort),
        growth: growth::measure(effort),
    };
    eprintln!("measured in {} s\n", begun.elapsed().as_secs());

    println!("{}", report::glance(&results));
    let (bars, met) = bars::judge(&results);
    println!("{bars}");
    if write || !effort.quick {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        fs::write(here.join("results.md"), report::markdown(&results, &peers))?;
        fs::write(here.join("lone.svg"), charts::lone(&results.lone)?)?;
        fs::write(here.join("release.svg"), charts::release(&results.release)?)?;
        fs::write(here.join("failing.svg"), charts::failing(&results.failing)?)?;
    }
    Ok(if met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
