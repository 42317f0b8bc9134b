//! The text of a list or a map: its entries, and how it is edited so that comments and order stay.

use std::collections::{HashMap, HashSet};

/// What is to be done with the entries of a list or a map.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edit {
    /// Entries; of a map `key value`, which takes the place of the value that the key has.
    pub add: Vec<String>,
    /// Entries; of a map its keys.
    pub remove: Vec<String>,
}

/// A text that was edited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edited {
    pub text: String,
    pub added: usize,
    pub removed: usize,
    /// Of those to be added, as many were there, and of those to be removed, as many were not.
    pub unchanged: usize,
}

/// A line of a list or map without its comment; empty where there is nothing else.
pub fn without_comment(line: &str) -> &str {
    let line = line.trim();
    let comment = line.match_indices('#').find(|(at, _)| *at == 0 || line[..*at].ends_with([' ', '\t']));
    comment.map_or(line, |(at, _)| line[..at].trim_end())
}

/// Edits the text of a list, or of a map. What is new comes at the end.
///
/// # Errors
/// One sentence, when an entry cannot be one.
pub fn edit(text: &str, is_map: bool, edit: &Edit) -> Result<Edited, String> {
    for entry in edit.add.iter().chain(&edit.remove) {
        if entry.is_empty() || without_comment(entry) != entry || entry.chars().any(char::is_control) {
            return Err(format!(
                "{entry:?} cannot be an entry: it is empty, has blanks at its ends, a # or control characters"
            ));
        }
    }
    let (add, remove) = match is_map {
        true => (
            edit.add.iter().map(|entry| pair(entry)).collect::<Result<Vec<_>, _>>()?,
            edit.remove.iter().map(|key| single(key)).collect::<Result<HashSet<_>, _>>()?,
        ),
        false => (
            edit.add.iter().map(|entry| (entry.as_str(), entry.as_str())).collect(),
            edit.remove.iter().map(String::as_str).collect(),
        ),
    };
    // The last word on a key counts.
    let wanted: HashMap<&str, &str> = add.iter().copied().collect();
    let mut edited = Edited { text: String::with_capacity(text.len() + 64), added: 0, removed: 0, unchanged: 0 };
    let mut there: HashSet<&str> = HashSet::new();
    let mut gone: HashSet<&str> = HashSet::new();
    for line in text.split_inclusive('\n') {
        let own = without_comment(line);
        let key = if is_map { own.split_whitespace().next().unwrap_or_default() } else { own };
        if !own.is_empty() && remove.contains(key) {
            edited.removed += usize::from(gone.insert(key));
            continue;
        }
        there.insert(key);
        match wanted.get(key).filter(|entry| is_map && !own.is_empty() && !same(entry, own)) {
            Some(entry) => {
                edited.added += 1;
                edited.text.push_str(entry);
                edited.text.push('\n');
            }
            None => {
                edited.unchanged += usize::from(!own.is_empty() && wanted.contains_key(key));
                edited.text.push_str(line);
            }
        }
    }
    edited.unchanged += remove.len() - gone.len();
    for (key, _) in &add {
        if there.insert(key) {
            if !edited.text.is_empty() && !edited.text.ends_with('\n') {
                edited.text.push('\n');
            }
            edited.text.push_str(wanted[key]);
            edited.text.push('\n');
            edited.added += 1;
        }
    }
    Ok(edited)
}

/// A key and its value, by the key.
fn pair(entry: &str) -> Result<(&str, &str), String> {
    match entry.split_whitespace().collect::<Vec<_>>()[..] {
        [key, _] => Ok((key, entry)),
        _ => Err(format!("{entry:?} is no entry of a map: write \"KEY VALUE\"")),
    }
}

fn single(key: &str) -> Result<&str, String> {
    if key.contains(char::is_whitespace) { Err(format!("{key:?} is no key of a map: it has blanks")) } else { Ok(key) }
}

fn same(a: &str, b: &str) -> bool {
    a.split_whitespace().eq(b.split_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(text: &str, is_map: bool, add: &[&str], remove: &[&str]) -> (String, usize, usize, usize) {
        let all = |entries: &[&str]| entries.iter().map(|entry| (*entry).to_owned()).collect();
        let edited = edit(text, is_map, &Edit { add: all(add), remove: all(remove) }).unwrap();
        (edited.text, edited.added, edited.removed, edited.unchanged)
    }

    #[test]
    fn comments_and_order_stay() {
        let text = "# bots\nb  # bad\n\na\r\nc";
        assert_eq!(done(text, false, &["d", "a"], &["b", "x"]), ("# bots\n\na\r\nc\nd\n".to_owned(), 1, 1, 2));
        assert_eq!(done("", false, &["a", "a"], &[]), ("a\n".to_owned(), 1, 0, 0));
        assert_eq!(done("a\na\n", false, &[], &["a"]), (String::new(), 0, 1, 0));
        assert_eq!(done(text, false, &[], &[]).0, text);
        assert_eq!(done("worse bot\n", false, &["a b"], &["worse bot"]).0, "a b\n");
    }

    #[test]
    fn a_map_has_one_value_for_a_key() {
        let text = "ann web # first\nbob images\n";
        assert_eq!(
            done(text, true, &["ann images", "eve web"], &["bob", "x"]),
            ("ann images\neve web\n".to_owned(), 2, 1, 1)
        );
        assert_eq!(done(text, true, &["ann  web"], &[]), (text.to_owned(), 0, 0, 1));
        let wrong = |add: &str, remove: &str| {
            let all = |entry: &str| if entry.is_empty() { vec![] } else { vec![entry.to_owned()] };
            edit("", true, &Edit { add: all(add), remove: all(remove) }).unwrap_err()
        };
        assert!(wrong("ann", "").contains("KEY VALUE"));
        assert!(wrong("", "a b").contains("has blanks"));
    }

    #[test]
    fn what_cannot_be_an_entry_is_refused() {
        for entry in ["", " a", "a ", "#a", "a # b", "a\nb", "a\u{0}"] {
            assert!(edit("", false, &Edit { add: vec![entry.to_owned()], remove: vec![] }).is_err(), "{entry:?}");
            assert!(edit("", false, &Edit { add: vec![], remove: vec![entry.to_owned()] }).is_err(), "{entry:?}");
        }
    }
}
