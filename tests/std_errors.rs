//! Errors for `?`: `Failed` is transparent, so no text appears twice in a chain; `into_std` turns a
//! call's error into an `Error` where the function's error is a `Box<dyn Error + Send + Sync>`; and
//! results compare with `assert_eq!`.
#![cfg(not(loom))]

mod common;

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use common::{follow, lead, until_waiting, watchdog};
use shared_calls::{
    CallError, Deadlock, FlightGroup, InFlight, Landed, Outcome, Panicked, Role, Stats, StdError,
    WaitsFor,
};

type BoxError = Box<dyn Error + Send + Sync>;

/// The innermost of three errors.
#[derive(Debug, PartialEq)]
struct Refused(u16);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "port {} refused", self.0)
    }
}

impl Error for Refused {}

#[derive(Debug)]
struct Context(&'static str, BoxError);

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Error for Context {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.1)
    }
}

fn deep() -> Context {
    let connect = Context("cannot connect", Box::new(Refused(80)));
    Context("cannot load", Box::new(connect))
}

/// The texts of an error and of its sources.
fn chain(error: &(dyn Error + 'static)) -> Vec<String> {
    let sources = std::iter::successors(Some(error), |error| (*error).source());
    sources.map(ToString::to_string).collect()
}

const CHAIN: [&str; 3] = ["cannot load", "cannot connect", "port 80 refused"];

#[test]
fn failed_is_transparent() {
    let group = FlightGroup::<u32, Context>::new();
    let error = group.call("k", || Err(deep())).unwrap_err();
    assert_eq!(error.to_string(), "cannot load");
    assert_eq!(chain(&error), CHAIN);
    let source = error.source().unwrap().downcast_ref::<Context>().unwrap();
    assert_eq!(source.0, "cannot connect");
    let innermost = source.source().unwrap();
    assert_eq!(innermost.downcast_ref::<Refused>(), Some(&Refused(80)));

    // An error without a source has none through a call either.
    let group = FlightGroup::<u32, io::Error>::new();
    let error = group.call("k", || Err(io::Error::other("no disk"))).unwrap_err();
    assert_eq!(chain(&error), ["no disk"]);
    // `Display` needs no `Error`.
    assert_eq!(CallError::Failed(Arc::new("text")).to_string(), "text");
}

#[test]
fn the_others_display_themselves_and_have_no_source() {
    let panicked = CallError::<io::Error>::Panicked(Panicked::new("disk on fire"));
    assert!(panicked.to_string().contains("disk on fire"));
    let group = FlightGroup::<u32, io::Error>::new();
    let outer = group.call("k", || {
        let refused = group.call("k", || Ok(1)).unwrap_err();
        assert!(refused.to_string().contains("deadlock"), "{refused}");
        assert!(refused.source().is_none());
        Ok(1)
    });
    assert_eq!(outer.unwrap(), 1);
    for error in [panicked, CallError::Abandoned, CallError::TimedOut, CallError::Overloaded] {
        assert!(error.source().is_none());
        assert_eq!(chain(&error).len(), 1);
        assert!(!error.to_string().is_empty());
    }
}

fn load(group: &FlightGroup<u32, BoxError>, key: &str) -> Result<u32, BoxError> {
    let f = || {
        if key == "bad" {
            Err(deep())?;
        }
        Ok(key.parse::<u32>()?)
    };
    let value = group.call(key, f).map_err(CallError::into_std)?;
    Ok(value + 1)
}

#[test]
fn a_question_mark_works_where_the_error_is_a_box() {
    let group = FlightGroup::new();
    assert_eq!(load(&group, "41").unwrap(), 42);
    let error = load(&group, "bad").unwrap_err();
    assert_eq!(chain(&*error), CHAIN);
    let error = load(&group, "x").unwrap_err();
    assert_eq!(chain(&*error), ["invalid digit found in string"]);
    // Through two groups, each with its own box: the texts are the same.
    let outer = FlightGroup::<u32, BoxError>::new();
    let error = outer.call("k", || load(&group, "bad")).map_err(CallError::into_std);
    assert_eq!(chain(&error.unwrap_err()), CHAIN);
}

/// For all followers, with the chain intact.
#[test]
fn all_followers_get_the_chain() {
    const FOLLOWERS: usize = 4;
    let _watchdog = watchdog();
    let group = FlightGroup::<u32, BoxError>::new();
    let leader = lead(&group, "k");
    thread::scope(|s| {
        let followers = [(); FOLLOWERS].map(|()| {
            s.spawn(|| -> BoxError {
                let result = group.call("k", || Ok(1));
                result.map_err(CallError::into_std).unwrap_err().into()
            })
        });
        until_waiting(&group, FOLLOWERS as u64);
        let led = leader.complete(Err(Box::new(deep()))).result;
        assert_eq!(chain(&led.map_err(CallError::into_std).unwrap_err()), CHAIN);
        for follower in followers {
            let error = follower.join().unwrap();
            assert_eq!(chain(&*error), CHAIN);
            let text = format!("{error:?}");
            assert!(
                text.contains("cannot load") && text.contains("port 80") || text.contains("80")
            );
        }
    });
}

/// It leads back to the function's own error.
#[test]
fn the_call_error_and_the_functions_error_are_found_by_downcasting() {
    let group = FlightGroup::<u32, BoxError>::new();
    let failed = group.call("k", || Err(Box::new(Refused(80))));
    let error: BoxError = failed.map_err(CallError::into_std).unwrap_err().into();
    let std = error.downcast_ref::<StdError<BoxError>>().expect("the public type");
    let inner = std.call_error().failed().expect("it has failed");
    assert_eq!(inner.downcast_ref::<Refused>(), Some(&Refused(80)));
}

#[test]
fn every_way_to_fail_becomes_a_std_error() {
    let group = FlightGroup::<u32, BoxError>::new();
    let leader = lead(&group, "k");
    let error = |result: Result<u32, CallError<BoxError>>| -> BoxError {
        result.map_err(CallError::into_std).unwrap_err().into()
    };
    let late = error(group.request("k").timeout(Duration::ZERO).call(|| Ok(1)));
    let full = error(group.request("k").max_followers(0).call(|| Ok(1)));
    for (error, text) in [(late, "timed out"), (full, "too many")] {
        assert!(error.to_string().contains(text), "{error}");
        assert!(error.source().is_none());
        assert!(error.is::<StdError<BoxError>>());
    }
    let follower = follow(&group, "k");
    drop(leader);
    let error = error(follower.wait().result);
    let error = error.downcast_ref::<StdError<BoxError>>().unwrap();
    assert!(matches!(error.call_error(), CallError::Abandoned));
    let panicked = CallError::<BoxError>::Panicked(Panicked::new("disk on fire")).into_std();
    assert!(panicked.to_string().contains("disk on fire"));
}

/// What stands for `anyhow::Error`: a type that is no `Error` itself, made from any, with `AsRef`.
#[derive(Debug)]
struct Anyhow(BoxError);

impl<T: Error + Send + Sync + 'static> From<T> for Anyhow {
    fn from(error: T) -> Self {
        Self(Box::new(error))
    }
}

impl AsRef<dyn Error + Send + Sync> for Anyhow {
    fn as_ref(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.0
    }
}

#[test]
fn a_question_mark_works_where_the_error_is_a_type_of_its_own() {
    fn load(group: &FlightGroup<u32, Anyhow>) -> Result<u32, Anyhow> {
        Ok(group.call("k", || Err(deep())?).map_err(CallError::into_std)?)
    }
    let group = FlightGroup::new();
    let Anyhow(error) = load(&group).unwrap_err();
    assert_eq!(chain(&*error), CHAIN);
    let error = error.downcast_ref::<StdError<Anyhow>>().unwrap();
    assert_eq!(chain(error.call_error().failed().unwrap().as_ref()), CHAIN);
    fn is_an_error<T: Error + Send + Sync + 'static>() {}
    is_an_error::<StdError<Anyhow>>();
    is_an_error::<StdError<BoxError>>();
    is_an_error::<CallError<io::Error>>();
}

#[test]
fn results_compare() {
    let group = FlightGroup::<u32, String>::new();
    assert_eq!(group.call("k", || Ok(1)), Ok(1));
    assert_ne!(group.call("k", || Ok(1)), Ok(2));
    let failed = |text: &str| Err(CallError::Failed(Arc::new(text.to_owned())));
    assert_eq!(group.call("k", || Err("no".to_owned())), failed("no"));
    assert_ne!(group.call("k", || Err("no".to_owned())), failed("yes"));
    assert_ne!(group.call("k", || Err("no".to_owned())), Err(CallError::TimedOut));
    let outcome = Outcome { result: Ok(1), role: Role::Led, followers: 0 };
    assert_eq!(group.call_ex("k", || Ok(1)), outcome);
    assert_ne!(group.call_ex("k", || Ok(2)), outcome);
    let shared = Outcome { followers: 1, ..outcome.clone() };
    assert_ne!(outcome, shared);
    let followed = Outcome { role: Role::Followed, ..outcome.clone() };
    assert_ne!(outcome, followed);
}

#[test]
fn panics_and_deadlocks_compare() {
    assert_eq!(Panicked::new("a"), Panicked::new("a"));
    assert_ne!(Panicked::new("a"), Panicked::new("b"));
    assert_ne!(Panicked::new("a"), Panicked::of(&0));
    assert_eq!(Panicked::of(&0), Panicked::of(&"x".len()));
    let refused = || -> Deadlock {
        let group = FlightGroup::<Deadlock, ()>::new();
        let deadlock = group.call("k", || match group.call("k", || Err(())) {
            Err(CallError::Deadlock(deadlock)) => Ok(deadlock),
            other => panic!("unexpected: {other:?}"),
        });
        deadlock.unwrap()
    };
    let here = refused();
    assert_eq!(here, refused());
    assert_eq!(here, here.clone());
    let elsewhere = thread::scope(|s| s.spawn(refused).join().unwrap());
    assert_ne!(here, elsewhere);
    let error = CallError::<u32>::Deadlock(here.clone());
    assert_eq!(error, CallError::Deadlock(here));
    assert_ne!(error, CallError::Deadlock(elsewhere));
}

/// What is in flight does not change between two looks, but for its age.
#[test]
fn flights_compare() {
    let group = FlightGroup::<u32, ()>::new();
    let (a, b) = (lead(&group, "a"), lead(&group, "b"));
    let look = || -> Vec<InFlight<String>> {
        let mut flights = group.in_flight();
        flights.sort_by(|one, other| one.key.cmp(&other.key));
        flights
    };
    assert_eq!(look(), look());
    let [one, other] = &look()[..] else {
        panic!("two flights");
    };
    assert_ne!(one, other);
    let before = look();
    let follower = follow(&group, "a");
    assert_ne!(before, look());
    assert_eq!(before[1], look()[1]);
    assert!(group.forget("b"));
    assert_ne!(before[1], look()[1]);
    assert_eq!(WaitsFor::Key(1), WaitsFor::Key(1));
    assert_ne!(WaitsFor::Key(1), WaitsFor::Elsewhere);
    drop((a, b, follower));
}

/// By a test of an observer, say.
#[test]
fn landed_and_stats_can_be_made() {
    let landed = Landed::new(Duration::from_millis(3), 2, shared_calls::Ending::Succeeded);
    assert_eq!((landed.followers, landed.duration), (2, Duration::from_millis(3)));
    let mut stats = Stats::default();
    stats.led = 2;
    stats.overloaded = 3;
    assert_eq!(stats.calls(), 5);
    assert_eq!(stats, stats.clone());
}
