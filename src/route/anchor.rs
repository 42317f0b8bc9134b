//! What a message must have for a test to hold, as keys that the index can look up.
//!
//! An anchor is a necessary condition, never a sufficient one: `/a/*/c` has the anchors "begins with
//! the folder /a" and "its last segment is c". The index takes the most telling one of a rule, and
//! tests the whole condition of the few rules it finds.

use std::net::IpAddr;

use memchr::{memchr_iter, memrchr};
use smallvec::SmallVec;

use super::condition::{Check, Named, PathPattern, Test, TextPattern, Values, without_blanks_at_commas};
use super::glob::{Glob, Segment, Segments, last_segment};
use super::hash::hash;
use super::head::{Head, Scratch, decoded};
use super::list::{Nets, Words};
use super::regex::Regex;

/// A way to take keys from a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Dimension {
    /// The path, and each folder above it: `/a/b/c`, `/a/b`, `/a`.
    Folder,
    /// So many first bytes of the path.
    Prefix(u8),
    /// So many last bytes of the path.
    Suffix(u8),
    /// From the last dot of the last segment.
    Extension,
    LastSegment,
    /// The segment at this position, from 0.
    Segment(u8),
    Host,
    /// So many last bytes of the host.
    HostSuffix(u8),
    Sni,
    SniSuffix(u8),
    ContentType,
    Method,
    Alpn,
    Listener,
    NoTls,
    /// So many first bits of the source.
    Net4(u8),
    Net6(u8),
    HeaderName,
    /// Name and value of one field line.
    Header,
    /// Name and value of all lines of a name, joined.
    HeaderJoined,
    CookieName,
    Cookie,
    QueryName,
    Query,
    /// A text that is somewhere in the path. Its keys are found by one automaton for all of them.
    Inner,
}

/// One key in one dimension.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Anchor {
    pub dimension: Dimension,
    pub hash: u64,
    /// For `Filter`: bytes of what was hashed.
    pub length: u16,
    /// For `Filter`: slashes of a folder, or the signature of a name.
    pub sign: u8,
    /// The text of an `Inner`.
    pub text: Box<[u8]>,
}

/// What lets most parts of a message be passed over without hashing them.
#[derive(Debug, Clone, Default)]
pub(super) struct Filter {
    longest: usize,
    deepest: u8,
    names: [u64; 4],
}

/// Folders deeper or longer than this are found by a folder above them.
const DEEPEST: u8 = 12;
const LONGEST: usize = 250;
/// Longer names of fields, cookies and parameters are not indexed.
const NAME: usize = 64;
/// A set of more values is not spread out into keys.
const VALUES: usize = 256;
/// Shorter texts are found too often to be worth looking for.
const INNER: usize = 3;
/// Lengths at which prefixes are cut, so that those of many lengths can share a table.
const CUTS: [usize; 7] = [4, 8, 12, 16, 24, 32, 48];

/// The alternatives of a test: at least one anchor of at least one of them is in each message that it
/// takes. Each alternative is a choice of anchors, any of which will do. `None`: it has no anchors.
pub(super) fn alternatives(test: &Test) -> Option<Vec<Vec<Anchor>>> {
    let all: Vec<Vec<Anchor>> = match test {
        Test::Path(pattern) => path(pattern),
        Test::PathAny(patterns) => patterns.iter().flat_map(path).collect(),
        Test::PathIn(words) => of_words(words, |word| folder(word, true).into_iter().collect())?,
        Test::Host(patterns) => patterns.iter().map(|one| text(one, Dimension::Host, Dimension::HostSuffix)).collect(),
        Test::Sni(patterns) => patterns.iter().map(|one| text(one, Dimension::Sni, Dimension::SniSuffix)).collect(),
        Test::ContentType(patterns) => patterns.iter().map(media_type).collect(),
        Test::ContentTypeIn(words) => of_words(words, |word| vec![plain(Dimension::ContentType, word)])?,
        Test::Header(_) | Test::HeaderIs(_) => named_values(&*test.named()?, Dimension::HeaderName, Dimension::Header)?,
        Test::Cookie(_) | Test::CookieIs(_) => named_values(&*test.named()?, Dimension::CookieName, Dimension::Cookie)?,
        Test::Query(_) | Test::QueryIs(_) => named_values(&*test.named()?, Dimension::QueryName, Dimension::Query)?,
        Test::Method(words) => of_words(words, |word| vec![plain(Dimension::Method, word)])?,
        Test::Alpn(words) => of_words(words, |word| vec![plain(Dimension::Alpn, word)])?,
        Test::Listener(words) => of_words(words, |word| vec![plain(Dimension::Listener, word)])?,
        Test::From(nets) => of_nets(nets)?,
        Test::NoTls => vec![vec![plain(Dimension::NoTls, b"")]],
        Test::Any | Test::HostIn(_) | Test::SniIn(_) => return None,
        Test::Certificate(_) | Test::Body(_) | Test::Chance { .. } | Test::Never => return None,
    };
    if all.iter().all(|anchors| !anchors.is_empty()) { Some(all) } else { None }
}

fn plain(dimension: Dimension, key: &[u8]) -> Anchor {
    let length = u16::try_from(key.len()).unwrap_or(u16::MAX);
    Anchor { dimension, hash: hash(0, key), length, sign: 0, text: Box::default() }
}

fn of_words(words: &Words, anchors: impl Fn(&[u8]) -> Vec<Anchor>) -> Option<Vec<Vec<Anchor>>> {
    let all: Vec<_> = words.iter().take(VALUES + 1).map(anchors).collect();
    if all.len() > VALUES { None } else { Some(all) }
}

fn of_nets(nets: &Nets) -> Option<Vec<Vec<Anchor>>> {
    if nets.v4.len() + nets.v6.len() > VALUES {
        return None;
    }
    let mut all = Vec::new();
    for (start, end) in &nets.v4 {
        let own = (start ^ end).leading_zeros() as u8;
        let cuts = [8, 16, 24].into_iter().filter(|cut| *cut < own).chain([own]).filter(|cut| *cut > 0);
        all.push(cuts.map(|cut| plain(Dimension::Net4(cut), &net4(*start, cut))).collect());
    }
    for (start, end) in &nets.v6 {
        let own = (start ^ end).leading_zeros() as u8;
        let cuts = [32, 48, 64].into_iter().filter(|cut| *cut < own).chain([own]).filter(|cut| *cut > 0);
        all.push(cuts.map(|cut| plain(Dimension::Net6(cut), &net6(*start, cut))).collect());
    }
    Some(all)
}

fn net4(address: u32, bits: u8) -> [u8; 4] {
    address.checked_shr(32 - u32::from(bits)).unwrap_or(0).to_le_bytes()
}

fn net6(address: u128, bits: u8) -> [u8; 16] {
    address.checked_shr(128 - u32::from(bits)).unwrap_or(0).to_le_bytes()
}

fn named_values(named: &Named, present: Dimension, equal: Dimension) -> Option<Vec<Vec<Anchor>>> {
    let name = named.name.as_bytes();
    let (name, seed) = if present == Dimension::HeaderName { lower(name)? } else { (name.into(), hash(0, name)) };
    let sign = signature(&name);
    let key = |dimension, value: &[u8]| Anchor { hash: hash(seed, value), sign, ..plain(dimension, value) };
    let equals = |values: &Values| {
        let mut all = of_words(&values.words, |word| vec![key(equal, word)])?;
        if let (Dimension::Header, Some(joined)) = (equal, &values.joined) {
            all.extend(of_words(joined, |word| vec![key(Dimension::HeaderJoined, word)])?);
        }
        Some(all)
    };
    let exact = match &named.check {
        Check::Equals(values) => equals(values),
        Check::In(values) => equals(values),
        Check::Present | Check::Regex(_) => None,
        // Holds where there is no such field at all.
        Check::Differs(_) => return None,
    };
    exact.or_else(|| Some(vec![vec![key(present, b"")]]))
}

fn text(pattern: &TextPattern, exact: Dimension, suffix: impl Fn(u8) -> Dimension) -> Vec<Anchor> {
    match pattern {
        TextPattern::Exact(own) => vec![plain(exact, own.as_bytes())],
        TextPattern::Wild(own) => {
            let end = own.rsplit('*').next().unwrap_or_default();
            let end = &end.as_bytes()[end.len().saturating_sub(63)..];
            if end.is_empty() { Vec::new() } else { vec![plain(suffix(end.len() as u8), end)] }
        }
        TextPattern::Regex(_) => Vec::new(),
    }
}

fn media_type(pattern: &TextPattern) -> Vec<Anchor> {
    match pattern {
        TextPattern::Exact(own) => vec![plain(Dimension::ContentType, own.as_bytes())],
        TextPattern::Wild(_) | TextPattern::Regex(_) => Vec::new(),
    }
}

/// The alternatives of a path pattern.
fn path(pattern: &PathPattern) -> Vec<Vec<Anchor>> {
    match pattern {
        PathPattern::Glob(glob) => vec![of_glob(glob)],
        PathPattern::Regex(regex) => of_regex(regex),
    }
}

fn of_glob(glob: &Glob) -> Vec<Anchor> {
    match glob {
        Glob::Exact(text) | Glob::Under(text) => folder(text, true).into_iter().collect(),
        Glob::Last(text) => vec![plain(Dimension::LastSegment, text)],
        Glob::LastEnd(end) => ending(end),
        Glob::General(_) => glob.with_segments(of_segments),
    }
}

fn of_segments(segments: &Segments<'_>) -> Vec<Anchor> {
    let mut anchors = Vec::new();
    if segments.anchored {
        let mut prefix = String::new();
        for part in &segments.parts {
            prefix.push('/');
            match part {
                Segment::Literal(text) => {
                    prefix.push_str(text);
                    continue;
                }
                Segment::Wild(text) => prefix.push_str(text.split('*').next().unwrap_or_default()),
                Segment::Capture(_) | Segment::Deep => {}
            }
            break;
        }
        anchors.extend(beginning(prefix.as_bytes()));
        let fixed = segments.parts.iter().take(DEEPEST.into()).take_while(|part| **part != Segment::Deep);
        for (number, part) in fixed.enumerate() {
            if let Segment::Literal(text) = part {
                anchors.push(plain(Dimension::Segment(number as u8), text.as_bytes()));
            }
        }
    }
    match segments.parts.last() {
        Some(Segment::Literal(text)) => anchors.push(plain(Dimension::LastSegment, text.as_bytes())),
        Some(Segment::Wild(text)) => anchors.extend(ending(text.rsplit('*').next().unwrap_or_default().as_bytes())),
        _ => {}
    }
    let inner = segments.parts.iter().filter_map(|part| match part {
        Segment::Literal(text) => Some(*text),
        Segment::Wild(text) => text.split('*').max_by_key(|piece| piece.len()),
        _ => None,
    });
    anchors.extend(inner.max_by_key(|text| text.len()).and_then(|text| self::inner(text.as_bytes())));
    anchors
}

fn of_regex(regex: &Regex) -> Vec<Vec<Anchor>> {
    let hints = &regex.tail.hints;
    let mut shared = Vec::new();
    shared.extend(hints.inner.as_deref().and_then(inner));
    if regex.prefix.len() >= INNER {
        shared.extend(inner(&regex.prefix));
    }
    if let [only] = &*hints.suffixes {
        shared.extend(ending(only));
    }
    let begins: Vec<Vec<u8>> = if hints.prefixes.is_empty() {
        vec![regex.prefix.to_vec()]
    } else {
        hints.prefixes.iter().map(|more| [&*regex.prefix, more].concat()).collect()
    };
    let by_prefix: Vec<Vec<Anchor>> = begins.iter().map(|text| beginning(text)).collect();
    if by_prefix.iter().all(|anchors| !anchors.is_empty()) {
        return by_prefix.into_iter().map(|anchors| [anchors, shared.clone()].concat()).collect();
    }
    let by_suffix: Vec<Vec<Anchor>> = hints.suffixes.iter().map(|text| ending(text)).collect();
    if !by_suffix.is_empty() && by_suffix.iter().all(|anchors| !anchors.is_empty()) {
        return by_suffix.into_iter().map(|anchors| [anchors, shared.clone()].concat()).collect();
    }
    vec![shared]
}

fn inner(text: &[u8]) -> Option<Anchor> {
    let text = &text[..text.len().min(64)];
    (text.len() >= INNER).then(|| Anchor { text: text.into(), ..plain(Dimension::Inner, text) })
}

/// The folder that `text` is, or begins in.
fn folder(text: &[u8], whole: bool) -> Option<Anchor> {
    let slashes = memchr_iter(b'/', text).skip_while(|at| *at == 0).take_while(|at| *at <= LONGEST);
    let ends = slashes.take(DEEPEST.into()).chain((whole && text.len() <= LONGEST).then_some(text.len()));
    let mut best = None;
    for (number, end) in ends.enumerate() {
        if number < DEEPEST.into() && end > 0 {
            best = Some((number as u8 + 1, end));
        }
    }
    let (depth, end) = best?;
    Some(Anchor { sign: depth, ..plain(Dimension::Folder, &text[..end]) })
}

/// Of paths that begin with `text`.
fn beginning(text: &[u8]) -> Vec<Anchor> {
    let mut anchors = Vec::new();
    anchors.extend(folder(text, false));
    // What ends in a slash says no more than its folder.
    if text.len() > 1 && text.last() != Some(&b'/') {
        let own = text.len().min(64);
        let cuts = CUTS.into_iter().filter(|cut| *cut < own).chain([own]);
        anchors.extend(cuts.map(|cut| plain(Dimension::Prefix(cut as u8), &text[..cut])));
    }
    anchors
}

/// Of paths that end in `text`.
fn ending(text: &[u8]) -> Vec<Anchor> {
    let mut anchors = Vec::new();
    let dot = memrchr(b'.', text).filter(|dot| memrchr(b'/', text).is_none_or(|slash| slash < *dot));
    if let Some(dot) = dot {
        anchors.push(plain(Dimension::Extension, &text[dot..]));
    }
    if dot != Some(0) && !text.is_empty() {
        let own = text.len().min(64);
        let cuts = CUTS.into_iter().filter(|cut| *cut < own).chain([own]);
        anchors.extend(cuts.map(|cut| plain(Dimension::Suffix(cut as u8), &text[text.len() - cut..])));
    }
    anchors
}

impl Filter {
    pub fn add(&mut self, anchor: &Anchor) {
        self.longest = self.longest.max(anchor.length.into());
        self.deepest = self.deepest.max(anchor.sign);
        self.names[usize::from(anchor.sign >> 6)] |= 1 << (anchor.sign & 63);
    }

    #[inline]
    fn name(&self, name: &[u8]) -> bool {
        let sign = signature(name);
        self.names[usize::from(sign >> 6)] & 1 << (sign & 63) != 0
    }
}

/// Eight bits of a name that are the same in every case of its letters.
#[inline]
fn signature(name: &[u8]) -> u8 {
    let first = name.first().map_or(0, |byte| byte | 0x20);
    let last = name.last().map_or(0, |byte| byte | 0x20);
    first.wrapping_mul(7) ^ last.wrapping_mul(29) ^ (name.len() as u8).wrapping_mul(37)
}

/// A name in lower case, and its hash.
#[inline]
fn lower(name: &[u8]) -> Option<(SmallVec<[u8; NAME]>, u64)> {
    if name.len() > NAME {
        return None;
    }
    let mut name = SmallVec::from_slice(name);
    name.make_ascii_lowercase();
    let seed = hash(0, &name);
    Some((name, seed))
}

/// Calls `found` with each key that a message has in a dimension. Keys that no anchor counted in
/// `filter` can have may be left out.
#[inline]
pub(super) fn keys(dimension: Dimension, filter: &Filter, head: &Head<'_>, mut found: impl FnMut(u64)) {
    let path = head.path.as_bytes();
    match dimension {
        Dimension::Folder => {
            let mut depth = 1;
            for end in memchr_iter(b'/', &path[..path.len().min(filter.longest + 1)]) {
                if end == 0 {
                    continue;
                }
                if depth > filter.deepest {
                    return;
                }
                depth += 1;
                found(hash(0, &path[..end]));
            }
            if path.len() <= filter.longest && depth <= filter.deepest {
                found(hash(0, path));
            }
        }
        Dimension::Prefix(length) => path.get(..length.into()).into_iter().for_each(|text| found(hash(0, text))),
        Dimension::Suffix(length) => suffix(path, length).into_iter().for_each(|text| found(hash(0, text))),
        Dimension::Extension => {
            let last = &path[memrchr(b'/', path).map_or(0, |slash| slash + 1)..];
            if let Some(dot) = memrchr(b'.', last)
                && last.len() - dot <= filter.longest
            {
                found(hash(0, &last[dot..]));
            }
        }
        Dimension::LastSegment => {
            if let Some(last) = last_segment(head.path)
                && last.len() <= filter.longest
            {
                found(hash(0, last.as_bytes()));
            }
        }
        Dimension::Segment(number) => {
            let mut ends = memchr_iter(b'/', path).skip(number.into());
            if let Some(start) = ends.next() {
                let end = ends.next().unwrap_or(path.len());
                if end - start - 1 <= filter.longest {
                    found(hash(0, &path[start + 1..end]));
                }
            }
        }
        Dimension::Host => found(hash(0, head.host.as_bytes())),
        Dimension::HostSuffix(length) => {
            suffix(head.host.as_bytes(), length).into_iter().for_each(|text| found(hash(0, text)));
        }
        Dimension::Sni => head.sni.into_iter().for_each(|sni| found(hash(0, sni.as_bytes()))),
        Dimension::SniSuffix(length) => {
            let end = head.sni.and_then(|sni| suffix(sni.as_bytes(), length));
            end.into_iter().for_each(|text| found(hash(0, text)));
        }
        Dimension::ContentType => head.media_type().into_iter().for_each(|kind| found(hash(0, &kind))),
        Dimension::Method => found(hash(0, head.method.as_bytes())),
        Dimension::Alpn => head.alpn.iter().for_each(|alpn| found(hash(0, alpn))),
        Dimension::Listener => found(hash(0, head.listener.as_bytes())),
        Dimension::NoTls => {
            if head.no_tls {
                found(hash(0, b""));
            }
        }
        Dimension::Net4(bits) => {
            if let IpAddr::V4(address) = head.source.to_canonical() {
                found(hash(0, &net4(address.to_bits(), bits)));
            }
        }
        Dimension::Net6(bits) => {
            if let IpAddr::V6(address) = head.source.to_canonical() {
                found(hash(0, &net6(address.to_bits(), bits)));
            }
        }
        Dimension::HeaderName => each_field(filter, head, |seed, _| found(hash(seed, b""))),
        Dimension::Header => each_field(filter, head, |seed, value| {
            if value.len() <= filter.longest {
                found(hash(seed, value));
            }
        }),
        Dimension::HeaderJoined => joined(filter, head, found),
        Dimension::CookieName | Dimension::Cookie => {
            for (name, value) in head.cookies().filter(|(name, _)| filter.name(name)) {
                let value = if dimension == Dimension::Cookie { value } else { &[] };
                if value.len() <= filter.longest {
                    found(hash(hash(0, name), value));
                }
            }
        }
        Dimension::QueryName | Dimension::Query => {
            let mut scratch = Scratch::new();
            for (name, value) in head.parameters() {
                let name = decoded(name, &mut scratch);
                if !filter.name(name) {
                    continue;
                }
                let seed = hash(0, name);
                let value = if dimension == Dimension::Query { decoded(value, &mut scratch) } else { &[] };
                if value.len() <= filter.longest {
                    found(hash(seed, value));
                }
            }
        }
        // Found by the automaton of the index.
        Dimension::Inner => {}
    }
}

#[inline]
fn suffix(text: &[u8], length: u8) -> Option<&[u8]> {
    text.get(text.len().checked_sub(length.into())?..)
}

#[inline]
fn each_field(filter: &Filter, head: &Head<'_>, mut found: impl FnMut(u64, &[u8])) {
    for field in head.fields {
        if filter.name(field.name.as_bytes())
            && let Some((_, seed)) = lower(field.name.as_bytes())
        {
            found(seed, field.value);
        }
    }
}

/// The keys of names that come in two lines or more.
fn joined(filter: &Filter, head: &Head<'_>, mut found: impl FnMut(u64)) {
    let mut seen: SmallVec<[(u64, bool); 32]> = SmallVec::new();
    for field in head.fields {
        let name = field.name.as_bytes();
        let Some((_, seed)) = Some(name).filter(|name| filter.name(name)).and_then(lower) else {
            continue;
        };
        match seen.iter_mut().find(|(own, _)| *own == seed) {
            None => seen.push((seed, false)),
            Some((_, true)) => {}
            Some((_, done)) => {
                *done = true;
                if let Some(whole) = head.joined(field.name, b",") {
                    let whole = without_blanks_at_commas(&whole);
                    if whole.len() <= filter.longest {
                        found(hash(seed, &whole));
                    }
                }
            }
        }
    }
}
