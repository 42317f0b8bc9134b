//! A small automaton in a few lines of memory.
//!
//! Tables of a common automaton take two kilobytes for a short regex, spread over several places: of
//! 100,000 different ones none is ever in a cache. Here the states of one lie in one piece, each as
//! the ranges of bytes that lead on, a hundred bytes or two in all.
//!
//! ```text
//!    state:  count << 1 | accepts at the end     then count times:  low | high << 8,  next state
//! ```

use regex_automata::Anchored;
use regex_automata::dfa::{Automaton, dense};
use regex_automata::util::primitives::StateID;
use regex_automata::util::start;
use smallvec::SmallVec;

use super::hash::Map;

#[derive(Debug)]
pub(super) struct Small {
    /// Where it begins, by what stands before: nothing, a word's byte, another, CR, LF.
    starts: [u16; 5],
    /// In place where they are few: so they lie beside what leads to them.
    states: SmallVec<[u16; IN_PLACE]>,
}

/// A next state: there is a match, whatever follows.
const MATCH: u16 = u16::MAX;
/// Words that a short tail needs.
const IN_PLACE: usize = 80;
/// Words of all states together: beyond, a table is better.
const LARGEST: usize = 1024;
/// Ranges of one state, as they are searched one by one.
const RANGES: usize = 16;

impl Small {
    /// The same automaton, if it is a small one.
    pub fn new(table: &dense::DFA<Vec<u32>>, anchored: Anchored) -> Option<Small> {
        let mut found = Found { order: Vec::new(), numbers: Map::default() };
        let mut starts = [0; 5];
        for (start, before) in starts.iter_mut().zip([None, Some(b'a'), Some(b'/'), Some(b'\r'), Some(b'\n')]) {
            let state = table.start_state(&start::Config::new().anchored(anchored).look_behind(before)).ok()?;
            *start = found.number(state);
        }
        // All states there are, in the order they are met, and where each will lie.
        let (mut all, mut places, mut words) = (Vec::new(), Vec::new(), 0);
        while let Some(state) = found.order.get(all.len()).copied() {
            let ranges = ranges(table, state)?;
            for (_, _, next) in ranges.iter().filter(|(_, _, next)| !table.is_match_state(*next)) {
                found.number(*next);
            }
            places.push(u16::try_from(words).ok()?);
            words += 1 + 2 * ranges.len();
            if words > LARGEST {
                return None;
            }
            all.push((ranges, table.is_match_state(table.next_eoi_state(state))));
        }
        let place = |number: usize| places.get(number).copied();
        let mut states = SmallVec::with_capacity(words);
        for (ranges, accepts) in all {
            states.push((ranges.len() as u16) << 1 | u16::from(accepts));
            for (low, high, next) in ranges {
                states.push(u16::from(low) | u16::from(high) << 8);
                states.push(if table.is_match_state(next) { MATCH } else { place(found.number(next))? });
            }
        }
        let starts = [place(starts[0])?, place(starts[1])?, place(starts[2])?, place(starts[3])?, place(starts[4])?];
        Some(Small { starts, states })
    }

    /// Whether there is a match that begins at `at` (or behind it, if the automaton is not anchored).
    #[inline]
    pub fn is_match(&self, text: &[u8], at: usize) -> bool {
        let before = at.checked_sub(1).and_then(|before| text.get(before));
        let mut state = self.starts[match before {
            None => 0,
            Some(b'\r') => 3,
            Some(b'\n') => 4,
            Some(byte) if byte.is_ascii_alphanumeric() || *byte == b'_' => 1,
            Some(_) => 2,
        }];
        for byte in text.get(at..).unwrap_or_default() {
            let Some((head, rest)) = self.states.get(usize::from(state)..).and_then(<[u16]>::split_first) else {
                return false;
            };
            let ranges = rest.get(..usize::from(head >> 1) * 2).unwrap_or_default();
            let next = ranges.chunks_exact(2).find(|range| (range[0] as u8..=(range[0] >> 8) as u8).contains(byte));
            match next {
                Some([_, MATCH]) => return true,
                Some([_, next]) => state = *next,
                _ => return false,
            }
        }
        self.states.get(usize::from(state)).is_some_and(|head| head & 1 == 1)
    }
}

/// States met so far, numbered in that order.
struct Found {
    order: Vec<StateID>,
    numbers: Map<StateID, usize>,
}

impl Found {
    fn number(&mut self, state: StateID) -> usize {
        *self.numbers.entry(state).or_insert_with(|| {
            self.order.push(state);
            self.order.len() - 1
        })
    }
}

/// The bytes that lead on from a state, and where to; `None` if there are too many to be searched.
fn ranges(table: &dense::DFA<Vec<u32>>, state: StateID) -> Option<Vec<(u8, u8, StateID)>> {
    let mut ranges: Vec<(u8, u8, StateID)> = Vec::new();
    for byte in 0..=255 {
        let next = table.next_state(state, byte);
        if table.is_quit_state(next) {
            return None;
        }
        match ranges.last_mut() {
            _ if table.is_dead_state(next) => {}
            Some((_, high, last)) if *last == next && *high + 1 == byte => *high = byte,
            _ => ranges.push((byte, byte, next)),
        }
    }
    Some(ranges).filter(|ranges| ranges.len() <= RANGES)
}
