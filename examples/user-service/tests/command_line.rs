//! The program as a user starts it.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Command, Output};
use std::time::Duration;

use user_service::demo::Caller;
use user_service::picture;

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_user-service"));
    command.args(arguments);
    for name in ["REDIS_URL", "DATABASE_URL", "RUST_LOG"] {
        command.env_remove(name);
    }
    command
}

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = program(arguments).output().unwrap();
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
    assert!(table.any(|row| row.take(3).eq(["FlightGroup", "200", "1"])), "{stdout}");
    assert!(!stdout.contains('\x1b'), "colour, though this is no terminal");
    let widest = stdout.lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(80), "{widest:?} columns");
}

/// On a terminal, made by `script`.
#[test]
fn the_demo_fits_the_terminal() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("users");
    for columns in [60, 72, 100] {
        let demo = format!(
            "stty rows 40 cols {columns}; {} --db-latency=20 --db {}",
            env!("CARGO_BIN_EXE_user-service"),
            path.display()
        );
        let mut command = Command::new("script");
        command.args(["-qec", &demo, "/dev/null"]);
        command.env_remove("NO_COLOR").env_remove("REDIS_URL");
        let output = command.env_remove("DATABASE_URL").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("\x1b[33m"), "no colour: {text}");
        let plain = ["\x1b[33m", "\x1b[36m", "\x1b[0m", "\r"];
        let text = plain.iter().fold(text, |text, code| text.replace(code, ""));
        let widest = text.lines().map(|line| line.chars().count()).max();
        assert_eq!(widest, Some(columns.min(80)), "{text}");
    }
}

#[test]
fn a_picture_is_as_wide_as_asked_for() {
    let caller = |began, ended, led| Caller {
        began: Duration::from_millis(began),
        ended: Duration::from_millis(ended),
        led,
        in_call: Duration::from_millis(ended - began) / 2,
    };
    let callers: Vec<_> = (0..50).map(|i| caller(i, 100 * i + 123, i % 7 == 0)).collect();
    for width in [0, 40, 41, 59, 80] {
        let picture = picture::draw("FlightGroup", &callers, width, false);
        let widest = picture.lines().map(|line| line.chars().count()).max();
        assert_eq!(widest, Some(width.max(40)), "{picture}");
    }
}

#[test]
fn every_argument_is_explained() {
    for command in ["demo", "serve"] {
        let (code, help, _) = run(&[command, "--help"]);
        assert_eq!(code, Some(0));
        let arguments: Vec<_> = help.split("\n  ").filter(|l| l.contains(" --")).collect();
        assert!(arguments.len() >= 2, "{help}");
        for argument in help.lines().filter(|line| line.trim().starts_with("--")) {
            let (_, text) = argument.trim().split_once("  ").unwrap_or_default();
            assert!(text.trim().len() > 10, "{argument}");
        }
    }
}

/// What is wrong is said before anything is done, and without a password.
#[test]
fn a_redis_that_does_not_answer_is_reported_at_start() {
    let url = "redis://:secret@127.0.0.1:1";
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("users");
    let output = program(&["--db"]).arg(&path).env("REDIS_URL", url).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stdout, b"");
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "user-service: cannot use REDIS_URL: no connection to Redis: \
         Connection refused (os error 111)\n"
    );

    // The service starts, and says so first.
    let stderr = serve_and_stop(&[("REDIS_URL", url)], 503);
    let mut lines = stderr.lines();
    let first = lines.next().unwrap();
    let warning = "the cache does not answer; until it does, users are answered 503";
    assert!(first.contains("WARN") && first.contains(warning), "{stderr}");
    assert!(lines.next().unwrap().contains("load failed"), "{stderr}");
    assert!(!stderr.contains("secret"), "{stderr}");

    // Not a URL: an error at once.
    let mut command = program(&["serve", "--addr=127.0.0.1:0", "--db"]);
    let output = command.arg(&path).env("REDIS_URL", "secret").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("cannot use REDIS_URL"), "{stderr}");
    assert!(!stderr.contains("secret"), "{stderr}");
}

/// As under `user-service | head -1`.
#[test]
fn a_closed_stdout_is_no_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("users");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut demo = program(&["--db-latency=1", "--db"]);
    let output = demo.arg(path).stdout(writer).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(!stderr.contains("Broken pipe"), "{stderr}");
}

#[test]
fn mistakes_are_explained() {
    let (code, _, stderr) = run(&["serve", "--addr", "nowhere"]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("nowhere"), "{stderr}");

    for wrong in [&["--cache-ttl", "0"][..], &["--cache-ttl", "9", "--no-cache"]] {
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
    assert!(stderr.contains(&format!("cannot listen on {address}")), "{stderr}");

    for (wrong, range) in [
        (&["--db-latency", "151"][..], "150"),
        (&["serve", "--db-latency", "60001"], "0..=60000"),
        (&["serve", "--request-timeout", "0"], "1..=60000"),
        (&["serve", "--request-timeout", "60001"], "1..=60000"),
        (&["serve", "--max-followers", "10001"], "0..=10000"),
        (&["serve", "--cache-ttl", "86400001"], "1..=86400000"),
    ] {
        let (code, stdout, stderr) = run(wrong);
        assert_ne!(code, Some(0), "{wrong:?}");
        assert_eq!(stdout, "");
        assert!(stderr.contains(wrong[wrong.len() - 2]), "{stderr}");
        assert!(stderr.contains(range), "{stderr}");
    }

    let missing = directory.path().join("missing");
    let inside = missing.join("users");
    let (code, stdout, stderr) = run(&["--db", inside.to_str().unwrap()]);
    assert_eq!((code, &*stdout), (Some(1), ""));
    let words = format!("there is no directory {}\n", missing.display());
    assert!(stderr.ends_with(&words), "{stderr}");
    assert!(!missing.exists());

    let (code, _, stderr) = run(&["--db", directory.path().to_str().unwrap()]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("cannot use the database"), "{stderr}");

    // Whatever was wrong with it: no password in what is said.
    for (url, path, mistake) in [
        ("mysql://u:secret@h/d", None, "does not begin with postgres://"),
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
    for word in ["serve", "DATABASE_URL", "RUST_LOG", "/metrics", "/in-flight"] {
        assert!(stdout.contains(word), "{stdout}");
    }
}

#[test]
fn ctrl_c_stops_the_service() {
    let stderr = serve_and_stop(&[], 200);
    let lines: Vec<_> = stderr.lines().collect();
    assert!(lines.len() == 1 && lines[0].ends_with("stopping"), "{stderr}");
}

#[test]
fn the_log_tells_of_every_flight_where_that_is_asked_for() {
    let stderr = serve_and_stop(&[("RUST_LOG", "user_service=debug")], 200);
    assert!(!stderr.contains('\x1b'), "colour, though this is no terminal");
    let key = r#"key="user-service:user:1""#;
    for event in ["flight began", "flight landed"] {
        let mut lines = stderr.lines();
        assert!(lines.any(|l| l.contains(event) && l.contains(key)), "{stderr}");
    }
}

/// Answers one request, with this status. What the service says on stderr.
fn serve_and_stop(environment: &[(&str, &str)], status: u16) -> String {
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
    let url = line.split_whitespace().find(|word| word.starts_with("http"));
    let url = format!("{}/users/1", url.unwrap());
    let agent: ureq::Agent =
        ureq::Agent::config_builder().http_status_as_error(false).build().into();
    assert_eq!(agent.get(&url).call().unwrap().status(), status);

    let interrupt = format!("kill -INT {}", service.id());
    assert!(Command::new("sh").args(["-c", &interrupt]).status().unwrap().success());
    let Output { status, stderr, .. } = service.wait_with_output().unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(ureq::get(&url).call().is_err());
    String::from_utf8(stderr).unwrap()
}

/// SQLite would keep this one in memory, and each connection would have its own.
#[test]
fn any_name_is_the_name_of_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let mut demo = program(&["--db-latency=1", "--db=:memory:"]);
    let output = demo.current_dir(&directory).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(directory.path().join(":memory:").exists());
}
