//! Many keys at once, one function for all that nobody is loading.

use std::{collections::HashMap, hash::BuildHasher, mem::ManuallyDrop};

use crate::{
    error::CallError, group::FlightGroup, join::Joined, leader::Leader, leader::Leftovers,
    lookup::Lookup, outcome::Outcome, panics::drop_caught, panics::panic_of, panics::resume_first,
    panics::SafeDrop, threads,
};

impl<V, E, K, S: BuildHasher> FlightGroup<V, E, K, S> {
    /// One call for many keys: `f` loads those that nobody is loading, in one go, and the flights of
    /// the others are joined.
    ///
    /// `f` gets the keys that this call leads, in the order of `keys`, and returns their values in
    /// the same order. It runs at most once, and not at all if there are no such keys. The results
    /// come in the order of `keys`. A key named twice counts once.
    ///
    /// Each distinct key is a call of its own, in [`stats`](Self::stats) and for
    /// [`max_followers`](crate::Builder::max_followers). The call waits for the flights of others
    /// only after its own have landed, so two batches that overlap in any order never wait for each
    /// other in a cycle. The group's default time limit covers the whole batch and counts
    /// from here. Its default `max_age` applies on arrival only; those of `takeover` and
    /// `alone_on_deadlock` do not apply.
    ///
    /// # Errors
    ///
    /// Each key has an error of its own, as from [`call`](Self::call): one that is refused or times
    /// out does not affect the others. If `f` fails, all its keys get that error. A key that this
    /// thread leads already is [`Deadlock`](CallError::Deadlock) and not given to `f`.
    ///
    /// # Panics
    ///
    /// If `f` panics or does not return one value for each of its keys, after the flights of these keys have
    /// ended as [`Panicked`](CallError::Panicked). Also where [`call`](Self::call) does.
    ///
    /// ```
    /// use shared_calls::{CallError, FlightGroup};
    ///
    /// let users = FlightGroup::<String, std::io::Error, u64>::new();
    /// let names = users.call_many(&[&1, &2, &1], |ids| {
    ///     // SELECT id, name FROM users WHERE id IN (1, 2)
    ///     Ok(ids.iter().map(|id| format!("user {id}")).collect())
    /// });
    /// let names: Vec<String> = names.into_iter().collect::<Result<_, CallError<_>>>()?;
    /// assert_eq!(names, ["user 1", "user 2", "user 1"]);
    /// # Ok::<(), CallError<std::io::Error>>(())
    /// ```
    pub fn call_many<'k, Q>(
        &self,
        keys: &[&'k Q],
        f: impl FnOnce(&[&'k Q]) -> Result<Vec<V>, E>,
    ) -> Vec<Result<V, CallError<E>>>
    where
        Q: Lookup<K> + ?Sized,
        V: Clone,
    {
        let mut results: Vec<_> = keys.iter().map(|_| Err(CallError::Abandoned)).collect();
        let f = SafeDrop::new(f);
        let panic = panic_of(|| self.load_or_follow(keys, |own| f.into_inner()(own), &mut results));
        resume_first([panic], || results.drain(..).for_each(drop_caught));
        results
    }

    fn load_or_follow<'k, Q: Lookup<K> + ?Sized>(
        &self,
        keys: &[&'k Q],
        f: impl FnOnce(&[&'k Q]) -> Result<Vec<V>, E>,
        results: &mut [Result<V, CallError<E>>],
    ) where
        V: Clone,
    {
        let mut options = self.shared.defaults;
        options.fix_deadline();
        let firsts = self.firsts(keys);

        let mut led = Vec::new();
        let mut followed = Vec::new();
        for (i, key) in keys.iter().enumerate().filter(|(i, _)| firsts[*i] == *i) {
            match self.arrive(*key, &options) {
                Joined::Leader(leader) => led.push((i, leader)),
                Joined::Follower(follower) => followed.push((i, follower)),
            }
        }
        if !led.is_empty() {
            let own: Vec<_> = led.iter().map(|(i, _)| keys[*i]).collect();
            lead_all(led, || f(&own), results);
        }
        // Not before its own flights have landed.
        for (i, follower) in followed {
            results[i] = follower.wait().result;
        }
        // A key named again gets a clone of its first result.
        for (i, first) in firsts.into_iter().enumerate().filter(|(i, first)| first != i) {
            results[i] = results[first].clone();
        }
    }

    /// For each key, the index at which it is named first.
    fn firsts<Q: Lookup<K> + ?Sized>(&self, keys: &[&Q]) -> Vec<usize> {
        let mut by_hash: HashMap<u64, Vec<usize>> = HashMap::with_capacity(keys.len());
        let first = |(i, key): (usize, &&Q)| {
            let same_hash = by_hash.entry(self.shared.hasher.hash_one(key)).or_default();
            let first =
                same_hash.iter().copied().find(|i| key.is(&SafeDrop::new(keys[*i].to_key())));
            first.unwrap_or_else(|| {
                same_hash.push(i);
                i
            })
        };
        keys.iter().enumerate().map(first).collect()
    }
}

/// Runs the function of these flights and ends all of them with its result. Each leader comes with the
/// index of its own result.
fn lead_all<V: Clone, E, K, S>(
    led: Vec<(usize, Leader<'_, V, E, K, S>)>,
    f: impl FnOnce() -> Result<Vec<V>, E>,
    results: &mut [Result<V, CallError<E>>],
) {
    let keys = led.len();
    let serials: Vec<_> = led.iter().map(|(_, leader)| leader.caller.flight.serial).collect();
    let (loaded, panic) = threads::run_as_leader(&serials, || {
        let values = f()?;
        let n = values.len();
        if n != keys {
            values.into_iter().for_each(drop_caught);
            panic!("the function of a batch of {keys} keys returned {n} values");
        }
        Ok(values)
    });
    let loaded: Vec<_> = match loaded {
        Ok(values) => values.into_iter().map(Ok).collect(),
        Err(error) => vec![Err(error); keys],
    };
    let finish = led.into_iter().zip(loaded).map(|((i, leader), result)| {
        let mut leftovers = Leftovers::default();
        let mut leader = ManuallyDrop::new(leader);
        ((i, leader.group.finish(&mut leader.caller, result, &mut leftovers)), leftovers)
    });
    // All flights land before any more user code runs.
    let (ended, leftovers): (Vec<_>, Vec<_>) = finish.unzip();
    let settle = leftovers.into_iter().zip(&ended).map(|(it, (_, ended))| it.settle(ended));
    let mut panics: Vec<_> = settle.flatten().chain([panic]).collect();
    let take = |(i, ended)| panic_of(|| results[i] = Outcome::of_leader(ended).result);
    panics.extend(ended.into_iter().map(take));
    resume_first(panics, || {});
}
