//! What Redis must be able to do. Checked on each new connection of the subscriber's thread: a
//! replica, or a Redis that is full, answers a `PING`, too.

use std::collections::BTreeSet;

use redis::{Connection, RedisResult, Script, Value};

use crate::lock::Locks;

/// The first version that runs the scripts and has users with rights.
const OLDEST: (u32, u32) = (6, 0);

/// Tries each command that the scripts use, as the scripts do, and names those that fail. A few more
/// flight numbers are used up, which does no harm.
const PROBE: &str = "
    local probe, flights, channel = KEYS[1], KEYS[2], ARGV[1]
    local failed = {}
    for _, command in ipairs({
        {'SET', probe, '', 'PX', '1000'}, {'GET', probe}, {'PTTL', probe},
        {'PEXPIRE', probe, '1000'}, {'DEL', probe}, {'INCR', flights}, {'PUBLISH', channel, ''},
    }) do
        local reply = redis.pcall(unpack(command))
        local err = type(reply) == 'table' and reply.err
        -- A counter that another client has damaged: `ASK` begins it anew.
        if err and not (err:find('WRONGTYPE') or err:find('integer') or err:find('overflow')) then
            table.insert(failed, {command[1], command[2], err})
        end
    end
    return failed";

/// What was found.
#[derive(Debug, Default)]
pub struct Check {
    /// Why this Redis cannot be used at all.
    pub unusable: Option<String>,
    /// What works less well here than it should.
    pub notes: Vec<String>,
}

/// One round trip. Fails only when Redis does not answer.
pub fn check(connection: &mut Connection, locks: &Locks) -> RedisResult<Check> {
    let probe = Script::new(PROBE);
    let mut pipe = redis::pipe();
    pipe.cmd("INFO");
    for script in locks.scripts().into_iter().chain([PROBE]) {
        pipe.cmd("SCRIPT").arg("LOAD").arg(script);
    }
    pipe.cmd("EVALSHA").arg(probe.get_hash()).arg(2);
    pipe.arg(&["probe", "flights", "published"].map(|what| locks.name(what)));
    let mut replies: Vec<Value> = pipe.ignore_errors().query(connection)?;

    let mut check = Check::default();
    match replies.remove(0).extract_error() {
        Ok(info) => check = judge(&redis::from_redis_value::<String>(info)?),
        Err(error) => check.notes.push(format!(
            "Redis refuses INFO, so its version, mode and eviction policy are unknown: {error}"
        )),
    }
    let mut failed = BTreeSet::new();
    for reply in replies {
        let failures = match reply.extract_error() {
            Ok(failures @ Value::Array(_)) => failures,
            Ok(_) => continue,
            // It could not be loaded, which has failed before.
            Err(error) if error.code() == Some("NOSCRIPT") => continue,
            Err(error) => {
                failed.insert(error.to_string());
                continue;
            }
        };
        for [command, name, error] in redis::from_redis_value::<Vec<[String; 3]>>(failures)? {
            if command == "PUBLISH" {
                check.notes.push(only_polling(&command, &name, &error));
            } else {
                failed.insert(format!("{command} {name}: {error}"));
            }
        }
    }
    if !failed.is_empty() && check.unusable.is_none() {
        check.unusable = Some(Vec::from_iter(failed).join("; "));
    }
    Ok(check)
}

/// What Redis says of itself.
pub fn judge(info: &str) -> Check {
    let field = |name: &str| {
        let mut lines = info.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
    };
    let mut check = Check::default();
    let version = field("redis_version").unwrap_or_default();
    let mut numbers = version.split('.').map_while(|number| number.parse().ok());
    let too_old = match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) => (major, minor) < OLDEST,
        _ => false, // A fork that counts in another way. The probe finds out.
    };
    let (major, minor) = OLDEST;
    let old = format!("Redis {version} is too old: {major}.{minor} or newer is needed");
    let sentinel = "this is a Sentinel: name the primary that it watches";
    let cluster = "Redis Cluster is not supported: a script needs keys of several slots";
    let reasons = [
        (field("redis_mode") == Some("sentinel"), sentinel),
        (too_old, &*old),
        (field("cluster_enabled") == Some("1"), cluster),
        (field("role") == Some("slave"), "this is a replica: name the primary"),
    ];
    let mut reasons = reasons.into_iter().filter(|(applies, _)| *applies);
    check.unusable = reasons.next().map(|(_, reason)| reason.to_owned());
    let limited = field("maxmemory").is_some_and(|limit| limit != "0");
    let policy = field("maxmemory_policy").unwrap_or("noeviction");
    if limited && policy != "noeviction" {
        check.notes.push(format!(
            "Redis evicts keys when its memory is full (maxmemory-policy {policy}): where it evicts \
             a lock, a function runs twice; maxmemory-policy noeviction prevents that"
        ));
    }
    check
}

/// Publications are not announced, or not heard of. (Not where in a script that was found.)
pub fn only_polling(command: &str, channel: &str, why: &str) -> String {
    let why = why.rsplit(": ").next().unwrap_or_default();
    format!(
        "Redis refuses {command} on channel {channel}: those who wait for another process learn of \
         its outcome by polling, which is slower: {why}"
    )
}
