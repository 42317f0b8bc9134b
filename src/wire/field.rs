//! One field line of a message head, borrowed from the bytes it came in.

/// `name` is a token (RFC 9110 §5.6.2) in the case it was sent; `value` has no surrounding blanks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    pub name: &'a str,
    pub value: &'a [u8],
}

impl<'a> Field<'a> {
    pub const EMPTY: Field<'static> = Field { name: "", value: b"" };

    /// Whether this is the field of that name, in any case.
    #[inline]
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }
}
