//! What is done with a request: the directives of a server and of its locations, as rules.
//!
//! nginx goes through phases, whatever the order of the text: `if`, `return` and `rewrite` first, then `allow` and
//! `deny`, then what answers. Each becomes rules in that order, so that the first that matches is what nginx does.

use super::location::{self, Decision, Kind, Location};
use super::servers::Server;
use super::tree::Directive;
use super::variable::{self, Context, Known, Want};
use super::{Levels, Reader};
use crate::app::import::site::{Rule, Test};
use crate::app::import::words;

/// Where rules are made.
struct Place<'p, 'a> {
    levels: &'p Levels<'a>,
    context: &'p Context,
    /// The location that is left when it is over.
    location: Option<&'p Location<'a>>,
    label: String,
    line: u32,
}

impl<'a> Reader<'a> {
    /// The rules of a server below `base`. True: they leave no request over.
    pub fn server(&mut self, server: &Server<'a>, base: &[Test], context: &Context, rules: &mut Vec<Rule>) -> bool {
        let place = Place {
            levels: &server.levels,
            context,
            location: None,
            label: "rest".to_owned(),
            line: server.directive.line,
        };
        if self.rewrites(server.directive.body(), base, &place, rules).ends {
            return true;
        }
        let mut closed = false;
        for Decision { tests, chain, slash } in location::order(&server.locations) {
            let Some(last) = chain.last() else { continue };
            if !self.site.spend(1 + tests.len()) {
                return true;
            }
            let mut all = base.to_vec();
            all.extend(tests.into_iter().filter(|test| !base.contains(test)));
            closed |= all.len() == base.len();
            if slash {
                let action = format!("redirect 301 {}", words::word(&last.text));
                let name = format!("{}-slash", label(last));
                rules.push(Rule { name, tests: all, action, more: Vec::new(), line: last.directive.line });
                continue;
            }
            let levels = chain.iter().fold(server.levels.clone(), |levels, one| levels.with(one.directive.body()));
            let place =
                Place { levels: &levels, context, location: Some(last), label: label(last), line: last.directive.line };
            self.location(last, all, &place, server, rules);
        }
        closed
    }

    fn location(
        &mut self,
        location: &Location<'a>,
        tests: Vec<Test>,
        place: &Place<'_, 'a>,
        server: &Server<'a>,
        rules: &mut Vec<Rule>,
    ) {
        let flow = self.rewrites(location.directive.body(), &tests, place, rules);
        if flow.ends {
            return;
        }
        if self.access(&tests, place, rules) {
            return;
        }
        for (pattern, template) in &flow.breaks {
            let mut all = vec![Test::new("path", words::regex(pattern))];
            all.extend(tests.iter().cloned());
            self.content(location.directive.body(), all, place, server, Some(template), rules);
        }
        self.content(location.directive.body(), tests, place, server, None, rules);
    }

    /// What answers in a block: a pool, or nothing here.
    fn content(
        &mut self,
        body: &'a [Directive],
        tests: Vec<Test>,
        place: &Place<'_, 'a>,
        server: &Server<'a>,
        rewrite: Option<&String>,
        rules: &mut Vec<Rule>,
    ) {
        let pass = body.iter().find(|one| matches!(one.name.as_str(), "proxy_pass" | "grpc_pass"));
        let Some(pass) = pass else {
            let named =
                body.iter().find(|one| one.name == "try_files").and_then(|files| Some((files, files.args.last()?)));
            if let Some((files, name)) = named
                && name.starts_with('@')
                && let Some(other) =
                    server.directive.body().iter().find(|one| one.name == "location" && one.arg(0) == name)
                && !other.body().iter().any(|one| one.name == "try_files")
            {
                self.site.account.differs(files.item, format!("no files are looked for: every request goes to {name}"));
                self.site.account.done(other.item);
                let levels = server.levels.with(other.body());
                let place = Place {
                    levels: &levels,
                    location: None,
                    context: place.context,
                    label: place.label.clone(),
                    line: place.line,
                };
                return self.content(other.body(), tests, &place, server, rewrite, rules);
            }
            if let Some(location) = place.location {
                self.site.account.none(
                    location.directive.item,
                    "nothing here answers as this does: its requests get 404, and go to no other location's pool",
                );
            }
            let action = "answer 404".to_owned();
            rules.push(Rule { name: place.label.clone(), tests, action, more: Vec::new(), line: place.line });
            return;
        };
        let url = pass.arg(0).to_owned();
        // `http://$name` of a map: a rule for each of its values.
        let variable = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest).strip_prefix('$');
        let map = variable.and_then(|name| self.maps.get(name).copied());
        let Some(map) = map else {
            return self.forward(pass, &url, tests, place, rewrite, rules);
        };
        match variable::map(map, place.context) {
            Ok(entries) => {
                self.site.account.done(map.item);
                map.body().iter().for_each(|entry| self.site.account.done(entry.item));
                for (test, value) in entries {
                    let mut all = tests.clone();
                    all.extend(test);
                    let url = match url.split_once("://") {
                        Some((scheme, _)) => format!("{scheme}://{value}"),
                        None => value,
                    };
                    self.forward(pass, &url, all, place, rewrite, rules);
                }
            }
            Err(why) => {
                self.site.account.none(pass.item, why);
                self.closed(tests, place, rules);
            }
        }
    }

    fn closed(&mut self, tests: Vec<Test>, place: &Place<'_, 'a>, rules: &mut Vec<Rule>) {
        let action = "answer 404".to_owned();
        rules.push(Rule { name: place.label.clone(), tests, action, more: Vec::new(), line: place.line });
    }

    fn forward(
        &mut self,
        pass: &'a Directive,
        url: &str,
        mut tests: Vec<Test>,
        place: &Place<'_, 'a>,
        rewrite: Option<&String>,
        rules: &mut Vec<Rule>,
    ) {
        if !self.site.spend(1) {
            return;
        }
        let passed = match self.pool_of(pass, url, place.levels) {
            Ok(passed) => passed,
            Err(why) => {
                self.site.account.none(pass.item, format!("{why}; its requests get 404"));
                return self.closed(tests, place, rules);
            }
        };
        self.site.account.done(pass.item);
        let mut more = self.refinements(pass, place);
        more.extend(passed.more);
        match (rewrite, &passed.uri, place.location) {
            (Some(template), ..) => more.push(format!("rewrite {}", words::word(template))),
            (None, Some(uri), Some(location)) => match location.kind {
                Kind::Exact if *uri != location.text => more.push(format!("rewrite {}", words::word(uri))),
                Kind::Prefix | Kind::Firm if *uri != location.text => {
                    let own = Test::new(
                        "path",
                        words::regex(&format!("^{}(.*)$", words::literal(&words::encoded(&location.text)))),
                    );
                    // The groups are of the first path that has any; the place of the others says the same.
                    let same = words::path_begins(&location.text);
                    tests.retain(|test| *test != same && *test != Test::new("path", format!("{}**", location.text)));
                    tests.insert(0, own);
                    let slash = if uri.starts_with('/') { "" } else { "/" };
                    more.push(format!("rewrite {}", words::word(&format!("{slash}{uri}$1"))));
                }
                _ => {}
            },
            _ => {}
        }
        let rule =
            Rule { name: place.label.clone(), tests, action: format!("use {}", passed.pool), more, line: place.line };
        rules.push(rule);
    }

    /// Lines below a rule that uses a pool.
    fn refinements(&mut self, pass: &Directive, place: &Place<'_, 'a>) -> Vec<String> {
        let mut more = Vec::new();
        let levels = place.levels;
        let grpc = pass.name == "grpc_pass";
        let mut host = false;
        for header in levels.all(if grpc { "grpc_set_header" } else { "proxy_set_header" }) {
            let account = &mut self.site.account;
            let (name, value) = (header.arg(0).to_ascii_lowercase(), header.arg(1));
            match (name.as_str(), value) {
                ("host", "$host" | "$http_host" | "$host:$server_port") => {
                    host = true;
                    account.done(header.item);
                }
                ("host", _) => {
                    host = true;
                    account.none(header.item, "servers get the host that the client asked for");
                }
                ("connection" | "upgrade", _) => account.done(header.item),
                ("x-forwarded-for", "$proxy_add_x_forwarded_for" | "$remote_addr") => account.differs_once(
                    header.item,
                    "Reeve writes X-Forwarded-*; what clients sent of it is kept only from peers in `trusted` of the listener",
                ),
                ("x-forwarded-proto", "$scheme" | "https" | "http") | ("x-forwarded-host", "$host" | "$http_host") => {
                    account.done(header.item);
                }
                ("x-real-ip", "$remote_addr") => {
                    account.none(header.item, "a header cannot take the client's address: X-Forwarded-For says it");
                }
                (_, "") => {
                    account.done(header.item);
                    more.push(format!("remove header {name}"));
                }
                (_, value) if value.contains('$') => {
                    account.none(header.item, "a header takes fixed text, or what the rule's path captured");
                }
                (_, value) => {
                    account.done(header.item);
                    more.push(format!("set header {name}: {}", words::word(value)));
                }
            }
        }
        if !host && !grpc {
            self.site.account.differs_once(
                pass.item,
                "servers get the host that the client asked for; nginx sends the name of the upstream where no proxy_set_header Host stands",
            );
        }
        if let Some(size) = levels.last("client_max_body_size") {
            match words::size(size.arg(0)) {
                Some(text) => {
                    self.site.account.done(size.item);
                    more.push(format!("limit body {text}"));
                }
                // 0: no bound, as here.
                None => self.site.account.done(size.item),
            }
        }
        if let Some(limit) = levels.last("limit_req") {
            self.rate(limit, &mut more);
        }
        if let (Some(auth), Some(file)) = (levels.last("auth_basic"), levels.last("auth_basic_user_file"))
            && auth.arg(0) != "off"
        {
            self.site.account.done(file.item);
            self.site.account.differs(
                auth.item,
                "hashes of htpasswd are not taken: `reeve hash-password NAME` makes lines for the file",
            );
            more.push(format!("auth basic {}", words::text(file.arg(0))));
        }
        more
    }

    fn rate(&mut self, limit: &Directive, more: &mut Vec<String>) {
        let zone = limit.args.iter().find_map(|arg| arg.strip_prefix("zone=")).unwrap_or("");
        let Some(zone) = self.zones.get(zone).copied() else {
            return self.site.account.none(limit.item, "there is no such zone in this text");
        };
        let rate = zone.args.iter().find_map(|arg| arg.strip_prefix("rate="));
        let rate = rate.and_then(|rate| {
            let (count, unit) = rate.split_once("r/")?;
            count.parse::<u32>().ok().filter(|count| *count > 0)?;
            matches!(unit, "s" | "m").then(|| format!("{count}/{unit}"))
        });
        let source = matches!(zone.arg(0), "$binary_remote_addr" | "$remote_addr");
        match rate.filter(|_| source) {
            Some(rate) => {
                self.site.account.done(zone.item);
                self.site.account.differs(limit.item, "bursts and delays are Reeve's own");
                more.push(format!("limit {rate} per source"));
            }
            None => self.site.account.none(limit.item, "rates are counted per source here, by seconds or minutes"),
        }
    }

    /// `allow` and `deny`: the first that names the client decides. True: nobody is let through.
    fn access(&mut self, tests: &[Test], place: &Place<'_, 'a>, rules: &mut Vec<Rule>) -> bool {
        let innermost =
            place.levels.0.iter().rev().find(|level| level.contains_key("allow") || level.contains_key("deny"));
        let Some(level) = innermost else { return false };
        let mut all: Vec<&Directive> =
            ["allow", "deny"].iter().filter_map(|name| level.get(name)).flatten().copied().collect();
        all.sort_by_key(|one| one.item);
        let mut allowed: Vec<String> = Vec::new();
        for one in all {
            let net = match one.arg(0) {
                "all" => None,
                text => match words::net(text) {
                    Some(net) => Some(net),
                    None => {
                        self.site.account.none(one.item, "sources are addresses and networks here");
                        continue;
                    }
                },
            };
            self.site.account.done(one.item);
            if !self.site.spend(1) {
                return false;
            }
            match (one.name.as_str(), net) {
                ("allow", Some(net)) => allowed.push(net),
                ("allow", None) => return false,
                (_, net) => {
                    let mut tests = tests.to_vec();
                    let all = net.is_none();
                    tests.extend(net.map(|net| Test::new("from", net)));
                    if !allowed.is_empty() {
                        tests.push(Test::any_of("from", allowed.clone()).not());
                    }
                    let name = format!("{}-denied", place.label);
                    rules.push(Rule { name, tests, action: "deny".to_owned(), more: Vec::new(), line: one.line });
                    if all {
                        return allowed.is_empty();
                    }
                }
            }
        }
        false
    }

    /// `if`, `return` and `rewrite` of one block, in their order.
    fn rewrites(
        &mut self,
        body: &'a [Directive],
        tests: &[Test],
        place: &Place<'_, 'a>,
        rules: &mut Vec<Rule>,
    ) -> Flow {
        let mut flow = Flow::default();
        for one in body {
            if flow.ends {
                break;
            }
            if !self.site.spend(1) {
                flow.ends = true;
                break;
            }
            match one.name.as_str() {
                "return" => {
                    self.answer(one, tests.to_vec(), place, rules);
                    flow.ends = true;
                }
                "rewrite" => self.rewrite(one, tests, place, rules, &mut flow),
                "if" => self.condition(one, tests, place, rules),
                _ => {}
            }
        }
        flow
    }

    fn condition(&mut self, one: &'a Directive, tests: &[Test], place: &Place<'_, 'a>, rules: &mut Vec<Rule>) {
        let alternatives = match self.alternatives(one, place.context) {
            Ok(alternatives) => alternatives,
            Err(why) => {
                one.body()
                    .iter()
                    .for_each(|inner| self.site.account.none(inner.item, "stands in an `if` without an equal here"));
                return self.site.account.none(one.item, why);
            }
        };
        self.site.account.done(one.item);
        for alternative in alternatives {
            let mut all = tests.to_vec();
            all.extend(alternative);
            let label = format!("{}-if", place.label);
            let levels = place.levels.with(one.body());
            let inner =
                Place { levels: &levels, label, line: one.line, location: place.location, context: place.context };
            let flow = self.rewrites(one.body(), &all, &inner, rules);
            if flow.ends {
                continue;
            }
            if let Some(pass) = one.body().iter().find(|one| one.name == "proxy_pass") {
                let url = pass.arg(0).to_owned();
                self.forward(pass, &url, all, &inner, None, rules);
            }
        }
    }

    /// The tests of an `if`: one list for each way that it can hold.
    fn alternatives(&mut self, one: &Directive, context: &Context) -> Result<Vec<Vec<Test>>, String> {
        let joined = one.args.join(" ");
        let inner = joined.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).unwrap_or(&joined).trim();
        let (name, rest) = inner.split_once(' ').unwrap_or((inner, ""));
        let Some(name) = name.strip_prefix('$') else {
            return Err("Reeve looks for no files".to_owned());
        };
        let (operator, value) = rest.split_once(' ').unwrap_or((rest, ""));
        let value = value.trim();
        let (want, negated) = match operator {
            "" => (Want::Truth, false),
            "=" => (Want::Is(value, false), false),
            "!=" => (Want::Is(value, false), true),
            "~" => (Want::Found(value, false), false),
            "~*" => (Want::Found(value, true), false),
            "!~" => (Want::Found(value, false), true),
            "!~*" => (Want::Found(value, true), true),
            _ => return Err(format!("{operator} is no comparison")),
        };
        if let Some(map) = self.maps.get(name).copied() {
            let holds = |value: &str| match &want {
                Want::Truth => !value.is_empty() && value != "0",
                Want::Is(text, _) => (value == *text) != negated,
                Want::Found(..) => false,
            };
            if matches!(want, Want::Found(..)) {
                return Err("what a map says is compared as a whole here".to_owned());
            }
            let mut found = Vec::new();
            let mut before: Vec<Test> = Vec::new();
            for (test, value) in variable::map(map, context)? {
                match test {
                    Some(test) if holds(&value) => found.push(before.iter().cloned().chain([test]).collect()),
                    Some(test) => before.push(test.not()),
                    None if holds(&value) => found.push(before.clone()),
                    None => {}
                }
            }
            self.site.account.done(map.item);
            map.body().iter().for_each(|entry| self.site.account.done(entry.item));
            return Ok(found);
        }
        Ok(match variable::test(name, &want, context)? {
            Known::Test(test) if negated => vec![vec![test.not()]],
            Known::Test(test) => vec![vec![test]],
            Known::Always(holds) if holds != negated => vec![Vec::new()],
            Known::Always(_) => Vec::new(),
        })
    }

    fn answer(&mut self, one: &Directive, tests: Vec<Test>, place: &Place<'_, 'a>, rules: &mut Vec<Rule>) {
        let code = one.arg(0).parse::<u16>().ok();
        let account = &mut self.site.account;
        account.done(one.item);
        let to = match code {
            Some(301 | 302 | 303 | 307 | 308) => Some(one.arg(1)).filter(|to| !to.is_empty()),
            None => Some(one.arg(0)),
            _ => None,
        };
        let regex = place.location.is_some_and(|location| location.kind == Kind::Regex);
        let action = match (code, to) {
            (_, Some(to)) => match variable::fill(to, place.context, regex) {
                Ok(filled) => {
                    if !filled.query {
                        account.differs_once(
                            one.item,
                            "a redirect here keeps the query of the request; nginx's `return` does not",
                        );
                    }
                    format!("redirect {} {}", code.unwrap_or(302), words::word(&filled.text))
                }
                Err(why) => {
                    account.none(one.item, format!("{why}; such requests get 404"));
                    "answer 404".to_owned()
                }
            },
            (Some(444), _) => "drop".to_owned(),
            (Some(403), _) if one.args.len() == 1 => "deny".to_owned(),
            (Some(code @ 200..600), _) => match one.arg(1) {
                text if text.contains('$') => {
                    account.none(one.item, "an answer's text is fixed here: it is left out");
                    format!("answer {code}")
                }
                "" => format!("answer {code}"),
                _ if matches!(code, 204 | 205 | 304) => format!("answer {code}"),
                text if text.contains(|c: char| c.is_control()) => {
                    account.differs(one.item, "line breaks and the like are taken out of the text");
                    let text: String = text.chars().filter(|c| !c.is_control()).collect();
                    format!("answer {code} \"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
                }
                text => format!("answer {code} \"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
            },
            _ => {
                account.none(one.item, "an answer has a code from 200 to 599; such requests get 404");
                "answer 404".to_owned()
            }
        };
        rules.push(Rule { name: place.label.clone(), tests, action, more: Vec::new(), line: one.line });
    }

    fn rewrite(
        &mut self,
        one: &'a Directive,
        tests: &[Test],
        place: &Place<'_, 'a>,
        rules: &mut Vec<Rule>,
        flow: &mut Flow,
    ) {
        let (pattern, to, flag) = (one.arg(0), one.arg(1), one.arg(2));
        let account = &mut self.site.account;
        let external = to.starts_with("http://") || to.starts_with("https://") || to.starts_with("$scheme");
        let code = match flag {
            "permanent" => Some(301),
            "redirect" => Some(302),
            _ => external.then_some(302),
        };
        let filled = match variable::fill(to, place.context, true) {
            Ok(filled) => filled,
            Err(why) => return account.none(one.item, why),
        };
        match code {
            Some(code) => {
                account.done(one.item);
                if filled.text.ends_with('?') {
                    account.differs(one.item, "the `?` that keeps the query away stays in the target");
                }
                let mut all = vec![Test::new("path", words::regex(pattern))];
                all.extend(tests.iter().cloned());
                let action = format!("redirect {code} {}", words::word(&filled.text));
                rules.push(Rule {
                    name: format!("{}-moved", place.label),
                    tests: all,
                    action,
                    more: Vec::new(),
                    line: one.line,
                });
            }
            None if flag == "break" && place.location.is_some() && filled.text.starts_with('/') => {
                account.done(one.item);
                flow.breaks.push((pattern.to_owned(), filled.text));
            }
            None => account.none(
                one.item,
                "a path is not looked up again under another one: write its rules for the path that is asked for",
            ),
        }
    }
}

#[derive(Debug, Default)]
struct Flow {
    /// Nothing behind it is reached.
    ends: bool,
    /// `rewrite REGEX TO break`
    breaks: Vec<(String, String)>,
}

/// What a rule made of a location is called.
fn label(location: &Location<'_>) -> String {
    let text = location.text.trim_start_matches("(?i)");
    if matches!(text, "/" | "") && location.kind != Kind::Exact {
        "rest".to_owned()
    } else if text == "/" {
        "root".to_owned()
    } else {
        text.to_owned()
    }
}
