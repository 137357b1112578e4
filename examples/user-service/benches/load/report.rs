//! `results.md`: all figures, and how they were measured.

use std::fmt::{self, Write};
use std::fs;
use std::process::Command;
use std::thread;

use anyhow::{Context, Result};

use crate::servers::{Postgres, Redis};
use crate::{Row, Setup, Users, Workload, ALIKE, COMMAND, CONNECTIONS, MANY, WORKLOADS};

/// The machine, and how busy it is.
pub fn machine() -> String {
    let processors = thread::available_parallelism().map_or(0, usize::from);
    let line = |file: &str, find: fn(&str) -> Option<&str>| {
        let text = fs::read_to_string(file).unwrap_or_default();
        text.lines().find_map(find).unwrap_or("unknown").to_owned()
    };
    let model =
        line("/proc/cpuinfo", |line| Some(line.strip_prefix("model name")?.split_once(": ")?.1));
    let kernel = line("/proc/sys/kernel/osrelease", |line| line.split('-').next());
    let load = line("/proc/loadavg", |line| line.split(' ').next());
    format!("{processors} × {model}, Linux {kernel}, load before {load}")
}

pub fn versions(wrk: &str, postgres: &Postgres, redis: &Redis) -> Result<String> {
    let asked = "SELECT split_part(current_setting('server_version'), ' ', 1), current_date::text";
    let row = postgres.connect().query_one(asked, &[])?;
    let (postgres, date): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    let info: String = redis::cmd("INFO").arg("server").query(&mut redis.connect()?)?;
    let redis = info.lines().find_map(|line| line.strip_prefix("redis_version:"));
    let redis = redis.context("Redis does not say its version")?;
    let rustc = String::from_utf8(Command::new("rustc").arg("-V").output()?.stdout)?;
    let rustc = rustc.split(' ').nth(1).context("no version of rustc")?;
    Ok(format!("{date}, PostgreSQL {postgres}, Redis {redis}, wrk {wrk}, rustc {rustc}"))
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.users {
            Users::One => "one user",
            Users::Zipf => "users by Zipf's law",
            Users::Uniform => "users all alike",
        })?;
        f.write_str(if self.slow { ", slow queries" } else { ", quick queries" })
    }
}

impl fmt::Display for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { workload, connections, .. } = self;
        let [cache, calls] = self.words();
        write!(f, "{workload}, cache {cache}, {connections} connections, {calls}")
    }
}

impl Setup {
    fn words(&self) -> [&'static str; 2] {
        [if self.cache { "on" } else { "off" }, if self.shared { "shared" } else { "unshared" }]
    }
}

/// In one line, while it runs.
pub fn figures(row: &Row) -> String {
    format!(
        "{:.0}/s, p50 {}, p99 {}, p99.9 {}, {:.2} queries per request",
        row.throughput(),
        millis(row.p50),
        millis(row.p99),
        millis(row.p999),
        row.queries_each(),
    )
}

impl Row {
    pub fn throughput(&self) -> f64 {
        self.requests as f64 / (self.micros as f64 / 1e6)
    }

    pub fn queries_each(&self) -> f64 {
        self.queries as f64 / self.requests as f64
    }
}

fn millis(micros: u64) -> String {
    let millis = micros as f64 / 1000.0;
    match millis {
        m if m < 10.0 => format!("{m:.2} ms"),
        m if m < 100.0 => format!("{m:.1} ms"),
        m => format!("{m:.0} ms"),
    }
}

pub fn markdown(machine: &str, versions: &str, rows: &[Row]) -> String {
    let mut text = format!(
        "# user-service under load\n\n\
         Written by `{COMMAND}`, which takes under five minutes and starts all servers itself.\n\n\
         - {machine}\n- {versions}\n\n"
    );
    text += include_str!("how.md");
    text += "\n## What it shows\n\n";
    text += &said(rows);
    text += "\n![Requests per second](throughput.svg)\n\
             ![What 99 of 100 requests took at most](p99.svg)\n\
             ![Queries for 100 requests](queries.svg)\n\n## All figures\n";
    for workload in WORKLOADS.into_iter().chain([ALIKE]) {
        let _ = writeln!(text, "\nFor {workload}:\n");
        table(&mut text, rows.iter().filter(|row| row.setup.workload == workload));
    }
    text
}

/// The most telling pairs, in figures of this run.
fn said(rows: &[Row]) -> String {
    let pair = |workload, cache, connections| {
        let of = |shared| {
            let setup = Setup { workload, cache, shared, connections };
            let row = rows.iter().find(|row| row.setup == setup);
            row.expect("all of them are measured")
        };
        let (unshared, shared) = (of(false), of(true));
        format!(
            "- {workload}, cache {}, {connections} connections: {:.0} requests/s unshared, **{:.0}** \
             shared; p99 {} and **{}**; queries per 100 requests {:.2} and **{:.2}**.\n",
            shared.setup.words()[0],
            unshared.throughput(),
            shared.throughput(),
            millis(unshared.p99),
            millis(shared.p99),
            100.0 * unshared.queries_each(),
            100.0 * shared.queries_each(),
        )
    };
    let [one, zipf, quick] = WORKLOADS;
    let (few, most) = (CONNECTIONS[0], CONNECTIONS[CONNECTIONS.len() - 1]);
    [
        "What sharing is for: a crowd, and a database that takes time to answer.\n\n",
        &pair(one, true, MANY),
        &pair(one, false, MANY),
        &pair(zipf, true, most),
        &pair(zipf, false, most),
        "\nWhere it does little, because there is no crowd, or because the cache or the database is \
         fast enough without it:\n\n",
        &pair(zipf, false, few),
        &pair(quick, true, most),
        &pair(quick, false, few),
        "\nWhere it cannot help, because hardly anybody asks for what another is loading. Only the \
         cost of a shared call is left:\n\n",
        &pair(ALIKE, false, MANY),
    ]
    .concat()
}

fn table<'a>(text: &mut String, rows: impl Iterator<Item = &'a Row>) {
    *text += "| connections | cache | | requests/s | p50 | p99 | p99.9 | queries/s \
              | queries per 100 requests |\n\
              | --: | --- | --- | --: | --: | --: | --: | --: | --: |\n";
    for row in rows {
        let [cache, calls] = row.setup.words();
        let seconds = row.micros as f64 / 1e6;
        let _ = writeln!(
            text,
            "| {} | {cache} | {calls} | {:.0} | {} | {} | {} | {:.0} | {:.2} |",
            row.setup.connections,
            row.throughput(),
            millis(row.p50),
            millis(row.p99),
            millis(row.p999),
            row.queries as f64 / seconds,
            100.0 * row.queries_each(),
        );
    }
}
