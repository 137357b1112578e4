//! Draws who led, who waited and for how long, for a terminal of 80 columns.

use std::time::Duration;

use crate::demo::Caller;

/// Rows for each picture, of which leaders get half at most when there are followers.
const ROWS: usize = 8;
/// Columns for the time axis.
const WIDTH: usize = 58;

const ON_ITS_WAY: char = '·';
const LED: char = '█';
const FOLLOWED: char = '░';

const YELLOW: &str = "\x1b[33m";
const CYAN: &str = "\x1b[36m";
const PLAIN: &str = "\x1b[0m";

pub fn draw(name: &str, callers: &[Caller], colour: bool) -> String {
    let (leaders, followers): (Vec<_>, Vec<_>) = callers.iter().partition(|caller| caller.led);
    let end = callers.iter().map(|caller| caller.ended).max();
    let end = end.unwrap_or_default().max(Duration::from_micros(1));

    let leader_rows = match followers.len() {
        0 => ROWS,
        _ => leaders.len().min(ROWS / 2),
    };
    let mut lines = vec![
        format!(
            "{name}: {} led, {} followed",
            leaders.len(),
            followers.len()
        ),
        format!("{:10}0{:>width$}", "", time(end), width = WIDTH - 1),
    ];
    for (role, group, rows) in [
        ("led", &leaders, leader_rows),
        ("followed", &followers, ROWS - leader_rows),
    ] {
        for caller in sample(group, rows) {
            let bar = bar(caller, end, colour);
            lines.push(format!("{role:<9} {bar} {:>8}", time(caller.latency())));
        }
        if group.len() > rows {
            lines.push(format!("{:10}... and {} more", "", group.len() - rows));
        }
    }
    let legend = match followers.len() {
        0 => format!("{LED} at its own load, or in the queue of the database"),
        _ => format!("{LED} at the load   {FOLLOWED} waiting for the leader's answer"),
    };
    lines.push(format!("{:10}{ON_ITS_WAY} on its way   {legend}", ""));
    lines.join("\n")
}

/// At most so many, from the quickest to the slowest and evenly between.
fn sample<'a>(group: &[&'a Caller], rows: usize) -> Vec<&'a Caller> {
    let mut group = group.to_vec();
    group.sort_by_key(|caller| caller.latency());
    let rows = rows.min(group.len());
    (0..rows)
        .map(|row| group[row * (group.len() - 1) / (rows - 1).max(1)])
        .collect()
}

fn bar(caller: &Caller, end: Duration, colour: bool) -> String {
    let column = |at: Duration| {
        let column = at.as_secs_f64() / end.as_secs_f64() * WIDTH as f64;
        (column.round() as usize).min(WIDTH)
    };
    // The client's clock tells when it asked and when it was answered; the service's, how long the
    // call took, which ended just before the answer came.
    let began = column(caller.began);
    let called = column(caller.ended.saturating_sub(caller.in_call)).clamp(began, WIDTH);
    let ended = column(caller.ended).max(called);
    let (fill, paint) = match caller.led {
        true => (LED, YELLOW),
        false => (FOLLOWED, CYAN),
    };
    let repeat = |c: char, n: usize| c.to_string().repeat(n);
    let (paint, plain) = if colour { (paint, PLAIN) } else { ("", "") };
    format!(
        "{}{}{paint}{}{plain}{}",
        repeat(' ', began),
        repeat(ON_ITS_WAY, called - began),
        repeat(fill, ended - called),
        repeat(' ', WIDTH - ended),
    )
}

/// A duration for human eyes.
pub fn time(duration: Duration) -> String {
    match duration.as_secs_f64() {
        s if s < 1.0 => format!("{:.1} ms", s * 1000.0),
        s => format!("{s:.2} s"),
    }
}
