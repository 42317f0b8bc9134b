//! The `Transport` field (RFC 2326 §12.39): ways that media may take, the one liked best first.

use smallvec::SmallVec;

/// One way, and what is said of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec<'a> {
    /// `RTP/AVP`, `RTP/AVP/TCP`, `MP2T/RTP/UDP` ...
    pub protocol: &'a str,
    /// In the order they came; a parameter without `=` has no value.
    pub params: SmallVec<[(&'a str, Option<&'a str>); 8]>,
}

/// More ways than any client offers.
pub const SPECS: usize = 16;
const PARAMS: usize = 32;

pub type Specs<'a> = SmallVec<[Spec<'a>; 4]>;

/// What carries the media.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lower {
    /// Packets from one to one.
    Unicast,
    /// Packets to a group.
    Multicast,
    /// Frames on the connection itself.
    Interleaved,
    /// Something that is not known here.
    Other,
}

/// Ports of RTP and, where it has its own, of RTCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    pub rtp: u16,
    pub rtcp: Option<u16>,
}

/// Reads the values of one field line; beyond [`SPECS`] nothing is read.
pub fn parse(value: &str) -> Specs<'_> {
    split(value, b',').filter(|text| !text.is_empty()).take(SPECS).map(spec).collect()
}

fn spec(text: &str) -> Spec<'_> {
    let mut parts = split(text, b';');
    let protocol = parts.next().unwrap_or_default();
    let params = parts.filter(|part| !part.is_empty()).take(PARAMS).map(|part| match part.split_once('=') {
        Some((name, value)) => (name.trim(), Some(value.trim())),
        None => (part, None),
    });
    Spec { protocol, params: params.collect() }
}

/// The pieces of a text, but for what is in quotes, without blanks around them.
fn split(text: &str, between: u8) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let mut quoted = false;
        let end = text.bytes().position(|byte| {
            quoted ^= byte == b'"';
            byte == between && !quoted
        });
        let (piece, after) = match end {
            Some(end) => (&text[..end], Some(&text[end + 1..])),
            None => (text, None),
        };
        rest = after;
        Some(piece.trim())
    })
}

impl<'a> Spec<'a> {
    /// The value of a parameter; empty where it has none.
    pub fn param(&self, name: &str) -> Option<&'a str> {
        let found = self.params.iter().find(|(own, _)| own.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.unwrap_or_default())
    }

    pub fn lower(&self) -> Lower {
        let mut words = self.protocol.rsplit('/');
        let last = words.next().unwrap_or_default();
        // With ports beside the channels it is by packets: some clients offer both in one.
        let channels = self.param("interleaved").is_some() && self.param("client_port").is_none();
        if last.eq_ignore_ascii_case("tcp") || channels {
            return Lower::Interleaved;
        }
        // RTP/AVP, RTP/SAVP, RTP/AVPF and RTP/SAVPF mean UDP where they do not say.
        let profiles = ["udp", "avp", "savp", "avpf", "savpf"];
        if !profiles.iter().any(|own| last.eq_ignore_ascii_case(own)) {
            return Lower::Other;
        }
        // RFC 7826 §18.54 names addresses here, which we do not stand in for.
        if self.param("dest_addr").is_some() || self.param("src_addr").is_some() {
            return Lower::Other;
        }
        if self.param("multicast").is_some() { Lower::Multicast } else { Lower::Unicast }
    }

    /// Ports, as in `client_port=4588-4589`.
    pub fn ports(&self, name: &str) -> Option<Pair> {
        let value = self.param(name)?;
        let (rtp, rtcp) = match value.split_once('-') {
            Some((rtp, rtcp)) => (rtp, Some(rtcp.trim().parse().ok()?)),
            None => (value, None),
        };
        Some(Pair { rtp: rtp.trim().parse().ok()?, rtcp })
    }

    /// Writes it with some parameters left out and others added behind.
    pub fn write(&self, left_out: &[&str], added: &[(&str, String)], out: &mut String) {
        out.push_str(self.protocol);
        let kept = self.params.iter().filter(|(name, _)| !left_out.iter().any(|own| name.eq_ignore_ascii_case(own)));
        for (name, value) in kept {
            out.push(';');
            out.push_str(name);
            if let Some(value) = value {
                out.push('=');
                out.push_str(value);
            }
        }
        for (name, value) in added {
            out.push(';');
            out.push_str(name);
            out.push('=');
            out.push_str(value);
        }
    }
}

impl Pair {
    pub fn text(self) -> String {
        match self.rtcp {
            Some(rtcp) => format!("{}-{rtcp}", self.rtp),
            None => self.rtp.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_clients_and_servers_write_it() {
        let rtsps = "RTP/AVP;unicast;client_port=37894-37895,RTP/AVP;multicast,RTP/AVP/TCP;unicast;interleaved=0-1";
        let specs = parse(rtsps);
        let lower: Vec<_> = specs.iter().map(Spec::lower).collect();
        assert_eq!(lower, [Lower::Unicast, Lower::Multicast, Lower::Interleaved]);
        assert_eq!(specs[0].ports("client_port"), Some(Pair { rtp: 37894, rtcp: Some(37895) }));
        for (text, lower, client, server) in [
            ("RTP/AVP/UDP;unicast;client_port=11894-11895", Lower::Unicast, Some(11894), None),
            (
                "RTP/AVP;unicast;client_port=1-2;server_port=3-4;ssrc=2C2AF8CE;mode=\"PLAY\"",
                Lower::Unicast,
                Some(1),
                Some(3),
            ),
            ("RTP/AVP/TCP;unicast;interleaved=0-1;ssrc=5298D22E;mode=\"PLAY\"", Lower::Interleaved, None, None),
            (
                "RTP/AVP/UDP;unicast;source=127.0.0.1;client_port=9-10;server_port=47-48;mode=play",
                Lower::Unicast,
                Some(9),
                Some(47),
            ),
            ("MP2T/RTP/UDP;unicast;client_port=5", Lower::Unicast, Some(5), None),
            ("RTP/SAVPF;dest_addr=\":6000/:6001\"", Lower::Other, None, None),
            ("RAW/RAW/SCTP", Lower::Other, None, None),
            ("RTP/AVP;unicast;interleaved=0-1", Lower::Interleaved, None, None),
            ("RTP/AVP;unicast;client_port=9-10;interleaved=0-1", Lower::Unicast, Some(9), None),
            ("RTP/AVP;unicast;client_port=99999-1", Lower::Unicast, None, None),
        ] {
            let specs = parse(text);
            assert_eq!(specs.len(), 1, "{text}");
            let port = |name| specs[0].ports(name).map(|pair| pair.rtp);
            assert_eq!((specs[0].lower(), port("client_port"), port("server_port")), (lower, client, server), "{text}");
            let mut again = String::new();
            specs[0].write(&[], &[], &mut again);
            assert_eq!(again, text);
        }
    }

    #[test]
    fn quotes_hold_commas_and_what_is_odd_is_kept() {
        let specs = parse("RTP/AVP;mode=\"PLAY,RECORD\";x , ;;,RTP/AVP/TCP");
        assert_eq!(specs.len(), 3);
        assert_eq!(specs[0].param("MODE"), Some("\"PLAY,RECORD\""));
        assert_eq!((specs[0].param("x"), specs[0].param("y")), (Some(""), None));
        let mut out = String::new();
        specs[0].write(&["Mode"], &[("source", "10.0.0.1".to_owned())], &mut out);
        assert_eq!(out, "RTP/AVP;x;source=10.0.0.1");
    }
}
