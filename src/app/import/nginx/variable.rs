//! Variables: what they are tested by in a rule, and what they are in a redirect.

use super::tree::Directive;
use crate::app::import::site::Test;
use crate::app::import::words;

/// What is known where a rule is made.
#[derive(Debug, Clone, Default)]
pub struct Context {
    pub server_name: Option<String>,
    pub tls: bool,
    pub port: u16,
}

/// What a value has to be.
#[derive(Debug, Clone)]
pub enum Want<'w> {
    /// Neither empty nor `0`.
    Truth,
    /// Letters of any case, where `true`.
    Is(&'w str, bool),
    Found(&'w str, bool),
}

#[derive(Debug, Clone)]
pub enum Known {
    Test(Test),
    Always(bool),
}

/// The test of a variable, without its `$`. `Err`: why there is none.
pub fn test(name: &str, want: &Want<'_>, context: &Context) -> Result<Known, String> {
    let fixed = |value: &str| {
        Known::Always(match want {
            Want::Truth => !value.is_empty() && value != "0",
            Want::Is(text, _) => text.eq_ignore_ascii_case(value),
            Want::Found(pattern, _) => regex_lite(pattern, value),
        })
    };
    let case = |any: bool| if any { "(?i)" } else { "" };
    let named = |word: String| -> Known {
        Known::Test(match want {
            Want::Truth => Test::new(word, words::regex("^(?:[^0]|0.)")),
            Want::Is("", _) => Test::new(word, words::regex(".")).not(),
            Want::Is(text, false) => Test::new(format!("{word} ="), words::word(text)),
            Want::Is(text, true) => Test::new(word, words::regex(&format!("(?i)^{}$", words::literal(text)))),
            Want::Found(pattern, any) => Test::new(word, words::regex(&format!("{}{pattern}", case(*any)))),
        })
    };
    let no = || Err(format!("the rule language does not know ${name}"));
    Ok(match name {
        "host" | "http_host" | "ssl_server_name" => match want {
            Want::Truth => Known::Always(true),
            Want::Is(text, _) => Known::Test(Test::new("host", words::word(&text.to_ascii_lowercase()))),
            Want::Found(pattern, any) => {
                Known::Test(Test::new("host", words::regex(&format!("{}{pattern}", case(*any)))))
            }
        },
        "uri" | "document_uri" => match want {
            Want::Truth => Known::Always(true),
            Want::Is(text, false) => Known::Test(words::path_is(text)),
            Want::Is(text, true) => {
                Known::Test(Test::new("path", words::regex(&format!("(?i)^{}$", words::literal(text)))))
            }
            Want::Found(pattern, any) => {
                Known::Test(Test::new("path", words::regex(&format!("{}{pattern}", case(*any)))))
            }
        },
        // With its query: only what surely asks for the beginning of the path is the same.
        "request_uri" => match want {
            Want::Found(pattern, any) if is_prefix(pattern) => {
                Known::Test(Test::new("path", words::regex(&format!("{}{pattern}", case(*any)))))
            }
            _ => return Err("a path is matched without its query here".to_owned()),
        },
        "request_method" => match want {
            Want::Truth => Known::Always(true),
            Want::Is(text, _) => Known::Test(Test::new("method", words::word(text))),
            Want::Found(pattern, false) => {
                let inner = pattern.strip_prefix('^').and_then(|rest| rest.strip_suffix('$'));
                let inner =
                    inner.map(|inner| inner.strip_prefix('(').and_then(|i| i.strip_suffix(')')).unwrap_or(inner));
                let methods: Option<Vec<String>> =
                    inner.map(|inner| inner.trim_start_matches("?:").split('|').map(str::to_owned).collect());
                match methods {
                    Some(all) if all.iter().all(|m| !m.is_empty() && m.bytes().all(|b| b.is_ascii_alphabetic())) => {
                        Known::Test(Test::any_of("method", all.iter().map(|m| words::word(m)).collect()))
                    }
                    _ => return Err("methods are compared as words here: ^(GET|HEAD)$".to_owned()),
                }
            }
            Want::Found(..) => return no(),
        },
        "scheme" => fixed(if context.tls { "https" } else { "http" }),
        "https" => fixed(if context.tls { "on" } else { "" }),
        "server_port" => fixed(&context.port.to_string()),
        "remote_addr" | "binary_remote_addr" => match want {
            Want::Is(text, _) if words::net(text).is_some() => Known::Test(Test::new("from", *text)),
            _ => return no(),
        },
        "ssl_client_verify" => match want {
            Want::Is("SUCCESS", _) => Known::Test(Test::new("client-cert", "")),
            _ => return no(),
        },
        "content_type" => named("header content-type".to_owned()),
        _ => {
            if let Some(header) = name.strip_prefix("http_") {
                named(format!("header {}", header.replace('_', "-")))
            } else if let Some(cookie) = name.strip_prefix("cookie_") {
                named(format!("cookie {cookie}"))
            } else if let Some(query) = name.strip_prefix("arg_") {
                named(format!("query {query}"))
            } else {
                return no();
            }
        }
    })
}

/// Whether a regex finds itself in a value that is fixed: only plain words are asked so.
fn regex_lite(pattern: &str, value: &str) -> bool {
    let plain = pattern.trim_start_matches('^').trim_end_matches('$');
    plain == value
}

/// `^/a/b`: nothing but how the text begins.
pub fn is_prefix(pattern: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_~%".contains(&byte);
    pattern.strip_prefix("^/").is_some_and(|rest| rest.bytes().all(plain))
}

/// What a text with variables is in a redirect.
#[derive(Debug, Default)]
pub struct Filled {
    pub text: String,
    /// The query is part of it.
    pub query: bool,
}

/// Fills a template. `groups`: the rule's path is a regex whose groups it may take.
pub fn fill(text: &str, context: &Context, groups: bool) -> Result<Filled, String> {
    let mut filled = Filled::default();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        filled.text.push_str(rest.get(..at).unwrap_or(""));
        let inner = rest.get(at + 1..).unwrap_or("");
        let (name, after) = match inner.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some(found) => found,
            None if inner.starts_with(|c: char| c.is_ascii_digit()) => inner.split_at(1),
            None => {
                let end = inner.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(inner.len());
                inner.split_at(end)
            }
        };
        rest = after;
        match name {
            // With the client's port where nginx takes `$http_host`: it would be wrong for another scheme.
            "host" | "http_host" => filled.text.push_str("{host}"),
            "server_name" => match &context.server_name {
                Some(host) => filled.text.push_str(host),
                None => return Err("the server has no name that could be written out".to_owned()),
            },
            "scheme" => filled.text.push_str(if context.tls { "https" } else { "http" }),
            "request_uri" if rest.is_empty() => {
                filled.text.push_str("{path}");
                filled.query = true;
            }
            "uri" | "document_uri" => filled.text.push_str("{path}"),
            "is_args" if matches!(rest, "$args" | "$query_string") => {
                filled.query = true;
                rest = "";
            }
            number if groups && number.len() == 1 && matches!(number.as_bytes()[0], b'1'..=b'9') => {
                filled.text.push('$');
                filled.text.push_str(number);
            }
            name => return Err(format!("a redirect here cannot take ${name}")),
        }
    }
    filled.text.push_str(rest);
    Ok(filled)
}

/// A `map` or a table of one: tests in the order they are tried, and the value of each.
pub fn map(directive: &Directive, context: &Context) -> Result<Vec<(Option<Test>, String)>, String> {
    let source = directive.arg(0).trim_start_matches('$');
    let hostnames = directive.body().iter().any(|entry| entry.name == "hostnames");
    let (mut exact, mut leading, mut trailing, mut regexes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut default = String::new();
    for entry in directive.body() {
        let (key, value) = (entry.name.as_str(), entry.arg(0).to_owned());
        let known = |want: Want<'_>| match sealed(source, &want).map_or_else(|| test(source, &want, context), Ok)? {
            Known::Test(test) => Ok(Some(test)),
            Known::Always(_) => Err(format!("${source} is fixed here")),
        };
        match key {
            "hostnames" | "volatile" => {}
            "default" => default = value,
            "include" => return Err("its entries stand in another file".to_owned()),
            _ if hostnames && (key.starts_with("*.") || key.starts_with('.')) => {
                if key.starts_with('.') {
                    exact.push((known(Want::Is(key.trim_start_matches('.'), true))?, value.clone()));
                }
                let end = key.trim_start_matches('*').to_owned();
                let pattern = format!("{}$", words::literal(&end));
                leading.push((end.len(), (known(Want::Found(&pattern, false))?, value)));
            }
            _ if hostnames && key.ends_with(".*") => {
                let pattern = format!("^{}", words::literal(&key[..key.len() - 1]));
                trailing.push((key.len(), (known(Want::Found(&pattern, false))?, value)));
            }
            _ => match key.strip_prefix("~*") {
                Some(pattern) => regexes.push((known(Want::Found(pattern, true))?, value)),
                None => match key.strip_prefix('~') {
                    Some(pattern) => regexes.push((known(Want::Found(pattern, false))?, value)),
                    None => exact.push((known(Want::Is(key.trim_start_matches('\\'), true))?, value)),
                },
            },
        }
    }
    leading.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    trailing.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    let mut all = exact;
    all.extend(leading.into_iter().chain(trailing).map(|(_, entry)| entry));
    all.extend(regexes);
    all.push((None, default));
    Ok(all)
}

/// What is known of a connection that is passed on sealed.
fn sealed(source: &str, want: &Want<'_>) -> Option<Known> {
    let word = match source {
        "ssl_preread_server_name" => "sni",
        _ => return None,
    };
    Some(Known::Test(match want {
        Want::Truth => Test::new(word, "*"),
        Want::Is("", _) => Test::new(word, "*").not(),
        Want::Is(text, _) => Test::new(word, words::word(&text.to_ascii_lowercase())),
        Want::Found(pattern, any) => {
            Test::new(word, words::regex(&format!("{}{pattern}", if *any { "(?i)" } else { "" })))
        }
    }))
}
