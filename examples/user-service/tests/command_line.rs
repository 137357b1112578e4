//! The program as a user starts it.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Command, Output};

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_user-service"));
    command.args(arguments);
    for name in ["REDIS_URL", "DATABASE_URL", "RUST_LOG"] {
        command.env_remove(name);
    }
    command
}

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = program(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn the_demo_ends_by_itself_and_shows_one_query() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("users");
    let (code, stdout, stderr) = run(&["--db", path.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{stderr}");
    // Progress, and nothing from the log.
    let progress = "Unshared: 200 clients ...\nFlightGroup: 200 clients ...\n";
    assert_eq!(stderr, progress);
    let mut table = stdout.lines().map(|line| line.split_whitespace());
    assert!(
        table.any(|row| row.take(3).eq(["FlightGroup", "200", "1"])),
        "{stdout}"
    );
    assert!(
        !stdout.contains('\x1b'),
        "colour, though this is no terminal"
    );
    let widest = stdout.lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(80), "{widest:?} columns");
}

#[test]
fn mistakes_are_explained() {
    let (code, _, stderr) = run(&["serve", "--addr", "nowhere"]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("nowhere"), "{stderr}");

    for wrong in [
        &["--cache-ttl", "0"][..],
        &["--cache-ttl", "9", "--no-cache"],
    ] {
        let (code, _, stderr) = run(&[&["serve"], wrong].concat());
        assert_eq!(code, Some(2));
        assert!(stderr.contains("--cache-ttl"), "{stderr}");
    }

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("users");
    let path = path.to_str().unwrap();
    let (code, _, stderr) = run(&["serve", "--addr", &address, "--db", path]);
    assert_eq!(code, Some(1));
    assert!(
        stderr.contains(&format!("cannot listen on {address}")),
        "{stderr}"
    );

    let (code, _, stderr) = run(&["--db", directory.path().to_str().unwrap()]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("cannot use the database"), "{stderr}");

    // Whatever was wrong with it: no password in what is said.
    for (url, path, mistake) in [
        (
            "mysql://u:secret@h/d",
            None,
            "does not begin with postgres://",
        ),
        ("postgres://u:secret@h:port/d", None, "option `port`"),
        ("postgres://u:secret@127.0.0.1:1/d", None, "refused"),
        ("postgres://u:secret@h/d", Some(path), "--db is for SQLite"),
    ] {
        let mut command = program(&["serve", "--addr", "127.0.0.1:0"]);
        command.args(path.map(|path| format!("--db={path}")));
        let output = command.env("DATABASE_URL", url).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{url}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(stderr.matches(mistake).count(), 1, "{stderr}");
        assert!(!stderr.contains("secret"), "{stderr}");
    }

    let (code, stdout, _) = run(&["--help"]);
    assert_eq!(code, Some(0));
    for word in [
        "serve",
        "DATABASE_URL",
        "RUST_LOG",
        "/metrics",
        "/in-flight",
    ] {
        assert!(stdout.contains(word), "{stdout}");
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_stops_the_service() {
    let stderr = serve_one_request_and_stop(&[]);
    let lines: Vec<_> = stderr.lines().collect();
    assert!(
        lines.len() == 1 && lines[0].ends_with("stopping"),
        "{stderr}"
    );
}

#[cfg(unix)]
#[test]
fn the_log_tells_of_every_flight_where_that_is_asked_for() {
    let stderr = serve_one_request_and_stop(&[("RUST_LOG", "user_service=debug")]);
    assert!(
        !stderr.contains('\x1b'),
        "colour, though this is no terminal"
    );
    let key = r#"key="user-service:user:1""#;
    for event in ["flight began", "flight landed"] {
        let mut lines = stderr.lines();
        assert!(
            lines.any(|l| l.contains(event) && l.contains(key)),
            "{stderr}"
        );
    }
}

/// What it says on stderr.
#[cfg(unix)]
fn serve_one_request_and_stop(environment: &[(&str, &str)]) -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("users");
    let mut service = program(&["serve", "--addr", "127.0.0.1:0", "--db"])
        .arg(path)
        .envs(environment.iter().copied())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let stdout = service.stdout.take().unwrap();
    BufReader::new(stdout).read_line(&mut line).unwrap();
    let url = line
        .split_whitespace()
        .find(|word| word.starts_with("http"));
    let url = format!("{}/users/1", url.unwrap());
    assert_eq!(ureq::get(&url).call().unwrap().status(), 200);

    let interrupt = format!("kill -INT {}", service.id());
    assert!(Command::new("sh")
        .args(["-c", &interrupt])
        .status()
        .unwrap()
        .success());
    let Output { status, stderr, .. } = service.wait_with_output().unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(ureq::get(&url).call().is_err());
    String::from_utf8(stderr).unwrap()
}
