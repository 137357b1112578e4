//! Calls on `wasm32-unknown-unknown`, where std has no threads and traps when the clock is read.
//! `run.mjs` checks what they return.

use shared_calls::{CallError, FlightGroup};

/// A lone call: 1 more than `n`.
#[no_mangle]
pub extern "C" fn lone(n: u32) -> u32 {
    let group = FlightGroup::<u32, ()>::new();
    group.call("k", || Ok(n + 1)).unwrap()
}

/// A call inside another: twice `n`.
#[no_mangle]
pub extern "C" fn nested(n: u32) -> u32 {
    let group = FlightGroup::<u32, CallError<()>, u32>::builder().shards(4).build();
    let inner = FlightGroup::<u32, (), u32>::new();
    group.call(&1, || inner.call(&2, || Ok(n * 2))).unwrap()
}

/// A call for the key of the call that it is made in: 1 if it is refused as a deadlock.
#[no_mangle]
pub extern "C" fn refused() -> u32 {
    let group = FlightGroup::<u32, CallError<()>>::new();
    let outer = group.call("k", || {
        let inner = group.call("k", || Ok(0));
        Ok(u32::from(matches!(inner, Err(CallError::Deadlock(_)))))
    });
    outer.unwrap()
}

/// Shows that [`lone`] would trap if it read the clock.
#[no_mangle]
pub extern "C" fn reads_the_clock() -> u32 {
    u32::from(std::time::Instant::now().elapsed().is_zero())
}
