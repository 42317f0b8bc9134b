//! `auth`: who may have what a rule gives, by a file of passwords or by a service that is asked.

use std::collections::HashMap;
use std::sync::Arc;

use argon2::Params;
use argon2::password_hash::phc::PasswordHash;

use super::cursor::{Cursor, Parsed};
use super::lexer::TokenKind;
use super::refine::missing;
use super::scope::{ENTRY_FAULTS, Scope};
use crate::config::closest::closest;
use crate::config::entries::without_comment;
use crate::config::reason;
use crate::model::rule::{AuthUrl, Refinement, Users};
use crate::model::{Fault, Place};

/// Users of one file: a table of them is looked through by halves, and every one is somebody who has to be let in by hand.
const USERS: usize = 100_000;
/// Bytes of a user's name; it goes to servers in a field.
const NAME: usize = 128;
/// What one check of a password may cost: 256 MiB, 16 rounds, 16 lanes. argon2's own proposals end far below.
const MOST_MEMORY: u32 = 256 << 10;
const MOST_ROUNDS: u32 = 16;
const MOST_LANES: u32 = 16;

const FORMS: [&str; 2] = ["basic \"FILE\"", "forward URL"];

pub(super) fn auth(cursor: &mut Cursor<'_, '_>, scope: &mut Scope<'_, '_>) -> Parsed<Option<Refinement>> {
    let Some(token) = cursor.next() else {
        return Err(Box::new(missing(cursor, "`auth` needs which kind").allowed(FORMS)));
    };
    let value = cursor.value();
    match (token.raw, value) {
        ("basic", Some(file)) if file.kind == TokenKind::Text && !file.value.is_empty() => {
            let users = users(&file.value, cursor.place(file), scope);
            Ok(users.map(|users| Refinement::AuthBasic { users }))
        }
        ("basic", Some(file)) => {
            let fault = Fault::error("R0251", cursor.place(file), "the file stands in quotes");
            Err(Box::new(fault.did_you_mean(format!("\"{}\"", file.value))))
        }
        ("forward", Some(url)) => match parse_url(&url.value) {
            Ok(parsed) => Ok(Some(Refinement::AuthForward { url: Arc::new(parsed) })),
            Err((why, meant)) => {
                let fault = Fault::error("R0251", cursor.place(url), why);
                Err(Box::new(match meant {
                    Some(meant) => fault.did_you_mean(meant),
                    None => fault.help("such as http://127.0.0.1:9091/check"),
                }))
            }
        },
        ("basic" | "forward", None) => {
            Err(Box::new(missing(cursor, format!("`auth {}` lacks its value", token.raw)).allowed(FORMS)))
        }
        (other, _) => {
            let fault = Fault::error("R0251", cursor.place(token), format!("`{other}` is no kind of authentication"))
                .allowed(FORMS);
            Err(Box::new(match closest(other, ["basic", "forward"]) {
                Some(near) => fault.did_you_mean(near),
                None => fault,
            }))
        }
    }
}

/// What is wrong with it, and what may have been meant.
fn parse_url(text: &str) -> Result<AuthUrl, (&'static str, Option<String>)> {
    let tls = text.starts_with("https://");
    if !tls && !text.starts_with("http://") {
        let meant = if text.contains("://") { None } else { Some(format!("http://{text}")) };
        return Err(("a URL begins with http:// or https://", meant));
    }
    let uri: http::Uri = text.parse().map_err(|_| ("this is no URL", None))?;
    let authority = uri.authority().ok_or(("the URL has no host", None))?;
    if authority.as_str().contains('@') || uri.host().is_none_or(str::is_empty) {
        return Err(("the URL has no host, or more than a host and a port", None));
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let target = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    Ok(AuthUrl {
        host: host.into(),
        port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
        tls,
        origin: format!("{}://{authority}", if tls { "https" } else { "http" }).into(),
        authority: authority.as_str().into(),
        target: target.into(),
    })
}

/// Reads a file of users, once a load.
fn users(file: &str, place: Place, scope: &mut Scope<'_, '_>) -> Option<Arc<Users>> {
    if let Some(known) = scope.users.get(file) {
        return known.clone();
    }
    let name: Arc<str> = file.into();
    let read = match (scope.names.read_secret)(file) {
        Ok(text) => parse(&name, &text).map_err(|faults| faults.into_iter().take(ENTRY_FAULTS).collect()),
        Err(error) => {
            let fault = Fault::error("R0271", place, format!("cannot read `{file}`: {}", reason(&error)));
            Err(vec![fault.help("relative paths start at the base folder, the parent of config/")])
        }
    };
    let users = match read {
        Ok(users) => Some(Arc::new(users)),
        Err(faults) => {
            faults.into_iter().for_each(|fault: Fault| scope.tell(fault));
            None
        }
    };
    scope.users.insert(name, users.clone());
    users
}

/// One line a user: `name:$argon2id$...`. What a line says is never repeated.
fn parse(file: &Arc<str>, text: &str) -> Result<Users, Vec<Fault>> {
    let mut entries: Vec<(Arc<str>, Arc<str>)> = Vec::new();
    let mut lines: HashMap<&str, u32> = HashMap::new();
    let mut faults = Vec::new();
    for (line, number) in text.lines().map(without_comment).zip(1u32..).filter(|(line, _)| !line.is_empty()) {
        let place = || Place { file: file.clone(), line: number, column: 1, end: 2 };
        let wrong = |why: &str| {
            let fault = Fault::error("R0276", place(), why);
            fault.help("a line is NAME:HASH, as `reeve hash-password NAME` prints it")
        };
        let Some((name, hash)) = line.split_once(':') else {
            faults.push(wrong("a line without `:`"));
            continue;
        };
        if name.is_empty() || name.len() > NAME || name.contains(|c: char| c.is_control() || c == ' ') {
            faults.push(wrong("a name has 1 to 128 bytes and no blanks"));
        } else if let Some(first) = lines.get(name) {
            let fault = Fault::error("R0276", place(), format!("the user `{name}` stands twice in this file"));
            faults.push(fault.help(format!("line {first} has it already")));
        } else if let Err(why) = judge(hash) {
            faults.push(wrong(why));
        } else {
            lines.insert(name, number);
            entries.push((name.into(), hash.into()));
        }
    }
    if entries.len() > USERS {
        faults.push(Fault::error("R0274", Place::file(file.clone()), format!("more than {USERS} users")));
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    entries.sort();
    Ok(Users { file: file.clone(), entries })
}

fn judge(hash: &str) -> Result<(), &'static str> {
    if ["$apr1$", "$2y$", "$2b$", "$2a$", "$1$", "$5$", "$6$", "{SHA}"].iter().any(|old| hash.starts_with(old)) {
        return Err("hashes of this kind are not taken, only argon2id's: the password has to be hashed anew");
    }
    let parsed = PasswordHash::new(hash).map_err(|_| "this is no hash of a password (PHC form)")?;
    if parsed.algorithm.as_str() != "argon2id" || parsed.salt.is_none() || parsed.hash.is_none() {
        return Err("this is no hash by argon2id with a salt");
    }
    let params = Params::try_from(&parsed).map_err(|_| "the hash has parameters that argon2 does not know")?;
    if params.m_cost() > MOST_MEMORY || params.t_cost() > MOST_ROUNDS || params.p_cost() > MOST_LANES {
        return Err("a password of this hash would cost too much to check: m=262144, t=16, p=16 at most");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHRzYWx0$w7cYBwYPpJSDLqzVNnjCUZ4dqOzSLLdvJ2hOc/Kz1gQ";

    fn told(text: &str) -> Vec<(u32, String)> {
        let faults = parse(&"users".into(), text).expect_err("faults");
        faults.into_iter().map(|fault| (fault.place.line, fault.message)).collect()
    }

    #[test]
    fn a_file_of_users() {
        let users = parse(&"u".into(), &format!("# who\n\nbob:{HASH}\r\nada:{HASH}  # she\n")).expect("users");
        assert_eq!(users.hash("ada"), Some(&HASH.into()));
        assert_eq!((users.hash("bob"), users.hash("eve")), (Some(&HASH.into()), None));
        assert!(!format!("{users:?}").contains("argon2id"), "hashes are not for the log");
        let dear = HASH.replace("m=64", "m=300000");
        let text = format!(
            "bob\nada:{HASH}\nada:{HASH}\neve:$apr1$x$y\nx y:{HASH}\nzed:{dear}\nmia:secret\nleo:{}",
            HASH.replace("argon2id", "argon2i")
        );
        let told = told(&text);
        assert_eq!(told.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [1, 3, 4, 5, 6, 7, 8]);
        assert!(told.iter().all(|(_, message)| !message.contains("secret") && !message.contains('$')), "{told:?}");
    }

    #[test]
    fn urls_of_a_service() {
        let url = parse_url("http://[::1]:9091/check?a=b").expect("a URL");
        assert_eq!((&*url.host, url.port, &*url.authority, &*url.target), ("::1", 9091, "[::1]:9091", "/check?a=b"));
        let url = parse_url("http://auth.example").expect("a URL");
        assert_eq!((&*url.host, url.port, &*url.target), ("auth.example", 80, "/"));
        let url = parse_url("https://Auth.example/?x").expect("a URL");
        assert_eq!((&*url.host, url.port, url.tls, &*url.origin), ("Auth.example", 443, true, "https://Auth.example"));
        for wrong in ["https://", "ftp://a/", "a:80", "http://", "http:///x", "http://u@h/", "http://a b/"] {
            assert!(parse_url(wrong).is_err(), "{wrong}");
        }
    }
}
