//! Pipes for splicing, kept by one worker: making one costs three calls.

use std::cell::RefCell;
use std::io;

use crate::sys::splice::Pipe;

/// Kept; each is two descriptors.
const KEEP: usize = 32;

#[derive(Debug, Default)]
pub struct Pipes {
    free: RefCell<Vec<Pipe>>,
}

impl Pipes {
    /// # Errors
    /// When descriptors are short.
    pub fn take(&self) -> io::Result<Pipe> {
        match self.free.borrow_mut().pop() {
            Some(pipe) => Ok(pipe),
            None => Pipe::new(),
        }
    }

    /// Gives back an empty pipe. One that may hold bytes has to be dropped instead.
    pub fn keep(&self, pipe: Pipe) {
        let mut free = self.free.borrow_mut();
        if free.len() < KEEP {
            free.push(pipe);
        }
    }
}
