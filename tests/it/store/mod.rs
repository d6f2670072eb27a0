//! The guarantees of the store.

mod activity;
mod agents;
mod agents_listing;
mod audit;
mod audit_chart;
mod capability_uses;
mod chain;
mod invalidation;
mod keys;
mod nodes;
mod units;

/// A pseudorandom generator that returns the same numbers in every run.
struct Dice(u64);

impl Dice {
    /// Returns a number below `sides`.
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % sides
    }

    fn pick<'t, T>(&mut self, of: &'t [T]) -> &'t T {
        &of[self.roll(of.len())]
    }

    fn maybe<T>(&mut self, value: T) -> Option<T> {
        (self.roll(2) == 0).then_some(value)
    }
}
