//! Where and when this was measured.

use std::env::consts;
use std::fs;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use peers::versions;

pub fn describe() -> Vec<[String; 2]> {
    let processors = thread::available_parallelism().map_or(0, |n| n.get());
    let model = line_of("/proc/cpuinfo", |line| {
        let (_, model) = line.strip_prefix("model name")?.split_once(": ")?;
        Some(model.to_owned())
    });
    let kernel = line_of("/proc/sys/kernel/osrelease", |release| {
        // Its first part: the rest names who built it.
        release.split('-').next().map(str::to_owned)
    });
    let load = line_of("/proc/loadavg", |load| load.split(' ').next().map(str::to_owned));
    let unknown = || "unknown".to_owned();
    [
        ("date", today()),
        ("processors", format!("{processors} × {}", model.unwrap_or_else(unknown))),
        ("system", format!("{} {}, {}", consts::OS, kernel.unwrap_or_default(), consts::ARCH)),
        ("load before", load.unwrap_or_else(unknown)),
        ("compiler", versions::COMPILER.to_owned()),
    ]
    .map(|(what, is)| [what.to_owned(), is])
    .into()
}

fn line_of(file: &str, find: impl Fn(&str) -> Option<String>) -> Option<String> {
    fs::read_to_string(file).ok()?.lines().find_map(find)
}

/// In UTC.
fn today() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let days = since.map_or(0, |since| since.as_secs() / 86_400);
    let (year, month, day) = date(days);
    format!("{year}-{month:02}-{day:02}")
}

/// The date so many days after 1970-01-01. Years are counted from March here, so that the leap day
/// comes last.
fn date(days: u64) -> (u64, u64, u64) {
    // Since 0000-03-01; an era is 400 years.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let january = month >= 10;
    let month = if january { month - 9 } else { month + 3 };
    (400 * era + year + u64::from(january), month, day)
}

#[test]
fn dates() {
    assert_eq!(date(0), (1970, 1, 1));
    assert_eq!(date(11_016), (2000, 2, 29));
    assert_eq!(date(20_819), (2027, 1, 1));
}
