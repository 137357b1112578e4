//! The seeded bugs: small departures from the shipped sources, each of them a mistake that somebody
//! made or could make, and the models that have to catch it.
//!
//! A bug is a list of edits, text for text. Each text has to occur exactly once, so a bug whose
//! place in the sources was rewritten says so instead of silently testing nothing.

/// File below `src/`, what stands there, and what the bug puts in its place.
pub(crate) type Edit = (&'static str, &'static str, &'static str);

pub(crate) struct Bug {
    pub(crate) name: &'static str,
    pub(crate) edits: &'static [Edit],
    /// Each of these has to fail.
    pub(crate) caught_by: &'static [&'static str],
}

const LANDS_BEFORE_UNLINKING: Edit = (
    "group.rs",
    r#"        let (followers, entry) = self.group.unlink(self.hash, &flight, self.reuse);
        let outcome = Outcome {
            result,
            role: Role::Led,
            followers,
        };
        let ended = if followers == 0 {
            Ended::Alone(outcome)
        } else {
            let outcome = Arc::new(outcome);
            flight.land(Arc::clone(&outcome));
            Ended::Shared(outcome)
        };
"#,
    r#"        let outcome = Arc::new(Outcome {
            result,
            role: Role::Led,
            followers: flight.followers(),
        });
        flight.land(Arc::clone(&outcome));
        let (_, entry) = self.group.unlink(self.hash, &flight, false);
        let ended = Ended::Shared(outcome);
"#,
);

pub(crate) const BUGS: &[Bug] = &[
    // The reason why this algorithm has the order it has: delete the key, then say done. x/sync
    // before 2021, groupcache and several Rust ports had it the other way round. They do not mark a
    // flight closed either: the mark by itself keeps late callers out.
    Bug {
        name: "done before delete",
        edits: &[
            LANDS_BEFORE_UNLINKING,
            (
                "flight.rs",
                "if self.closed.load(Ordering::Acquire) {",
                "if false {",
            ),
        ],
        caught_by: &["model_order::a_later_call_gets_a_later_run"],
    },
    // With the mark, the reversed order still miscounts: followers are final only once unlinked.
    Bug {
        name: "done before delete, closed before both",
        edits: &[LANDS_BEFORE_UNLINKING],
        caught_by: &["model_sharing::two_callers"],
    },
    Bug {
        name: "wakes nobody",
        edits: &[(
            "latch.rs",
            r#"        self.opened.notify_all();
"#,
            "",
        )],
        caught_by: &[
            "model_latch::every_waiter_wakes",
            "model_sharing::two_callers",
        ],
    },
    Bug {
        name: "wakes one of its followers",
        edits: &[(
            "latch.rs",
            "self.opened.notify_all()",
            "self.opened.notify_one()",
        )],
        caught_by: &[
            "model_latch::every_waiter_wakes",
            "model_sharing::a_leader_and_two_callers",
        ],
    },
    Bug {
        name: "wakes before the value is there",
        edits: &[
            (
                "latch.rs",
                r#"        let mut guard = self.value.lock();
        debug_assert!"#,
                r#"        self.opened.notify_all();
        let mut guard = self.value.lock();
        debug_assert!"#,
            ),
            (
                "latch.rs",
                r#"        // Notified after unlocking: a waiter that woke under the lock would only block on it.
        self.opened.notify_all();
"#,
                "",
            ),
        ],
        caught_by: &["model_latch::every_waiter_wakes"],
    },
    Bug {
        name: "looks, unlocks, and then waits",
        edits: &[(
            "latch.rs",
            "            guard = self.opened.wait(guard);",
            r#"            drop(guard);
            guard = self.opened.wait(self.value.lock());"#,
        )],
        caught_by: &[
            "model_latch::every_waiter_wakes",
            "model_sharing::two_callers",
        ],
    },
    Bug {
        name: "`if` for `while` at the wait",
        edits: &[(
            "latch.rs",
            r#"            guard = self.opened.wait(guard);
"#,
            r#"            guard = self.opened.wait(guard);
            return Arc::clone(guard.as_ref().expect("woken without being notified"));
"#,
        )],
        caught_by: &[
            "model_latch::every_waiter_wakes",
            "model_sharing::two_callers",
        ],
    },
    Bug {
        name: "looks up and inserts under two locks",
        edits: &[(
            "group.rs",
            "            if let Some(flight) = map.flights.get_mut(hash, key) {",
            r#"            let second_time = entry.is_some();
            if let (Some(flight), false) = (map.flights.get_mut(hash, key), second_time) {"#,
        )],
        caught_by: &[
            "model_sharing::two_callers",
            "model_sharing::a_leader_and_two_callers",
        ],
    },
    Bug {
        name: "takes its seat after unlocking the map",
        edits: &[
            (
                "group.rs",
                r#"                break if flight.board() {
                    Joined::Follower(Follower::new(Arc::clone(flight)))
                } else {"#,
                r#"                break if !flight.is_closed() {
                    let flight = Arc::clone(flight);
                    drop(map);
                    flight.board();
                    Joined::Follower(Follower::new(flight))
                } else {"#,
            ),
            (
                "flight.rs",
                "    /// From here on nobody boards.",
                r#"    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// From here on nobody boards."#,
            ),
        ],
        caught_by: &["model_sharing::two_callers"],
    },
    Bug {
        name: "runs the function under the map's lock",
        edits: &[(
            "group.rs",
            "        match catch_unwind(AssertUnwindSafe(f)) {",
            r#"        let map = self.group.map.lock();
        let result = catch_unwind(AssertUnwindSafe(f));
        drop(map);
        match result {"#,
        )],
        caught_by: &["model_costs::a_function_holds_no_lock"],
    },
    Bug {
        name: "tells nobody of a panic",
        edits: &[(
            "group.rs",
            r#"                self.end(|| Err(CallError::Panicked(Panicked::new(&*payload))));
"#,
            r#"                std::mem::forget((self, Panicked::new(&*payload)));
"#,
        )],
        caught_by: &[
            "model_endings::a_panic_reaches_a_follower",
            "model_endings::a_panic_reaches_two_followers",
        ],
    },
    Bug {
        // go-zero's: followers of a panic get a zero value and no error.
        name: "lets a panic pass for a dropped leader",
        edits: &[(
            "group.rs",
            r#"                self.end(|| Err(CallError::Panicked(Panicked::new(&*payload))));
"#,
            r#"                self.end(|| Err(CallError::Abandoned));
                drop(Panicked::new(&*payload));
"#,
        )],
        caught_by: &["model_endings::a_panic_reaches_a_follower"],
    },
    Bug {
        name: "unlinks only what went well",
        edits: &[(
            "group.rs",
            "        let (followers, entry) = self.group.unlink(self.hash, &flight, self.reuse);",
            r#"        let (followers, entry) = match &result {
            Ok(_) => self.group.unlink(self.hash, &flight, self.reuse),
            Err(_) => (flight.followers(), None),
        };"#,
        )],
        caught_by: &[
            "model_endings::a_panic_reaches_a_follower",
            "model_endings::an_abandoned_flight_wakes_its_followers",
            "model_endings::an_error_reaches_the_followers",
        ],
    },
    Bug {
        name: "abandons without a word",
        edits: &[(
            "group.rs",
            r#"        self.end(|| Err(CallError::Abandoned));
    }
}

impl<V, E, K, S> fmt::Debug for Leader"#,
            r#"        drop(CallError::<E>::Abandoned);
    }
}

impl<V, E, K, S> fmt::Debug for Leader"#,
        )],
        caught_by: &["model_endings::an_abandoned_flight_wakes_its_followers"],
    },
    Bug {
        // async_singleflight 0.6's: the old leader removes its successor's entry.
        name: "deletes by key",
        edits: &[(
            "group.rs",
            "map.flights.remove(hash, |named| Arc::ptr_eq(named, flight))",
            "map.flights.remove(hash, |_| true)",
        )],
        caught_by: &[
            "model_order::a_leader_removes_only_its_own_entry",
            "model_order::a_later_call_gets_a_later_run",
        ],
    },
    Bug {
        name: "closes without publishing what was written",
        edits: &[(
            "flight.rs",
            "self.closed.store(true, Ordering::Release)",
            "self.closed.store(true, Ordering::Relaxed)",
        )],
        caught_by: &[
            "model_sharing::two_callers",
            "model_order::a_later_call_gets_a_later_run",
        ],
    },
    Bug {
        name: "lets callers board a closed flight",
        edits: &[(
            "flight.rs",
            "if self.closed.load(Ordering::Acquire) {",
            "if false {",
        )],
        caught_by: &["model_order::nobody_boards_a_closed_flight"],
    },
    Bug {
        name: "forgets to reopen a spare flight",
        edits: &[(
            "group.rs",
            r#"                    flight.reopen();
"#,
            "",
        )],
        caught_by: &["model_order::a_later_call_gets_a_later_run"],
    },
    Bug {
        name: "uses a flight again that has followers",
        edits: &[
            (
                "group.rs",
                "Some(entry) if followers == 0 && reuse &&",
                "Some(entry) if reuse &&",
            ),
            (
                "group.rs",
                r#"                (0, None)
"#,
                r#"                (followers, None)
"#,
            ),
        ],
        caught_by: &[
            "model_costs::a_quiet_group_keeps_no_value",
            "model_endings::a_follower_may_leave",
        ],
    },
    Bug {
        name: "counts a follower that has left",
        edits: &[(
            "flight.rs",
            r#"        self.followers.fetch_sub(1, Ordering::Relaxed);
"#,
            "",
        )],
        caught_by: &["model_endings::a_follower_may_leave"],
    },
    Bug {
        name: "reads and then writes the count",
        edits: &[(
            "flight.rs",
            "        self.followers.fetch_sub(1, Ordering::Relaxed);\n",
            "        self.followers.store(self.followers() - 1, Ordering::Relaxed);\n",
        )],
        caught_by: &["model_endings::one_leaves_while_another_boards"],
    },
    Bug {
        name: "takes each follower for the only one",
        edits: &[(
            "flight.rs",
            r#"        self.followers.fetch_add(1, Ordering::Relaxed);
"#,
            r#"        self.followers.store(1, Ordering::Relaxed);
"#,
        )],
        caught_by: &["model_sharing::a_leader_and_two_callers"],
    },
    Bug {
        name: "lands although nobody follows",
        edits: &[(
            "group.rs",
            r#"        let ended = if followers == 0 {
            Ended::Alone(outcome)
        } else {"#,
            "        let ended = {",
        )],
        caught_by: &["model_costs::a_lone_call_notifies_nobody"],
    },
];
