//! What each line is, by its column, and the sections and rules that the lines make up.
//!
//! ```text
//! column 1                     a section, a list, a map or an expect
//!   deeper                     a rule
//!     deeper than its rule     more of its condition (& or |), or a refinement
//! ```
//!
//! A word followed by `:` at or left of the last rule's column is a rule, whatever the word.

use std::collections::HashMap;
use std::sync::Arc;

use super::action::ACTIONS;
use super::condition::{CONDITIONS, condition};
use super::cursor::{Cursor, Parsed};
use super::draft::Draft;
use super::expect::{Above, expect};
use super::head;
use super::lexer::{Line, Token, TokenKind};
use super::pattern::is_name;
use super::refine::{FIRST_WORDS, REFINEMENTS, refinement};
use super::scope::Scope;
use crate::config::closest::closest;
use crate::model::rule::{HostPattern, Kind, PathPolicy, Rule, RuleSet, Section};
use crate::model::{Fault, Place};

const HEADS: [&str; 6] = ["http", "rtsp", "tcp", "list", "map", "expect"];
const POLICIES: [&str; 3] = ["safe", "strict", "as-is"];
/// Deeper lines of one rule; no person writes more.
const DEEPER_LINES: usize = 256;

/// Reads the lists and maps of a file.
pub(super) fn declarations(file: &Arc<str>, lines: &[Line<'_>], scope: &mut Scope<'_, '_>) {
    for line in lines.iter().filter(|line| line.column() == 1 && !line.broken) {
        let mut cursor = Cursor::new(file, line, 1);
        let what = match line.tokens.first() {
            Some(word) if word.is("list") => "list",
            Some(word) if word.is("map") => "map",
            _ => continue,
        };
        if let Err(fault) = head::declaration(&mut cursor, scope, what) {
            scope.tell(*fault);
        }
    }
}

/// Where each host of each kind was first declared, over all files of the set.
pub(super) type Seen = HashMap<(Kind, Option<HostPattern>), Place>;

/// The section whose rules are being read.
struct Open {
    section: Section,
    /// False: its head was wrong; its rules are read for their faults alone.
    kept: bool,
    names: HashMap<Arc<str>, Place>,
    policy: Option<Place>,
}

/// The rule whose deeper lines are being read.
struct OpenRule {
    draft: Draft,
    /// `None` where a tab hides it: then a line with a name is a rule, and any other is deeper.
    column: Option<u32>,
    deeper: usize,
}

pub(super) struct Layout<'l, 's, 'f> {
    file: &'l Arc<str>,
    scope: &'l mut Scope<'s, 'f>,
    set: &'l mut RuleSet,
    seen: &'l mut Seen,
    above: Above,
    open: Option<Open>,
    rule: Option<OpenRule>,
    /// Whether an indented line before any section was told of.
    homeless: bool,
}

impl<'l, 's, 'f> Layout<'l, 's, 'f> {
    pub fn new(file: &'l Arc<str>, scope: &'l mut Scope<'s, 'f>, set: &'l mut RuleSet, seen: &'l mut Seen) -> Self {
        Layout { file, scope, set, seen, above: Above::default(), open: None, rule: None, homeless: false }
    }

    pub fn read(mut self, lines: Vec<Line<'_>>) {
        for mut line in lines {
            if let Err(fault) = self.line(&mut line) {
                self.scope.tell(*fault);
                if let Some(rule) = &mut self.rule {
                    rule.draft.failed = true;
                }
            }
        }
        self.close_section();
    }

    fn line(&mut self, line: &mut Line<'_>) -> Parsed<()> {
        let column = line.column();
        if column == 1 {
            return self.left_edge(line);
        }
        if self.open.is_none() {
            if !self.homeless {
                self.homeless = true;
                let place = Cursor::new(self.file, line, 0).here();
                let fault = Fault::error("R0206", place, "an indented line, but no section stands above it");
                self.scope.tell(fault.help("begin one at the left edge: http HOST, rtsp HOST or tcp"));
            }
            self.open_section(Kind::Http, Vec::new(), Cursor::new(self.file, line, 0).here(), false);
        }
        match &self.rule {
            Some(rule) if rule.column.filter(|_| !line.tabbed).map_or(!line.is_named(), |own| column > own) => {
                self.deeper(line)
            }
            _ => self.rule_line(line),
        }
    }

    /// Column 1: always ends the section before.
    fn left_edge(&mut self, line: &mut Line<'_>) -> Parsed<()> {
        let file = self.file;
        let Some(word) = line.tokens.first().cloned() else { return Ok(()) };
        let mut cursor = Cursor::new(file, line, 1);
        let place = cursor.place(&word);
        let kind = if word.kind == TokenKind::Word { word.raw } else { "" };
        if HEADS.contains(&kind) {
            self.close_section();
        }
        match kind {
            "http" => self.section(Kind::Http, &mut cursor, place),
            "rtsp" => self.section(Kind::Rtsp, &mut cursor, place),
            "tcp" => {
                self.open_section(Kind::Tcp, Vec::new(), place.clone(), true);
                if let Some(next) = cursor.peek() {
                    let fault =
                        Fault::error("R0212", cursor.place(next), "a tcp section has no hosts: the bytes stay sealed");
                    return Err(Box::new(fault.help("use a condition: `sni NAME`")));
                }
                self.once(None, place, "a second tcp section");
            }
            "list" | "map" => {} // read before
            "expect" => {
                if !line.broken
                    && let Some(expect) = expect(&mut cursor, &self.above, self.scope)?
                {
                    self.set.expects.push(expect);
                }
            }
            _ => return self.unknown_head(line, &word, place),
        }
        Ok(())
    }

    fn unknown_head(&mut self, line: &mut Line<'_>, word: &Token<'_>, place: Place) -> Parsed<()> {
        if line.is_named() || word.is("&") || word.is("|") || word.is_one_of(&FIRST_WORDS) {
            // A rule, or what belongs to one: read it as such, so that its own faults come out too.
            let what = if line.is_named() { "a rule" } else { "what belongs to a rule" };
            let fault = Fault::error("R0207", place, format!("{what} is indented; the left edge is for sections"));
            self.scope.tell(fault.allowed(HEADS).help("put blanks before it"));
            if line.is_named() {
                if self.open.is_none() {
                    self.homeless = true;
                    self.open_section(Kind::Http, Vec::new(), Cursor::new(self.file, line, 0).here(), false);
                }
                return self.rule_line(line);
            }
            return Ok(());
        }
        self.close_section();
        let near = closest(word.raw, HEADS).filter(|_| word.kind == TokenKind::Word);
        let fault = Fault::error("R0207", place.clone(), format!("`{}` begins nothing at the left edge", word.raw))
            .allowed(HEADS);
        self.scope.tell(match near {
            Some(near) => fault.did_you_mean(near),
            None if word.raw == "https" || head::exact_host(word.raw).is_some_and(|host| host.contains('.')) => {
                fault.help("a section begins with its kind: http HOST")
            }
            None => fault,
        });
        let kind = match near {
            Some("rtsp") => Kind::Rtsp,
            Some("tcp") => Kind::Tcp,
            Some("list" | "map" | "expect") => return Ok(()),
            _ => Kind::Http,
        };
        self.open_section(kind, Vec::new(), place, false);
        Ok(())
    }

    fn section(&mut self, kind: Kind, cursor: &mut Cursor<'_, '_>, place: Place) {
        let hosts = head::hosts(cursor, self.scope, kind.word());
        for (host, place) in &hosts {
            let name = match host {
                HostPattern::Any => "`*`".to_owned(),
                HostPattern::Exact(name) => format!("host `{name}`"),
                HostPattern::Wildcard(tail) => format!("host `*{tail}`"),
            };
            self.once_of(
                kind,
                Some(host.clone()),
                place.clone(),
                format!("{name} is declared twice for {}", kind.word()),
            );
        }
        self.above.enter(kind, hosts.iter().map(|(host, _)| host));
        self.open_section(kind, hosts, place, true);
    }

    fn once(&mut self, host: Option<HostPattern>, place: Place, message: &str) {
        self.once_of(Kind::Tcp, host, place, message.to_owned());
    }

    /// One section a host.
    fn once_of(&mut self, kind: Kind, host: Option<HostPattern>, place: Place, message: String) {
        match self.seen.get(&(kind, host.clone())) {
            Some(first) => {
                let fault = Fault::error("R0211", place, message).also(first.clone(), "first declared here");
                let one = if kind == Kind::Tcp {
                    "one section has them all"
                } else {
                    "one section has all the rules of a host"
                };
                self.scope.tell(fault.help(one));
            }
            None => {
                self.seen.insert((kind, host), place);
            }
        }
    }

    fn open_section(&mut self, kind: Kind, hosts: Vec<(HostPattern, Place)>, place: Place, kept: bool) {
        self.close_section();
        let section = Section { kind, hosts, paths: PathPolicy::default(), rules: Vec::new(), place };
        self.open = Some(Open { section, kept, names: HashMap::new(), policy: None });
    }

    fn close_section(&mut self) {
        self.close_rule();
        let Some(open) = self.open.take() else { return };
        if open.kept {
            if open.names.is_empty() {
                let fault = Fault::warning(
                    "R0214",
                    open.section.place.clone(),
                    "a section without rules: all its requests are answered 404",
                );
                self.scope.tell(fault.help("add a rule: `  rest : any  use POOL`"));
            }
            self.set.sections.push(open.section);
        }
    }

    fn close_rule(&mut self) {
        let Some(OpenRule { mut draft, .. }) = self.rule.take() else { return };
        let Some(open) = &mut self.open else { return };
        if !draft.check(self.scope) {
            return;
        }
        let Some((action, _)) = draft.action else { return };
        open.section.rules.push(Rule {
            name: draft.name,
            id: "".into(),
            condition: draft.terms,
            action,
            refinements: draft.refinements.into_iter().map(|(refinement, _)| refinement).collect(),
            place: draft.place,
        });
    }

    /// A line at or left of the last rule's column.
    fn rule_line(&mut self, line: &mut Line<'_>) -> Parsed<()> {
        let file = self.file;
        if !line.is_named() {
            return self.not_a_rule(line);
        }
        self.close_rule();
        line.split_name();
        let column = Some(line.column()).filter(|_| !line.tabbed);
        let mut cursor = Cursor::new(file, line, 1);
        let Some((name, open)) = line.tokens.first().zip(self.open.as_mut()) else { return Ok(()) };
        let place = cursor.place(name);
        let mut draft = Draft::new(open.section.kind, name.raw.into(), place.clone());
        draft.failed = line.broken;
        if !is_name(name.raw) {
            let fault = Fault::error(
                "R0208",
                place.clone(),
                format!("`{}` is not a name: a small letter, then small letters, digits, - and _", name.raw),
            );
            let small = name.raw.to_ascii_lowercase().replace(['.', ' ', '/'], "-");
            self.scope.tell(if is_name(&small) { fault.did_you_mean(small) } else { fault });
            draft.failed = true;
        }
        match open.names.get(&*draft.name) {
            Some(first) => {
                let fault = Fault::error("R0209", place, format!("rule `{}` stands twice in this section", name.raw));
                self.scope.tell(fault.also(first.clone(), "first declared here"));
                draft.failed = true;
            }
            None => {
                open.names.insert(draft.name.clone(), place);
            }
        }
        let mut rule = OpenRule { draft, column, deeper: 0 };
        let result = if line.broken { Ok(()) } else { condition(&mut cursor, &mut rule.draft, self.scope, true) };
        self.rule = Some(rule);
        result
    }

    /// An indented line that is not named and stands where a rule should.
    fn not_a_rule(&mut self, line: &mut Line<'_>) -> Parsed<()> {
        let cursor = Cursor::new(self.file, line, 0);
        let Some(word) = line.tokens.first() else { return Ok(()) };
        if word.is("paths") {
            return self.policy(cursor, false);
        }
        let place = cursor.place(word);
        if word.is_one_of(&FIRST_WORDS) || word.is("&") || word.is("|") {
            let fault =
                Fault::error("R0207", place, format!("`{}` goes on with a rule, and stands deeper than it", word.raw));
            return Err(Box::new(match &self.rule {
                Some(OpenRule { column: Some(column), .. }) => fault.help(format!("begin it behind column {column}")),
                _ => fault.help("write a rule first"),
            }));
        }
        // A rule without its colon, as far as one can tell.
        self.close_rule();
        if line.broken {
            return Ok(());
        }
        let second_is_condition =
            line.tokens.get(1).is_some_and(|t| t.is_one_of(&CONDITIONS) || t.raw.starts_with('!'));
        let fault = Fault::error("R0207", place.clone(), "a rule begins with its name and `:`");
        let fault = match word.raw {
            raw if is_name(raw) && second_is_condition => fault.did_you_mean(format!("{raw} :")),
            raw if CONDITIONS.contains(&raw) => fault.did_you_mean(format!("NAME : {raw}")),
            raw if ACTIONS.contains(&raw) => fault.did_you_mean(format!("NAME : any {raw}")),
            raw if is_name(raw) => fault.did_you_mean(format!("{raw} :")),
            _ => fault.help("NAME : CONDITION ACTION"),
        };
        // What follows belongs to this rule, and is read for its own faults.
        if let Some(open) = &mut self.open {
            let mut draft = Draft::new(open.section.kind, word.raw.into(), place.clone());
            draft.failed = true;
            open.names.entry(word.raw.into()).or_insert(place);
            self.rule = Some(OpenRule { draft, column: Some(word.column).filter(|_| !line.tabbed), deeper: 0 });
        }
        self.scope.tell(fault);
        if second_is_condition && let Some(rule) = &mut self.rule {
            let mut cursor = Cursor::new(self.file, line, 1);
            return condition(&mut cursor, &mut rule.draft, self.scope, true);
        }
        Ok(())
    }

    /// A line deeper than the last rule: more of its condition, or a refinement.
    fn deeper(&mut self, line: &mut Line<'_>) -> Parsed<()> {
        let file = self.file;
        let Some(rule) = &mut self.rule else { return Ok(()) };
        rule.deeper += 1;
        if rule.deeper > DEEPER_LINES {
            if !rule.draft.failed {
                let fault = Fault::error(
                    "R0223",
                    rule.draft.place.clone(),
                    format!("more than {DEEPER_LINES} deeper lines in one rule"),
                );
                return Err(Box::new(fault.help("use a list: `in NAME`")));
            }
            return Ok(());
        }
        let Some(word) = line.tokens.first() else { return Ok(()) };
        if line.broken {
            rule.draft.failed = true;
            return Ok(());
        }
        let mut cursor = Cursor::new(file, line, 0);
        if word.is("&") || word.is("|") {
            if !rule.draft.conditioned && !rule.draft.failed {
                let fault =
                    Fault::error("R0220", cursor.place(word), "nothing stands before this that it could go on with");
                return Err(Box::new(fault.help("the condition begins on the rule's own line")));
            }
            if !rule.draft.conditioned {
                return Ok(()); // its beginning was wrong, and told
            }
            return condition(&mut cursor, &mut rule.draft, self.scope, false);
        }
        if word.is("paths") && !line.is_named() {
            return self.policy(cursor, true);
        }
        if word.is_one_of(&FIRST_WORDS) && !line.is_named() {
            return refinement(&mut cursor, &mut rule.draft, self.scope);
        }
        let place = cursor.place(word);
        if line.is_named()
            && !closest(word.raw, FIRST_WORDS).is_some_and(|_| line.tokens.get(1).is_some_and(|t| t.is("header")))
        {
            let column = rule.column.unwrap_or(1);
            let fault =
                Fault::error("R0207", place, "this rule stands deeper than the one above it, as if it belonged to it");
            self.scope.tell(fault.help(format!("begin it in column {column}")));
            // Read on as if it stood right, so that only this one fault comes of it.
            let result = self.rule_line(line);
            if let Some(rule) = &mut self.rule {
                rule.column = Some(column);
            }
            return result;
        }
        Err(Box::new(unknown_refinement(word, place, rule)))
    }

    /// `paths safe|strict|as-is`: holds for the section. `below`: it stands below a rule.
    fn policy(&mut self, mut cursor: Cursor<'_, '_>, below: bool) -> Parsed<()> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let Some(word) = cursor.next() else { return Ok(()) };
        let place = cursor.place(word);
        if open.section.kind == Kind::Tcp {
            return Err(Box::new(Fault::error("R0250", place, "a tcp section has no paths")));
        }
        let Some(value) = cursor.next() else {
            return Err(Box::new(Fault::error("R0251", place, "`paths` needs a policy").allowed(POLICIES)));
        };
        let policy = match value.raw {
            "safe" => PathPolicy::Safe,
            "strict" => PathPolicy::Strict,
            "as-is" => PathPolicy::AsIs,
            other => {
                let fault = Fault::error("R0251", cursor.place(value), format!("`{other}` is no policy for paths"))
                    .allowed(POLICIES);
                return Err(Box::new(match closest(other, POLICIES) {
                    Some(near) => fault.did_you_mean(near),
                    None => fault,
                }));
            }
        };
        cursor.finish()?;
        let place = cursor.since(word);
        if let Some(first) = &open.policy {
            let fault = Fault::error("R0254", place, "this section has a policy for paths already");
            return Err(Box::new(fault.also(first.clone(), "the first one")));
        }
        if below {
            let fault = Fault::warning(
                "R0250",
                place.clone(),
                "`paths` holds for all rules of the section, not for this one alone",
            );
            self.scope.tell(fault.help("write it under the section head, before the first rule"));
        }
        open.policy = Some(place);
        open.section.paths = policy;
        Ok(())
    }
}

fn unknown_refinement(word: &Token<'_>, place: Place, rule: &OpenRule) -> Fault {
    let raw = word.raw;
    let fault =
        Fault::error("R0250", place.clone(), format!("`{raw}` is nothing that refines a rule")).allowed(REFINEMENTS);
    if word.is_one_of(&ACTIONS) {
        let fault = Fault::error("R0250", place, "an action stands at the end of the condition, on the same line");
        return match rule.draft.action {
            Some(_) => fault.help("this rule has one already"),
            None => fault.help(format!("move it up, or begin this line with `& any {raw} ...`")),
        };
    }
    if word.is_one_of(&CONDITIONS) || raw.starts_with('!') {
        let fault = Fault::error("R0250", place, "a condition that goes on begins with `&` or `|`");
        return fault.did_you_mean(format!("& {raw}"));
    }
    match closest(raw, FIRST_WORDS) {
        Some(near) => fault.did_you_mean(near),
        None => match raw {
            "add" | "add-header" | "set-header" | "header_up" => fault.did_you_mean("set header"),
            "del" | "delete" | "unset" | "remove-header" => fault.did_you_mean("remove header"),
            _ => fault,
        },
    }
}
