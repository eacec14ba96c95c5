//! Choices, drawn from a seed: equal seeds make equal bundles. How much is made is bounded by a size, which shrinks.

/// A stream of choices (SplitMix64).
#[derive(Debug, Clone)]
pub struct Tape {
    state: u64,
    /// How much of everything there is at most.
    pub size: usize,
}

impl Tape {
    pub fn new(seed: u64, size: usize) -> Self {
        Self { state: seed, size }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    /// True in `percent` of a hundred times.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of `items`.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// Up to `most` of `items`, each once.
    pub fn some<T: Clone>(&mut self, items: &[T], most: usize) -> Vec<T> {
        let mut left: Vec<T> = items.to_vec();
        let count = self.below(most.min(items.len()) + 1);
        (0..count).map(|_| left.swap_remove(self.below(left.len()))).collect()
    }

    /// One to `most` of `items`, each once.
    pub fn several<T: Clone>(&mut self, items: &[T], most: usize) -> Vec<T> {
        let mut left: Vec<T> = items.to_vec();
        let count = 1 + self.below(most.min(items.len()));
        (0..count).map(|_| left.swap_remove(self.below(left.len()))).collect()
    }

    /// `items` in another order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.below(at + 1));
        }
    }
}
