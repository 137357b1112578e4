//! The demo as a picture: the queries as bars, and the takeover in time.
//!
//! ```sh
//! cargo run --release -p fleet --example picture -- examples/fleet/fleet.svg
//! ```

use std::fmt::Write;
use std::fs::File;
use std::time::Duration;

use anyhow::{Context, Result};
use fleet::crew::{RedisServer, PROCESSES, THREADS};
use fleet::demo::{stampede, takeover, Row, TAKEOVER_LOCK, WAYS};
use fleet::worker;

fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let file = match &*arguments {
        // One process of the fleet, which the demo starts.
        [worker, job] if worker == "worker" => return worker::run(&serde_json::from_str(job)?),
        [file] if !file.starts_with('-') => file,
        _ => anyhow::bail!("usage: picture FILE.svg"),
    };
    // Before the demo runs: it would be for nothing if the file cannot be written.
    let open = File::options().append(true).create(true).open(file);
    open.with_context(|| format!("cannot write {file}"))?;
    let redis = RedisServer::start(&[])?.context("no redis-server: install it")?;
    let program = std::env::current_exe()?;
    let mut bars = Vec::new();
    for (name, sharing) in WAYS {
        bars.push((name, stampede(&program, &redis.url(), sharing)?));
    }
    let rows = takeover(&program, &redis.url())?;
    let picture = draw(&bars, &rows, TAKEOVER_LOCK);
    std::fs::write(file, picture).with_context(|| format!("cannot write {file}"))
}

const TEXT: &str = "#1E293B";
const WAITS: &str = "#CBD5E1";
const RUNS: &str = "#C2410C";
const SHARED: &str = "#94A3B8";
const DEAD: &str = "#B91C1C";

const LEFT: f64 = 190.0;
const WIDTH: f64 = 540.0;

fn draw(bars: &[(&str, usize)], rows: &[Row], lock: Duration) -> String {
    let mut svg = Svg(String::new());
    svg.text(
        20.0,
        28.0,
        15,
        TEXT,
        &format!(
        "{PROCESSES} processes of {THREADS} threads ask for one cold key: queries to the database"
    ),
    );
    let most = bars.iter().map(|(_, queries)| *queries).max().unwrap_or(1) as f64;
    for (i, (name, queries)) in bars.iter().enumerate() {
        let y = 46.0 + 28.0 * i as f64;
        let colour = if i + 1 == bars.len() { RUNS } else { SHARED };
        let width = (WIDTH * *queries as f64 / most).max(2.0);
        svg.text(20.0, y + 15.0, 12, TEXT, name);
        svg.bar(LEFT, y, width, colour);
        svg.text(LEFT + width + 8.0, y + 15.0, 12, TEXT, &queries.to_string());
    }

    let top = 70.0 + 28.0 * bars.len() as f64;
    svg.text(
        20.0,
        top,
        15,
        TEXT,
        &format!(
            "The process that runs the query is killed (-9); its lock lasts for {} ms at most",
            lock.as_millis()
        ),
    );
    let end = rows.iter().map(|row| row.end).max().unwrap_or_default();
    let x = |at: Duration| LEFT + WIDTH * at.as_secs_f64() / end.as_secs_f64();
    for (i, row) in rows.iter().enumerate() {
        let y = top + 18.0 + 28.0 * i as f64;
        svg.text(20.0, y + 15.0, 12, TEXT, &format!("process {}, {THREADS} threads", i + 1));
        svg.bar(LEFT, y, x(row.end) - LEFT, WAITS);
        if let Some(query) = row.query {
            svg.bar(x(query), y, x(row.end) - x(query), RUNS);
            if !row.killed {
                svg.text(x(query) + 6.0, y + 15.0, 12, "#FFFFFF", "takes over");
            }
        }
        if row.killed {
            svg.text(x(row.end) + 6.0, y + 15.0, 12, DEAD, "✕ killed");
        }
    }
    let y = top + 34.0 + 28.0 * rows.len() as f64;
    for (at, anchor) in [(Duration::ZERO, "0"), (end, &format!("{} ms", end.as_millis()))] {
        svg.text(x(at), y, 11, TEXT, anchor);
    }
    svg.bar(LEFT + 90.0, y - 14.0, 24.0, RUNS);
    svg.text(LEFT + 120.0, y, 11, TEXT, "runs the query");
    svg.bar(LEFT + 230.0, y - 14.0, 24.0, WAITS);
    svg.text(LEFT + 260.0, y, 11, TEXT, "waits for another process");
    format!(
        "<svg width=\"800\" height=\"{0}\" viewBox=\"0 0 800 {0}\" \
         xmlns=\"http://www.w3.org/2000/svg\" font-family=\"sans-serif\">\n\
         <rect width=\"800\" height=\"{0}\" fill=\"#FFFFFF\"/>\n{1}</svg>\n",
        y + 16.0,
        svg.0
    )
}

struct Svg(String);

impl Svg {
    fn text(&mut self, x: f64, y: f64, size: u32, colour: &str, text: &str) {
        let _ = writeln!(
            self.0,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" fill=\"{colour}\">{text}</text>"
        );
    }

    fn bar(&mut self, x: f64, y: f64, width: f64, colour: &str) {
        let _ = writeln!(
            self.0,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"20\" fill=\"{colour}\"/>"
        );
    }
}
