//! Secrets in turn: one in use, the ones before it still good. They are kept in a file that other processes may
//! share, and handed to the process that takes over.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use aws_lc_rs::rand;

use super::files;

const SECRET: usize = 32;

/// How secrets of one use are kept.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// The name of their file in the state folder, and what they are called when something is wrong.
    pub file: &'static str,
    /// A new secret comes into use after this time.
    pub turn: Duration,
    /// Secrets that are kept, the one in use among them.
    pub kept: usize,
}

/// Secrets, the newest first, never none.
#[derive(Debug)]
pub struct Ring {
    manner: Manner,
    secrets: ArcSwap<Vec<Secret>>,
    file: Mutex<Option<Kept>>,
}

#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    /// Seconds since 1970.
    made: i64,
    pub bytes: [u8; SECRET],
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secret").field("made", &self.made).finish_non_exhaustive()
    }
}

/// Where the ring is kept.
#[derive(Debug)]
struct Kept {
    path: PathBuf,
    /// When it was written, as far as it is known here: another Reeve may share it.
    seen: Option<SystemTime>,
}

impl Ring {
    /// A ring of one random secret.
    pub fn new(manner: Manner, now: SystemTime) -> Ring {
        Ring { manner, secrets: ArcSwap::from_pointee(vec![Secret::random(now)]), file: Mutex::default() }
    }

    /// Goes on with what `folder` has kept, and keeps it there from now on.
    ///
    /// # Errors
    /// When the file can be neither read nor written: the ring then stays what it is.
    pub fn keep_in(&self, folder: &Path, now: SystemTime) -> io::Result<()> {
        let mut file = self.lock();
        let mut kept = Kept { path: folder.join(self.manner.file), seen: None };
        self.take_up(&mut kept, now)?;
        let result = self.write(&mut kept);
        *file = Some(kept);
        result
    }

    /// The newest first.
    pub fn secrets(&self) -> Arc<Vec<Secret>> {
        self.secrets.load_full()
    }

    /// The secrets as lines of text, for a process that goes on with them.
    pub fn handed_on(&self) -> Vec<String> {
        self.secrets.load().iter().map(|secret| secret.line().trim_end().to_owned()).collect()
    }

    /// Goes on with another process's secrets, where any of them is good.
    pub fn go_on_with(&self, lines: &[String], now: SystemTime) {
        self.put(lines.iter().filter_map(|line| Secret::read(line)).collect(), now);
    }

    /// Makes a new secret when its time has come. Called every second or so.
    ///
    /// # Errors
    /// When the file cannot be written; the secrets are in use all the same.
    pub fn turn(&self, now: SystemTime) -> io::Result<()> {
        let mut file = self.lock();
        if let Some(kept) = file.as_mut()
            && written(&kept.path) != kept.seen
        {
            self.take_up(kept, now)?;
        }
        let secrets = self.secrets.load();
        let age = secrets.first().map_or(i64::MAX, |newest| unix(now).saturating_sub(newest.made));
        // A clock that was set back makes none old.
        if age < self.manner.turn.as_secs() as i64 {
            return Ok(());
        }
        let mut turned = vec![Secret::random(now)];
        turned.extend(secrets.iter().take(self.manner.kept - 1).cloned());
        self.secrets.store(Arc::new(turned));
        tracing::debug!(of = self.manner.file, "there is a new key");
        file.as_mut().map_or(Ok(()), |kept| self.write(kept))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Kept>> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts what the file has in place of the own secrets, where it has any that are not too old.
    fn take_up(&self, kept: &mut Kept, now: SystemTime) -> io::Result<()> {
        kept.seen = written(&kept.path);
        let mut bytes = Vec::new();
        match File::open(&kept.path) {
            Ok(file) => drop(file.take(4096).read_to_end(&mut bytes)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
        // Whatever a broken disk or hand has left there: lines that are whole are good, and the file is written anew.
        let text = String::from_utf8_lossy(&bytes);
        let found: Vec<Secret> = text.lines().filter_map(Secret::read).collect();
        if found.is_empty() || found.len() < text.lines().count() {
            tracing::warn!(
                file = %kept.path.display(), good = found.len(),
                "the file of keys is damaged: what is whole in it is used, and it is written anew"
            );
        }
        self.put(found, now);
        Ok(())
    }

    /// Puts these in place of the own ones, where any is not too old.
    fn put(&self, mut found: Vec<Secret>, now: SystemTime) {
        let oldest = unix(now).saturating_sub(self.manner.kept as i64 * self.manner.turn.as_secs() as i64);
        found.retain(|secret| (oldest..=unix(now)).contains(&secret.made));
        found.sort_by_key(|secret| std::cmp::Reverse(secret.made));
        found.truncate(self.manner.kept);
        if !found.is_empty() {
            self.secrets.store(Arc::new(found));
        }
    }

    /// Writes a new file and puts it in the place of the old one: never half of it is there.
    fn write(&self, kept: &mut Kept) -> io::Result<()> {
        let secrets = self.secrets.load();
        let text: String = secrets.iter().map(Secret::line).collect();
        // Who has a secret can open what was recorded under TLS 1.2, or make cookies.
        files::replace(&kept.path, |file| file.write_all(text.as_bytes()))?;
        kept.seen = written(&kept.path);
        Ok(())
    }
}

fn written(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|data| data.modified()).ok()
}

impl Secret {
    fn random(now: SystemTime) -> Secret {
        let mut bytes = [0; SECRET];
        // aws-lc aborts the process rather than go without the kernel's randomness.
        let filled = rand::fill(&mut bytes);
        debug_assert!(filled.is_ok());
        Secret { made: unix(now), bytes }
    }

    /// `1764324000 9f86d081...`
    fn line(&self) -> String {
        let hex: String = self.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{} {hex}\n", self.made)
    }

    fn read(line: &str) -> Option<Secret> {
        let (made, hex) = line.split_once(' ')?;
        let mut bytes = [0; SECRET];
        if hex.len() != 2 * SECRET || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).ok()?;
        }
        Some(Secret { made: made.parse().ok()?, bytes })
    }
}

fn unix(time: SystemTime) -> i64 {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const MANNER: Manner = Manner { file: "some-keys", turn: Duration::from_secs(12 * 3600), kept: 3 };

    fn at(hours: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 * 3600 + hours * 3600)
    }

    #[test]
    fn the_ring_outlives_the_process_and_is_nobody_elses() {
        let folder = std::env::temp_dir().join(format!("reeve-ring-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let first = Ring::new(MANNER, at(0));
        first.keep_in(&folder, at(0)).unwrap();
        first.turn(at(12)).unwrap();
        let file = folder.join("some-keys");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

        let second = Ring::new(MANNER, at(13));
        second.keep_in(&folder, at(13)).unwrap();
        assert_eq!((second.secrets(), second.secrets().len()), (first.secrets(), 2));

        // A damaged line is left out, what is too old forgotten.
        let good = std::fs::read(&file).unwrap();
        for (text, left) in [
            ([b"nonsense\n", &good[..]].concat(), 2),
            (good[..good.len() - 9].to_vec(), 1),
            (good[..9].to_vec(), 1),
            (Vec::new(), 1),
            (vec![0xff; 9000], 1),
        ] {
            std::fs::write(&file, &text).unwrap();
            let third = Ring::new(MANNER, at(20));
            third.keep_in(&folder, at(20)).unwrap();
            assert_eq!(third.secrets().len(), left);
            let whole = std::fs::read_to_string(&file).unwrap();
            assert_eq!(whole.lines().filter_map(Secret::read).count(), left, "it is written anew");
        }
        std::fs::write(&file, &good).unwrap();

        // Another process can go on with it without a file.
        let heir = Ring::new(MANNER, at(13));
        heir.go_on_with(&first.handed_on(), at(13));
        assert_eq!(heir.secrets(), first.secrets());
        heir.go_on_with(&["nonsense".to_owned()], at(13));
        assert_eq!(heir.secrets().len(), 2);
        let late = Ring::new(MANNER, at(60));
        late.keep_in(&folder, at(60)).unwrap();
        assert_ne!(late.secrets(), first.secrets());
        assert_eq!(late.secrets().len(), 1);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
