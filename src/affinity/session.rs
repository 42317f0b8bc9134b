//! Where an application's session is found besides its cookie.

/// The value of `;NAME=` in a path (RFC 3986 §3.3), in any case of letters: `/cart;jsessionid=12?x`.
pub fn path_parameter<'p>(path: &'p str, name: &str) -> Option<&'p [u8]> {
    let mut rest = path.as_bytes();
    while let Some(at) = memchr::memchr(b';', rest) {
        rest = &rest[at + 1..];
        let (own, value) = rest.split_at_checked(name.len())?;
        if own.eq_ignore_ascii_case(name.as_bytes())
            && let Some((b'=', value)) = value.split_first()
        {
            let end = value.iter().position(|byte| matches!(byte, b';' | b'/')).unwrap_or(value.len());
            return Some(&value[..end]).filter(|value| !value.is_empty());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_parameters() {
        let find = |path| path_parameter(path, "jsessionid").map(|value| std::str::from_utf8(value).unwrap());
        assert_eq!(find("/cart;jsessionid=12"), Some("12"));
        assert_eq!(find("/cart;x=1;JSESSIONID=ab/next"), Some("ab"));
        assert_eq!(find("/a;jsessionid=1;y=2/b"), Some("1"));
        for path in ["/", "/cart;jsessionid", "/cart;jsessionid=", "/;", "/;jsession=1", "/jsessionid=1", "/;;;"] {
            assert_eq!(find(path), None, "{path}");
        }
    }
}
