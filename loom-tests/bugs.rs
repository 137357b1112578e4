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
    r#"        let unlinked = group.unlink(self, flight, ending);
        let outcome = Outcome {
            result,
            role: Role::Led,
            followers: unlinked.followers,
        };
        let ended = match unlinked.to_land {
            None => Ended::Alone(outcome),
            Some(flight) => {
                let outcome = Arc::new(outcome);
                flight.land(Arc::clone(&outcome));
                Ended::Shared(outcome)
            }
        };
"#,
    r#"        let outcome = Arc::new(Outcome {
            result,
            role: Role::Led,
            followers: flight.followers(),
        });
        flight.land(Arc::clone(&outcome));
        self.reuse = false;
        let unlinked = group.unlink(self, flight, ending);
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
            ("flight.rs", "self.closed.load(Ordering::Acquire)", "false"),
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
            r#"        if crowd {
            self.changed.notify_one();
        } else {
            self.changed.notify_all();
        }
"#,
            "",
        )],
        caught_by: &[
            "model_latch::every_waiter_wakes",
            "model_latch::every_waiter_of_a_crowd_wakes",
            "model_sharing::two_callers",
        ],
    },
    Bug {
        name: "wakes one of its followers",
        edits: &[(
            "latch.rs",
            r#"        } else {
            self.changed.notify_all();"#,
            r#"        } else {
            self.changed.notify_one();"#,
        )],
        caught_by: &["model_latch::every_waiter_wakes"],
    },
    Bug {
        name: "wakes one of a crowd, who tells nobody",
        edits: &[(
            "latch.rs",
            r#"                self.changed.notify_all();
                inner"#,
            "                inner",
        )],
        caught_by: &[
            "model_latch::every_waiter_of_a_crowd_wakes",
            "model_sharing::a_leader_and_two_callers",
        ],
    },
    Bug {
        name: "tells the others only what it waited for itself",
        edits: &[(
            "latch.rs",
            "            if inner.others_sleep {",
            "            if inner.others_sleep && look(&mut inner.state).is_some() {",
        )],
        caught_by: &["model_latch::a_crowd_may_wait_for_different_things"],
    },
    Bug {
        name: "leaves word for a crowd after unlocking",
        edits: &[(
            "latch.rs",
            r#"        inner.others_sleep = crowd;
        // Notified after unlocking: a waiter that woke under the lock would only block on it.
        drop(inner);"#,
            r#"        drop(inner);
        self.inner.lock().others_sleep = crowd;"#,
        )],
        caught_by: &["model_latch::every_waiter_of_a_crowd_wakes"],
    },
    Bug {
        name: "wakes before the value is there",
        edits: &[(
            "latch.rs",
            r#"        let mut inner = self.inner.lock();
        change"#,
            r#"        self.changed.notify_all();
        if !crowd {
            return self.with(change);
        }
        let mut inner = self.inner.lock();
        change"#,
        )],
        caught_by: &["model_latch::every_waiter_wakes"],
    },
    Bug {
        name: "looks, unlocks, and then waits",
        edits: &[(
            "latch.rs",
            "            inner = self.changed.wait(inner, deadline);",
            r#"            drop(inner);
            inner = self.changed.wait(self.inner.lock(), deadline);"#,
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
            r#"            inner = self.changed.wait(inner, deadline);
"#,
            r#"            inner = self.changed.wait(inner, deadline);
            if !inner.others_sleep {
                return look(&mut inner.state);
            }
"#,
        )],
        caught_by: &[
            "model_latch::every_waiter_wakes",
            "model_sharing::two_callers",
        ],
    },
    Bug {
        name: "starts the deadline again at each wake-up",
        edits: &[(
            "latch.rs",
            "            inner = self.changed.wait(inner, deadline);",
            r#"            let again = match deadline {
                Deadline::Never => deadline,
                _ => Deadline::after(std::time::Duration::from_secs(1)),
            };
            inner = self.changed.wait(inner, again);"#,
        )],
        caught_by: &[
            "model_latch::a_waiter_may_time_out",
            "model_timeout::a_follower_times_out",
        ],
    },
    Bug {
        name: "lets a passed deadline beat an outcome",
        edits: &[(
            "latch.rs",
            r#"            let found = look(&mut inner.state);
            if found.is_some() || deadline.has_passed() {"#,
            r#"            let found = if deadline.has_passed() {
                None
            } else {
                look(&mut inner.state)
            };
            if found.is_some() || deadline.has_passed() {"#,
        )],
        caught_by: &["model_latch::a_waiter_may_time_out"],
    },
    Bug {
        name: "looks up and inserts under two locks",
        edits: &[(
            "map.rs",
            "        if let Some(named) = self.flights.get_mut(hash, key) {",
            "        if let (Some(named), true) = (self.flights.get_mut(hash, key), made.is_none()) {",
        )],
        caught_by: &["model_sharing::two_callers"],
    },
    Bug {
        name: "takes its seat after unlocking the map",
        edits: &[
            (
                "map.rs",
                r#"    flight.board();
    (flight, part)"#,
                "    (flight, part)",
            ),
            (
                "group.rs",
                "        let lead = |flight| {",
                r#"        if part != Part::Leads {
            flight.board();
        }
        let lead = |flight| {"#,
            ),
        ],
        caught_by: &["model_sharing::two_callers"],
    },
    Bug {
        name: "runs the function under the map's lock",
        edits: &[(
            "group.rs",
            "        let result = catch_unwind(AssertUnwindSafe(f));",
            r#"        let map = group.map.lock();
        let result = catch_unwind(AssertUnwindSafe(f));
        drop(map);"#,
        )],
        caught_by: &["model_costs::a_function_holds_no_lock"],
    },
    Bug {
        name: "tells nobody of a panic",
        edits: &[(
            "group.rs",
            r#"            self.land(group, || Err(CallError::Panicked(Panicked::of(&*payload))));
"#,
            r#"            std::mem::forget((self.flight.take(), Panicked::of(&*payload)));
"#,
        )],
        caught_by: &[
            "model_endings::a_panic_reaches_a_follower",
            "model_endings::a_panic_reaches_two_followers",
            "model_ticket::a_job_panics",
        ],
    },
    Bug {
        name: "lets a panic pass for a dropped leader",
        edits: &[(
            "group.rs",
            r#"            self.land(group, || Err(CallError::Panicked(Panicked::of(&*payload))));
"#,
            r#"            self.abandon(group);
            drop(Panicked::of(&*payload));
"#,
        )],
        caught_by: &["model_endings::a_panic_reaches_a_follower"],
    },
    Bug {
        name: "unlinks only what went well",
        edits: &[(
            "group.rs",
            "        let unlinked = group.unlink(self, flight, ending);",
            r#"        let unlinked = match &result {
            Ok(_) => group.unlink(self, flight, ending),
            Err(_) => Unlinked {
                followers: flight.followers(),
                to_land: Some(flight),
                next: None,
                entry: None,
            },
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
            r#"        self.land(group, || Err(CallError::Abandoned));
"#,
            r#"        drop((group, CallError::<E>::Abandoned));
"#,
        )],
        caught_by: &["model_endings::an_abandoned_flight_wakes_its_followers"],
    },
    // async_singleflight 0.6: the old leader removes its successor's entry.
    Bug {
        name: "deletes by key",
        edits: &[("map.rs", "|named| Arc::ptr_eq(named, flight)", "|_| true")],
        caught_by: &[
            "model_order::a_leader_removes_only_its_own_entry",
            "model_order::a_later_call_gets_a_later_run",
            "model_forget::a_forgotten_flight_leaves_its_successor_alone",
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
        edits: &[("flight.rs", "self.closed.load(Ordering::Acquire)", "false")],
        caught_by: &["model_order::nobody_boards_a_closed_flight"],
    },
    Bug {
        name: "forgets to reopen a spare flight",
        edits: &[(
            "flight.rs",
            r#"        self.closed.store(false, Ordering::Relaxed);
"#,
            "",
        )],
        caught_by: &["model_order::a_later_call_gets_a_later_run"],
    },
    Bug {
        name: "uses a flight again that has followers",
        edits: &[(
            "group.rs",
            "        if alone && duty.reuse && map",
            r#"        if !alone && duty.reuse && map.may_rest(duty.hash, &flight) {
            return Unlinked {
                followers,
                to_land: Some(Arc::clone(&flight)),
                next: None,
                entry: map.rest(duty.hash, flight),
            };
        }
        if alone && duty.reuse && map"#,
        )],
        caught_by: &["model_costs::a_quiet_group_keeps_no_value"],
    },
    Bug {
        name: "counts a follower that has left",
        edits: &[(
            "flight.rs",
            "self.followers.fetch_sub(1, Ordering::Relaxed) - 1",
            "self.followers() - 1",
        )],
        caught_by: &[
            "model_endings::a_follower_may_leave",
            "model_timeout::one_that_has_timed_out_is_gone",
        ],
    },
    Bug {
        name: "reads and then writes the count",
        edits: &[(
            "flight.rs",
            "        self.followers.fetch_sub(1, Ordering::Relaxed) - 1",
            r#"        let left = self.followers() - 1;
        self.followers.store(left, Ordering::Relaxed);
        left"#,
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
            "let alone = followers == 0 && !duty.has_ticket;",
            "let alone = false && !duty.has_ticket;",
        )],
        caught_by: &["model_costs::a_lone_call_notifies_nobody"],
    },
    Bug {
        name: "takes the one with the ticket for nobody",
        edits: &[(
            "group.rs",
            "let alone = followers == 0 && !duty.has_ticket;",
            "let alone = followers == 0;",
        )],
        caught_by: &["model_ticket::a_job_lands"],
    },
    Bug {
        name: "drops a job without a word",
        edits: &[(
            "ticket.rs",
            r#"        self.duty.abandon(&self.group);
"#,
            r#"        let _ = &self.group;
"#,
        )],
        caught_by: &["model_ticket::a_job_is_dropped"],
    },
    Bug {
        name: "looks and forgets under two locks",
        edits: &[(
            "group.rs",
            r#"        let (entry, next) = map.take_out(hash, &flight, self.epoch);
        drop(map);"#,
            r#"        drop(map);
        let mut map = self.map.lock();
        let (entry, next) = map.take_out(hash, &flight, self.epoch);
        drop(map);"#,
        )],
        caught_by: &["model_forget::forget_unshared_is_exact"],
    },
    Bug {
        name: "deletes the flight when a follower times out",
        edits: &[(
            "request.rs",
            "            let deadlocked = ",
            r#"            if let Err(CallError::TimedOut) = outcome.result {
                self.group.forget(self.key);
            }
            let deadlocked = "#,
        )],
        caught_by: &["model_timeout::one_that_has_timed_out_is_gone"],
    },
    Bug {
        name: "serves the next flight's callers with this one",
        edits: &[(
            "map.rs",
            "    let (flight, part) = if wish.next_flight {",
            "    let (flight, part) = if false && wish.next_flight {",
        )],
        caught_by: &[
            "model_next::one_caller_of_the_next_flight",
            "model_next::two_callers_of_the_next_flight",
        ],
    },
    Bug {
        name: "never tells the next flight to begin",
        edits: &[(
            "group.rs",
            r#"        if let Some(next) = unlinked.next {
            next.vacate();
        }
"#,
            "",
        )],
        caught_by: &["model_next::one_caller_of_the_next_flight"],
    },
    Bug {
        name: "forgets a flight and the one behind it",
        edits: &[(
            "group.rs",
            r#"        if let Some(next) = next {
            next.vacate();
        }
        drop(entry);
        true"#,
            r#"        drop((entry, next));
        true"#,
        )],
        caught_by: &["model_next::a_queued_flight_outlives_a_forgotten_one"],
    },
    Bug {
        name: "elects two leaders",
        edits: &[(
            "flight.rs",
            r#"                *phase = Phase::Running;
                self.leave();
                Some(true)"#,
            r#"                self.leave();
                Some(true)"#,
        )],
        caught_by: &["model_next::two_callers_of_the_next_flight"],
    },
    Bug {
        name: "follows a flight that has no leader",
        edits: &[(
            "flight.rs",
            "        self.was_queued() && self.phase.with(claim)",
            "        false && self.phase.with(claim)",
        )],
        caught_by: &["model_next::a_queued_caller_wakes_when_another_begins"],
    },
    Bug {
        name: "begins a queued flight without a word",
        edits: &[(
            "group.rs",
            "            flight.vacate(); // Should it have been queued: those who wait for it follow now.\n",
            "",
        )],
        caught_by: &["model_next::a_queued_caller_wakes_when_another_begins"],
    },
    Bug {
        name: "leaves a queued flight behind",
        edits: &[(
            "group.rs",
            r#"        if flight.leave() > 0 || !flight.is_vacant() {
            return;"#,
            r#"        flight.leave();
        if !flight.is_vacant() || self.epoch.now() > 0 {
            return;"#,
        )],
        caught_by: &["model_next::the_last_in_the_queue_times_out"],
    },
    Bug {
        name: "takes a queued flight from the others",
        edits: &[(
            "group.rs",
            "        if flight.leave() > 0 || !flight.is_vacant() {",
            r#"        flight.leave();
        if !flight.is_vacant() {"#,
        )],
        caught_by: &["model_next::one_of_two_in_the_queue_times_out"],
    },
    Bug {
        name: "uses a flight again that was queued",
        edits: &[(
            "map.rs",
            "        !flight.was_queued()\n",
            "        true\n",
        )],
        caught_by: &["model_next::one_caller_of_the_next_flight"],
    },
    Bug {
        name: "takes over unasked",
        edits: &[(
            "request.rs",
            "self.takeovers > 0 &&",
            "self.takeovers < 9 &&",
        ),
        (
            "request.rs",
            "                self.takeovers -= 1;",
            "                self.takeovers += 1;",
        )],
        caught_by: &["model_next::an_unwilling_follower_does_not_take_over"],
    },
    Bug {
        name: "keeps an edge after waking",
        edits: &[(
            "deadlock.rs",
            r#"        let mut edges = EDGES.lock();
        for flight in &self.leads {
            edges.remove(flight);
        }"#,
            "        let _ = &self.leads;",
        )],
        caught_by: &["model_deadlock::a_ring_of_two"],
    },
    Bug {
        name: "checks and puts its edge in under two locks",
        edits: &[(
            "deadlock.rs",
            "            check(&edges, &thread, &leads, &awaited)?;",
            r#"            check(&edges, &thread, &leads, &awaited)?;
            drop(edges);
            edges = EDGES.lock();"#,
        )],
        caught_by: &[
            "model_deadlock::a_ring_of_two",
            "model_deadlock::a_ring_of_three_bounded",
            "model_deadlock::a_ring_through_a_job",
        ],
    },
    Bug {
        name: "never checks",
        edits: &[(
            "deadlock.rs",
            "        if leads.contains(&flight) {",
            "        if leads.contains(&flight) && leads.is_empty() {",
        )],
        caught_by: &["model_deadlock::a_ring_of_two"],
    },
    Bug {
        name: "takes a landed flight for one that is led",
        edits: &[(
            "threads.rs",
            "                self.innermost.set(outer.pop().unwrap_or(0));",
            "                self.innermost.set(flight);",
        )],
        caught_by: &["model_deadlock::a_landed_flight_holds_nobody_up"],
    },
    Bug {
        name: "sees only the innermost flight that a thread leads",
        edits: &[(
            "threads.rs",
            "        let mut leads = outer.unwrap_or_default();",
            r#"        let mut leads = outer.unwrap_or_default();
        leads.clear();"#,
        )],
        caught_by: &["model_deadlock::a_ring_through_an_outer_key"],
    },
    Bug {
        name: "takes a wait with a deadline for one without",
        edits: &[(
            "deadlock.rs",
            "            Some(edge) if !edge.has_deadline => {",
            "            Some(edge) => {",
        )],
        caught_by: &["model_deadlock::a_wait_with_a_deadline_is_part_of_no_circle"],
    },
    Bug {
        name: "does not tell the graph of a flight that moves up",
        edits: &[(
            "flight.rs",
            r#"            place.move_up();
"#,
            r#"            let _ = place;
"#,
        )],
        caught_by: &["model_deadlock::a_forgotten_flight_holds_no_queue_up"],
    },
    Bug {
        name: "looks for no cycle through a queue",
        edits: &[(
            "deadlock.rs",
            "        (!moved_up).then_some(self.behind)",
            "        (moved_up && !moved_up).then_some(self.behind)",
        )],
        caught_by: &["model_deadlock::a_ring_through_the_queue"],
    },
    Bug {
        name: "does not know who runs a function",
        edits: &[(
            "group.rs",
            r#"        let leading = flight.lead();
        let result"#,
            r#"        let leading = flight;
        let result"#,
        )],
        caught_by: &[
            "model_deadlock::a_ring_of_two",
            "model_deadlock::a_ring_through_a_job",
        ],
    },
    Bug {
        name: "lets two callers begin a resting flight",
        edits: &[(
            "map.rs",
            "            let Resting { flight, .. } = self.resting.take()?;",
            "            let flight = Arc::clone(&self.resting.as_ref()?.flight);",
        )],
        caught_by: &["model_order::a_later_call_gets_a_later_run", "model_sharing::two_callers"],
    },
    Bug {
        name: "lets a flight rest that another is queued behind",
        edits: &[(
            "map.rs",
            "            && !self.queued.contains_key(&flight.id())\n",
            "",
        )],
        caught_by: &["model_next::one_caller_of_the_next_flight"],
    },
];
