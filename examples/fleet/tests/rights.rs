//! A Redis that does not do everything for us: users without all rights, and servers that are not
//! supported.

mod common;

use std::process::Command;
use std::time::Duration;

use common::*;
use fleet::check::{judge, Check};
use fleet::crew::RedisServer;
use redis::Connection;
use shared_calls::SharedCallsExt;

fn execute(connection: &mut Connection, line: &str) {
    let mut words = line.split_whitespace();
    let mut command = redis::cmd(words.next().unwrap());
    for word in words {
        command.arg(word);
    }
    let () = command.query(connection).unwrap();
}

/// The user that the README creates.
fn documented() -> &'static str {
    let readme = include_str!("../README.md");
    let mut lines = readme.lines();
    lines.find(|line| line.starts_with("ACL SETUSER fleet ")).unwrap()
}

fn url(redis: &RedisServer, user: &str) -> String {
    redis.url().replace("redis://", &format!("redis://{user}@"))
}

/// Two tiers of a user with the documented rights, but for these changes.
fn two_of_a_user(redis: &RedisServer, changes: &str) -> (Tier, Tier) {
    let mut admin = redis.connect().unwrap();
    execute(&mut admin, &format!("{} {changes}", documented()));
    let tier = || Tier::new(&url(redis, "fleet:secret"), settings()).unwrap();
    (tier(), tier())
}

/// How often this command was called, or refused, by anybody.
fn calls(redis: &RedisServer, command: &str) -> u64 {
    let mut info = redis::cmd("INFO");
    let info: String = info.arg("commandstats").query(&mut redis.connect().unwrap()).unwrap();
    let name = format!("cmdstat_{command}:");
    let Some(stat) = info.lines().find_map(|line| line.strip_prefix(&*name)) else {
        return 0;
    };
    let fields = stat.split(',').filter_map(|field| field.split_once('='));
    let counts = fields.filter(|(name, _)| ["calls", "rejected_calls"].contains(name));
    counts.map(|(_, count)| count.parse::<u64>().unwrap()).sum()
}

/// The subscriber of a tier that cannot use this Redis has tried it several times more.
fn tried_again(redis: &RedisServer) {
    let tried = calls(redis, "info");
    // This asks, too.
    let mut own = 0;
    wait("it is tried again", || {
        own += 1;
        calls(redis, "info") >= tried + own + 5
    });
}

#[test]
fn the_documented_rights_are_enough() {
    let log = log();
    let _limit = limit(60);
    let Some(redis) = redis() else { return };
    let (a, b) = two_of_a_user(&redis, "");
    subscribed(&redis, 2);
    for _ in 0..3 {
        assert_eq!(shared(&a, &b, value("v")).1.result.unwrap(), "v");
    }
    assert_eq!((a.stats().locked, a.stats().unpublished), (3, 0));
    log.assert_silent();
}

#[test]
fn without_publish_subscribe_or_info_they_share_and_it_is_said_once() {
    for (changes, words) in [
        ("-publish", ["PUBLISH on channel fleet:published", "polling"]),
        ("-subscribe", ["SUBSCRIBE on channel fleet:published", "polling"]),
        ("-info", ["refuses INFO", "info"]),
    ] {
        let log = log();
        let _limit = limit(60);
        let Some(redis) = redis() else { return };
        let (a, b) = two_of_a_user(&redis, changes);
        for _ in 0..5 {
            assert_eq!(shared(&a, &b, value("v")).1.result.unwrap(), "v");
        }
        // So do other keys.
        for tier in [&a, &b] {
            assert_eq!(tier.call("another key", || value("w")).unwrap(), "w");
        }
        for tier in [&a, &b] {
            wait("it is said", || log.lines().len() >= 2);
            let stats = tier.stats();
            assert_eq!((stats.alone, stats.unpublished), (0, 0), "{changes}");
            assert!(stats.connected, "{changes}");
        }
        // By each of the two tiers.
        let lines = log.lines();
        assert_eq!(lines.len(), 2, "{lines:#?}");
        for line in &lines {
            assert!(words.iter().all(|word| line.contains(word)), "{line}");
        }
    }
}

#[test]
fn without_the_channel_both_its_uses_are_named() {
    let log = log();
    let _limit = limit(60);
    let Some(redis) = redis() else { return };
    // What a user has by default, since Redis 7.
    let (a, b) = two_of_a_user(&redis, "resetchannels");
    assert_eq!(shared(&a, &b, value("v")).1.result.unwrap(), "v");
    wait("it is said", || log.lines().len() >= 4);
    let mut lines = log.lines();
    lines.sort();
    assert_eq!(lines.len(), 4, "{lines:#?}");
    let said = |i: usize, word: &str| lines[i].contains(word);
    assert!((0..2).all(|i| said(i, "PUBLISH on channel")), "{lines:#?}");
    assert!((2..4).all(|i| said(i, "SUBSCRIBE on channel")), "{lines:#?}");
    assert_eq!((a.stats().alone, b.stats().alone), (0, 0));
}

#[test]
fn a_server_whose_publish_was_renamed_is_like_one_that_refuses_it() {
    let log = log();
    let _limit = limit(60);
    let renamed = ["--rename-command", "PUBLISH", ""];
    let Some(redis) = redis_with(&renamed) else {
        return;
    };
    let (a, b) = two(&redis, settings());
    assert_eq!(shared(&a, &b, value("v")).1.result.unwrap(), "v");
    let lines = log.lines();
    let polling = |line: &String| line.contains("refuses PUBLISH on channel fleet:published");
    assert!(lines.len() == 2 && lines.iter().all(polling), "{lines:#?}");
    assert_eq!((a.stats().alone, b.stats().alone), (0, 0));
}

#[test]
fn without_a_right_that_it_needs_it_shares_locally_and_names_the_right_once() {
    for (changes, words) in [
        ("-get", "GET fleet:probe: "),
        ("-set", "SET fleet:probe: "),
        ("-pttl", "PTTL fleet:probe: "),
        ("-pexpire", "PEXPIRE fleet:probe: "),
        ("-del", "DEL fleet:probe: "),
        ("-incr", "INCR fleet:flights: "),
        ("-get -del", "DEL fleet:probe: "),
        ("-get -del", "GET fleet:probe: "),
        ("-evalsha", "'evalsha'"),
        ("-script|load", "'script|load'"),
        ("resetkeys ~other:*", "keys"),
    ] {
        let log = log();
        let _limit = limit(60);
        let Some(redis) = redis() else { return };
        let (a, b) = two_of_a_user(&redis, changes);
        drop(b);
        for _ in 0..5 {
            assert_eq!(a.call("k", || value("v")).unwrap(), "v");
        }
        tried_again(&redis);
        assert_eq!(a.call("k", || value("v")).unwrap(), "v");
        let stats = a.stats();
        assert_eq!((stats.alone, stats.locked), (6, 0), "{changes}");
        assert!(!stats.connected, "{changes}");
        // By each of the two tiers.
        let lines = log.lines();
        let said = |line: &String| {
            line.contains(words) && line.contains("shared within this process only")
        };
        assert!(lines.len() == 2 && lines.iter().all(said), "{changes}: {lines:#?}");
    }
}

#[test]
fn a_right_that_is_granted_later_is_used() {
    let log = log();
    let _limit = limit(60);
    let Some(redis) = redis() else { return };
    let (a, b) = two_of_a_user(&redis, "-set");
    assert!(!a.stats().connected);
    execute(&mut redis.connect().unwrap(), documented());
    for tier in [&a, &b] {
        wait("connected", || tier.stats().connected);
    }
    assert_eq!(shared(&a, &b, value("v")).1.result.unwrap(), "v");
    assert_eq!(log.lines().len(), 4, "{:#?}", log.lines());
}

#[test]
fn a_right_that_is_lost_later_is_named_once_and_does_not_cost_other_keys() {
    let log = log();
    let _limit = limit(60);
    let Some(redis) = redis() else { return };
    // Not the key that another function of the program asks for.
    let keys = "resetkeys ~fleet:key:k:* ~fleet:flights ~fleet:probe";
    let (a, b) = two_of_a_user(&redis, keys);
    for _ in 0..3 {
        assert_eq!(a.call("another key", || value("w")).unwrap(), "w");
        assert_eq!(shared(&a, &b, value("v")).1.result.unwrap(), "v");
    }
    let stats = a.stats();
    assert_eq!((stats.alone, stats.locked), (3, 3));
    assert!(stats.connected);
    log.assert_said_once(&["refuses a command", "keys"]);
    execute(&mut redis.connect().unwrap(), "ACL SETUSER fleet -set");
    for _ in 0..3 {
        assert_eq!(a.call("k", || value("v")).unwrap(), "v");
    }
    assert_eq!(a.stats().alone, 6);
    assert_eq!(log.lines().len(), 2, "{:#?}", log.lines());
}

#[test]
fn publish_refused_later_is_said_once() {
    let log = log();
    let _limit = limit(60);
    let Some(redis) = redis() else { return };
    let (a, b) = two_of_a_user(&redis, "");
    subscribed(&redis, 2);
    execute(&mut redis.connect().unwrap(), "ACL SETUSER fleet -publish");
    for _ in 0..3 {
        assert_eq!(shared(&a, &b, value("v")).1.result.unwrap(), "v");
    }
    assert_eq!((a.stats().unpublished, b.stats().alone), (0, 0));
    log.assert_said_once(&["refuses PUBLISH on channel fleet:published"]);
}

#[test]
fn a_wrong_password_or_none_is_said_once() {
    for (user, words) in [("fleet:wrong", "authentication failed"), ("", "NOAUTH")] {
        let log = log();
        let _limit = limit(60);
        let Some(redis) = redis() else { return };
        let mut admin = redis.connect().unwrap();
        execute(&mut admin, "ACL SETUSER default resetpass >secret");
        let url = match user {
            "" => redis.url(),
            user => url(&redis, user),
        };
        let a = Tier::new(&url, settings()).unwrap();
        for _ in 0..3 {
            assert_eq!(a.call("k", || value("v")).unwrap(), "v");
        }
        assert_eq!(a.stats().alone, 3);
        log.assert_said_once(&["shared within this process only", words]);
    }
}

/// Calls are shared locally, and it is said once why.
#[track_caller]
fn unusable(redis: &RedisServer, url: &str, words: &str) {
    let log = log();
    let _limit = limit(60);
    let a = Tier::new(url, settings()).unwrap();
    for _ in 0..3 {
        assert_eq!(a.call("k", || value("v")).unwrap(), "v");
    }
    tried_again(redis);
    let stats = a.stats();
    assert_eq!((stats.alone, stats.locked), (3, 0));
    assert!(!stats.connected);
    log.assert_said_once(&[
        "Redis cannot be used: calls are shared within this process only",
        words,
    ]);
}

#[test]
fn a_cluster_is_refused_in_clear_words() {
    let Some(redis) = redis_with(&["--cluster-enabled", "yes"]) else {
        return;
    };
    unusable(&redis, &redis.url(), "Redis Cluster is not supported");
    // The program would rather say so than show nothing.
    let fleet = Command::new(program()).env("REDIS_URL", redis.url()).output().unwrap();
    assert_eq!(fleet.status.code(), Some(1));
    let message = String::from_utf8(fleet.stderr).unwrap();
    let words = "fleet: REDIS_URL: Redis Cluster is not supported";
    assert!(message.starts_with(words), "{message}");
}

#[test]
fn a_replica_is_refused_in_clear_words() {
    let Some(redis) = redis() else { return };
    execute(&mut redis.connect().unwrap(), "REPLICAOF 127.0.0.1 1");
    unusable(&redis, &redis.url(), "this is a replica: name the primary");
}

#[test]
fn a_redis_that_is_too_old_is_refused_in_clear_words() {
    let Some(redis) = redis() else { return };
    let old = proxy(&redis, Duration::ZERO, |reply| {
        let name = b"redis_version:";
        let found = reply.windows(name.len()).position(|window| window == name);
        if let Some(at) = found {
            reply[at + name.len()] = b'5';
        }
    });
    unusable(&redis, &old, "is too old: 6.0 or newer is needed");
}

#[test]
fn a_redis_that_evicts_locks_is_used_and_that_is_said_once() {
    let log = log();
    let _limit = limit(60);
    let limited = ["--maxmemory", "100mb", "--maxmemory-policy", "volatile-lru"];
    let Some(redis) = redis_with(&limited) else {
        return;
    };
    let a = tier(&redis, settings());
    for _ in 0..3 {
        assert_eq!(a.call("k", || value("v")).unwrap(), "v");
    }
    assert_eq!(a.stats().locked, 3);
    log.assert_said_once(&["maxmemory-policy volatile-lru", "runs twice"]);
}

#[test]
fn judge_knows_what_is_supported() {
    let fine = "redis_version:7.0.15\r\nredis_mode:standalone\r\nrole:master\r\nmaxmemory:0\r\n\
                maxmemory_policy:noeviction\r\ncluster_enabled:0\r\n";
    let change = |from: &str, to: &str| {
        assert!(fine.contains(from));
        judge(&fine.replace(from, to))
    };
    let reason = |check: Check| check.unusable.unwrap_or_default();
    for info in [
        fine,
        "",
        "nonsense",
        // Valkey, KeyDB and Dragonfly name the version of Redis that they are like.
        "redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.1.0\r\nrole:master\r\n",
        "redis_version:255.255.255\r\n",
        "redis_version:unstable\r\n",
    ] {
        let Check { unusable, notes } = judge(info);
        assert!(unusable.is_none() && notes.is_empty(), "{info}: {notes:?}");
    }
    for old in ["2.8.24", "3.2.12", "4.0.14", "5.0.14"] {
        let reason = reason(change("7.0.15", old));
        let words = format!("Redis {old} is too old: 6.0 or newer is needed");
        assert_eq!(reason, words);
    }
    for new in ["6.0.0", "6.2.14", "7.4.2", "8.0.0", "10.1.0"] {
        assert_eq!(reason(change("7.0.15", new)), "");
    }
    let reason_of = |from, to| reason(change(from, to));
    assert!(reason_of("mode:standalone", "mode:sentinel").contains("Sentinel"));
    assert!(reason_of("cluster_enabled:0", "cluster_enabled:1").contains("Cluster"));
    assert!(reason_of("role:master", "role:slave").contains("replica"));
    for policy in ["allkeys-lru", "volatile-ttl", "allkeys-random"] {
        let info = fine.replace("noeviction", policy);
        assert!(judge(&info).notes.is_empty(), "it has no limit");
        let notes = judge(&info.replace("maxmemory:0", "maxmemory:1")).notes;
        assert!(notes.len() == 1 && notes[0].contains(policy), "{notes:?}");
    }
}
