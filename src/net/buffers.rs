//! Buffers of one worker, taken when there is something to read and given back when it is done.
//!
//! An idle connection holds none: that is most of what an idle connection would cost.

use std::cell::RefCell;
use std::rc::Rc;

/// Fits nearly every head together with a small body.
pub const SMALL: usize = 16 << 10;
/// For bodies: larger saves calls until 128 KiB, and nothing beyond.
pub const LARGE: usize = 128 << 10;

/// Kept of each size; more are freed. 4 MiB and 2 MiB a worker.
const KEEP_SMALL: usize = 256;
const KEEP_LARGE: usize = 16;

/// What a text begins with: nearly every head fits.
const TEXT: usize = 4 << 10;
/// A text that has grown beyond this is not kept.
const MOST_TEXT: usize = 2 * SMALL;
/// What a long text begins with: [`LARGE`], and a frame that goes beyond it.
const LONG_TEXT: usize = LARGE + 2 * SMALL;

/// The free buffers of one worker.
#[derive(Debug, Default)]
pub struct Buffers {
    small: RefCell<Vec<Box<[u8]>>>,
    large: RefCell<Vec<Box<[u8]>>>,
    texts: RefCell<Vec<Vec<u8>>>,
    long_texts: RefCell<Vec<Vec<u8>>>,
}

/// Bytes that have been read and are not used up: `bytes[start..end]`.
#[derive(Debug)]
pub struct Buffer {
    /// Empty once it has been given back.
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
    home: Rc<Buffers>,
}

impl Buffers {
    /// A buffer of [`SMALL`] bytes.
    pub fn small(self: &Rc<Self>) -> Buffer {
        let bytes = self.small.borrow_mut().pop();
        self.buffer(bytes, SMALL)
    }

    /// A buffer of [`LARGE`] bytes.
    pub fn large(self: &Rc<Self>) -> Buffer {
        let bytes = self.large.borrow_mut().pop();
        self.buffer(bytes, LARGE)
    }

    /// An empty vector to write a head into; give it back with [`Buffers::keep_text`].
    pub fn text(&self) -> Vec<u8> {
        self.texts.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(TEXT))
    }

    /// The same for what does not fit into a text.
    pub fn long_text(&self) -> Vec<u8> {
        self.long_texts.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(LONG_TEXT))
    }

    pub fn keep_text(&self, mut text: Vec<u8>) {
        let (list, most) = match text.capacity() {
            TEXT..=MOST_TEXT => (&self.texts, KEEP_SMALL),
            LONG_TEXT => (&self.long_texts, KEEP_LARGE),
            // A shorter one would have to grow again and again, a longer one holds too much.
            _ => return,
        };
        let mut list = list.borrow_mut();
        if list.len() < most {
            text.clear();
            list.push(text);
        }
    }

    /// A buffer that holds a copy of `bytes`, with room for more.
    pub fn holding(self: &Rc<Self>, bytes: &[u8]) -> Buffer {
        let mut buffer = match bytes.len() {
            0..SMALL => self.small(),
            SMALL..LARGE => self.large(),
            more => self.buffer(None, more + SMALL),
        };
        // There is room: the sizes above are larger than `bytes`.
        buffer.append(bytes);
        buffer
    }

    fn buffer(self: &Rc<Self>, bytes: Option<Box<[u8]>>, size: usize) -> Buffer {
        let bytes = bytes.unwrap_or_else(|| vec![0; size].into_boxed_slice());
        Buffer { bytes, start: 0, end: 0, home: self.clone() }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let (list, most) = match self.bytes.len() {
            SMALL => (&self.home.small, KEEP_SMALL),
            LARGE => (&self.home.large, KEEP_LARGE),
            _ => return,
        };
        let mut list = list.borrow_mut();
        if list.len() < most {
            list.push(std::mem::take(&mut self.bytes));
        }
    }
}

impl Buffer {
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }

    pub fn len(&self) -> usize {
        self.end - self.start
    }

    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Bytes that may still be added.
    pub fn room(&self) -> usize {
        self.bytes.len() - self.end
    }

    pub fn capacity(&self) -> usize {
        self.bytes.len()
    }

    /// Leaves `count` bytes of an empty buffer unused at its front.
    pub fn begin_at(&mut self, count: usize) {
        self.start = count.min(self.bytes.len());
        self.end = self.start;
    }

    /// The room behind what is there; say with [`Buffer::added`] how much of it was filled.
    pub fn spare(&mut self) -> &mut [u8] {
        &mut self.bytes[self.end..]
    }

    pub fn added(&mut self, count: usize) {
        self.end = (self.end + count).min(self.bytes.len());
    }

    /// Drops all but the first `count` bytes and gives the buffer back for one that just holds them:
    /// for what has to be kept long.
    pub fn shrink_to(&mut self, count: usize) {
        let kept = self.as_slice()[..count.min(self.len())].into();
        let fitted = Buffer { bytes: kept, start: 0, end: count.min(self.len()), home: self.home.clone() };
        drop(std::mem::replace(self, fitted));
    }

    /// Adds `bytes`. False, and nothing added, where there is no room for all of them.
    pub fn append(&mut self, bytes: &[u8]) -> bool {
        let fits = bytes.len() <= self.room();
        if fits {
            self.spare()[..bytes.len()].copy_from_slice(bytes);
            self.added(bytes.len());
        }
        fits
    }

    /// Drops `count` bytes from the front.
    pub fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
        if self.start == self.end {
            self.clear();
        }
    }

    pub fn clear(&mut self) {
        self.start = 0;
        self.end = 0;
    }

    /// Moves what is there to the front, for room behind it.
    pub fn compact(&mut self) {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
    }

    /// Makes room for at least one byte more, up to `limit` bytes in all. False: the limit is reached.
    pub fn grow(&mut self, limit: usize) -> bool {
        self.reserve(1, limit)
    }

    /// Makes room for `count` bytes more, up to `limit` bytes in all. False: there is none, and none was made.
    pub fn reserve(&mut self, count: usize, limit: usize) -> bool {
        self.compact();
        if self.room() >= count {
            return true;
        }
        let least = self.end.saturating_add(count);
        if least > limit {
            return false;
        }
        let mut larger = vec![0; (self.bytes.len() * 2).min(limit).max(least)].into_boxed_slice();
        larger[..self.end].copy_from_slice(&self.bytes[..self.end]);
        self.bytes = larger;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_used_again() {
        let buffers = Rc::new(Buffers::default());
        let first = buffers.small();
        let at = first.bytes.as_ptr();
        drop(first);
        assert_eq!(buffers.small().bytes.as_ptr(), at);
    }

    #[test]
    fn texts_that_are_kept_have_room() {
        let buffers = Buffers::default();
        buffers.keep_text(Vec::new());
        assert!(buffers.text().capacity() >= TEXT && buffers.long_text().capacity() > LARGE);
        let long = buffers.long_text();
        let at = long.as_ptr();
        buffers.keep_text(long);
        let (text, again) = (buffers.text(), buffers.long_text());
        assert_eq!((text.capacity(), again.as_ptr()), (TEXT, at));
    }

    #[test]
    fn bytes_of_any_length_find_a_buffer() {
        let buffers = Rc::new(Buffers::default());
        for length in [0, 1, SMALL - 1, SMALL, LARGE - 1, LARGE, 1 << 20] {
            let buffer = buffers.holding(&vec![7; length]);
            assert!(buffer.len() == length && buffer.room() > 0, "{length}");
        }
    }

    #[test]
    fn what_is_kept_long_takes_no_more_than_it_needs() {
        let buffers = Rc::new(Buffers::default());
        let mut buffer = buffers.holding(b"xhead and more");
        buffer.consume(1);
        buffer.shrink_to(4);
        assert_eq!((buffer.as_slice(), buffer.capacity()), (&b"head"[..], 4));
        assert_eq!(buffers.small.borrow().len(), 1, "the large one is free again");
    }

    #[test]
    fn a_buffer_grows_to_its_limit() {
        let buffers = Rc::new(Buffers::default());
        let mut buffer = buffers.small();
        buffer.added(SMALL);
        buffer.consume(10);
        assert!(buffer.grow(SMALL) && buffer.len() == SMALL - 10 && buffer.room() == 10);
        buffer.added(10);
        assert!(!buffer.grow(SMALL));
        assert!(buffer.grow(SMALL + 5) && buffer.room() == 5);
    }

    #[test]
    fn room_is_made_for_more_than_there_is() {
        let buffers = Rc::new(Buffers::default());
        let mut buffer = buffers.small();
        let piece = vec![7; 12 << 10];
        assert!(buffer.append(&piece) && !buffer.append(&piece));
        assert!(buffer.room() > 0 && !buffer.reserve(piece.len(), 2 * piece.len() - 1));
        assert!(buffer.reserve(piece.len(), 2 * piece.len()) && buffer.append(&piece));
        assert_eq!((buffer.len(), buffer.room()), (2 * piece.len(), 0));
        assert!(buffer.reserve(0, 0) && !buffer.reserve(usize::MAX, usize::MAX - 1));
    }
}
