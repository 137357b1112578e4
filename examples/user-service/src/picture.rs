//! Draws who led, who waited and for how long, as wide as the terminal.

use std::os::fd::AsFd;
use std::time::Duration;

use terminal_size::{terminal_size_of, Width};

use crate::demo::Caller;

/// Rows of bars in each picture. Leaders get at most half if there are followers.
const ROWS: usize = 8;
/// Columns beside the bars: the role on the left, the time on the right.
const MARGINS: usize = 10 + 9;

const ON_ITS_WAY: char = '·';
const LED: char = '█';
const FOLLOWED: char = '░';

const YELLOW: &str = "\x1b[33m";
const CYAN: &str = "\x1b[36m";
const PLAIN: &str = "\x1b[0m";

/// The columns of a terminal, up to 80. Elsewhere 80.
pub fn width(out: impl AsFd) -> usize {
    terminal_size_of(out).map_or(80, |(Width(columns), _)| usize::from(columns).min(80))
}

/// No line is wider than `width`, as long as that is at least 40 columns.
pub fn draw(name: &str, callers: &[Caller], width: usize, colour: bool) -> String {
    let axis = width.max(40) - MARGINS;
    let (leaders, followers): (Vec<_>, Vec<_>) = callers.iter().partition(|caller| caller.led);
    let end = callers.iter().map(|caller| caller.ended).max();
    let end = end.unwrap_or_default().max(Duration::from_micros(1));

    let leader_rows = match followers.len() {
        0 => ROWS,
        _ => leaders.len().min(ROWS / 2),
    };
    let mut lines = vec![
        format!("{name}: {} led, {} followed", leaders.len(), followers.len()),
        format!("{:10}0{:>rest$}", "", time(end), rest = axis - 1),
    ];
    for (role, group, rows) in
        [("led", &leaders, leader_rows), ("followed", &followers, ROWS - leader_rows)]
    {
        for caller in sample(group, rows) {
            let bar = bar(caller, end, axis, colour);
            lines.push(format!("{role:<9} {bar} {:>8}", time(caller.latency())));
        }
        if group.len() > rows {
            lines.push(format!("{:10}... and {} more", "", group.len() - rows));
        }
    }
    let mut legend = vec![(ON_ITS_WAY, "on its way"), (LED, "in its own load")];
    if !followers.is_empty() {
        legend.push((FOLLOWED, "waiting for the leader"));
    }
    for (bar, meaning) in legend {
        lines.push(format!("{:10}{bar} {meaning}", ""));
    }
    lines.join("\n")
}

/// At most `rows` callers, evenly spaced from the quickest to the slowest.
fn sample<'a>(group: &[&'a Caller], rows: usize) -> Vec<&'a Caller> {
    let mut group = group.to_vec();
    group.sort_by_key(|caller| caller.latency());
    let rows = rows.min(group.len());
    (0..rows).map(|row| group[row * (group.len() - 1) / (rows - 1).max(1)]).collect()
}

fn bar(caller: &Caller, end: Duration, axis: usize, colour: bool) -> String {
    let column = |at: Duration| {
        let column = at.as_secs_f64() / end.as_secs_f64() * axis as f64;
        (column.round() as usize).min(axis)
    };
    // The client's clock says when it asked and when it was answered. The service's clock says how
    // long the call took, which ended just before the answer arrived.
    let began = column(caller.began);
    let called = column(caller.ended.saturating_sub(caller.in_call)).clamp(began, axis);
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
        repeat(' ', axis - ended),
    )
}

/// A duration for people to read.
pub fn time(duration: Duration) -> String {
    match duration.as_secs_f64() {
        s if s < 1.0 => format!("{:.1} ms", s * 1000.0),
        s => format!("{s:.2} s"),
    }
}
