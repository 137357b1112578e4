//! Makes sizes small that a few keys would never reach, and leaves out the sources' unit tests.
//!
//! A constant that is not there, or not once, fails the build.

use std::path::Path;
use std::{env, fs};

/// In which file, what, and what becomes of it.
const SIZES: [(&str, &str, &str); 2] = [
    ("keys", "const SMALL: usize = 64;", "const SMALL: usize = 1;"),
    ("keys", "const RETIRED: usize = 4;", "const RETIRED: usize = 1;"),
];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-check-cfg=cfg(loom)");
    // As in the models.
    println!("cargo:rustc-cfg=loom");
    let root = env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let out = env::var_os("OUT_DIR").expect("cargo sets it");
    let path = Path::new(&root).join("../../src/keys.rs");
    println!("cargo:rerun-if-changed={}", path.display());
    let mut text = fs::read_to_string(&path).expect("src/keys.rs");
    for (file, old, new) in SIZES {
        let times = text.matches(old).count();
        assert_eq!(times, 1, "src/{file}.rs has `{old}` {times} times");
        text = text.replace(old, new);
    }
    // What is included may have no documentation of its own.
    let code = text.lines().map(|line| match line.starts_with("//!") {
        true => "\n",
        false => line,
    });
    let code: String = code.flat_map(|line| [line, "\n"]).collect();
    fs::write(Path::new(&out).join("keys.rs"), code).expect("OUT_DIR can be written to");
}
