//! Which version of a package this was built with.

/// No lock file is committed, so a figure means little without the version that cargo chose.
const LOCK: &str = include_str!("../../../Cargo.lock");

/// And which compiler.
pub const COMPILER: &str = env!("COMPILER");

pub fn of(package: &str) -> &'static str {
    let name = format!("name = \"{package}\"");
    LOCK.lines()
        .skip_while(|line| *line != name)
        .find_map(|line| line.strip_prefix("version = \""))
        .and_then(|version| version.strip_suffix('"'))
        .expect("a dependency is in the lock file")
}
