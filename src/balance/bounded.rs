//! Bounded loads: nobody has more than so many times its share of all that is in hand (Mirrokni, Thorup, Zadimoghaddam,
//! "Consistent Hashing with Bounded Loads", 2016). A key whose server has goes to its next best.

use super::View;

/// The servers of `view`, as if those were full that are over the bound.
#[derive(Debug)]
pub struct Bounded<'v, V> {
    view: &'v V,
    /// Requests that one of weight 1 may have.
    each: f64,
}

impl<'v, V: View> Bounded<'v, V> {
    /// `factor`: at least 1.
    pub fn new(view: &'v V, factor: f64) -> Bounded<'v, V> {
        let usable = || (0..view.len()).filter(|&server| view.usable(server));
        // With the one that is to be placed.
        let all = usable().map(|server| u64::from(view.load(server))).sum::<u64>() + 1;
        let weights: u64 = usable().map(|server| u64::from(view.weight(server))).sum();
        Bounded { view, each: factor * all as f64 / weights.max(1) as f64 }
    }
}

impl<V: View> View for Bounded<'_, V> {
    fn len(&self) -> usize {
        self.view.len()
    }
    fn weight(&self, server: usize) -> u32 {
        self.view.weight(server)
    }
    fn load(&self, server: usize) -> u32 {
        self.view.load(server)
    }
    fn seed(&self, server: usize) -> u64 {
        self.view.seed(server)
    }
    fn open(&self, server: usize) -> bool {
        let most = (self.each * f64::from(self.view.weight(server))).ceil();
        f64::from(self.view.load(server)) < most && self.view.open(server)
    }
    fn delay(&self, server: usize) -> u64 {
        self.view.delay(server)
    }
    fn now(&self) -> u32 {
        self.view.now()
    }
}
