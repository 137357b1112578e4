//! Which compiler this was built with: a program cannot ask later.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let rustc = env::var_os("RUSTC").expect("cargo says which");
    let said = Command::new(rustc).arg("--version").output();
    let version = said.expect("the compiler runs").stdout;
    let version = String::from_utf8(version).expect("its version is text");
    println!("cargo::rustc-env=COMPILER={}", version.trim());
}
