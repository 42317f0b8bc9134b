//! Small numbers for names: listeners, pools and servers.
//!
//! Counters and the idle connections of a core are arrays indexed by these. A name keeps its number while
//! the process lives, also over reloads that drop it and bring it back; no number is given twice. The table
//! is as long as the number of different names that were ever configured.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Debug, Default)]
pub struct Names(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    ids: HashMap<Arc<str>, u32>,
    names: Vec<Arc<str>>,
}

impl Names {
    /// The number of a name; a new one when it was not seen before. Takes a lock: not for the request path.
    pub fn id(&self, name: &Arc<str>) -> u32 {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&id) = inner.ids.get(name) {
            return id;
        }
        // Configured names are far fewer than 2^32: each has taken a line of a file.
        let id = inner.names.len() as u32;
        inner.names.push(Arc::clone(name));
        inner.ids.insert(Arc::clone(name), id);
        id
    }

    /// The name behind a number.
    pub fn name(&self, id: u32) -> Option<Arc<str>> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.names.get(id as usize).cloned()
    }

    /// How many numbers were given; all are below this.
    pub fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).names.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_dense_and_stay() {
        let names = Names::default();
        let ids: Vec<u32> = ["web", "images", "web", "api"].iter().map(|&name| names.id(&Arc::from(name))).collect();
        assert_eq!(ids, [0, 1, 0, 2]);
        assert_eq!(names.name(1).as_deref(), Some("images"));
        assert_eq!(names.name(3), None);
        assert_eq!(names.len(), 3);
    }
}
