//! A bounded memory that threads read without waiting: a set-associative cache, as processors have them. What falls into
//! one set beyond its ways drives out another of them; with the sets half full, that is one in some hundred.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwapOption;

/// Places in a set.
const WAYS: usize = 4;

/// Remembers a bounded number of values, each in the set of its hash.
pub struct SetAssociative<T> {
    sets: Box<[[ArcSwapOption<T>; WAYS]]>,
    /// Which way of a full set is next.
    next: AtomicUsize,
}

impl<T> SetAssociative<T> {
    /// Of `most` values at most; of four at least.
    #[must_use]
    pub fn new(most: usize) -> Self {
        let set = |_| std::array::from_fn(|_| ArcSwapOption::empty());
        Self { sets: (0..(most / WAYS).max(1)).map(set).collect(), next: AtomicUsize::new(0) }
    }

    /// What `take` makes of the first value of the hash's set that it makes anything of: others fall into it too.
    pub fn find<R>(&self, hash: usize, take: impl Fn(&Arc<T>) -> Option<R>) -> Option<R> {
        self.set(hash)?.iter().find_map(|place| place.load().as_ref().and_then(&take))
    }

    /// Remembers `value`, in the place of what it `replaces`, a free one, or another's.
    pub fn put(&self, hash: usize, value: Arc<T>, replaces: impl Fn(&T) -> bool) {
        let Some(set) = self.set(hash) else { return };
        let is = |wanted: &dyn Fn(Option<&Arc<T>>) -> bool| set.iter().find(|place| wanted(place.load().as_ref()));
        let place = is(&|known| known.is_some_and(|known| replaces(known)))
            .or_else(|| is(&|known| known.is_none()))
            .or_else(|| set.get(self.next.fetch_add(1, Ordering::Relaxed) % WAYS));
        if let Some(place) = place {
            place.store(Some(value));
        }
    }

    fn set(&self, hash: usize) -> Option<&[ArcSwapOption<T>; WAYS]> {
        self.sets.get(hash % self.sets.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_of_one_set_are_remembered_and_a_fifth_drives_one_out() {
        let cache = SetAssociative::new(8);
        let put = |hash: usize, value: usize| cache.put(hash, Arc::new((hash, value)), |known| known.0 == hash);
        let get = |hash: usize| cache.find(hash, |known| (known.0 == hash).then_some(known.1));
        for hash in [0, 2, 4, 6] {
            put(hash, 1);
            put(hash, 2);
        }
        put(1, 3);
        assert_eq!([0, 2, 4, 6, 1, 3].map(get), [Some(2), Some(2), Some(2), Some(2), Some(3), None]);
        put(8, 4);
        let kept = [0, 2, 4, 6].map(get).into_iter().flatten().count();
        assert_eq!((get(8), kept, get(1)), (Some(4), 3, Some(3)));
    }
}
