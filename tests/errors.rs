//! Errors: any `E`, made once, shared by all callers, taken out again by the last.
#![cfg(not(loom))]

mod common;

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::thread;

use common::{follow, gate, lead, watchdog};
use shared_calls::{CallError, FlightGroup};

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
fn what_is_no_error_of_the_functions_cannot_be_taken_out() {
    let error = abandoned::<Fault>();
    assert_eq!(error.failed(), None);
    assert!(matches!(error.into_failed(), Err(CallError::Abandoned)));
}

#[test]
fn errors_say_what_happened_and_why() {
    let group = FlightGroup::<(), io::Error>::new();
    let error = group
        .call("k", || {
            Err(io::Error::new(io::ErrorKind::Other, "disk full"))
        })
        .unwrap_err();
    assert_eq!(error.to_string(), "the shared call failed: disk full");
    let source = error.source().expect("the function's error");
    assert_eq!(
        source.downcast_ref::<io::Error>().unwrap().kind(),
        io::ErrorKind::Other
    );

    let error = abandoned::<io::Error>();
    assert_eq!(
        error.to_string(),
        "the leader of the shared call went away without an outcome"
    );
    assert!(error.source().is_none());
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

/// A `Box<dyn Error>` is no `Error` itself, so neither is a [`CallError`] of it; what it holds is
/// reached by `into_failed`.
#[test]
fn errors_may_be_boxed() {
    type Boxed = Box<dyn Error + Send + Sync>;

    fn parse(group: &FlightGroup<u64, Boxed>, text: &str) -> Result<u64, Boxed> {
        // In the function, `?` makes a box of any error.
        let number = group.call(text, || Ok(text.parse::<u64>()?));
        match number.map_err(CallError::into_failed) {
            Ok(number) => Ok(number),
            Err(Ok(error)) => Err(error),
            Err(Err(other)) => Err(other.to_string().into()),
        }
    }
    let group = FlightGroup::new();
    assert_eq!(parse(&group, "42").unwrap(), 42);
    let error = parse(&group, "forty-two").unwrap_err();
    assert!(error.is::<std::num::ParseIntError>());
    assert_eq!(
        abandoned::<Boxed>().to_string(),
        abandoned::<io::Error>().to_string()
    );
}
