//! Latencies, kept in cells that grow with them: right to one part in 64.

pub struct Histogram {
    cells: Vec<u64>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { cells: vec![0; 64 * 64], total: 0 }
    }
}

impl Histogram {
    pub fn add(&mut self, nanoseconds: u64) {
        self.cells[cell(nanoseconds)] += 1;
        self.total += 1;
    }

    /// The value below which this share of all lies, in microseconds; 0 when nothing was added.
    pub fn microseconds(&self, share: f64) -> f64 {
        let wanted = ((self.total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        let found = self.cells.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        found.map_or(0.0, |cell| floor(cell) as f64 / 1000.0)
    }
}

/// Below 64 each value has its own cell; above, each power of two has 64.
fn cell(value: u64) -> usize {
    if value < 64 {
        return value as usize;
    }
    let shift = value.ilog2() as usize - 6;
    (shift + 1) * 64 + (value >> shift) as usize - 64
}

fn floor(cell: usize) -> u64 {
    match cell / 64 {
        0 => cell as u64,
        row => (64 + cell as u64 % 64) << (row - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_hold_what_they_say() {
        for value in (0..2000).chain([1 << 20, 12_345_678, u64::MAX >> 1]) {
            let low = floor(cell(value));
            assert!(low <= value && value - low <= value / 64, "{value} {low}");
        }
        let mut histogram = Histogram::default();
        (1..=100).for_each(|ms| histogram.add(ms * 1_000_000));
        assert!((histogram.microseconds(0.5) - 50_000.0).abs() < 800.0);
        assert!((histogram.microseconds(0.99) - 99_000.0).abs() < 1600.0);
    }
}
