//! The word that was probably meant.

/// Longer words are not compared: nobody mistypes them by a letter.
const LONGEST: usize = 64;

/// The candidate nearest to `word`, where one is near enough to be meant: at most one slip in words of
/// up to five letters, one more for each further three. A slip is a letter too many, too few, wrong, or two swapped.
pub fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<char> = word.chars().take(LONGEST + 1).flat_map(char::to_lowercase).collect();
    if word.is_empty() || word.len() > LONGEST {
        return None;
    }
    let slips = 1 + word.len().saturating_sub(3) / 3;
    let mut best: Option<(usize, &'a str)> = None;
    for candidate in candidates {
        if candidate.len() > 4 * LONGEST {
            continue;
        }
        let letters: Vec<char> = candidate.chars().flat_map(char::to_lowercase).collect();
        let most = best.map_or(slips, |(distance, _)| distance - 1).min(letters.len().saturating_sub(1));
        if let Some(distance) = distance(&word, &letters, most) {
            if distance == 0 {
                return Some(candidate);
            }
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// Edits from `a` to `b` (optimal string alignment), where they are `most` at most.
fn distance(a: &[char], b: &[char], most: usize) -> Option<usize> {
    if a.len().abs_diff(b.len()) > most {
        return None;
    }
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = Vec::with_capacity(b.len() + 1);
        row.push(i + 1);
        for (j, y) in b.iter().enumerate() {
            let mut cost = (last[j] + usize::from(x != y)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                cost = cost.min(before[j - 1] + 1);
            }
            row.push(cost);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().filter(|distance| *distance <= most)
}

#[cfg(test)]
mod tests {
    use super::closest;

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
