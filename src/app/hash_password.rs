//! `reeve hash-password`: a line for the file of `auth basic`.

use std::io::{BufRead, Read};
use std::process::ExitCode;

use argon2::{Argon2, PasswordHasher};
use aws_lc_rs::rand;

use super::{FAULT, output};

/// What is read of stdin; what a client may show is no longer (`proxy::auth::basic`).
const LONGEST: u64 = 512;

/// Reads a password, one line of stdin, and prints `NAME:HASH`.
pub fn main(name: &str) -> ExitCode {
    let mut line = Vec::new();
    let read = std::io::stdin().lock().take(LONGEST + 1).read_until(b'\n', &mut line);
    let hashed = match read {
        Ok(_) => hash(&line),
        Err(error) => Err(format!("stdin cannot be read: {error}")),
    };
    match hashed {
        Ok(hash) => {
            output::print(&format!("{name}:{hash}\n"));
            ExitCode::SUCCESS
        }
        Err(why) => {
            output::complain(&format!("reeve hash-password: {why}\n"));
            ExitCode::from(FAULT)
        }
    }
}

/// By argon2id with the crate's own proposal for its costs.
fn hash(line: &[u8]) -> Result<String, String> {
    if line.len() as u64 > LONGEST {
        return Err(format!("the password has more than {LONGEST} bytes"));
    }
    let password = line.strip_suffix(b"\n").unwrap_or(line);
    let password = password.strip_suffix(b"\r").unwrap_or(password);
    if password.is_empty() {
        return Err("no password came: write it into stdin, as one line".to_owned());
    }
    let mut salt = [0; 16];
    rand::fill(&mut salt).map_err(|_| "there are no random numbers".to_owned())?;
    let hash = Argon2::default().hash_password_with_salt(password, &salt);
    hash.map(|hash| hash.to_string()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use argon2::PasswordVerifier;

    #[test]
    fn what_is_hashed_is_the_line_without_its_end() {
        for line in ["open sesame\n", "open sesame\r\n", "open sesame"] {
            let hash = hash(line.as_bytes()).expect("a hash");
            assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
            assert!(Argon2::default().verify_password(b"open sesame", &*hash).is_ok());
        }
        assert!(hash(b"\n").is_err() && hash(&[b'x'; 513]).is_err());
    }
}
