//! What receivers say of how media arrives (RFC 3550 §6.4).

/// One report on one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Whose packets it is about.
    pub source: u32,
    /// Packets lost since the beginning; repeated ones count against it.
    pub lost: i32,
    /// How unevenly they arrive, in units of the media's clock.
    pub jitter: u32,
}

/// The reports in a packet that may be made of several; nothing where it is none.
pub fn reports(mut packet: &[u8], mut found: impl FnMut(Report)) {
    while let Some([first, kind, high, low]) = packet.first_chunk::<4>().copied() {
        let length = 4 * (usize::from(u16::from_be_bytes([high, low])) + 1);
        let Some(own) = packet.get(..length).filter(|_| first >> 6 == 2) else { return };
        packet = &packet[length..];
        // A sender's report has what it sent before the blocks.
        let blocks = match kind {
            200 => 28,
            201 => 8,
            _ => continue,
        };
        let blocks = own.get(blocks..).unwrap_or_default().chunks_exact(24);
        for block in blocks.take(usize::from(first & 31)) {
            let word = |at: usize| {
                block
                    .get(at..at + 4)
                    .and_then(|four| four.first_chunk::<4>())
                    .map_or(0, |four| u32::from_be_bytes(*four))
            };
            // 24 bits with a sign, behind the fraction.
            let lost = ((word(4) << 8) as i32) >> 8;
            found(Report { source: word(0), lost, jitter: word(12) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_of_receivers_and_senders() {
        let block = |lost: u32, jitter: u32| [7_u32, lost & 0xff_ffff, 0, jitter, 0, 0].map(u32::to_be_bytes).concat();
        let mut packet = vec![0x81, 201, 0, 7, 0, 0, 0, 1];
        packet.extend(block(5, 90));
        packet.extend([0x81, 200, 0, 12]);
        packet.extend([0; 24]);
        packet.extend(block(0xff_ffff, 3));
        packet.extend([0x81, 202, 0, 0]);
        let mut all = Vec::new();
        reports(&packet, |report| all.push((report.lost, report.jitter)));
        assert_eq!(all, [(5, 90), (-1, 3)]);
        for cut in 0..packet.len() {
            reports(&packet[..cut], |_| {});
        }
        reports(b"\x41\xc9\0\0", |_| panic!("another version"));
    }
}
