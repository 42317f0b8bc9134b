//! Counts what crosses the wires of a network, by who sends it to whom.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::space::Space;

/// `ETH_P_IP`, in the byte order in which AF_PACKET wants it.
const IP: i32 = 0x0800_u16.to_be() as i32;
/// Of IPv4's protocol field.
pub const UDP: u8 = 17;

/// Packets by sender, receiver and protocol.
#[derive(Debug, Default)]
pub struct Counts(BTreeMap<(Ipv4Addr, Ipv4Addr, u8), u64>);

impl Counts {
    /// How many packets fit.
    pub fn of(&self, mut fits: impl FnMut(Ipv4Addr, Ipv4Addr, u8) -> bool) -> u64 {
        self.0.iter().filter(|((from, to, protocol), _)| fits(*from, *to, *protocol)).map(|(_, count)| count).sum()
    }
}

pub struct Capture {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Counts>,
}

impl Capture {
    /// Begins before it returns.
    pub fn start(space: &Space) -> Capture {
        let mut socket =
            space.within(|| Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(IP)))).expect("root");
        socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
        socket.set_recv_buffer_size(8 << 20).expect("a buffer");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut counts = Counts::default();
            // Ethernet's head and the first 20 bytes of IPv4; the rest of a packet is cut off.
            let mut head = [0; 34];
            loop {
                match socket.read(&mut head) {
                    Ok(34) => {
                        let address = |at: usize| Ipv4Addr::new(head[at], head[at + 1], head[at + 2], head[at + 3]);
                        *counts.0.entry((address(26), address(30), head[23])).or_default() += 1;
                    }
                    Ok(_) => {}
                    // Nothing is waiting any more.
                    Err(_) if stopped.load(Ordering::SeqCst) => return counts,
                    Err(_) => {}
                }
            }
        });
        Capture { stop, thread }
    }

    pub fn end(self) -> Counts {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("the capture")
    }
}
