//! `reeve import`: another program's configuration as `reeve.toml` and rules, every statement accounted for.
//!
//! A reader for each dialect fills a `site::Site`; `proof` has the loader judge it, `write` prints it. What has no
//! equal here, or another meaning, gets a note and is never guessed. Text in, text out: nothing is opened but the file.

mod command;
mod haproxy;
mod keepalived;
mod ktcpvs;
mod nginx;
mod proof;
mod site;
mod words;
mod write;

pub use command::main;
pub use site::Note;

use site::{Fate, Site};

use crate::model::Fault;

/// Whose configuration it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Dialect {
    Ktcpvs,
    Nginx,
    Haproxy,
    Keepalived,
}

/// The largest text that is read. A host's whole nginx configuration, joined, has some hundred KiB.
pub const LARGEST: usize = 4 << 20;

/// What came of a text.
#[derive(Debug)]
pub struct Imported {
    /// Names and texts: `config/reeve.toml`, then the rule files.
    pub texts: Vec<(String, String)>,
    /// In the order of the source.
    pub notes: Vec<Note>,
    pub statements: usize,
    /// Of these, taken over as they are.
    pub translated: usize,
    /// Taken over with a difference that a note tells.
    pub differing: usize,
    /// Without an equal here.
    pub unequalled: usize,
}

/// Reads `text`, which `file` is the name of. A text that is none of its dialect is a fault.
pub fn import(dialect: Dialect, file: &str, text: &str) -> Result<Imported, Box<Fault>> {
    let mut site = Site::default();
    match dialect {
        Dialect::Ktcpvs => ktcpvs::read(file, text, &mut site)?,
        Dialect::Nginx => nginx::read(file, text, &mut site)?,
        Dialect::Haproxy => haproxy::read(file, text, &mut site)?,
        Dialect::Keepalived => keepalived::read(file, text, &mut site)?,
    }
    proof::settle(&mut site, file);
    if site.account.full {
        let item = site.account.enter(0, "the whole text");
        site.account.none(item, "more rules than an import makes: what came last was left out");
    }
    site.account.close();
    let texts = write::texts(&site, file).iter().map(|text| (text.name.clone(), text.join())).collect();
    let account = site.account;
    Ok(Imported {
        texts,
        statements: account.items.len(),
        translated: account.count(Fate::Done),
        differing: account.count(Fate::Differs),
        unequalled: account.count(Fate::NoEqual),
        notes: account.notes,
    })
}

impl Imported {
    /// One text of all parts, each below its name.
    pub fn whole(&self) -> String {
        let mut whole = String::new();
        for (name, text) in &self.texts {
            whole.push_str(&format!("# --- {name}\n{text}\n"));
        }
        whole
    }

    /// A note as it is printed.
    pub fn told(&self, file: &str, note: &Note) -> String {
        write::note(file, note)
    }

    pub fn summary(&self, file: &str) -> String {
        format!(
            "{file}: {} statements: {} translated, {} translated with a difference, {} without an equal here",
            self.statements, self.translated, self.differing, self.unequalled
        )
    }
}
