//! What is wanted of a description (RFC 8866): how much it takes, its clocks, and the URLs in it.

/// The bandwidth that a description names, in kbit/s: that of the session, else the sum of its media (RFC 8866 §5.8).
pub fn bandwidth(sdp: &[u8]) -> Option<u32> {
    let (mut session, mut media, mut in_media) = (None, None, false);
    for line in lines(sdp) {
        if line.starts_with(b"m=") {
            in_media = true;
        } else if let Some(value) = line.strip_prefix(b"b=AS:")
            && let Some(kilobits) = std::str::from_utf8(value).ok().and_then(|text| text.trim().parse::<u32>().ok())
        {
            let sum = if in_media { &mut media } else { &mut session };
            *sum = Some(sum.unwrap_or(0_u32).saturating_add(kilobits));
        }
    }
    session.or(media)
}

/// A copy in which absolute `a=control:` URLs are what `rewritten` makes of them; `None` where it changes none.
pub fn with_controls(sdp: &[u8], rewritten: impl Fn(&str) -> Option<String>) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(sdp.len());
    let mut changed = false;
    for line in sdp.split_inclusive(|byte| *byte == b'\n') {
        let new = line.strip_prefix(b"a=control:").and_then(|rest| {
            let (value, end) = rest.split_at(rest.trim_ascii_end().len());
            Some((rewritten(std::str::from_utf8(value).ok()?)?, end))
        });
        match new {
            Some((url, end)) => {
                changed = true;
                out.extend_from_slice(b"a=control:");
                out.extend_from_slice(url.as_bytes());
                out.extend_from_slice(end);
            }
            None => out.extend_from_slice(line),
        }
    }
    changed.then_some(out)
}

fn lines(sdp: &[u8]) -> impl Iterator<Item = &[u8]> {
    sdp.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bandwidths() {
        assert_eq!(bandwidth(b"v=0\r\nb=AS:500\r\nm=video 0 RTP/AVP 96\r\nb=AS:400\r\n"), Some(500));
        assert_eq!(bandwidth(b"v=0\nm=video\nb=AS:400\nm=audio\nb=AS:64\nb=TIAS:9\n"), Some(464));
        assert_eq!((bandwidth(b"v=0\r\nb=AS:x\r\n"), bandwidth(b"\xff\n\n")), (None, None));
        assert_eq!(bandwidth(b"b=AS:4294967295\nb=AS:4294967295"), Some(u32::MAX));
    }

    #[test]
    fn controls() {
        let sdp = b"v=0\r\na=control:*\r\nm=video\r\na=control:rtsp://10.0.0.1/a/track1\r\na=control:x";
        let new =
            with_controls(sdp, |url| url.strip_prefix("rtsp://10.0.0.1/").map(|rest| format!("rtsp://vip/{rest}")));
        assert_eq!(new.unwrap(), b"v=0\r\na=control:*\r\nm=video\r\na=control:rtsp://vip/a/track1\r\na=control:x");
        assert_eq!(with_controls(sdp, |_| None), None);
    }
}
