//! Errors: any `E`, made once, shared by all callers, taken out again by the last.
#![cfg(not(loom))]

mod common;

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread;

use common::{follow, gate, lead, watchdog};
use shared_calls::{CallError, FlightGroup, Panicked, StdError};

/// Not `Clone`, as most errors are not.
#[derive(Debug, PartialEq)]
struct Fault(&'static str);

fn failed<E>(error: CallError<E>) -> Arc<E> {
    match error {
        CallError::Failed(error) => error,
        CallError::Panicked(_) => panic!("a panic"),
        _ => panic!("something else"),
    }
}

#[test]
fn one_error_is_shared_by_all_callers() {
    let _watchdog = watchdog();
    let group = FlightGroup::<(), Fault>::new();
    let (held, gate) = gate();
    thread::scope(|s| {
        let leader = s.spawn(|| {
            group.call("k", || {
                held();
                Err(Fault("no route"))
            })
        });
        gate.begun();
        let followers = [follow(&group, "k"), follow(&group, "k")];
        gate.open();
        let led = failed(leader.join().unwrap().unwrap_err());
        assert_eq!(*led, Fault("no route"));
        for follower in followers {
            let followed = failed(follower.wait().result.unwrap_err());
            assert!(Arc::ptr_eq(&led, &followed));
        }
    });
}

#[test]
fn the_last_holder_takes_the_error_out() {
    let _watchdog = watchdog();
    let group = FlightGroup::<(), Fault>::new();
    let alone = group.call("k", || Err(Fault("alone"))).unwrap_err();
    assert_eq!(alone.into_failed().unwrap(), Fault("alone"));

    let leader = lead(&group, "k");
    let follower = follow(&group, "k");
    let led = leader.complete(Err(Fault("shared"))).result.unwrap_err();
    let followed = follower.wait().result.unwrap_err();
    let led = led.into_failed().expect_err("the follower holds it, too");
    assert_eq!(led.failed(), Some(&Fault("shared")));
    drop(led);
    assert_eq!(followed.into_failed().unwrap(), Fault("shared"));
}

/// Gives what the one follower of an abandoned flight gets.
fn abandoned<E>() -> CallError<E> {
    let _watchdog = watchdog();
    let group = FlightGroup::<(), E>::new();
    let leader = lead(&group, "k");
    let follower = follow(&group, "k");
    drop(leader);
    follower.wait().result.unwrap_err()
}

#[test]
fn into_failed_gives_back_what_is_not_the_functions_error() {
    let error = abandoned::<Fault>();
    assert_eq!(error.failed(), None);
    assert!(matches!(error.into_failed(), Err(CallError::Abandoned)));
}

/// An error with a cause.
#[derive(Debug)]
struct Wrapped(io::Error);

impl fmt::Display for Wrapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cannot save")
    }
}

impl Error for Wrapped {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

/// The texts of an error and of its causes.
fn chain(error: &(dyn Error + 'static)) -> Vec<String> {
    let mut texts = vec![error.to_string()];
    texts.extend(error.source().map(chain).into_iter().flatten());
    texts
}

fn wrapped() -> Wrapped {
    Wrapped(io::Error::new(io::ErrorKind::Other, "disk full"))
}

/// No text appears twice in the chain.
#[test]
fn failed_is_transparent_in_display_and_source() {
    let group = FlightGroup::<(), Wrapped>::new();
    let leader = lead(&group, "k");
    let follower = follow(&group, "k");
    let led = leader.complete(Err(wrapped())).result.unwrap_err();
    let followed = follower.wait().result.unwrap_err();
    for error in [led, followed] {
        assert_eq!(chain(&error), ["cannot save", "disk full"]);
        let source = error.source().expect("the source of the function's error");
        assert!(source.is::<io::Error>());
    }
    let group = FlightGroup::<(), io::Error>::new();
    let fails = || Err(io::Error::new(io::ErrorKind::Other, "disk full"));
    let error = group.call("k", fails).unwrap_err();
    assert_eq!(chain(&error), ["disk full"]);
}

#[test]
fn every_other_error_says_what_happened() {
    let abandoned = abandoned::<io::Error>();
    let panicked = CallError::Panicked(Panicked::new("disk on fire"));
    for (error, text) in [
        (abandoned, "the shared call was abandoned by its leader"),
        (panicked, "the leader of the shared call panicked: disk on fire"),
        (CallError::TimedOut, "timed out waiting for the shared call"),
        (CallError::Overloaded, "too many callers are waiting for the shared call"),
    ] {
        assert_eq!(chain(&error), [text]);
        // An error that is none of the function's own needs no type of that.
        assert_eq!(error.map_failed(|_| Fault("none")).failed(), None);
    }
}

#[test]
fn results_and_outcomes_can_be_compared() {
    let group = FlightGroup::<u32, Fault>::new();
    assert_eq!(group.call("k", || Ok(1)), Ok(1));
    let failed = group.call("k", || Err(Fault("no route")));
    assert_eq!(failed, Err(CallError::Failed(Arc::new(Fault("no route")))));
    assert_ne!(failed, Err(CallError::Failed(Arc::new(Fault("no disk")))));
    assert_ne!(failed, Err(CallError::TimedOut));
    assert_eq!(group.call_ex("k", || Ok(1)), group.call_ex("k", || Ok(1)));
    assert_ne!(group.call_ex("k", || Ok(1)), group.call_ex("k", || Ok(2)));
    assert_eq!(Panicked::new("text"), Panicked::new("text"));
    assert_ne!(Panicked::new("text"), Panicked::new("another"));

    let outer = group.call("k", || {
        let refused = || group.call("k", || Ok(2));
        assert_eq!(refused(), refused());
        assert_ne!(refused(), Err(CallError::Abandoned));
        assert_eq!(group.in_flight(), group.in_flight());
        Ok(1)
    });
    assert_eq!(outer, Ok(1));
}

/// No copy of the error itself is made.
#[test]
fn a_call_error_can_be_cloned_whatever_the_error_is() {
    let group = FlightGroup::<(), Fault>::new();
    let error = group.call("k", || Err(Fault("one"))).unwrap_err();
    let copy = error.clone();
    assert!(Arc::ptr_eq(&failed(error), &failed(copy)));
    assert!(matches!(abandoned::<Fault>().clone(), CallError::Abandoned));
}

#[test]
fn question_mark_works_with_io_errors() {
    type Group = FlightGroup<u64, io::Error>;

    fn typed(group: &Group) -> Result<u64, CallError<io::Error>> {
        Ok(group.call("k", || Ok(std::fs::metadata("/no/such/file")?.len()))? + 1)
    }
    fn boxed(group: &Group) -> Result<u64, Box<dyn Error + Send + Sync>> {
        Ok(group.call("k", || Ok(std::fs::metadata("/no/such/file")?.len()))? + 1)
    }
    let group = Group::new();
    let typed = typed(&group).unwrap_err();
    assert_eq!(typed.failed().unwrap().kind(), io::ErrorKind::NotFound);
    let boxed = boxed(&group).unwrap_err();
    let typed = boxed.downcast_ref::<CallError<io::Error>>().unwrap();
    assert_eq!(typed.failed().unwrap().kind(), io::ErrorKind::NotFound);
}

type Boxed = Box<dyn Error + Send + Sync>;

/// A `Box<dyn Error>` is no `Error` itself, so neither is a [`CallError`] of it.
#[test]
fn question_mark_works_with_boxed_errors() {
    fn save(group: &FlightGroup<u64, Boxed>) -> Result<u64, Boxed> {
        // In the function, `?` makes a box of any error.
        let saved = group.call("k", || Ok(Err::<u64, _>(wrapped())?));
        Ok(saved.map_err(CallError::into_std)?)
    }
    let group = FlightGroup::new();
    let error = save(&group).unwrap_err();
    assert_eq!(chain(&*error), ["cannot save", "disk full"]);
    let error = error.downcast::<StdError<Boxed>>().unwrap();
    assert_eq!(format!("{error:?}"), format!("{:?}", wrapped()));
    let cause = error.call_error().failed().expect("the function's error");
    assert!(cause.is::<Wrapped>());
    // Nobody else holds it.
    let error = error.into_call_error().into_failed().unwrap();
    assert!(error.is::<Wrapped>());
}

#[test]
fn all_followers_of_a_boxed_error_get_it_as_an_error() {
    let _watchdog = watchdog();
    let group = FlightGroup::<u64, Boxed>::new();
    let leader = lead(&group, "k");
    let followers = [follow(&group, "k"), follow(&group, "k")];
    let led = leader.complete(Err(wrapped().into())).result;
    let [first, second] = followers.map(|follower| follower.wait().result);
    for result in [led, first, second] {
        let error: Boxed = result.map_err(CallError::into_std).unwrap_err().into();
        assert_eq!(chain(&*error), ["cannot save", "disk full"]);
    }
}

#[test]
fn an_error_of_the_call_is_itself_behind_into_std() {
    let error = abandoned::<Boxed>().into_std();
    assert!(matches!(error.call_error(), CallError::Abandoned));
    assert_eq!(chain(&error), ["the shared call was abandoned by its leader"]);
}
