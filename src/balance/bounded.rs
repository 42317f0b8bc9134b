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
        // With the one that is to be placed.
        let (mut all, mut weights) = (1, 0_u64);
        for server in 0..view.len() {
            let weight = view.weight(server);
            if let Some(load) = view.available(server).filter(|_| weight > 0) {
                (all, weights) = (all + u64::from(load), weights + u64::from(weight));
            }
        }
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
        self.available(server).is_some()
    }
    fn available(&self, server: usize) -> Option<u32> {
        // A whole number is below a bound where it is below the next whole number above.
        let most = self.each * f64::from(self.view.weight(server));
        self.view.available(server).filter(|&load| f64::from(load) < most)
    }
    fn delay(&self, server: usize) -> u64 {
        self.view.delay(server)
    }
    fn now(&self) -> u32 {
        self.view.now()
    }
}
