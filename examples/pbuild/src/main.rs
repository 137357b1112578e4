use std::process::ExitCode;

fn main() -> ExitCode {
    pbuild::cli::run(std::env::args_os())
}
