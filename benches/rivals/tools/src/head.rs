//! The little of an HTTP/1.1 head that both ends need to find.

/// Where a head ends in `bytes`, behind its empty line.
pub fn end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

/// The value of a field; `name` in lower case.
pub fn field<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    head.split(|&b| b == b'\n').skip(1).find_map(|line| {
        let (field, value) = line.split_at_checked(name.len())?;
        (value.first() == Some(&b':') && field.eq_ignore_ascii_case(name)).then(|| value[1..].trim_ascii())
    })
}

/// A decimal number.
pub fn number(text: &[u8]) -> Option<u64> {
    (!text.is_empty()).then_some(())?;
    text.iter().try_fold(0_u64, |sum, &digit| match digit {
        b'0'..=b'9' => sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

/// The second word of the first line without its query: a request's path.
pub fn path(head: &[u8]) -> &[u8] {
    let target = head.split(|&b| b == b' ').nth(1).unwrap_or_default();
    target.split(|&b| b == b'?').next().unwrap_or_default()
}

/// The status of an answer.
pub fn status(head: &[u8]) -> Option<u64> {
    let rest = head.strip_prefix(b"HTTP/1.1 ")?;
    number(rest.get(..3)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read() {
        let head = b"GET /a/1k?x=1 HTTP/1.1\r\nHost: a\r\nX-Number:  17 \r\n\r\nrest";
        assert_eq!(end(head), Some(head.len() - 4));
        assert_eq!(path(head), b"/a/1k");
        assert_eq!(field(head, b"x-number"), Some(&b"17"[..]));
        assert_eq!(field(head, b"x-num"), None);
        assert_eq!(status(b"HTTP/1.1 204 No Content\r\n\r\n"), Some(204));
        assert_eq!((number(b""), number(b"1a"), number(b"42")), (None, None, Some(42)));
    }
}
