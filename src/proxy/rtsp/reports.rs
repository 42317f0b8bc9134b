//! What receivers report of a stream, added up for its server.

use std::cell::RefCell;

use smallvec::SmallVec;

use crate::state::media::load::Load;
use crate::wire::rtsp::rtcp;

/// Sources of one stream that are told apart: both ends, and those that came after a change.
const SOURCES: usize = 8;

/// Clock of nearly all video. That of sound is slower: its jitter shows as less.
const CLOCK: u64 = 90_000;

/// What was reported of each source last.
#[derive(Debug, Default)]
pub struct Reports {
    lost: RefCell<SmallVec<[(u32, i32); 2]>>,
}

impl Reports {
    /// Looks into a packet of RTCP.
    pub fn look(&self, packet: &[u8], load: &Load) {
        rtcp::reports(packet, |report| {
            let mut known = self.lost.borrow_mut();
            let before = match known.iter().position(|(source, _)| *source == report.source) {
                Some(at) => std::mem::replace(&mut known[at].1, report.lost),
                None if known.len() < SOURCES => {
                    known.push((report.source, report.lost));
                    0
                }
                None => return,
            };
            let more = report.lost.saturating_sub(before).max(0) as u64;
            load.reported(more, u64::from(report.jitter) * 1_000_000 / CLOCK);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_added_up_as_they_grow() {
        let (reports, load) = (Reports::default(), Load::default());
        let say = |lost: u32, jitter: u32| {
            let mut packet = vec![0x81, 201, 0, 7, 0, 0, 0, 1];
            packet.extend([7_u32, lost & 0xff_ffff, 0, jitter, 0, 0].map(u32::to_be_bytes).concat());
            reports.look(&packet, &load);
        };
        say(5, 900);
        say(5, 90);
        say(8, 90);
        say(0xff_ffff, 90_000);
        assert_eq!((load.lost(), load.jitter()), (8, 1.0));
    }
}
