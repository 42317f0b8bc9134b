//! IPVS's estimate of rates: a look every two seconds, and an average in which the last look counts a quarter.
//!
//! The numbers are kept with 10 bits after the point for connections and packets and 5 for bytes, and rounded as IPVS rounds
//! them, so that what is shown is what IPVS would show.

use std::time::Duration;

use crate::state::director::{Counted, Rates};

/// Between two looks.
pub const EVERY: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Estimator {
    last: Counted,
    /// In the units above.
    connections: u64,
    packets_in: u64,
    packets_out: u64,
    bytes_in: u64,
    bytes_out: u64,
}

impl Estimator {
    /// One that begins with what has been counted before it.
    pub fn new(counted: Counted) -> Estimator {
        Estimator { last: counted, ..Estimator::default() }
    }

    /// A look, [`EVERY`] after the last one. Counters that went back begin anew.
    pub fn look(&mut self, counted: Counted) {
        let Counted { connections, packets_in, packets_out, bytes_in, bytes_out } = self.last;
        self.last = counted;
        // Twice a second's worth has come: 2^10 a second is 2^9 for two.
        average(&mut self.connections, counted.connections.saturating_sub(connections) << 9);
        average(&mut self.packets_in, counted.packets_in.saturating_sub(packets_in) << 9);
        average(&mut self.packets_out, counted.packets_out.saturating_sub(packets_out) << 9);
        average(&mut self.bytes_in, counted.bytes_in.saturating_sub(bytes_in) << 4);
        average(&mut self.bytes_out, counted.bytes_out.saturating_sub(bytes_out) << 4);
    }

    pub fn rates(&self) -> Rates {
        let tenth = |rate: u64| (rate + 0x1ff) >> 10;
        let fifth = |rate: u64| (rate + 0xf) >> 5;
        Rates {
            connections: tenth(self.connections),
            packets_in: tenth(self.packets_in),
            packets_out: tenth(self.packets_out),
            bytes_in: fifth(self.bytes_in),
            bytes_out: fifth(self.bytes_out),
        }
    }
}

/// A quarter of the way, rounded down in both directions.
fn average(average: &mut u64, rate: u64) {
    let step = (rate.cast_signed() - average.cast_signed()) >> 2;
    *average = average.saturating_add_signed(step);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_near_by_quarters_and_goes_the_same_way() {
        let mut estimator = Estimator::new(Counted::default());
        let mut counted = Counted::default();
        let mut seen = Vec::new();
        for _ in 0..6 {
            // 100 connections and 1,000,000 bytes a second.
            counted.connections += 200;
            counted.bytes_in += 2_000_000;
            estimator.look(counted);
            seen.push((estimator.rates().connections, estimator.rates().bytes_in));
        }
        // 100 * (1 - 0.75^n), by IPVS's rounding.
        assert_eq!(seen, [(25, 250_000), (44, 437_500), (58, 578_125), (68, 683_594), (76, 762_695), (82, 822_021)]);
        for _ in 0..60 {
            estimator.look(counted);
        }
        assert_eq!(estimator.rates(), Rates::default());
        estimator.look(Counted::default());
        assert_eq!(estimator.rates(), Rates::default(), "counters that went back");
    }

    #[test]
    fn what_was_counted_before_is_no_rate() {
        let many = Counted { packets_in: 1 << 40, ..Counted::default() };
        let mut estimator = Estimator::new(many);
        estimator.look(Counted { packets_in: (1 << 40) + 4000, ..Counted::default() });
        assert_eq!(estimator.rates().packets_in, 500);
    }
}
