//! What a flight may not cost others, or leave behind (G10, G11, G12).

use loom::thread;

use crate::explore::Model;
use crate::latch::Latch;
use crate::sync::{self, Arc, Deadline};
use crate::FlightGroup;

/// G10: a function may wait for another key's call to finish. Under a lock that the other call
/// needs, it would wait for ever.
#[test]
fn a_function_holds_no_lock() {
    Model {
        preemptions: None,
        must_reach: &["both landed"],
        executions: &[110],
    }
    .explore(|reached| {
        let group = Arc::new(FlightGroup::<u32, ()>::new());
        let other_done = Arc::new(Latch::new(false));
        let other = thread::spawn({
            let (group, other_done) = (Arc::clone(&group), Arc::clone(&other_done));
            move || {
                assert_eq!(group.call("other", || Ok(2)).unwrap(), 2);
                other_done.change(1, |done| *done = true);
            }
        });
        let value = group.call("key", || {
            other_done.wait(Deadline::Never, |done| done.then_some(()));
            Ok(1)
        });
        assert_eq!(value.unwrap(), 1);
        other.join().unwrap();
        reached.mark("both landed");
    });
}

/// G11: when the group is quiet, the callers' values are all there are.
#[test]
fn a_quiet_group_keeps_no_value() {
    Model {
        preemptions: None,
        must_reach: &["shared", "alone"],
        executions: &[330, 513, 757],
    }
    .explore(|reached| {
        let group = Arc::new(FlightGroup::<Arc<()>, ()>::new());
        let value = Arc::new(());
        let call = {
            let (group, value) = (Arc::clone(&group), Arc::clone(&value));
            move || group.call_ex("key", || Ok(Arc::clone(&value)))
        };
        let other = thread::spawn({
            let call = call.clone();
            move || drop(call())
        });
        let outcome = call();
        other.join().unwrap();
        reached.mark(if outcome.shared() { "shared" } else { "alone" });
        drop((outcome, call));
        assert_eq!(Arc::strong_count(&value), 1, "a value was kept");
        assert!(format!("{group:?}").contains("in_flight: 0"));
    });
}

/// G12: callers of different keys, and a caller by itself, wake nobody.
#[test]
fn a_lone_call_notifies_nobody() {
    Model {
        preemptions: None,
        must_reach: &["landed"],
        executions: &[224],
    }
    .explore(|reached| {
        let group = Arc::new(FlightGroup::<u32, ()>::new());
        let other = thread::spawn({
            let group = Arc::clone(&group);
            move || assert_eq!(group.call("other", || Ok(2)).unwrap(), 2)
        });
        assert_eq!(group.call("key", || Ok(1)).unwrap(), 1);
        assert_eq!(group.call("key", || Ok(1)).unwrap(), 1);
        other.join().unwrap();
        assert_eq!(sync::take_notified(), 0);
        reached.mark("landed");
    });
}
