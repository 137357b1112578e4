//! Builds the Lua interpreter with pbuild, in `target/pbuild-lua`, and runs a script with it. Takes
//! pbuild's arguments.

use std::ffi::OsString;
use std::process::ExitCode;

mod project;

fn main() -> anyhow::Result<ExitCode> {
    let metadata = project::metadata()?;
    let directory = metadata.target_directory.join("pbuild-lua");
    project::write(directory.as_std_path(), &metadata, "-O2")?;
    println!("in {directory}:");
    let mut arguments: Vec<OsString> = vec!["pbuild".into(), "-C".into(), directory.into()];
    arguments.extend(std::env::args_os().skip(1));
    Ok(pbuild::cli::run(arguments))
}
