//! The word that was probably meant.

/// The candidate that was probably meant by a word: equal but for case and `_`, or a few typing
/// errors away (one in three characters, at most three), or begun and not finished.
pub fn closest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    const LONGEST: usize = 64;
    let wanted: Vec<char> = plain(word).take(LONGEST + 1).collect();
    if wanted.is_empty() || wanted.len() > LONGEST {
        return None;
    }
    let most = (wanted.len() / 3).clamp(1, 3);
    let mut best: Option<(usize, &'c str)> = None;
    for candidate in candidates {
        let letters: Vec<char> = plain(candidate).take(LONGEST + 1).collect();
        if letters.is_empty() || letters.len() > LONGEST {
            continue;
        }
        let mut distance = edits(&wanted, &letters);
        // A word of one or two letters is not like another of which it shares none.
        if letters.len() <= distance || wanted.len() <= distance {
            distance = usize::MAX;
        }
        if wanted.len() >= 3 && letters.starts_with(&wanted) {
            distance = distance.min(most);
        }
        if distance <= most && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

fn plain(word: &str) -> impl Iterator<Item = char> {
    word.chars().flat_map(char::to_lowercase).map(|c| if c == '_' { '-' } else { c })
}

/// Edits that turn one word into the other; two letters exchanged are one edit.
fn edits(a: &[char], b: &[char]) -> usize {
    let width = b.len() + 1;
    let mut table = vec![0; (a.len() + 1) * width];
    for row in 0..=a.len() {
        for column in 0..=b.len() {
            table[row * width + column] = if row == 0 || column == 0 {
                row.max(column)
            } else {
                let same = a[row - 1] == b[column - 1];
                let mut least = table[(row - 1) * width + column - 1] + usize::from(!same);
                least = least.min(table[(row - 1) * width + column] + 1).min(table[row * width + column - 1] + 1);
                if row > 1 && column > 1 && a[row - 1] == b[column - 2] && a[row - 2] == b[column - 1] {
                    least = least.min(table[(row - 2) * width + column - 2] + 1);
                }
                least
            };
        }
    }
    table[a.len() * width + b.len()]
}

#[cfg(test)]
mod tests {
    use super::closest;

    #[test]
    fn closest_finds_what_was_meant_and_no_more() {
        let keys = ["address", "protocol", "rules", "pool", "certificates", "header-count"];
        assert_eq!(closest("adress", keys), Some("address"));
        assert_eq!(closest("Pool", keys), Some("pool"));
        assert_eq!(closest("header_count", keys), Some("header-count"));
        assert_eq!(closest("cert", keys), Some("certificates"));
        assert_eq!(closest("mial", ["web", "mail"]), Some("mail"));
        assert_eq!(closest("xyz", keys), None);
        assert_eq!(closest("", keys), None);
        assert_eq!(closest("a", ["b"]), None);
        assert_eq!(closest(&"a".repeat(100_000), keys), None);
    }

    #[test]
    fn finds_what_was_meant() {
        let words = ["path", "host", "header", "cookie", "query", "content-type", "use", "any"];
        assert_eq!(closest("pth", words), Some("path"));
        assert_eq!(closest("haeder", words), Some("header"));
        assert_eq!(closest("contenttype", words), Some("content-type"));
        assert_eq!(closest("usee", words), Some("use"));
        assert_eq!(closest("PATH", words), Some("path"));
    }

    #[test]
    fn says_nothing_where_nothing_is_near() {
        assert_eq!(closest("zebra", ["path", "host"]), None);
        assert_eq!(closest("", ["a", "path"]), None);
        assert_eq!(closest("x", ["y"]), None);
        assert_eq!(closest(&"a".repeat(10_000), ["aaa"]), None);
    }
}
