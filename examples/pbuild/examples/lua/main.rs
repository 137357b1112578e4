//! Builds the Lua interpreter with pbuild, in `target/pbuild-lua`, runs a script with it, and draws
//! what the threads did. Takes pbuild's arguments.

use std::ffi::OsString;
use std::fs;
use std::process::ExitCode;

mod project;
mod timeline;

fn main() -> anyhow::Result<ExitCode> {
    let metadata = project::metadata()?;
    let directory = metadata.target_directory.join("pbuild-lua");
    project::write(directory.as_std_path(), &metadata, "-O2")?;
    println!("in {directory}:");
    let mut arguments: Vec<OsString> = vec!["pbuild".into(), "-C".into(), (&directory).into()];
    let trace = directory.join("trace.json");
    arguments.extend(["--trace".into(), trace.clone().into()]);
    arguments.extend(std::env::args_os().skip(1));
    let code = pbuild::cli::run(arguments);
    let events: Vec<timeline::Event> = serde_json::from_str(&fs::read_to_string(trace)?)?;
    // A build with nothing to do leaves the last picture.
    if !events.is_empty() {
        let picture = timeline::draw(&events);
        fs::write(directory.join("timeline.svg"), format!("{picture}\n"))?;
    }
    Ok(code)
}
