//! Bounded loads: nobody has more than so many times its share of all that is in hand (Mirrokni, Thorup, Zadimoghaddam,
//! "Consistent Hashing with Bounded Loads", 2016). A key whose server has goes to its next best.

use std::cell::OnceCell;

use super::View;

/// The servers of `view`, as if those were full that are over the bound.
#[derive(Debug)]
pub struct Bounded<'v, V> {
    view: &'v V,
    factor: f64,
    /// Requests that one of weight 1 may have: counted when the first is asked for that has some in hand.
    each: OnceCell<f64>,
}

impl<'v, V: View> Bounded<'v, V> {
    /// `factor`: at least 1.
    pub fn new(view: &'v V, factor: f64) -> Bounded<'v, V> {
        Bounded { view, factor, each: OnceCell::new() }
    }

    fn each(&self) -> f64 {
        // With the one that is to be placed.
        let (mut all, mut weights) = (1, 0_u64);
        for server in 0..self.view.len() {
            let weight = self.view.weight(server);
            if let Some(load) = self.view.available(server).filter(|_| weight > 0) {
                (all, weights) = (all + u64::from(load), weights + u64::from(weight));
            }
        }
        self.factor * all as f64 / weights.max(1) as f64
    }
}

impl<V: View> View for Bounded<'_, V> {
    fn len(&self) -> usize {
        self.view.len()
    }
    fn weight(&self, server: usize) -> u32 {
        self.view.weight(server)
    }
    fn heaviest(&self) -> u32 {
        self.view.heaviest()
    }
    fn lightest(&self) -> u32 {
        self.view.lightest()
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
        let load = self.view.available(server)?;
        // One that has nothing in hand has less than any share. A whole number is below a bound where it is below the
        // next whole number above.
        let takes =
            |load| f64::from(load) < self.each.get_or_init(|| self.each()) * f64::from(self.view.weight(server));
        (load == 0 || takes(load)).then_some(load)
    }
    fn delay(&self, server: usize) -> u64 {
        self.view.delay(server)
    }
    fn now(&self) -> u32 {
        self.view.now()
    }
}
