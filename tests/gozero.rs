//! go-zero's tests of `SingleFlight`, `core/syncx/singleflight_test.go`, told again for threads.
//!
//! Where go-zero sleeps until its goroutines "should be blocked", the leader here goes on when it
//! has counted its followers. Each test runs twice: by a [`FlightGroup`]'s own methods, and through
//! the `Arc<dyn SharedCalls>` that go-zero's interface becomes. `TestDo`, `TestDoErr` and
//! `TestDoDupSuppress` of `golang.org/x/sync/singleflight` ask for the same and for less.
#![cfg(not(loom))]

mod common;

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::Arc;
use std::thread;

use common::{assert_quiet, lead, until, watchdog};
use shared_calls::{FlightGroup, Outcome, Role, SharedCalls};

type Group = FlightGroup<String, io::Error>;
type Function<'f> = dyn Fn() -> Result<String, io::Error> + 'f;
type DoEx<'g> = dyn Fn(&str, &Function<'_>) -> Outcome<String, io::Error> + Sync + 'g;

fn both_ways(test: impl Fn(&Group, &DoEx<'_>)) {
    let _watchdog = watchdog();
    let group = Group::new();
    test(&group, &|key, f| group.call_ex(key, f));
    assert_quiet(&group);

    let group = Arc::new(Group::new());
    let calls: Arc<dyn SharedCalls<String, io::Error> + Send + Sync> = group.clone();
    test(&group, &|key, f| calls.call_ex(key, f));
    assert_quiet(&group);
}

/// Ten callers of one key; the first is the leader. Gives their outcomes, the leader's first, and
/// how many functions of the other nine ran.
fn ten_callers(group: &Group, do_ex: &DoEx<'_>) -> (Vec<Outcome<String, io::Error>>, usize) {
    let runs = AtomicUsize::new(0);
    let function = || {
        runs.fetch_add(1, SeqCst);
        Ok("not bar".to_owned())
    };
    let leader = lead(group, "key");
    let outcomes = thread::scope(|s| {
        let followers: Vec<_> = (0..9).map(|_| s.spawn(|| do_ex("key", &function))).collect();
        until("nine followers", || leader.followers() == 9);
        let led = leader.complete(Ok("bar".to_owned()));
        let followed = followers.into_iter().map(|f| f.join().unwrap());
        std::iter::once(led).chain(followed).collect()
    });
    (outcomes, runs.into_inner())
}

/// `TestExclusiveCallDo`
#[test]
fn the_value_passes_through() {
    both_ways(|_, do_ex| {
        let value = do_ex("key", &|| Ok("bar".to_owned())).result.unwrap();
        assert_eq!(value, "bar");
    });
}

/// `TestExclusiveCallDoErr`
#[test]
fn the_error_passes_through() {
    both_ways(|_, do_ex| {
        let error =
            do_ex("key", &|| Err(io::Error::new(io::ErrorKind::Other, "some error"))).result;
        assert_eq!(error.unwrap_err().failed().unwrap().to_string(), "some error");
    });
}

/// `TestExclusiveCallDoDupSuppress`
#[test]
fn ten_callers_of_one_key_run_one_function() {
    both_ways(|group, do_ex| {
        let (outcomes, other_runs) = ten_callers(group, do_ex);
        assert_eq!(other_runs, 0);
        assert_eq!(outcomes.len(), 10);
        for outcome in outcomes {
            assert_eq!(outcome.result.unwrap(), "bar");
        }
    });
}

/// `TestExclusiveCallDoDiffDupSuppress`
#[test]
fn thirteen_calls_over_five_keys_run_five_functions() {
    const KEYS: [&str; 13] = ["e", "a", "e", "a", "b", "c", "b", "a", "c", "d", "b", "c", "d"];
    both_ways(|group, do_ex| {
        let runs = AtomicUsize::new(0);
        let function = || {
            runs.fetch_add(1, SeqCst);
            Ok("second function of a key".to_owned())
        };
        // The first caller of each key leads. All others must find it.
        let mut leaders = HashMap::new();
        thread::scope(|s| {
            let mut followers = Vec::new();
            for key in KEYS {
                if leaders.contains_key(key) {
                    followers.push((key, s.spawn(move || do_ex(key, &function))));
                } else {
                    leaders.insert(key, lead(group, key));
                }
            }
            until("eight followers", || {
                leaders.values().map(|l| l.followers()).sum::<usize>() == 8
            });
            assert_eq!(leaders.len(), 5);
            for (key, leader) in leaders {
                let _ = leader.complete(Ok(format!("value of {key}")));
            }
            for (key, follower) in followers {
                let value = follower.join().unwrap().result.unwrap();
                assert_eq!(value, format!("value of {key}"));
            }
        });
        assert_eq!(runs.into_inner(), 0);
    });
}

/// `TestExclusiveCallDoExDupSuppress`
#[test]
fn one_of_ten_callers_is_fresh() {
    both_ways(|group, do_ex| {
        let (outcomes, other_runs) = ten_callers(group, do_ex);
        assert_eq!(other_runs, 0);
        assert_eq!(outcomes[0].role, Role::Led);
        assert_eq!(outcomes.iter().filter(|o| o.fresh()).count(), 1);
        // x/sync's `shared`, a different question: true for all ten.
        assert!(outcomes.iter().all(|o| o.shared() && o.followers == 9));
    });
}

/// `DoEx` on different keys, one after another: all fresh, as go-zero's cache counts on.
#[test]
fn calls_that_do_not_overlap_are_all_fresh() {
    both_ways(|_, do_ex| {
        for key in ["a", "b", "a", "a"] {
            let outcome = do_ex(key, &|| Ok(key.to_owned()));
            assert!(outcome.fresh() && !outcome.shared());
            assert_eq!(outcome.result.unwrap(), key);
        }
    });
}
