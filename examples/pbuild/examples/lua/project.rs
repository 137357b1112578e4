//! A directory in which pbuild can build Lua: the C sources from the crate `lua-src`, an
//! interpreter's `main`, a script, and the build file.

use std::ffi::OsStr;
use std::fmt::Write;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cargo_metadata::{Metadata, MetadataCommand};

/// What cargo knows: where it keeps the sources of crates, and where to put what is built.
pub fn metadata() -> Result<Metadata> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let metadata = MetadataCommand::new().manifest_path(manifest).exec();
    metadata.context("cargo metadata")
}

/// Lua 5.4, in `lua-src`.
fn sources(metadata: &Metadata) -> Result<PathBuf> {
    let mut packages = metadata.packages.iter();
    let package = packages.find(|package| package.name.as_str() == "lua-src");
    let package = package.context("no lua-src among the packages")?;
    let root = package.manifest_path.parent().context("a manifest in no directory")?;
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("lua-5.4") {
            return Ok(entry.path());
        }
    }
    anyhow::bail!("no Lua 5.4 in {root}")
}

/// Fills the directory. What is there already and right keeps its time, so that a second build
/// finds nothing to do.
pub fn write(directory: &Path, metadata: &Metadata, flags: &str) -> Result<()> {
    fs::create_dir_all(directory.join("src"))?;
    let mut objects = Vec::new();
    for entry in fs::read_dir(sources(metadata)?)? {
        let from = entry?.path();
        let name = from.file_name().and_then(OsStr::to_str).context("an odd name")?;
        put(&directory.join("src").join(name), &fs::read(&from)?)?;
        objects.extend(name.strip_suffix(".c").map(str::to_owned));
    }
    objects.sort();
    put(&directory.join("src/lua.c"), include_bytes!("lua.c"))?;
    put(&directory.join("primes.lua"), include_bytes!("primes.lua"))?;
    put(&directory.join("pbuild.toml"), build_file(&objects, flags).as_bytes())?;
    Ok(())
}

fn put(path: &Path, content: &[u8]) -> io::Result<()> {
    match fs::read(path) {
        Ok(there) if there == content => Ok(()),
        _ => fs::write(path, content),
    }
}

/// One target for each C file, and three more.
fn build_file(objects: &[String], flags: &str) -> String {
    let mut text = "needs = ['primes']\n".to_owned();
    for name in objects.iter().map(|name| &**name).chain(["lua"]) {
        let _ = write!(
            text,
            "
[targets.'{name}.o']
inputs = ['src/{name}.c']
outputs = ['{name}.o']
command = 'gcc {flags} -DLUA_USE_LINUX -DLUA_COMPAT_5_3 -MMD -MF {{depfile}} -c {{in}} -o {{out}}'
"
        );
    }
    let objects: Vec<_> = objects.iter().map(|name| format!("'{name}.o'")).collect();
    let objects = objects.join(", ");
    let _ = write!(
        text,
        "
[targets.'liblua.a']
inputs = [{objects}]
outputs = ['liblua.a']
command = 'ar rcs {{out}} {{in}}'

[targets.lua]
inputs = ['lua.o', 'liblua.a']
outputs = ['lua']
command = 'gcc -Wl,-E -o {{out}} {{in}} -lm -ldl'

[targets.primes]
needs = ['lua']
inputs = ['primes.lua']
outputs = ['primes.txt']
command = './lua {{in}} > {{out}}'
"
    );
    text
}
