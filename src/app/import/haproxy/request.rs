//! `http-request` and `redirect`: what is asked before a server is chosen.

use super::acl::{self, Acls, Context, Ways};
use super::frontend::used;
use super::text::Line;
use super::{Proxy, Reader};
use crate::app::import::site::{Rule, Test};
use crate::app::import::words;

/// Headers with a condition that are taken: each doubles the rules behind it.
const SOMETIMES: usize = 2;

/// A line below the rules that come after it.
#[derive(Debug, Clone)]
pub struct Header {
    pub ways: Ways,
    pub text: String,
}

impl<'a> Reader<'a> {
    /// Makes rules of what a frontend, or a backend below `base`, asks; answers the rewrites of a backend.
    #[allow(clippy::too_many_arguments)] // what is asked, of whom, below what, and where it goes
    pub fn asks(
        &mut self,
        proxy: &Proxy<'a>,
        acls: &Acls<'_>,
        context: &Context,
        base: &Ways,
        headers: &mut Vec<Header>,
        rules: &mut Vec<Rule>,
        front: bool,
    ) -> Vec<(Test, String)> {
        let mut rewrites = Vec::new();
        // What an `allow` has let through is asked nothing more.
        let mut asked: Ways = base.clone();
        let lines = ["http-request", "block", "reqdeny"].iter().flat_map(|word| proxy.all(word));
        let lines: Vec<&Line> = lines.chain(proxy.all("redirect")).collect();
        for line in lines {
            let start = usize::from(line.word(0) == "http-request");
            let at =
                line.words.iter().position(|word| matches!(word.as_str(), "if" | "unless")).unwrap_or(line.words.len());
            let ways =
                acls.ways(&line.words[at..], context, &mut self.site.account).and_then(|ways| acl::both(&asked, &ways));
            let ways = match ways {
                Ok(ways) => ways,
                Err(why) => {
                    self.site.account.none(line.item, why);
                    continue;
                }
            };
            if !self.site.spend(ways.iter().map(|way| 1 + way.len()).sum()) {
                break;
            }
            let words_of = line.words.get(start..at).unwrap_or_default();
            let Some((action, rest)) = words_of.split_first() else { continue };
            let after = |word: &str| {
                rest.iter().position(|one| one == word).and_then(|at| rest.get(at + 1)).map(String::as_str)
            };
            let account = &mut self.site.account;
            match action.as_str() {
                "allow" => {
                    let left = acl::not(&ways).and_then(|not| acl::both(&asked, &not));
                    match left {
                        Ok(left) => {
                            account.done(line.item);
                            asked = left;
                        }
                        Err(why) => account.none(line.item, why),
                    }
                }
                "deny" | "block" | "reqdeny" | "tarpit" => {
                    account.done(line.item);
                    if action == "tarpit" {
                        account.differs(line.item, "it is answered at once");
                    }
                    let code = after("deny_status").or(after("status")).filter(|code| *code != "403");
                    let code = code.or((action == "tarpit").then_some("500"));
                    let action = code.map_or_else(|| "deny".to_owned(), |code| format!("answer {code}"));
                    used(&action, "denied", &ways, &[], &[], line.line, rules);
                }
                "reject" | "silent-drop" => {
                    account.done(line.item);
                    used("drop", "dropped", &ways, &[], &[], line.line, rules);
                }
                "return" => {
                    let text = after("string").or(after("lf-string"));
                    let code = after("status").unwrap_or("200");
                    match text {
                        Some(text) if !text.contains(['%', '\n', '\r', '\t']) => {
                            account.done(line.item);
                            let text = text.replace('\\', "\\\\").replace('"', "\\\"");
                            used(&format!("answer {code} \"{text}\""), "answered", &ways, &[], &[], line.line, rules);
                        }
                        None if after("file").is_none() && after("errorfile").is_none() => {
                            account.done(line.item);
                            used(&format!("answer {code}"), "answered", &ways, &[], &[], line.line, rules);
                        }
                        _ => {
                            account.none(line.item, "an answer's text is fixed and stands in its rule: it is left out");
                            used(&format!("answer {code}"), "answered", &ways, &[], &[], line.line, rules);
                        }
                    }
                }
                "redirect" => self.redirect(line, rest, &ways, rules),
                "set-header" | "add-header" | "del-header" | "replace-header" => {
                    self.header(line, action, rest, ways, headers);
                }
                "set-path" | "replace-path" if !front => match rewrite(action, rest) {
                    Some(rewrite) if ways.len() == base.len() => {
                        account.done(line.item);
                        rewrites.push(rewrite);
                    }
                    _ => account.none(line.item, "a path is rewritten to fixed text and groups of the path's regex"),
                },
                "set-path" | "replace-path" | "replace-uri" | "set-uri" | "set-query" => {
                    account.none(
                        line.item,
                        "conditions here see the path as it came: rewrite it in the rule that uses the pool",
                    );
                }
                "auth" => {
                    account
                        .none(line.item, "nobody is let in until the rule that it is for says `auth basic \"FILE\"`");
                    used("deny", "unknown", &ways, &[], &[], line.line, rules);
                }
                "use-service" => {
                    account.none(line.item, "see [monitor] metrics-address; such requests get 404");
                    used("answer 404", "service", &ways, &[], &[], line.line, rules);
                }
                "capture" | "set-log-level" | "set-nice" | "set-mark" | "set-tos" | "set-priority-class"
                | "unset-var" | "set-var" | "set-var-fmt" | "sc-inc-gpc0" | "track-sc0" | "track-sc1" | "track-sc2"
                | "cache-use" | "wait-for-body" | "normalize-uri" | "set-src" | "do-resolve" | "lua.x" => {
                    account.none(line.item, "rules have nothing like it");
                }
                _ => account.none(line.item, "rules have nothing like it"),
            }
        }
        rewrites
    }

    fn header(&mut self, line: &Line, action: &str, rest: &[String], ways: Ways, headers: &mut Vec<Header>) {
        let account = &mut self.site.account;
        let name = rest.first().map(|name| name.to_ascii_lowercase()).unwrap_or_default();
        let value = rest.get(1).map_or("", String::as_str);
        if ways.is_empty() {
            return account.done(line.item);
        }
        if matches!(name.as_str(), "x-forwarded-proto" | "x-forwarded-for" | "x-forwarded-host" | "x-forwarded-port") {
            return match name.as_str() {
                "x-forwarded-port" => account.none(line.item, "X-Forwarded-Host says the port where it is not the usual one"),
                _ => account.differs_once(line.item, "Reeve writes X-Forwarded-*; what clients sent of it is kept only from peers in `trusted` of the listener"),
            };
        }
        let text = match action {
            "del-header" if rest.len() == 1 => format!("remove header {name}"),
            "set-header" if !value.contains("%[") && !value.contains('%') => {
                format!("set header {name}: {}", words::word(value))
            }
            "add-header" if !value.contains('%') => {
                account.differs(line.item, "what the client sent of this field is replaced");
                format!("set header {name}: {}", words::word(value))
            }
            _ => return account.none(line.item, "a header takes fixed text, or what the rule's path captured"),
        };
        let always = ways.iter().any(Vec::is_empty);
        let sometimes = headers.iter().filter(|header| !header.ways.iter().any(Vec::is_empty)).count();
        if !always && (sometimes >= SOMETIMES || ways.len() > 2) {
            return account.none(line.item, "too many cases: write a rule for each");
        }
        account.done(line.item);
        headers.push(Header { ways, text });
    }

    fn redirect(&mut self, line: &Line, rest: &[String], ways: &Ways, rules: &mut Vec<Rule>) {
        let account = &mut self.site.account;
        account.done(line.item);
        let after =
            |word: &str| rest.iter().position(|one| one == word).and_then(|at| rest.get(at + 1)).map(String::as_str);
        let code = after("code").unwrap_or("302");
        for word in ["drop-query", "append-slash", "set-cookie", "clear-cookie", "ignore-empty", "keep-query"] {
            if rest.iter().any(|one| one == word) {
                account.differs(line.item, format!("{word} is left out"));
            }
        }
        if let Some(to) = after("location").map(of_request).filter(|to| !to.contains('%')) {
            if !to.contains('?') {
                account.differs_once(
                    line.item,
                    "a redirect here keeps the query of the request; HAProxy's `location` does not",
                );
            }
            return used(&format!("redirect {code} {}", words::word(&to)), "moved", ways, &[], &[], line.line, rules);
        }
        if let Some(prefix) = after("prefix").map(of_request).filter(|prefix| !prefix.contains('%')) {
            let to = words::word(&format!("{}{{path}}", prefix.trim_end_matches('/')));
            return used(&format!("redirect {code} {to}"), "moved", ways, &[], &[], line.line, rules);
        }
        let Some(scheme) = after("scheme").filter(|scheme| matches!(*scheme, "http" | "https")) else {
            account
                .none(line.item, "a redirect's target is fixed text, the client's host and path and what that captured; such requests get 404");
            return used("answer 404", "moved", ways, &[], &[], line.line, rules);
        };
        used(&format!("redirect {code} {scheme}://{{host}}{{path}}"), "moved", ways, &[], &[], line.line, rules);
    }

    /// `tcp-request connection reject if ...`; whom an `accept` has let in is refused by nothing behind it.
    pub fn refusals(
        &mut self,
        proxy: &Proxy<'a>,
        acls: &Acls<'_>,
        context: &Context,
        action: &str,
        rules: &mut Vec<Rule>,
    ) {
        let mut asked: Ways = vec![Vec::new()];
        for line in proxy.all("tcp-request").into_iter().filter(|line| matches!(line.word(2), "reject" | "accept")) {
            let ways = acls.ways(line.words.get(3..).unwrap_or_default(), context, &mut self.site.account);
            let account = &mut self.site.account;
            let left = match (&ways, line.word(2)) {
                (Ok(ways), "reject") => {
                    acl::both(&asked, ways).map(|ways| used(action, "rejected", &ways, &[], &[], line.line, rules))
                }
                // A hello that is there is waited for anyway.
                (Ok(ways), _) if ways.iter().all(|way| way.iter().all(|test| test.word == "no-tls")) => Ok(()),
                (Ok(ways), _) => acl::not(ways).and_then(|not| acl::both(&asked, &not)).map(|left| asked = left),
                (Err(why), _) => Err(why.clone()),
            };
            match left {
                Ok(()) => account.done(line.item),
                Err(why) => account.none(line.item, why),
            }
        }
    }
}

fn rewrite(action: &str, rest: &[String]) -> Option<(Test, String)> {
    let (pattern, to) = match action {
        "set-path" => ("^".to_owned(), rest.first()?.clone()),
        _ => (rest.first()?.clone(), rest.get(1)?.clone()),
    };
    if to.contains(['%', '$', '{']) || !to.starts_with('/') {
        return None;
    }
    let mut text = String::new();
    let mut letters = to.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' if letters.peek().is_some_and(|next| ('1'..='9').contains(next)) => text.push('$'),
            '\\' => return None,
            letter => text.push(letter),
        }
    }
    Some((Test::new("path", words::regex(&pattern)), format!("rewrite {}", words::word(&text))))
}

/// A target with the client's host and path as they are named here; what is left of `%` has no name.
fn of_request(text: &str) -> String {
    let host = ["%[req.hdr(host)]", "%[req.hdr(Host)]", "%[hdr(host)]", "%[hdr(Host)]"];
    let text = host.iter().fold(text.to_owned(), |text, name| text.replace(name, "{host}"));
    text.replace("%[path]", "{path}")
}
