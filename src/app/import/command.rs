//! The command: reads the file, prints or writes what came of it.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;

use serde_json::json;

use super::{Imported, LARGEST, import};
use crate::app::args::{Format, ImportArguments};
use crate::app::{FAULT, output};
use crate::config;
use crate::config::source::Sources;

/// `reeve import`.
pub fn main(arguments: &ImportArguments) -> ExitCode {
    let file = arguments.file.display().to_string();
    let text = match read(&arguments.file) {
        Ok(text) => text,
        Err(message) => return fail(&format!("{file}: {message}")),
    };
    let imported = match import(arguments.from, &file, &text) {
        Ok(imported) => imported,
        Err(fault) => {
            let mut sources = Sources::new();
            sources.add(file.as_str(), text);
            output::complain(&config::fault::text(&[*fault], &sources));
            return ExitCode::from(FAULT);
        }
    };
    if let Some(folder) = &arguments.out
        && let Err(message) = write(folder, &imported)
    {
        return fail(&message);
    }
    match arguments.output.format {
        Format::Json => output::print(&format!("{}\n", notes(&file, &imported))),
        Format::Text if arguments.out.is_none() => output::print(&imported.whole()),
        Format::Text => {}
    }
    output::complain(&format!("{}\n", imported.summary(&file)));
    ExitCode::SUCCESS
}

fn fail(message: &str) -> ExitCode {
    output::complain(&format!("reeve import: {message}\n"));
    ExitCode::from(FAULT)
}

/// The text, with what is not UTF-8 in it replaced: comments of other programs may be in any encoding.
fn read(path: &Path) -> Result<String, String> {
    let file = File::open(path).map_err(|error| format!("cannot be read: {error}"))?;
    let mut bytes = Vec::new();
    file.take(LARGEST as u64 + 1).read_to_end(&mut bytes).map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() > LARGEST {
        return Err(format!("more than {} MiB: import its parts one by one", LARGEST >> 20));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Writes every text below a folder. What is there already is never overwritten.
fn write(folder: &Path, imported: &Imported) -> Result<(), String> {
    let there = imported.texts.iter().map(|(name, _)| folder.join(name)).find(|path| path.exists());
    if let Some(path) = there {
        return Err(format!("{} is there already: name another folder with --out", path.display()));
    }
    for (name, text) in &imported.texts {
        let path = folder.join(name);
        let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        // Somebody may have made it meanwhile.
        let written = made.and_then(|()| File::create_new(&path)?.write_all(text.as_bytes()));
        written.map_err(|error| format!("{} cannot be written: {error}", path.display()))?;
    }
    Ok(())
}

fn notes(file: &str, imported: &Imported) -> serde_json::Value {
    let notes = imported.notes.iter().map(|note| {
        let verdict = if note.equal { "differs" } else { "no equal" };
        json!({ "file": file, "line": note.line, "statement": note.subject, "verdict": verdict, "note": note.text })
    });
    notes.collect()
}
