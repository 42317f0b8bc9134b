//! What is known of clients outlives the process: the keys of cookies and the tables of `state::affinity`, in the state
//! folder and on the way to a process that takes over.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Seek, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::fs::{MemfdFlags, memfd_create};
use tokio::sync::watch;

use crate::app::state_folder;
use crate::model::Config;
use crate::state::Farm;
use crate::state::affinity::kept::Kept;
use crate::sys::files;
use crate::sys::secrets::{Manner, Ring};

/// A cookie is good for one to two weeks after it was set; a client that comes meanwhile gets a new one.
const SECRETS: Manner = Manner { file: "cookie-keys", turn: Duration::from_secs(7 * 86_400), kept: 2 };

/// The file of the tables.
const FILE: &str = "affinity";

/// How often the keys are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// In so many looks, a minute, all of every table is swept of what has ended.
const PARTS: u32 = 60;

/// How often the tables are written: so much is lost when the machine stops. A million entries are 16 MB.
const WRITE: u32 = 60;

#[derive(Debug)]
pub struct Clients {
    farm: Arc<Farm>,
    ring: Ring,
    /// Where things are kept; `None` before some pool has affinity, without a state folder, and when another process has
    /// taken over.
    folder: Mutex<Option<PathBuf>>,
}

impl Clients {
    pub fn new(farm: Arc<Farm>) -> Arc<Clients> {
        let clients = Clients { farm, ring: Ring::new(SECRETS, SystemTime::now()), folder: Mutex::default() };
        clients.use_keys();
        Arc::new(clients)
    }

    /// Goes on with what the state folder has, where a pool of this configuration asks for clients. To be called before
    /// it is put in force. Without a folder affinity ends with the process, which is worth a word and no more.
    pub fn begin(&self, config: &Config) {
        let mut folder = self.folder.lock().unwrap_or_else(PoisonError::into_inner);
        if folder.is_some() || config.pools.iter().all(|pool| pool.affinity.is_none()) {
            return;
        }
        let opened = state_folder::open(config).and_then(|path| {
            self.ring.keep_in(&path, SystemTime::now())?;
            Ok(path)
        });
        match opened {
            Ok(path) => {
                self.use_keys();
                self.read(&path.join(FILE));
                *folder = Some(path);
            }
            Err(error) => tracing::warn!(
                folder = %state_folder::path(config).display(), %error,
                "what is known of clients cannot be kept: after a restart they are new; set [state] path"
            ),
        }
    }

    fn read(&self, path: &std::path::Path) {
        let read = match File::open(path) {
            Ok(file) => Kept::read(&mut BufReader::new(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => Err(error),
        };
        match read {
            Ok((kept, whole)) => {
                if !whole {
                    tracing::warn!(file = %path.display(), "the file of clients is damaged: what is whole in it is used");
                }
                if let Some(kept) = kept {
                    self.farm.affinities().take_up(kept, now());
                }
            }
            Err(error) => tracing::warn!(file = %path.display(), %error, "the file of clients cannot be read"),
        }
    }

    /// Looks after keys and tables until `stop` says so.
    pub async fn keep(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut complained = false;
        for round in 1_u32.. {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            let clients = self.clone();
            // Disks may be slow.
            let looked = tokio::task::spawn_blocking(move || {
                let turned = clients.turn();
                clients.farm.affinities().sweep_entries((round % PARTS) as usize, PARTS as usize, now());
                if round.is_multiple_of(WRITE) { turned.and_then(|()| clients.write()) } else { turned }
            });
            let result = looked.await.unwrap_or(Ok(()));
            if let Err(error) = &result
                && !complained
            {
                tracing::warn!(%error, "what is known of clients cannot be kept: after a restart they are new");
            }
            complained = result.is_err();
        }
    }

    fn turn(&self) -> io::Result<()> {
        let before = self.ring.secrets();
        let turned = self.ring.turn(SystemTime::now());
        if !Arc::ptr_eq(&before, &self.ring.secrets()) {
            self.use_keys();
        }
        turned
    }

    fn use_keys(&self) {
        let secrets: Vec<[u8; 32]> = self.ring.secrets().iter().map(|secret| secret.bytes).collect();
        self.farm.set_cookie_keys(&secrets);
    }

    /// Writes the tables into the state folder.
    ///
    /// # Errors
    /// When that cannot be done; the file is then as it was.
    pub fn write(&self) -> io::Result<()> {
        let folder = self.folder.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(folder) = &*folder else { return Ok(()) };
        let kept = self.farm.affinities().kept(now());
        if kept.scopes.is_empty() {
            return Ok(());
        }
        files::replace(&folder.join(FILE), |file| {
            let mut out = BufWriter::new(file);
            kept.write(&mut out)?;
            out.flush()
        })
    }

    /// Another process keeps it from now on.
    pub fn let_go(&self) {
        *self.folder.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The secrets of cookies, as lines.
    pub fn keys(&self) -> Vec<String> {
        self.ring.handed_on()
    }

    /// Goes on with the secrets of another process.
    pub fn go_on_with(&self, keys: &[String]) {
        self.ring.go_on_with(keys, SystemTime::now());
        self.use_keys();
    }

    /// What has been noted since that time, in seconds since 1970, in memory that another process can read. Entries say
    /// when they end, and some of what was noted shortly before comes along; from 0 on, all of it does.
    ///
    /// # Errors
    /// When there is no descriptor or no memory.
    pub async fn hand_on(self: &Arc<Self>, since: u32) -> io::Result<OwnedFd> {
        let clients = self.clone();
        // Of large tables that is some 160 MB, and other things go on meanwhile.
        tokio::task::spawn_blocking(move || clients.write_to_memory(since)).await?
    }

    fn write_to_memory(&self, since: u32) -> io::Result<OwnedFd> {
        let mut kept = self.farm.affinities().kept(now());
        if since > 0 {
            self.farm.affinities().noted_since(&mut kept, since);
        }
        let mut file = File::from(memfd_create("reeve-clients", MemfdFlags::CLOEXEC)?);
        {
            let mut out = BufWriter::new(&mut file);
            kept.write(&mut out)?;
            out.flush()?;
        }
        file.rewind()?;
        Ok(file.into())
    }

    /// Goes on with what another process has handed on.
    pub fn take_over(&self, file: OwnedFd) {
        match Kept::read(&mut BufReader::new(File::from(file))) {
            Ok((Some(kept), true)) => self.farm.affinities().take_up(kept, now()),
            Ok(_) => tracing::warn!("what the process before knew of clients is not understood: they are new"),
            Err(error) => {
                tracing::warn!(%error, "what the process before knew of clients cannot be read: they are new")
            }
        }
    }
}

/// Seconds since 1970.
pub fn now() -> u32 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs() as u32
}
