//! A steady beat for one worker, from a timer of the kernel's.
//!
//! The runtime has timers too, but they make it look at the clock around every wait for events; one
//! descriptor that becomes readable twenty times a second costs nothing in between.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Beats once a period, from its making on.
#[derive(Debug)]
pub struct Ticker {
    timer: AsyncFd<OwnedFd>,
}

impl Ticker {
    /// Has to be made within a runtime that drives I/O.
    ///
    /// # Errors
    /// When descriptors have run out.
    pub fn new(period: Duration) -> io::Result<Ticker> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let time = Timespec { tv_sec: period.as_secs() as i64, tv_nsec: i64::from(period.subsec_nanos()) };
        let beat = Itimerspec { it_interval: time, it_value: time };
        rustix::time::timerfd_settime(&timer, TimerfdTimerFlags::empty(), &beat)?;
        // SAFETY: an `OwnedFd` keeps its one descriptor open as long as it lives, and `AsyncFd` owns it.
        let timer = unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE) };
        Ok(Ticker { timer: timer.map_err(|error| error.into_parts().1)? })
    }

    /// Waits for the next beat. Beats that were missed meanwhile are one.
    ///
    /// # Errors
    /// When the runtime is shutting down.
    pub async fn beat(&self) -> io::Result<()> {
        // The count of beats, which nobody asks for (timerfd_create(2)).
        let mut count = [0; 8];
        let read = self.timer.async_io(Interest::READABLE, |timer| Ok(rustix::io::read(timer, &mut count)?));
        read.await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn beats_come_once_a_period() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(async {
            let start = Instant::now();
            let ticker = Ticker::new(Duration::from_millis(5)).unwrap();
            for _ in 0..4 {
                ticker.beat().await.unwrap();
            }
            assert!(start.elapsed() >= Duration::from_millis(20), "{:?}", start.elapsed());
        });
    }
}
