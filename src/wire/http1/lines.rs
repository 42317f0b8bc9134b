//! Field lines on their way from one head into another.
//!
//! A line that came as it goes on is copied as it stands, together with those that lie beside it: most of
//! a head is two or three pieces.

use std::ops::Range;

use crate::wire::field::Field;

/// Appends those of the field lines that `keeps` says yes to. `from` is what they were borrowed from.
#[inline]
pub fn copy<'f>(from: &[u8], fields: impl Iterator<Item = &'f Field<'f>>, out: &mut Vec<u8>) {
    let mut lines = Lines::new(from);
    for field in fields {
        lines.copy(field, out);
    }
    lines.end(out);
}

/// Appends one field line.
pub fn write(name: &str, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// What is copied so far.
struct Lines<'a> {
    /// What the fields were borrowed from.
    from: &'a [u8],
    /// The piece that is still to be copied.
    piece: Range<usize>,
}

impl<'a> Lines<'a> {
    fn new(from: &'a [u8]) -> Lines<'a> {
        Lines { from, piece: 0..0 }
    }

    #[inline]
    fn copy(&mut self, field: &Field<'_>, out: &mut Vec<u8>) {
        match self.place(field) {
            Some(line) if line.start == self.piece.end => self.piece.end = line.end,
            Some(line) => {
                self.end(out);
                self.piece = line;
            }
            None => {
                self.end(out);
                self.piece = 0..0;
                write(field.name, field.value, out);
            }
        }
    }

    /// Where the line stands, if it is written there as it would be written here.
    #[inline]
    fn place(&self, field: &Field<'_>) -> Option<Range<usize>> {
        let start = (field.name.as_ptr() as usize).wrapping_sub(self.from.as_ptr() as usize);
        let colon = start.checked_add(field.name.len())?;
        let end = colon.checked_add(field.value.len() + 4)?;
        let line = self.from.get(start..end)?;
        let (colon, rest) = line[field.name.len()..].split_first_chunk::<2>()?;
        let same = colon == b": " && rest.as_ptr() == field.value.as_ptr() && rest.ends_with(b"\r\n");
        same.then_some(start..end)
    }

    /// Copies what is left.
    #[inline]
    fn end(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.from[self.piece.clone()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Limits;
    use crate::wire::http1::request;

    fn copied(head: &str, keeps: impl Fn(&Field<'_>) -> bool) -> String {
        let head = request::parse(head.as_bytes(), &Limits::default()).unwrap().unwrap();
        let mut out = b"start\r\n".to_vec();
        copy(head.raw, head.fields.iter().filter(|field| keeps(field)), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_come_out_in_order_and_in_one_form() {
        let head = "GET / HTTP/1.1\r\nHost: a\r\nOne: 1\r\nTwo:2\r\nThree:  3 \r\nFour: \r\nFive:\r\nSix: 6\r\n\r\n";
        let all = "start\r\nHost: a\r\nOne: 1\r\nTwo: 2\r\nThree: 3\r\nFour: \r\nFive: \r\nSix: 6\r\n";
        assert_eq!(copied(head, |_| true), all);
        for name in ["Host", "One", "Two", "Three", "Four", "Five", "Six"] {
            let rest: String = all.split_inclusive("\r\n").filter(|line| !line.starts_with(name)).collect();
            assert_eq!(copied(head, |field| field.name != name), rest, "without {name}");
        }
        assert_eq!(copied(head, |_| false), "start\r\n");
    }

    #[test]
    fn fields_from_elsewhere_are_written() {
        let mut out = Vec::new();
        copy(b"A: b\r\n", [Field { name: "A", value: b"c" }].iter(), &mut out);
        copy(b"", [Field { name: "D", value: b"" }].iter(), &mut out);
        assert_eq!(out, b"A: c\r\nD: \r\n");
    }
}
