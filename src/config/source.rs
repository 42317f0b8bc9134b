//! The texts that were read, by name, and where in them a byte is.
//!
//! Faults carry places (`model::Place`); whoever prints them finds the line again here.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use crate::model::Place;

/// Every text of one load.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    texts: BTreeMap<Arc<str>, Text>,
    /// The files of lists and maps, as they were just before they were read.
    lists: Vec<Seen>,
}

/// A file as it was at some time: another one when its time or its length is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub path: PathBuf,
    /// When it was changed last, and how long it was; `None`: it could not be looked at.
    state: Option<(SystemTime, u64)>,
}

impl Seen {
    /// As it is now.
    pub fn now(path: &Path) -> Seen {
        let state = std::fs::metadata(path).and_then(|data| Ok((data.modified()?, data.len()))).ok();
        Seen { path: path.to_owned(), state }
    }
}

#[derive(Debug, Clone)]
struct Text {
    text: Arc<str>,
    /// Byte offset of the first character of each line; never empty.
    starts: Vec<usize>,
}

impl Sources {
    pub fn new() -> Sources {
        Sources::default()
    }

    /// Keeps a text under the name that its places will carry.
    pub fn add(&mut self, name: impl Into<Arc<str>>, text: impl Into<Arc<str>>) {
        let text = text.into();
        let mut starts = vec![0];
        starts.extend(memchr::memchr_iter(b'\n', text.as_bytes()).map(|at| at + 1));
        self.texts.insert(name.into(), Text { text, starts });
    }

    /// Notes that the file of a list or map is about to be read.
    pub fn saw(&mut self, list: Seen) {
        self.lists.push(list);
    }

    /// The files of lists and maps.
    pub fn lists(&self) -> &[Seen] {
        &self.lists
    }

    /// The names of all texts.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.texts.keys().map(|name| &**name)
    }

    pub fn text(&self, name: &str) -> Option<&Arc<str>> {
        self.texts.get(name).map(|text| &text.text)
    }

    /// A line without its end, counted from 1.
    pub fn line(&self, name: &str, number: u32) -> Option<&str> {
        let text = self.texts.get(name)?;
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        let range = text.line(index)?;
        text.text.get(range)
    }

    /// The place of a range of bytes. What reaches over the end of its line is cut there, and a place
    /// is never narrower than one character, so that there is something to point at.
    pub fn place(&self, file: &Arc<str>, range: Range<usize>) -> Place {
        let Some(text) = self.texts.get(file) else { return Place::file(file.clone()) };
        let start = boundary(&text.text, range.start);
        let index = text.starts.partition_point(|first| *first <= start).saturating_sub(1);
        let line = text.line(index).unwrap_or(start..start);
        let end = boundary(&text.text, range.end).clamp(start.min(line.end), line.end.max(start));
        let column = 1 + count(&text.text, line.start..start);
        let end = (column + count(&text.text, start..end)).max(column.saturating_add(1));
        Place { file: file.clone(), line: u32::try_from(index + 1).unwrap_or(u32::MAX), column, end }
    }
}

impl Text {
    /// The bytes of a line, its end left out; `index` counts from 0.
    fn line(&self, index: usize) -> Option<Range<usize>> {
        let start = *self.starts.get(index)?;
        let end = self.starts.get(index + 1).map_or(self.text.len(), |next| next - 1);
        let carriage = end > start && self.text.as_bytes().get(end - 1) == Some(&b'\r');
        Some(start..if carriage { end - 1 } else { end })
    }
}

/// The last character boundary at or before an offset.
fn boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

fn count(text: &str, range: Range<usize>) -> u32 {
    let characters = text.get(range).map_or(0, |part| part.chars().count());
    u32::try_from(characters).unwrap_or(u32::MAX - 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(text: &str) -> (Sources, Arc<str>) {
        let mut sources = Sources::new();
        sources.add("f", text);
        (sources, "f".into())
    }

    #[test]
    fn columns_are_characters() {
        let (sources, file) = sources("a = 1\nä = \"ö\" # x\r\nlast");
        let place = sources.place(&file, 11..15);
        assert_eq!((place.line, place.column, place.end), (2, 5, 8));
        assert_eq!(sources.line("f", 2), Some("ä = \"ö\" # x"));
        assert_eq!(sources.line("f", 3), Some("last"));
        assert_eq!(sources.line("f", 4), None);
        assert_eq!(sources.line("f", 0), None);
    }

    #[test]
    fn a_span_over_lines_ends_with_its_first_line() {
        let (sources, file) = sources("x = {\n a = 1 }\n");
        let place = sources.place(&file, 4..14);
        assert_eq!((place.line, place.column, place.end), (1, 5, 6));
    }

    #[test]
    fn no_offset_is_outside() {
        let (sources, file) = sources("é\n");
        for start in 0..6 {
            for end in 0..6 {
                let place = sources.place(&file, start..end);
                assert!(place.line >= 1 && place.column >= 1 && place.end > place.column);
            }
        }
        let place = sources.place(&file, usize::MAX..usize::MAX);
        assert_eq!((place.line, place.column), (2, 1));
        assert_eq!(sources.place(&"other".into(), 0..1), Place::file("other"));
    }
}
