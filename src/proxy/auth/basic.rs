//! `auth basic`: a name and a password in the request (RFC 7617), compared with a file.

use std::sync::Arc;
use std::time::Duration;

use base64ct::{Base64, Encoding};

use super::known::Mark;
use super::{Gate, Verdict};
use crate::model::rule::Users;
use crate::net::{Elapsed, Timer};
use crate::proxy::failure::{Failure, FailureKind};
use crate::proxy::worker::Worker;
use crate::wire::http1::request::RequestHead;

/// What a client may show, as base64: nobody types more, and the whole of it is hashed.
const SHOWN: usize = 1024;
/// For the whole of a check, waiting included. The queue before it is shorter.
const LIMIT: Duration = Duration::from_secs(10);

/// A password to be checked.
#[derive(Debug)]
pub struct Check {
    user: String,
    realm: Arc<str>,
    password: Vec<u8>,
    hash: Arc<str>,
    /// A user of that name exists. One that does not takes as long, so that names cannot be told by the time.
    exists: bool,
    mark: Option<Mark>,
}

pub fn gate(worker: &Worker, users: &Users, head: &RequestHead<'_>) -> Gate {
    let realm = realm(&users.file);
    let mut shown = head.fields.iter().filter(|field| field.is("authorization"));
    let (Some(field), None) = (shown.next(), shown.next()) else { return Gate::Closed(realm) };
    let Some((user, password)) = credentials(field.value) else { return Gate::Closed(realm) };
    let own = users.hash(&user).filter(|_| !password.is_empty());
    let Some(hash) = own.or_else(|| Some(&users.entries.first()?.1)) else { return Gate::Closed(realm) };
    let mark = if own.is_some() { worker.known.mark(&user, hash, &password) } else { None };
    if mark.is_some_and(|mark| worker.known.has(&mark, worker.lately())) {
        return Gate::Open { fields: who(&user) };
    }
    Gate::Password(Check { exists: own.is_some(), hash: hash.clone(), user, realm, password, mark })
}

/// RFC 7617 §2: `Basic`, and a name and a password with a colon between them, as base64.
fn credentials(value: &[u8]) -> Option<(String, Vec<u8>)> {
    let (scheme, shown) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let shown = std::str::from_utf8(shown.trim_ascii()).ok().filter(|shown| shown.len() <= SHOWN)?;
    let mut plain = Base64::decode_vec(shown).ok()?;
    let colon = plain.iter().position(|byte| *byte == b':')?;
    let password = plain.split_off(colon + 1);
    plain.truncate(colon);
    String::from_utf8(plain).ok().map(|user| (user, password))
}

/// What a browser shows, and keeps a password for: all rules with one file are one place.
fn realm(file: &str) -> Arc<str> {
    let name = file.rsplit('/').next().unwrap_or_default();
    let name = name.split('.').next().unwrap_or_default();
    let plain: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | ' ')).collect();
    if plain.is_empty() { "reeve".into() } else { plain.into() }
}

/// What the server is told; a name in the file has neither blanks nor controls.
fn who(user: &str) -> Vec<u8> {
    [b"X-Auth-User: ", user.as_bytes(), b"\r\n"].concat()
}

impl Check {
    pub async fn run(self, worker: &Worker, timer: &Timer) -> Result<Verdict, Failure> {
        let full = |why| Failure::new(FailureKind::AuthFull, why);
        let answer = worker.farm.passwords().check(self.hash, self.password);
        let answer = answer.map_err(|_| full("too many passwords wait to be checked"))?;
        match timer.wait(LIMIT, answer).await {
            Ok(Ok(true)) if self.exists => {
                if let Some(mark) = self.mark {
                    worker.known.add(mark, worker.lately());
                }
                Ok(Verdict::Pass(who(&self.user)))
            }
            Ok(Ok(_)) => Ok(Verdict::Unknown(self.realm)),
            Ok(Err(_)) | Err(Elapsed) => Err(full("a password was not checked in time")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_passwords() {
        let read = |value: &str| credentials(value.as_bytes());
        let both = |user: &str, password: &str| Some((user.to_owned(), password.as_bytes().to_vec()));
        assert_eq!(read("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), both("Aladdin", "open sesame"));
        assert_eq!(read("basic  dGVzdDoxMjPCow== "), both("test", "123£"));
        assert_eq!(read("BASIC YTpiOmM="), both("a", "b:c"));
        for wrong in ["", "Basic", "Basic ", "Bearer x", "Basic QWxh", "Basic !!!!", "Basic YTpi\0", "Basic //86"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        assert_eq!(read(&format!("Basic {}", "YTpi".repeat(300))), None);
    }

    #[test]
    fn realms() {
        for (file, name) in [("auth/users.htpasswd", "users"), ("a \"b\".x", "a b"), (".htpasswd", "reeve")] {
            assert_eq!(&*realm(file), name);
        }
    }
}
