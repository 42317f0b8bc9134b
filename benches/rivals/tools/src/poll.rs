//! Edge-triggered epoll, numbers instead of pointers.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

pub struct Poll {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

/// Something happened to the socket with this number.
#[derive(Clone, Copy)]
pub struct Change {
    pub number: usize,
    /// The other side has ended it: it has to be read until it says so, there will be no further event.
    pub over: bool,
}

impl Poll {
    pub fn new() -> io::Result<Poll> {
        Ok(Poll { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?, events: Vec::with_capacity(512) })
    }

    /// Readable and writable, told once for each change.
    pub fn watch(&self, socket: impl AsFd, number: usize) -> io::Result<()> {
        use epoll::EventFlags as F;
        let flags = F::IN | F::OUT | F::RDHUP | F::ET;
        Ok(epoll::add(&self.epoll, socket, epoll::EventData::new_u64(number as u64), flags)?)
    }

    /// Readable, told as long as it is.
    pub fn watch_level(&self, socket: impl AsFd, number: usize) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, socket, epoll::EventData::new_u64(number as u64), epoll::EventFlags::IN)?)
    }

    /// Waits, and puts what changed into `changed`.
    pub fn wait(&mut self, most: Option<Duration>, changed: &mut Vec<Change>) -> io::Result<()> {
        let most = most.map(|d| Timespec { tv_sec: d.as_secs() as i64, tv_nsec: i64::from(d.subsec_nanos()) });
        self.events.clear();
        changed.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), most.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        changed.extend(self.events.iter().map(|event| {
            let (flags, data) = (event.flags, event.data);
            let over = flags.intersects(epoll::EventFlags::RDHUP | epoll::EventFlags::HUP | epoll::EventFlags::ERR);
            Change { number: data.u64() as usize, over }
        }));
        Ok(())
    }
}
