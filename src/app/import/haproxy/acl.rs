//! Conditions: `acl` lines and what stands behind `if` and `unless`, as lists of tests.

use std::collections::HashMap;

use super::text::Line;
use crate::app::import::site::{Account, Test};
use crate::app::import::words;

/// Ways in which one condition can hold, at most: each becomes a rule.
const MOST: usize = 64;

/// Any of these, each of which holds where all of its tests do. One that is empty always holds.
pub type Ways = Vec<Vec<Test>>;

/// What is known where a condition is asked.
#[derive(Debug, Clone, Default)]
pub struct Context {
    pub tls: bool,
    pub port: Option<u16>,
    /// Connections are passed on: only source and hello are known.
    pub sealed: bool,
}

/// A test, or what is known before any request comes.
#[derive(Debug, Clone, PartialEq)]
pub enum Atom {
    Test(Test),
    Always(bool),
}

#[derive(Debug, Default)]
pub struct Acls<'a> {
    /// The lines of each name: any of them.
    named: HashMap<&'a str, Vec<&'a Line>>,
}

impl<'a> Acls<'a> {
    pub fn read(lines: &'a [Line]) -> Acls<'a> {
        let mut acls = Acls::default();
        for line in lines.iter().filter(|line| line.word(0) == "acl") {
            acls.named.entry(line.word(1)).or_default().push(line);
        }
        acls
    }

    /// The words behind an action, from `if` or `unless` on. `Err`: why the condition cannot be said.
    pub fn ways(&self, words: &[String], context: &Context, account: &mut Account) -> Result<Ways, String> {
        let Some((first, words)) = words.split_first() else { return Ok(vec![Vec::new()]) };
        let unless = match first.as_str() {
            "if" => false,
            "unless" => true,
            other => return Err(format!("`{other}` is not known here")),
        };
        // `||` binds weaker than what stands side by side.
        let mut all: Ways = Vec::new();
        for part in words.split(|word| matches!(word.as_str(), "||" | "or" | "OR")) {
            let mut ways: Ways = vec![Vec::new()];
            for (negated, factor) in factors(part) {
                ways = both(&ways, &self.factor(&factor, negated, context, account)?)?;
            }
            all.extend(ways);
        }
        if all.len() > MOST {
            return Err(format!("it holds in more than {MOST} ways"));
        }
        if unless { not(&all) } else { Ok(all) }
    }

    fn factor(
        &self,
        factor: &Factor<'_>,
        negated: bool,
        context: &Context,
        account: &mut Account,
    ) -> Result<Ways, String> {
        let mut ways: Ways = Vec::new();
        match factor {
            Factor::Named(name) => match self.named.get(name) {
                Some(lines) => {
                    for line in lines {
                        let atom = atom(line.words.get(2..).unwrap_or_default(), context)?;
                        account.done(line.item);
                        let of_field = line.word(2).contains("hdr(") && !line.word(2).contains("(host");
                        if of_field && matches!(&atom, Atom::Test(test) if test.word.ends_with('=')) {
                            account.differs(line.item, "a field is compared as a whole; HAProxy also looks at each of the values that commas part");
                        }
                        if matches!(&atom, Atom::Test(test) if test.word.starts_with("query ") && test.patterns == [""])
                        {
                            account.differs(line.item, "a parameter without a `=` counts here too");
                        }
                        ways.extend(of(atom));
                    }
                }
                None => ways.extend(of(predefined(name).ok_or_else(|| format!("there is no acl {name}"))?)),
            },
            Factor::Unnamed(words) => ways.extend(of(atom(words, context)?)),
        }
        if negated { not(&ways) } else { Ok(ways) }
    }
}

#[derive(Debug)]
enum Factor<'w> {
    Named(&'w str),
    /// `{ ... }`
    Unnamed(&'w [String]),
}

fn factors(words: &[String]) -> Vec<(bool, Factor<'_>)> {
    let mut factors = Vec::new();
    let mut rest = words;
    let mut negated = false;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        let bare = first.trim_start_matches('!');
        negated ^= (first.len() - bare.len()) % 2 == 1;
        match bare {
            "" | "&&" | "and" | "AND" => continue,
            "{" => {
                let end = after.iter().position(|word| word == "}").unwrap_or(after.len());
                factors.push((negated, Factor::Unnamed(&after[..end])));
                rest = after.get(end + 1..).unwrap_or_default();
            }
            name => factors.push((negated, Factor::Named(name))),
        }
        negated = false;
    }
    factors
}

fn of(atom: Atom) -> Ways {
    match atom {
        Atom::Test(test) => vec![vec![test]],
        Atom::Always(true) => vec![Vec::new()],
        Atom::Always(false) => Vec::new(),
    }
}

/// Where one of both sides holds.
pub fn both(left: &Ways, right: &Ways) -> Result<Ways, String> {
    if left.len() * right.len() > MOST {
        return Err(format!("it holds in more than {MOST} ways"));
    }
    let joined = left.iter().flat_map(|left| {
        right.iter().map(move |right| {
            let mut all = left.clone();
            all.extend(right.iter().filter(|test| !left.contains(test)).cloned());
            all
        })
    });
    Ok(joined.filter(|way| !way.iter().any(|test| way.contains(&test.not()))).collect())
}

/// Where none of the ways holds.
pub fn not(ways: &Ways) -> Result<Ways, String> {
    ways.iter()
        .try_fold(vec![Vec::new()], |before, way| both(&before, &way.iter().map(|test| vec![test.not()]).collect()))
}

fn predefined(name: &str) -> Option<Atom> {
    Some(match name {
        "TRUE" | "WAIT_END" | "HTTP" | "REQ_CONTENT" => Atom::Always(true),
        "FALSE" => Atom::Always(false),
        "METH_GET" => Atom::Test(Test::any_of("method", vec!["GET".into(), "HEAD".into()])),
        "METH_HEAD" | "METH_POST" | "METH_PUT" | "METH_DELETE" | "METH_OPTIONS" | "METH_CONNECT" | "METH_TRACE"
        | "METH_PATCH" => Atom::Test(Test::new("method", &name[5..])),
        "LOCALHOST" => Atom::Test(Test::new("from", "127.0.0.0/8")),
        _ => return None,
    })
}

/// How a pattern is compared.
#[derive(Debug, Clone, Copy, PartialEq)]
enum How {
    Is,
    Begins,
    Ends,
    Contains,
    Segment,
    Regex,
    Found,
}

/// One criterion with its flags and patterns.
fn atom(words: &[String], context: &Context) -> Result<Atom, String> {
    let Some((criterion, rest)) = words.split_first() else { return Err("a condition without a criterion".to_owned()) };
    let (fetch, converters) = converters(criterion);
    let (name, argument) = match fetch.split_once('(') {
        Some((name, rest)) => (name, rest.trim_end_matches(')').split(',').next().unwrap_or("")),
        None => (fetch, ""),
    };
    let mut any_case = false;
    for converter in converters {
        match converter.split('(').next().unwrap_or("") {
            "lower" | "upper" => any_case = true,
            "host_only" | "field" | "url_dec" | "regsub" if converter == "host_only" || converter == "field(1,:)" => {}
            "rand" => {}
            _ => return Err(format!("the converter {converter} is not known here")),
        }
    }
    let mut how = None;
    let mut patterns: Vec<&str> = Vec::new();
    let mut list = false;
    let mut left = rest.iter().map(String::as_str);
    while let Some(word) = left.next() {
        if !patterns.is_empty() {
            patterns.push(word);
            continue;
        }
        match word {
            "-i" => any_case = true,
            "-n" | "-u" => {}
            "-f" => {
                list = true;
                patterns.extend(left.next());
            }
            "-M" => return Err("maps choose pools here, not conditions".to_owned()),
            "-m" => {
                how = Some(match left.next() {
                    Some("str") => How::Is,
                    Some("beg") => How::Begins,
                    Some("end") => How::Ends,
                    Some("sub") => How::Contains,
                    Some("dir") => How::Segment,
                    Some("reg") => How::Regex,
                    Some("found") => How::Found,
                    Some("ip" | "int" | "bool") => How::Is,
                    other => return Err(format!("-m {} is not known here", other.unwrap_or(""))),
                });
            }
            "--" => patterns.extend(left.by_ref()),
            _ => patterns.push(word),
        }
    }
    let (base, suffix) = match name.rsplit_once('_') {
        Some((base, suffix)) => match suffix {
            "beg" => (base, Some(How::Begins)),
            "end" => (base, Some(How::Ends)),
            "sub" => (base, Some(How::Contains)),
            "reg" => (base, Some(How::Regex)),
            "dir" => (base, Some(How::Segment)),
            "str" => (base, Some(How::Is)),
            _ => (name, None),
        },
        None => (name, None),
    };
    let how = how.or(suffix).unwrap_or(How::Is);
    let base = base.strip_prefix("req.").or(base.strip_prefix("req_")).unwrap_or(base);
    if list {
        return listed(base, argument, patterns[0]);
    }
    fixed(base, &patterns, context).map_or_else(|| request(base, argument, how, any_case, &patterns, context), Ok)
}

/// What is known before any request comes.
fn fixed(base: &str, patterns: &[&str], context: &Context) -> Option<Atom> {
    Some(match base {
        "always_true" => Atom::Always(true),
        "always_false" => Atom::Always(false),
        "ssl_fc" => Atom::Always(context.tls != patterns.iter().any(|word| matches!(*word, "0" | "false"))),
        "ssl_hello_type" if context.sealed => Atom::Test(Test::new("no-tls", "").not()),
        "dst_port" => {
            let port = context.port?;
            let ports: Option<Vec<u16>> = patterns.iter().map(|pattern| pattern.parse().ok()).collect();
            Atom::Always(ports?.contains(&port))
        }
        "proto_http" => Atom::Always(true),
        "ssl_c_used" => Atom::Test(Test::new("client-cert", "")),
        _ => return None,
    })
}

/// `-f FILE`
fn listed(base: &str, argument: &str, file: &str) -> Result<Atom, String> {
    match base {
        "src" => Ok(Atom::Test(Test::new("from in", list_name(file)))),
        "hdr" if !argument.eq_ignore_ascii_case("host") => {
            Ok(Atom::Test(Test::new(format!("header {} in", argument.to_ascii_lowercase()), list_name(file))))
        }
        _ => Err("a list here compares sources and whole values of fields".to_owned()),
    }
}

/// The list of a file: `from in NAME` needs `list NAME from "FILE"`.
pub fn list_name(file: &str) -> String {
    let base = file.rsplit('/').next().unwrap_or(file);
    crate::app::import::site::Names::default().fresh(base)
}

fn request(
    base: &str,
    argument: &str,
    how: How,
    any_case: bool,
    patterns: &[&str],
    context: &Context,
) -> Result<Atom, String> {
    let unknown = || Err(format!("{base} is nothing that rules know"));
    if context.sealed && !matches!(base, "src" | "ssl_sni" | "ssl_alpn") {
        return Err(format!("{base} is not known of a connection that is passed on"));
    }
    if patterns.is_empty() && how != How::Found {
        return match base {
            "cook" | "url_param" | "urlp" => request(base, argument, How::Found, any_case, patterns, context),
            _ => unknown(),
        };
    }
    let case = if any_case { "(?i)" } else { "" };
    let regexes = |how: How| -> Vec<String> {
        let one = |pattern: &&str| {
            let text = words::literal(pattern);
            words::regex(&match how {
                How::Begins => format!("{case}^{text}"),
                How::Ends => format!("{case}{text}$"),
                How::Contains => format!("{case}{text}"),
                How::Segment => format!("{case}(?:^|/){}(?:/|$)", words::literal(pattern.trim_matches('/'))),
                How::Is | How::Found => format!("{case}^{text}$"),
                How::Regex => format!("{case}{pattern}"),
            })
        };
        patterns.iter().map(one).collect()
    };
    let values = || -> Vec<String> { patterns.iter().map(|pattern| words::word(pattern)).collect() };
    let named = |word: String| {
        Atom::Test(match how {
            How::Found => Test::new(word, ""),
            How::Is if !any_case => Test::any_of(format!("{word} ="), values()),
            // One regex for all of them: a field has one.
            how => {
                let all = patterns.iter().map(|pattern| match how {
                    How::Begins => format!("^{}", words::literal(pattern)),
                    How::Ends => format!("{}$", words::literal(pattern)),
                    How::Regex => format!("(?:{pattern})"),
                    How::Contains => words::literal(pattern),
                    How::Segment => format!("(?:^|/){}(?:/|$)", words::literal(pattern)),
                    How::Is | How::Found => format!("^{}$", words::literal(pattern)),
                });
                Test::new(word, words::regex(&format!("{case}{}", all.collect::<Vec<_>>().join("|"))))
            }
        })
    };
    // Names of hosts, in any case.
    let host = |word: &str| {
        let lower = |pattern: &&str| pattern.to_ascii_lowercase();
        let plain =
            |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) && !text.is_empty();
        let glob = |before: &str, after: &str| -> Option<Vec<String>> {
            patterns.iter().map(lower).map(|text| plain(&text).then(|| format!("{before}{text}{after}"))).collect()
        };
        let globs = match how {
            How::Is => glob("", ""),
            How::Begins => glob("", "*"),
            How::Ends => glob("*", ""),
            How::Contains => glob("*", "*"),
            _ => None,
        };
        // A regex is asked of the name in lower case.
        let regexes = || {
            patterns.iter().map(|pattern| match how {
                How::Regex => words::regex(&format!("(?i){pattern}")),
                _ => words::regex(&format!("(?i)^{}$", words::literal(pattern))),
            })
        };
        Test::any_of(word, globs.unwrap_or_else(|| regexes().collect()))
    };
    Ok(match base {
        "hdr" | "fhdr" if argument.eq_ignore_ascii_case("host") => match how {
            How::Found => Atom::Test(Test::new("header host", "")),
            How::Segment => return unknown(),
            _ => Atom::Test(host("host")),
        },
        "hdr" | "fhdr" if !argument.is_empty() => named(format!("header {}", argument.to_ascii_lowercase())),
        "cook" if !argument.is_empty() => named(format!("cookie {argument}")),
        "url_param" | "urlp" if !argument.is_empty() => named(format!("query {}", words::word(argument))),
        "ssl_sni" | "ssl_fc_sni" => match how {
            How::Found => Atom::Test(Test::new("sni", "*")),
            _ => Atom::Test(host("sni")),
        },
        "ssl_alpn" | "ssl_fc_alpn" if how == How::Is => Atom::Test(Test::any_of("alpn", values())),
        "path" => match how {
            How::Found => Atom::Always(true),
            How::Is if !any_case => {
                Atom::Test(Test::any_of("path", patterns.iter().map(|pattern| words::exact(pattern)).collect()))
            }
            How::Ends if !any_case => {
                let one =
                    |pattern: &&str| match pattern.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
                        true => format!("*{pattern}"),
                        false => words::regex(&format!("{}$", words::literal(pattern))),
                    };
                Atom::Test(Test::any_of("path", patterns.iter().map(one).collect()))
            }
            How::Begins if patterns.contains(&"/") => Atom::Always(true),
            how => Atom::Test(Test::any_of("path", regexes(how))),
        },
        "method" => Atom::Test(Test::any_of("method", values())),
        "src" => {
            let nets: Option<Vec<String>> = patterns.iter().map(|pattern| words::net(pattern)).collect();
            match nets {
                Some(nets) => Atom::Test(Test::any_of("from", nets)),
                None => return Err("sources are addresses and networks here".to_owned()),
            }
        }
        "rand" => match (argument.parse::<u32>(), patterns) {
            (Ok(100), ["lt", share]) if share.parse::<u32>().is_ok_and(|share| (1..100).contains(&share)) => {
                Atom::Test(Test::new("chance", format!("{share}%")))
            }
            _ => return unknown(),
        },
        _ => return unknown(),
    })
}

/// `hdr(host),lower` in its parts; commas inside parentheses part nothing.
fn converters(criterion: &str) -> (&str, Vec<&str>) {
    let (mut depth, mut start) = (0usize, 0);
    let mut parts = Vec::new();
    for (at, letter) in criterion.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&criterion[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&criterion[start..]);
    let first = parts.remove(0);
    (first, parts)
}
