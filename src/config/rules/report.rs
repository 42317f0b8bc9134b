//! Collects faults, a bounded number of each severity, and says where the rest was cut.

use crate::model::{Fault, Severity};

/// Faults told of one set of files. Nobody reads more, and a file of garbage must not fill the memory.
const MOST: usize = 1000;

pub(super) struct Report<'f> {
    faults: &'f mut Vec<Fault>,
    told: usize,
    /// Notes so far; counted apart, so that they never hide an error.
    notes: usize,
}

impl<'f> Report<'f> {
    pub fn new(faults: &'f mut Vec<Fault>) -> Report<'f> {
        Report { faults, told: 0, notes: 0 }
    }

    /// Errors and warnings so far.
    pub fn told(&self) -> usize {
        self.told
    }

    pub fn push(&mut self, fault: Fault) {
        let (count, what) = match fault.severity {
            Severity::Note => (&mut self.notes, "notes"),
            _ => (&mut self.told, "faults"),
        };
        *count += 1;
        if *count <= MOST {
            self.faults.push(fault);
        } else if *count == MOST + 1 {
            let mut last = Fault::error("R0299", fault.place, format!("more than {MOST} {what}; the rest is left out"));
            last.severity = fault.severity;
            self.faults.push(last);
        }
    }
}
