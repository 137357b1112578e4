//! The trait: `Arc<dyn SharedCalls<..>>` crosses threads as it is, and calls without an import.
//!
//! `SharedCallsExt` is not in scope here but where a test says so.
#![cfg(not(loom))]

mod common;

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;

use common::{assert_quiet, gate, lead, until, until_waiting, watchdog};
use shared_calls::{CallError, FlightGroup, Outcome, Role, SharedCalls, Unshared};

type Group = FlightGroup<u32, &'static str>;
type Dyn = Arc<dyn SharedCalls<u32, &'static str>>;

#[test]
fn a_trait_object_crosses_threads_and_shares() {
    let _watchdog = watchdog();
    let group = Group::new();
    let calls: Dyn = Arc::new(group.clone());
    let leader = lead(&group, "k");
    let threads = [(); 3].map(|()| {
        let calls = Arc::clone(&calls);
        thread::spawn(move || calls.call_ex("k", || Ok(9)))
    });
    until_waiting(&group, 3);
    let _ = leader.complete(Ok(1));
    for thread in threads {
        let outcome = thread.join().unwrap();
        assert_eq!((outcome.result, outcome.role, outcome.followers), (Ok(1), Role::Followed, 3));
    }
    // The group can be looked at behind the object as well.
    assert_eq!(group.stats().followed, 3);
    assert_eq!(calls.call("k", || Ok(2)), Ok(2));
}

#[test]
fn every_kind_of_pointer_calls_without_an_import() {
    let group = Group::new();
    let by_ref: &dyn SharedCalls<u32, &'static str> = &group;
    assert_eq!(by_ref.call("k", || Ok(1)), Ok(1));
    assert_eq!(by_ref.call_ex("k", || Ok(1)).role, Role::Led);
    let boxed: Box<dyn SharedCalls<u32, &'static str>> = Box::new(group.clone());
    assert_eq!(boxed.call("k", || Ok(2)), Ok(2));
    let threads: Arc<dyn SharedCalls<u32, &'static str> + Send + Sync> = Arc::new(group.clone());
    assert_eq!(threads.call("k", || Ok(3)), Ok(3));
    let rc: Rc<dyn SharedCalls<u32, &'static str>> = Rc::new(group.clone());
    assert_eq!(rc.call("k", || Err("no")), Err(CallError::Failed(Arc::new("no"))));
    // One that borrows.
    let borrowed: Box<dyn SharedCalls<u32, &'static str> + '_> = Box::new(&group);
    assert_eq!(borrowed.call("k", || Ok(4)), Ok(4));
    let borrowed: Box<dyn SharedCalls<u32, &'static str> + Send + Sync + '_> = Box::new(&group);
    assert_eq!(borrowed.call_ex("k", || Ok(5)).result, Ok(5));
    assert_eq!(group.stats().led, 7);
}

/// The function need not be called more than once, may borrow, and returns what it likes.
#[test]
fn the_function_is_a_fn_once_that_borrows() {
    let calls: Dyn = Arc::new(Group::new());
    let owned = String::from("four");
    let taken = Mutex::new(None);
    let result = calls.call("k", || {
        let n = owned.len() as u32;
        *taken.lock().unwrap() = Some(owned);
        Ok(n)
    });
    assert_eq!(result, Ok(4));
    assert_eq!(taken.into_inner().unwrap().as_deref(), Some("four"));
}

#[test]
fn other_key_types() {
    let by_id: Arc<dyn SharedCalls<u32, (), u64>> = Arc::new(FlightGroup::<u32, (), u64>::new());
    assert_eq!(by_id.call(&7, || Ok(1)), Ok(1));
    let by_bytes: Box<dyn SharedCalls<u32, (), [u8]>> =
        Box::new(FlightGroup::<_, _, Vec<u8>>::new());
    assert_eq!(by_bytes.call(b"k", || Ok(1)), Ok(1));
    let by_string: &dyn SharedCalls<u32, (), String> = &FlightGroup::<u32, ()>::new();
    assert_eq!(by_string.call(&"k".to_owned(), || Ok(1)), Ok(1));
}

#[test]
fn unshared_shares_nothing() {
    let _watchdog = watchdog();
    let calls: Dyn = Arc::new(Unshared);
    let runs = AtomicUsize::new(0);
    let (held, gate) = gate();
    thread::scope(|s| {
        let first = s.spawn(|| {
            calls.call_ex("k", || {
                held();
                runs.fetch_add(1, SeqCst);
                Ok(1)
            })
        });
        gate.begun();
        let second = calls.call_ex("k", || {
            runs.fetch_add(1, SeqCst);
            // Not even with itself: there is no deadlock to refuse.
            assert_eq!(calls.call("k", || Ok(3)), Ok(3));
            Ok(2)
        });
        assert_eq!((second.result, second.role, second.followers), (Ok(2), Role::Led, 0));
        gate.open();
        assert_eq!(first.join().unwrap().result, Ok(1));
    });
    assert_eq!(runs.into_inner(), 2);
    let failed = calls.call("k", || Err("no"));
    assert_eq!(failed, Err(CallError::Failed(Arc::new("no"))));
    let panicked = catch_unwind(AssertUnwindSafe(|| calls.call("k", || panic!("lost"))));
    assert_eq!(*panicked.unwrap_err().downcast::<&str>().unwrap(), "lost");
}

/// A test's own: it answers what it was told to.
struct Fake(Mutex<Vec<String>>, Result<u32, CallError<&'static str>>);

impl SharedCalls<u32, &'static str> for Fake {
    fn call_dyn(
        &self,
        key: &str,
        f: &mut dyn FnMut() -> Result<u32, &'static str>,
    ) -> Outcome<u32, &'static str> {
        self.0.lock().unwrap().push(key.to_owned());
        let result = match &self.1 {
            Ok(0) => f().map_err(|error| CallError::Failed(Arc::new(error))),
            told => told.clone(),
        };
        Outcome { result, role: Role::Followed, followers: 7 }
    }
}

#[test]
fn a_program_can_have_an_implementation_of_its_own() {
    let fake = Arc::new(Fake(Mutex::default(), Err(CallError::Overloaded)));
    let calls: Dyn = fake.clone();
    assert_eq!(calls.call("a", || Ok(1)), Err(CallError::Overloaded));
    let outcome = calls.call_ex("b", || Ok(1));
    assert_eq!((outcome.role, outcome.followers), (Role::Followed, 7));
    assert_eq!(*fake.0.lock().unwrap(), ["a", "b"]);
    let runs: Dyn = Arc::new(Fake(Mutex::default(), Ok(0)));
    assert_eq!(runs.call("c", || Ok(5)), Ok(5));
}

mod generic {
    use super::{CallError, Group, Role};
    use shared_calls::{SharedCalls, SharedCallsExt, Unshared};
    use std::sync::Arc;

    fn load<C: SharedCalls<u32, &'static str> + ?Sized>(
        calls: &C,
    ) -> Result<u32, CallError<&'static str>> {
        assert_eq!(calls.call_ex("k", || Ok(1)).role, Role::Led);
        calls.call("k", || Ok(2))
    }

    /// For generic code there is the extension trait, which every implementation has.
    #[test]
    fn generic_code_calls_through_the_extension_trait() {
        let group = Group::new();
        assert_eq!(load(&group), Ok(2));
        assert_eq!(load(&&group), Ok(2));
        assert_eq!(load(&Arc::new(Unshared)), Ok(2));
        let boxed: Box<dyn SharedCalls<u32, &'static str>> = Box::new(group.clone());
        assert_eq!(load(&*boxed), Ok(2));
        assert_eq!(load(&boxed), Ok(2));
        // With the import, objects call as before.
        assert_eq!(boxed.call("k", || Ok(3)), Ok(3));
        let arc: super::Dyn = Arc::new(group.clone());
        assert_eq!(arc.call("k", || Ok(3)), Ok(3));
        assert_eq!(group.stats().led, 10);
    }
}

#[test]
fn supertraits_and_auto_traits() {
    fn is_send_and_sync<T: Send + Sync + ?Sized>() {}
    is_send_and_sync::<dyn SharedCalls<u32, &'static str>>();
    is_send_and_sync::<Dyn>();
    is_send_and_sync::<Box<dyn SharedCalls<u32, &'static str, u64>>>();
}

/// Behind the trait a deadlock is refused and a panic unwinds as anywhere.
#[test]
fn panics_and_deadlocks_behind_the_trait() {
    let _watchdog = watchdog();
    let group = Group::new();
    let calls: Dyn = Arc::new(group.clone());
    let outer = calls.call("k", || {
        assert!(matches!(calls.call("k", || Ok(1)), Err(CallError::Deadlock(_))));
        Ok(1)
    });
    assert_eq!(outer, Ok(1));
    thread::scope(|s| {
        let mut follower = None;
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            calls.call("k", || {
                let calls = Arc::clone(&calls);
                follower = Some(s.spawn(move || calls.call("k", || Ok(9))));
                until_waiting(&group, 1);
                panic!("lost")
            })
        }));
        assert!(panicked.is_err());
        let followed = follower.unwrap().join().unwrap();
        assert!(matches!(followed, Err(CallError::Panicked(_))));
    });
    until("all have ended", || group.stats().waiting == 0);
    assert_quiet(&group);
}
