//! `reeve ipvsadm`: ipvsadm 1.31's command line, listings and save format, for the director of the running process.
//!
//! Also what the program does when it is called `ipvsadm`. Services that stand in the configuration are listed with the others,
//! and changed there: `-A` to `-d` are for those that it adds itself.

mod address;
mod list;
mod options;
mod parse;

use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use self::list::Shown;
use self::parse::{Asked, Listing, Wrong, parse};
use super::client::{self, ClientArgs, ClientFault};
use crate::monitor::api::FLOWS_CEILING;
use crate::state::director::{Change, Flows, Refusal, Table, Unavailable};

/// What the tool calls itself, whoever called it.
const VERSION: &str = "ipvsadm v1.31 2019/12/24 (compiled with popt and IPVS v1.2.1)\n";
const HELP: &str = include_str!("help.txt");
const TRY_HELP: &str = "Try `ipvsadm -h' or 'ipvsadm --help' for more information.";

/// The exit code of -1.
const MINUS_ONE: u8 = 255;

/// The largest text that is restored: 65,536 servers are 5 MiB.
const RESTORED: u64 = 64 << 20;

/// The words of a call of `ipvsadm`, by that name or as `reeve ipvsadm`; `None`: it is none.
pub fn words(mut all: impl Iterator<Item = OsString>) -> Option<Vec<String>> {
    let program = all.next()?;
    let by_name = std::path::Path::new(&program).file_name().is_some_and(|name| name == "ipvsadm");
    if !by_name && all.next()? != "ipvsadm" {
        return None;
    }
    Some(all.map(|word| word.to_string_lossy().into_owned()).collect())
}

/// Carries out one command line. Its exit code is ipvsadm's: 0; 2 for what is not understood; 255 for what is refused or is
/// no command; 1 for a listing that failed.
pub fn main(words: &[String]) -> ExitCode {
    let (args, words) = ours(words);
    ExitCode::from(Tool { args, pending: Vec::new() }.line(words))
}

/// What is ours comes before ipvsadm's own words, and is not among them: which process is asked.
fn ours(words: &[String]) -> (ClientArgs, &[String]) {
    let mut args = ClientArgs::default();
    let mut rest = words;
    loop {
        let (socket, config) = (&mut args.socket, &mut args.config);
        rest = match rest {
            [option, path, more @ ..] if option == "--socket" => {
                *socket = Some(PathBuf::from(path));
                more
            }
            [option, path, more @ ..] if option == "--config" => {
                *config = Some(PathBuf::from(path));
                more
            }
            [word, more @ ..] if word.starts_with("--socket=") => {
                *socket = word.split_once('=').map(|(_, path)| PathBuf::from(path));
                more
            }
            _ => return (args, rest),
        };
    }
}

struct Tool {
    args: ClientArgs,
    /// Changes of a restore that are sent together.
    pending: Vec<Change>,
}

/// Nothing more is done, and this is the exit code.
struct Ends(u8);

impl Tool {
    fn line(mut self, words: &[String]) -> u8 {
        // Without words it lists, by names.
        let asked = if words.is_empty() { parse(&["-L".to_owned()], false) } else { parse(words, false) };
        let code = match asked {
            Ok(Asked::Restore) => self.restore(),
            Ok(asked) => self.carry_out(asked),
            Err(wrong) => wrong_words(&wrong),
        };
        match code {
            Ok(code) | Err(Ends(code)) => code,
        }
    }

    fn carry_out(&mut self, asked: Asked) -> Result<u8, Ends> {
        match asked {
            Asked::Change(change) => {
                self.pending.push(change);
                self.send()
            }
            Asked::NotAvailable => {
                complain("Protocol not available");
                Ok(MINUS_ONE)
            }
            Asked::List(listing) => self.list(&listing),
            Asked::Connections { numeric, persistent } => {
                let flows: Flows = self.ask(&format!("/api/v1/director/flows?limit={FLOWS_CEILING}"))?;
                print(&list::connections(&flows.flows, persistent, &Shown::new(numeric)));
                if flows.total > flows.flows.len() as u64 {
                    complain(&format!("{} of {} connections are listed", flows.flows.len(), flows.total));
                }
                Ok(0)
            }
            Asked::Timeouts => {
                let timeouts = self.table()?.timeouts;
                print(&format!("Timeout (tcp tcpfin udp): {} {} {}\n", timeouts.tcp, timeouts.tcpfin, timeouts.udp));
                Ok(0)
            }
            // There is none to list.
            Asked::Daemons => Ok(0),
            Asked::Save { numeric } => {
                print(&list::save(&self.table()?.services, &Shown::new(numeric)));
                Ok(0)
            }
            Asked::Help => {
                print(HELP);
                Err(Ends(0))
            }
            Asked::Version => {
                print(VERSION);
                Err(Ends(0))
            }
            // A restore within a restore is refused where it is read.
            Asked::Restore => Ok(0),
        }
    }

    fn list(&mut self, listing: &Listing) -> Result<u8, Ends> {
        let mut services = self.table()?.services;
        if let Some(only) = listing.only {
            services.retain(|service| service.key == only);
            if services.is_empty() {
                complain("No such service");
                return Err(Ends(1));
            }
        }
        print(&list::table(&services, listing, &Shown::new(listing.numeric)));
        Ok(0)
    }

    /// Each line of the standard input is a command. One that is not understood ends it; one that is refused does not.
    fn restore(&mut self) -> Result<u8, Ends> {
        let mut text = Vec::new();
        if let Err(error) = std::io::stdin().lock().take(RESTORED).read_to_end(&mut text) {
            complain(&format!("cannot read the standard input: {error}"));
            return Err(Ends(2));
        }
        let text = String::from_utf8_lossy(&text).into_owned();
        let mut last = 0;
        for line in text.lines() {
            let words: Vec<String> = line
                .split([' ', '\t', '\r'])
                .filter(|word| !word.is_empty() && *word != "ipvsadm")
                .map(str::to_owned)
                .collect();
            if words.is_empty() {
                continue;
            }
            match parse(&words, true) {
                Ok(Asked::Change(change)) => {
                    self.pending.push(change);
                    continue;
                }
                Ok(other) => {
                    self.send()?;
                    last = self.carry_out(other)?;
                }
                Err(wrong) => {
                    self.send()?;
                    last = wrong_words(&wrong)?;
                }
            }
        }
        if self.pending.is_empty() { Ok(last) } else { self.send() }
    }

    /// Has the changes made that wait, and says what was refused; the code of the last one.
    fn send(&mut self) -> Result<u8, Ends> {
        let changes = std::mem::take(&mut self.pending);
        if changes.is_empty() {
            return Ok(0);
        }
        let text = serde_json::to_string(&changes).unwrap_or_default();
        let told = client::send(&self.args, "POST", "/api/v1/director/changes", &text);
        let results: Vec<Result<(), Refusal>> =
            told.and_then(|told| told.parse()).map_err(|fault| unreached(&fault))?;
        let mut last = 0;
        for (change, result) in changes.iter().zip(&results) {
            last = match result {
                Ok(()) => 0,
                Err(Refusal::NoDirector(why)) => return Err(not_there(why)),
                Err(refusal) => {
                    complain(&words_of(change, refusal));
                    MINUS_ONE
                }
            };
        }
        Ok(last)
    }

    fn table(&self) -> Result<Table, Ends> {
        self.ask("/api/v1/director")
    }

    fn ask<T: serde::de::DeserializeOwned>(&self, target: &str) -> Result<T, Ends> {
        let answer: Result<T, Unavailable> = client::ask(&self.args, target).map_err(|fault| unreached(&fault))?;
        answer.map_err(|unavailable| not_there(&unavailable.to_string()))
    }
}

/// Says what is wrong with a command line; whether that ends it.
fn wrong_words(wrong: &Wrong) -> Result<u8, Ends> {
    match wrong {
        Wrong::Fail(text) => {
            complain(text);
            Err(Ends(2))
        }
        Wrong::TryHelp => {
            complain(TRY_HELP);
            Err(Ends(MINUS_ONE))
        }
        Wrong::Bad(text) => {
            complain(text);
            Ok(MINUS_ONE)
        }
    }
}

/// What IPVS's error number is called with this command.
fn words_of(change: &Change, refusal: &Refusal) -> String {
    let service = matches!(change, Change::AddService { .. } | Change::EditService { .. });
    let server = matches!(change, Change::AddServer { .. } | Change::EditServer { .. } | Change::DeleteServer { .. });
    match refusal {
        Refusal::Exists if server => "Destination already exists".to_owned(),
        Refusal::Exists => "Service already exists".to_owned(),
        Refusal::NoService if server => "Service not defined".to_owned(),
        Refusal::NoService => "No such service".to_owned(),
        Refusal::NotFound if service => "Scheduler or persistence engine not found".to_owned(),
        Refusal::NotFound => "No such destination".to_owned(),
        Refusal::Invalid => "Invalid operation.  Possibly wrong module version, address not unicast, ...".to_owned(),
        Refusal::Range => "Numerical result out of range".to_owned(),
        Refusal::NoRoom => "Memory allocation problem".to_owned(),
        Refusal::NotAvailable => "Protocol not available".to_owned(),
        Refusal::Configured(name) => format!(
            "Operation not permitted: the service stands in the configuration, as [{name}]; change it there and `reeve reload`"
        ),
        Refusal::NoDirector(why) | Refusal::Failed(why) => why.clone(),
    }
}

/// In the tool's words when IPVS is not there.
fn not_there(why: &str) -> Ends {
    complain(&format!(
        "Can't initialize ipvs: {why}\nAre you sure that IP Virtual Server is built in the kernel or as module?"
    ));
    Ends(2)
}

fn unreached(fault: &ClientFault) -> Ends {
    not_there(&fault.to_string())
}

fn complain(text: &str) {
    // The end of stderr is the end of who would read it.
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn print(text: &str) {
    // A reader that has seen enough (`| head`) is no fault.
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_called_by_its_name_or_as_a_command() {
        let called = |line: &str| words(line.split(' ').map(OsString::from));
        assert_eq!(called("/usr/sbin/ipvsadm -Ln"), Some(vec!["-Ln".to_owned()]));
        assert_eq!(called("target/reeve ipvsadm -L -n"), Some(vec!["-L".to_owned(), "-n".to_owned()]));
        assert_eq!(called("reeve status"), None);
        assert_eq!(called("reeve"), None);
        let words: Vec<String> = "--socket /a.sock -L -c".split(' ').map(str::to_owned).collect();
        let (args, rest) = ours(&words);
        assert_eq!((args.socket, rest.len()), (Some("/a.sock".into()), 2));
    }
}
