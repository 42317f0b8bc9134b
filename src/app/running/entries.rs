//! Lists and maps as they are in force, and edited while the process runs: in their own files, which are then read anew.
//!
//! The file is the one place where entries are: what was edited is there after a restart, and a fault puts back what was.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use tokio::sync::watch;

use super::Running;
use crate::config::entries::{self, Edit, Edited};
use crate::model::Config;
use crate::state::orders::{EntriesEdited, EntriesFault, ListInForce, Texts};

/// The lists and maps of a configuration, or the one of that name with its entries.
pub fn in_force(config: &Config, name: Option<&str>) -> Result<Vec<ListInForce>, String> {
    known(config, name, name.is_some())
}

fn known(config: &Config, name: Option<&str>, entries: bool) -> Result<Vec<ListInForce>, String> {
    let mut all: Vec<ListInForce> = Vec::new();
    for set in &config.rule_sets {
        let lists = set.lists.iter().map(|list| {
            let shown = || list.entries.iter().map(ToString::to_string).collect();
            (&list.name, &list.file, "list", list.entries.len(), Box::new(shown) as Box<dyn Fn() -> Vec<String>>)
        });
        let maps = set.maps.iter().map(|map| {
            let shown = || map.entries.iter().map(|(key, value)| format!("{key} {value}")).collect();
            (&map.name, &map.file, "map", map.entries.len(), Box::new(shown) as Box<dyn Fn() -> Vec<String>>)
        });
        for (own, file, kind, count, shown) in lists.chain(maps) {
            let known = all.iter().any(|known| known.name == **own && known.file == **file);
            if !known && name.is_none_or(|name| *name == **own) {
                let entries = if entries { shown() } else { Vec::new() };
                let (name, file, kind) = (own.to_string(), file.to_string(), kind.to_owned());
                all.push(ListInForce { name, kind, file, count, entries });
            }
        }
    }
    match name {
        Some(name) if all.is_empty() => {
            let names: Vec<String> =
                known(config, None, false).unwrap_or_default().into_iter().map(|list| list.name).collect();
            Err(match &*names {
                [] => format!("there is no list or map {name}: the rules declare none"),
                names => format!("there is no list or map {name}; there are: {}", names.join(", ")),
            })
        }
        _ => Ok(all),
    }
}

impl Running {
    /// Edits the file of a list or map and reads lists anew.
    ///
    /// # Errors
    /// Then nothing has changed.
    pub async fn edit_entries(
        &mut self,
        name: &str,
        edit: Edit,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<EntriesEdited, EntriesFault> {
        let config = self.config();
        let found = known(&config, Some(name), false).map_err(EntriesFault::Unknown)?;
        let [list] = &*found else {
            let files: Vec<&str> = found.iter().map(|list| &*list.file).collect();
            let text = format!("{name} is declared by several rule sets, with other files: {}", files.join(", "));
            return Err(EntriesFault::Refused(text));
        };
        let (path, is_map) = (config.base.join(&list.file), list.kind == "map");
        let told = |error: io::Error| EntriesFault::Refused(format!("{}: {error}", list.file));
        let before = tokio::task::spawn_blocking(move || change(&path, is_map, &edit)).await;
        let before =
            before.map_err(|_| EntriesFault::Refused("it could not be edited by a fault of Reeve".to_owned()))?;
        let Changed { path, before, edited } = match before {
            Ok(changed) => changed.map_err(told)?,
            Err(text) => return Err(EntriesFault::Refused(text)),
        };
        let changed = edited.added + edited.removed > 0;
        if changed {
            let reloaded = self.reload(Texts::Lists, stop).await;
            if !reloaded.done {
                let back = tokio::task::spawn_blocking(move || put_back(&path, &before, &edited.text)).await;
                let mut text = reloaded.error.unwrap_or(reloaded.faults_text);
                match back {
                    Ok(Ok(true)) => {}
                    Ok(Ok(false)) => text += "\nand somebody else has written the file meanwhile: it stays as that is",
                    _ => text += "\nand the file could not be put back to what it was",
                }
                return Err(EntriesFault::Refused(text));
            }
        }
        let count = known(&self.config(), Some(name), false).ok().and_then(|found| Some(found.first()?.count));
        Ok(EntriesEdited {
            name: name.to_owned(),
            file: list.file.clone(),
            added: edited.added,
            removed: edited.removed,
            unchanged: edited.unchanged,
            count: count.unwrap_or_default(),
        })
    }
}

struct Changed {
    /// Of the file itself, where a link leads to it.
    path: PathBuf,
    before: String,
    edited: Edited,
}

fn change(path: &Path, is_map: bool, edit: &Edit) -> Result<io::Result<Changed>, String> {
    let read = path.canonicalize().and_then(|path| Ok((std::fs::read_to_string(&path)?, path)));
    let (before, path) = match read {
        Ok(read) => read,
        Err(error) => return Ok(Err(error)),
    };
    let edited = entries::edit(&before, is_map, edit)?;
    if edited.added + edited.removed > 0
        && let Err(error) = replace(&path, edited.text.as_bytes())
    {
        return Ok(Err(error));
    }
    Ok(Ok(Changed { path, before, edited }))
}

/// Undoes an edit, unless the file is another one by now.
fn put_back(path: &Path, before: &str, written: &str) -> io::Result<bool> {
    if std::fs::read_to_string(path)? != written {
        return Ok(false);
    }
    replace(path, before.as_bytes()).map(|()| true)
}

/// Puts another text in the place of a file, so that whoever reads it sees the one or the other, also after a crash.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::NotFound.into());
    };
    let data = std::fs::metadata(path)?;
    let beside = folder.join(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
    // What a process of the same number left behind is nobody's.
    let _ = std::fs::remove_file(&beside);
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside).and_then(|mut file| {
        file.write_all(text)?;
        file.set_permissions(data.permissions())?;
        // Only root can give files away; the file is read by us all the same.
        let _ = fchown(&file, Some(data.uid()), Some(data.gid()));
        file.sync_all()?;
        std::fs::rename(&beside, path)
    });
    if written.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    written?;
    File::open(folder)?.sync_all()
}
