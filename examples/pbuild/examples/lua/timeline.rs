//! A trace as a picture: a row for each thread, a bar for each command, hatched where a thread
//! waited for another's.

use serde::Deserialize;
use svg::node::element::Group;
use svg::node::element::{Definitions, Line, Path, Pattern, Rectangle, Text, Title};
use svg::Document;

/// As pbuild writes it with `--trace`. Times are in microseconds.
#[derive(Deserialize)]
pub struct Event {
    name: String,
    cat: String,
    tid: usize,
    ts: f64,
    dur: f64,
    args: Args,
}

#[derive(Deserialize)]
struct Args {
    why: String,
}

const WIDTH: f64 = 960.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 52.0;
const ROW: f64 = 34.0;
const BAR: f64 = 26.0;
/// Of a letter of 11 pixels, more or less.
const LETTER: f64 = 6.4;

const PAPER: &str = "#ffffff";
const INK: &str = "#24292f";
const FAINT: &str = "#d8dee4";
const BARS: [&str; 2] = ["#9ec9f0", "#bcd9f5"];
const EDGE: &str = "#4a83b8";
const WAIT: &str = "#b08a3c";

pub fn draw(events: &[Event]) -> Document {
    let threads = events.iter().map(|event| event.tid).max().unwrap_or(0);
    let seconds = events.iter().map(|event| (event.ts + event.dur) / 1e6);
    let end = seconds.fold(0.001, f64::max);
    let commands = events.iter().filter(|event| event.cat == "ran").count();
    let summary = format!("{commands} commands on {threads} threads in {end:.2} s");
    let scale = (WIDTH - LEFT - RIGHT) / end;
    let x = |seconds: f64| LEFT + seconds * scale;
    let bottom = TOP + ROW * threads as f64;
    let height = bottom + 44.0;

    let mut picture = Document::new()
        .set("viewBox", (0, 0, WIDTH, height))
        .set("width", WIDTH)
        .set("height", height)
        .set("font-family", "system-ui, sans-serif")
        .set("font-size", 11)
        // Its own paper, for readers with a dark one.
        .add(rectangle(0.0, 0.0, WIDTH, height).set("rx", 6).set("fill", PAPER))
        .add(hatching())
        .add(text(LEFT, 26.0, &summary).set("font-size", 14).set("font-weight", 600));

    let step = step(end);
    for i in 0..=(end / step) as usize {
        let seconds = i as f64 * step;
        let decimals = if step < 0.1 { 2 } else { 1 };
        let tick = Line::new()
            .set("x1", round(x(seconds)))
            .set("x2", round(x(seconds)))
            .set("y1", TOP - 6.0)
            .set("y2", bottom)
            .set("stroke", FAINT);
        let label = text(x(seconds), bottom + 16.0, &format!("{seconds:.decimals$} s"));
        picture = picture.add(tick).add(label.set("text-anchor", "middle"));
    }
    for thread in 1..=threads {
        let y = TOP + ROW * (thread as f64 - 0.5) + 4.0;
        let label = text(LEFT - 12.0, y, &format!("thread {thread}"));
        picture = picture.add(label.set("text-anchor", "end"));
    }
    let mut bars = vec![0; threads + 1];
    for event in events {
        let (began, took) = (event.ts / 1e6, event.dur / 1e6);
        let (left, right) = (x(began), x(began + took));
        let width = (right - left).max(1.0);
        let top = TOP + ROW * (event.tid as f64 - 1.0) + (ROW - BAR) / 2.0;
        let (name, why) = (&event.name, &event.args.why);
        let title = format!("{name}, {took:.2} s: {why}");
        let labels = [name.clone(), why.clone()];
        let (fill, edge, labels) = if event.cat == "ran" {
            bars[event.tid] += 1;
            // Neighbours differ, so that one sees where a short one ends.
            (BARS[bars[event.tid] % 2], EDGE, &labels[..1])
        } else {
            ("url(#waits)", WAIT, &labels[..])
        };
        let bar = rectangle(left, top, width, BAR)
            .set("rx", 2)
            .set("fill", fill)
            .set("stroke", edge)
            .set("stroke-width", 0.7);
        let mut group = Group::new().add(Title::new(title)).add(bar);
        // Where none fits, there is the title, which browsers show.
        let fits = |label: &&String| label.chars().count() as f64 * LETTER + 6.0 < width;
        if let Some(label) = labels.iter().find(fits) {
            let label = text(left + width / 2.0, top + BAR / 2.0 + 4.0, label);
            group = group.add(label.set("text-anchor", "middle"));
        }
        picture = picture.add(group);
    }
    legend(picture, bottom + 30.0)
}

fn legend(picture: Document, y: f64) -> Document {
    let sample = |x, fill, edge| {
        rectangle(x, y - 5.0, 22.0, 11.0)
            .set("fill", fill)
            .set("stroke", edge)
            .set("stroke-width", 0.7)
    };
    let waits = "inside a target's call, the thread waits for another thread's";
    picture
        .add(sample(LEFT, BARS[0], EDGE))
        .add(text(LEFT + 28.0, y + 4.0, "a command runs"))
        .add(sample(LEFT + 140.0, "url(#waits)", WAIT))
        .add(text(LEFT + 168.0, y + 4.0, waits))
        .add(text(LEFT + 540.0, y + 4.0, "blank: there is nothing to do"))
}

/// Between two ticks: 1, 2 or 5 of a power of ten, so that there are some ten.
fn step(end: f64) -> f64 {
    let rough = end / 10.0;
    let power = 10f64.powf(rough.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|n| n * power);
    steps.into_iter().find(|step| *step >= rough).unwrap_or(rough)
}

fn hatching() -> Definitions {
    let stripe = Path::new()
        .set("d", "M0 0V7")
        .set("stroke", WAIT)
        .set("stroke-width", 2.5)
        .set("opacity", 0.45);
    let pattern = Pattern::new()
        .set("id", "waits")
        .set("width", 7)
        .set("height", 7)
        .set("patternUnits", "userSpaceOnUse")
        .set("patternTransform", "rotate(45)")
        .add(stripe);
    Definitions::new().add(pattern)
}

fn rectangle(x: f64, y: f64, width: f64, height: f64) -> Rectangle {
    Rectangle::new()
        .set("x", round(x))
        .set("y", round(y))
        .set("width", round(width))
        .set("height", round(height))
}

fn text(x: f64, y: f64, words: &str) -> Text {
    Text::new(words).set("x", round(x)).set("y", round(y)).set("fill", INK)
}

/// More would only make the file longer.
fn round(pixels: f64) -> f64 {
    (pixels * 10.0).round() / 10.0
}
