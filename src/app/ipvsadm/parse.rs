//! A command line of `ipvsadm` 1.31 to what it asks for, with that program's own words where it asks for nothing.

use std::net::{IpAddr, SocketAddr};

use super::address;
use super::options::{BadWord, Command, Meaning, Opt, Seen, Words};
use crate::model::director::{
    Conduct, Dest, Family, Flags, FlowTimeouts, Forwarding, Method, OnDown, Persistence, Protocol, Scheduler,
    ServiceKey,
};
use crate::state::director::{Change, Wanted};

/// What a command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    Change(Change),
    List(Listing),
    Connections {
        numeric: bool,
        persistent: bool,
    },
    Timeouts,
    /// `-L --daemon`.
    Daemons,
    Save {
        numeric: bool,
    },
    Restore,
    Help,
    Version,
    /// IPVS has it, and this director has not.
    NotAvailable,
}

/// `-L`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listing {
    /// Only this one; then there is no first line.
    pub only: Option<ServiceKey>,
    pub numeric: bool,
    pub exact: bool,
    pub sorted: bool,
    pub mode: Mode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Plain,
    Stats,
    Rate,
    Thresholds,
    PersistentConn,
    TunInfo,
}

/// Why a command line asks for nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrong {
    /// Ends the program with 2.
    Fail(String),
    /// Popt's words: the command fails with 255, and the next line of a restore is read.
    Bad(String),
    /// `Try ipvsadm -h`: ends the program with 255.
    TryHelp,
}

impl From<BadWord> for Wrong {
    fn from(bad: BadWord) -> Wrong {
        Wrong::Bad(bad.0)
    }
}

impl From<String> for Wrong {
    fn from(text: String) -> Wrong {
        Wrong::Fail(text)
    }
}

fn fail<T>(text: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong::Fail(text.into()))
}

/// 31 days.
const LONGEST: i64 = 86_400 * 31;
/// What `-p` says without a word.
const PERSISTENT: u32 = 360;

/// What options have said so far.
struct Draft {
    seen: Seen,
    protocol: Protocol,
    service: Option<SocketAddr>,
    mark: Option<u32>,
    family: Family,
    scheduler: String,
    persistence: Option<u32>,
    mask: Option<IpAddr>,
    one_packet: bool,
    engine: bool,
    flags: Vec<(&'static str, Flags)>,
    /// `flag-1` to `flag-3`, which belong to no scheduler.
    bare: [bool; 3],
    server: Option<SocketAddr>,
    method: Option<Method>,
    weight: u32,
    upper: u32,
    lower: u32,
    tunnel: Option<Tunnel>,
    timeouts: Vec<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tunnel {
    Ipip,
    Gue,
    Gre,
}

impl Tunnel {
    fn name(self) -> &'static str {
        match self {
            Tunnel::Ipip => "ipip",
            Tunnel::Gue => "gue",
            Tunnel::Gre => "gre",
        }
    }
}

/// Understands one command line, without the program's name. `restoring`: it is a line of a restore, which cannot restore.
///
/// # Errors
/// As [`Wrong`] has it.
pub fn parse(words: &[String], restoring: bool) -> Result<Asked, Wrong> {
    let mut words = Words::new(words);
    // The command comes first; anything else is told what help there is.
    let Some(Ok((Meaning::Command(command), given))) = words.next() else { return Err(Wrong::TryHelp) };
    match command {
        Command::Help => return Ok(Asked::Help),
        Command::Version => return Ok(Asked::Version),
        Command::Restore if restoring => return Err(Wrong::TryHelp),
        Command::StartDaemon if !daemon(given) => return fail("illegal start-daemon parameter specified"),
        Command::StopDaemon if !daemon(given) => return fail("illegal start_daemon specified"),
        _ => {}
    }
    let mut draft = Draft::new();
    while let Some(next) = words.next() {
        let (meaning, word) = next?;
        if let Meaning::Command(_) = meaning {
            return fail(format!("invalid option `{}'", words.last()));
        }
        draft.take(meaning, word.unwrap_or_default(), word.is_some())?;
    }
    let mut left = words.left.iter();
    if command == Command::Set {
        for _ in 0..3 {
            let Some(word) = left.next() else { return fail("--set option requires 3 timeout values") };
            draft.timeouts.push(timeout(word, 0)?);
        }
    }
    if let Some(word) = left.next() {
        return fail(format!("unexpected argument {word}"));
    }
    draft.check_flags()?;
    draft.seen.check(command)?;
    draft.into_asked(command)
}

fn daemon(word: Option<&str>) -> bool {
    matches!(word, Some("master" | "backup"))
}

fn timeout(word: &str, least: i64) -> Result<u32, Wrong> {
    let seconds = address::number(word, least, LONGEST).and_then(|seconds| u32::try_from(seconds).ok());
    seconds.ok_or_else(|| Wrong::Fail(format!("invalid timeout value `{word}' specified")))
}

/// A whole number, or these words.
fn whole(word: &str, least: i64, most: i64, wrong: &str) -> Result<u32, Wrong> {
    let number = address::number(word, least, most).and_then(|number| u32::try_from(number).ok());
    number.ok_or_else(|| Wrong::Fail(wrong.to_owned()))
}

impl Draft {
    fn new() -> Draft {
        Draft {
            seen: Seen::default(),
            protocol: Protocol::Tcp,
            service: None,
            mark: None,
            family: Family::Ipv4,
            scheduler: String::new(),
            persistence: None,
            mask: None,
            one_packet: false,
            engine: false,
            flags: Vec::new(),
            bare: [false; 3],
            server: None,
            method: None,
            weight: 1,
            upper: 0,
            lower: 0,
            tunnel: None,
            timeouts: Vec::new(),
        }
    }

    fn take(&mut self, meaning: Meaning, word: &str, has_word: bool) -> Result<(), Wrong> {
        match meaning {
            Meaning::Sort | Meaning::Command(_) => {}
            Meaning::Service(protocol) => {
                self.seen.set(Opt::Service)?;
                self.protocol = protocol;
                let Some((address, _)) = address::host_and_port(word, protocol) else {
                    return fail("illegal virtual server address[:port] specified");
                };
                self.family = Family::of(address.ip());
                self.service = Some(address);
            }
            Meaning::Mark => {
                self.seen.set(Opt::Service)?;
                let mark = address::number(word, 1, i64::from(u32::MAX)).and_then(|mark| u32::try_from(mark).ok());
                self.mark = Some(mark.ok_or_else(|| Wrong::Fail(format!("invalid fwmark value `{word}' specified")))?);
            }
            Meaning::Ipv6 => {
                if self.mark.is_none() {
                    return fail("-6 used before -f\n");
                }
                self.family = Family::Ipv6;
            }
            Meaning::Method(method) => {
                self.seen.set(Opt::Forward)?;
                self.method = Some(method);
            }
            Meaning::Option(opt) => {
                self.seen.set(opt)?;
                self.option(opt, word, has_word)?;
            }
        }
        Ok(())
    }

    fn option(&mut self, opt: Opt, word: &str, has_word: bool) -> Result<(), Wrong> {
        match opt {
            // Longer names are cut, as the kernel's structure has room for 15 bytes.
            Opt::Scheduler => self.scheduler = word.chars().take(15).collect(),
            Opt::Persistent => self.persistence = Some(if has_word { timeout(word, 1)? } else { PERSISTENT }),
            Opt::Netmask => self.mask = Some(self.netmask(word)?),
            Opt::Ops => self.one_packet = true,
            Opt::Pe => self.engine = true,
            Opt::SchedFlags => self.sched_flags(word)?,
            Opt::Server => {
                let Some((mut server, has_port)) = address::host_and_port(word, self.protocol) else {
                    return fail("illegal real server address[:port] specified");
                };
                // Without a port, it is the service's, as far as that has been said.
                if !has_port {
                    server.set_port(self.service.map_or(0, |service| service.port()));
                }
                self.server = Some(server);
            }
            Opt::Weight => self.weight = whole(word, 0, i64::from(i32::MAX), "illegal weight specified")?,
            Opt::Upper => self.upper = whole(word, 0, i64::from(i32::MAX), "illegal u_threshold specified")?,
            Opt::Lower => self.lower = whole(word, 0, i64::from(i32::MAX), "illegal l_threshold specified")?,
            Opt::TunType => {
                self.tunnel = Some(match word {
                    "ipip" => Tunnel::Ipip,
                    "gue" => Tunnel::Gue,
                    "gre" => Tunnel::Gre,
                    _ => return fail("illegal tunnel type specified"),
                });
            }
            Opt::TunPort => drop(whole(word, 1, 65_535, "illegal tunnel port specified")?),
            Opt::SyncId => drop(whole(word, 0, 255, "illegal syncid specified")?),
            Opt::McastPort => drop(whole(word, 1, 65_535, "illegal mcast-port specified")?),
            Opt::McastTtl => drop(whole(word, 1, 255, "illegal mcast-ttl specified")?),
            Opt::SyncMaxlen => drop(whole(word, 1, 65_507, "illegal sync-maxlen specified")?),
            Opt::McastGroup => match word.parse::<IpAddr>() {
                Ok(group) if group.is_multicast() => {}
                Ok(IpAddr::V6(_)) => return fail(format!("invalid IPv6 mcast-group `{word}'")),
                _ => return fail(format!("invalid IPv4 mcast-group `{word}'")),
            },
            _ => {}
        }
        Ok(())
    }

    fn netmask(&self, word: &str) -> Result<IpAddr, Wrong> {
        match self.family {
            Family::Ipv4 => match address::host(word) {
                Some(mask) => Ok(IpAddr::V4(mask)),
                None => fail("illegal virtual server persistent mask specified"),
            },
            Family::Ipv6 => match address::leading_number(word) {
                bits @ 1..=128 => Ok(Persistence::mask(Family::Ipv6, bits as u8)),
                _ => fail("illegal ipv6 netmask specified"),
            },
        }
    }

    fn sched_flags(&mut self, words: &str) -> Result<(), Wrong> {
        for word in words.split(',').filter(|word| !word.is_empty()) {
            let (fallback, port) =
                (Flags { fallback: true, ..Flags::default() }, Flags { port: true, ..Flags::default() });
            match word {
                "flag-1" => self.bare[0] = true,
                "flag-2" => self.bare[1] = true,
                "flag-3" => self.bare[2] = true,
                "sh-fallback" => self.flags.push(("sh-fallback", fallback)),
                "sh-port" => self.flags.push(("sh-port", port)),
                "mh-fallback" => self.flags.push(("mh-fallback", fallback)),
                "mh-port" => self.flags.push(("mh-port", port)),
                _ => return fail(format!("invalid scheduler flag `{word}'")),
            }
        }
        Ok(())
    }

    /// Whether the flags are those of the scheduler, which may have been named after them.
    fn check_flags(&self) -> Result<(), Wrong> {
        match self.flags.iter().find(|(name, _)| name.split('-').next() != Some(&self.scheduler)) {
            Some((name, _)) => fail(format!("incompatible scheduler flag `{name}'")),
            None => Ok(()),
        }
    }

    fn key(&self) -> Option<ServiceKey> {
        match (self.service, self.mark) {
            (Some(address), _) => Some(ServiceKey::Address { protocol: self.protocol, address }),
            (None, Some(mark)) => Some(ServiceKey::Mark { mark, family: self.family }),
            (None, None) => None,
        }
    }

    fn into_asked(self, command: Command) -> Result<Asked, Wrong> {
        let has = |opt| self.seen.has(opt);
        let numeric = has(Opt::Numeric);
        match command {
            Command::Flush => return Ok(Asked::Change(Change::Clear)),
            Command::Zero => return Ok(Asked::Change(Change::Zero { key: self.key() })),
            Command::Set => {
                let [tcp, tcpfin, udp] = self.timeouts[..] else { return Err(Wrong::TryHelp) };
                return Ok(Asked::Change(Change::Timeouts(FlowTimeouts { tcp, tcpfin, udp })));
            }
            Command::StartDaemon | Command::StopDaemon => return Ok(Asked::NotAvailable),
            Command::Save => return Ok(Asked::Save { numeric }),
            Command::Restore => return Ok(Asked::Restore),
            Command::List => return self.listing(),
            _ => {}
        }
        // The table of options has seen to it that there is one.
        let Some(key) = self.key() else { return Err(Wrong::TryHelp) };
        match command {
            Command::AddService | Command::EditService => self.service(command, key),
            Command::DeleteService => Ok(Asked::Change(Change::DeleteService { key })),
            _ => self.server(command, key),
        }
    }

    fn listing(self) -> Result<Asked, Wrong> {
        let has = |opt| self.seen.has(opt);
        let (connections, timeout, daemon) = (has(Opt::Connection), has(Opt::Timeout), has(Opt::Daemon));
        let counted = has(Opt::Stats) || has(Opt::Rate) || has(Opt::Thresholds);
        if (connections || timeout || daemon) && counted || (timeout || daemon) && has(Opt::PersistentConn) {
            return fail("options conflicts in the list command");
        }
        let numeric = has(Opt::Numeric);
        if connections {
            return Ok(Asked::Connections { numeric, persistent: has(Opt::PersistentConn) });
        }
        if timeout {
            return Ok(Asked::Timeouts);
        }
        if daemon {
            return Ok(Asked::Daemons);
        }
        let modes = [
            (Opt::Stats, Mode::Stats),
            (Opt::Rate, Mode::Rate),
            (Opt::Thresholds, Mode::Thresholds),
            (Opt::PersistentConn, Mode::PersistentConn),
            (Opt::TunInfo, Mode::TunInfo),
        ];
        let mode = modes.iter().find(|(opt, _)| has(*opt)).map_or(Mode::Plain, |(_, mode)| *mode);
        Ok(Asked::List(Listing { only: self.key(), numeric, exact: has(Opt::Exact), sorted: !has(Opt::NoSort), mode }))
    }

    fn service(self, command: Command, key: ServiceKey) -> Result<Asked, Wrong> {
        let by_address = matches!(key, ServiceKey::Address { .. });
        if by_address && key.port() == 0 && self.persistence.is_none() {
            return fail("Zero port specified for non-persistent service");
        }
        if by_address && self.one_packet && self.protocol != Protocol::Udp {
            return fail("One-Packet Scheduling is only for UDP virtual services");
        }
        // Bits that a scheduler has a meaning for: flag-1 and flag-2 are those of sh and mh.
        let hashes = matches!(self.scheduler.as_str(), "sh" | "mh");
        if self.engine || (!hashes && self.bare.contains(&true)) || self.bare[2] {
            return Ok(Asked::NotAvailable);
        }
        let flags = Flags {
            fallback: self.bare[0] || self.flags.iter().any(|(_, flags)| flags.fallback),
            port: self.bare[1] || self.flags.iter().any(|(_, flags)| flags.port),
        };
        let family = self.family;
        let mask = self.mask.filter(|mask| Family::of(*mask) == family);
        let mask = mask.unwrap_or_else(|| Persistence::mask(family, family.bits()));
        let scheduler = if self.scheduler.is_empty() { "wlc".to_owned() } else { self.scheduler };
        let conduct = Conduct {
            scheduler: Scheduler::of(&scheduler).unwrap_or(Scheduler::Wlc),
            flags,
            persistence: self.persistence.map(|seconds| Persistence { seconds, mask }),
            one_packet: self.one_packet,
            forwarding: Forwarding::default(),
            on_down: OnDown::default(),
        };
        let conduct = Wanted { scheduler, conduct };
        Ok(Asked::Change(match command {
            Command::AddService => Change::AddService { key, conduct },
            _ => Change::EditService { key, conduct },
        }))
    }

    fn server(mut self, command: Command, key: ServiceKey) -> Result<Asked, Wrong> {
        let Some(mut address) = self.server else { return Err(Wrong::TryHelp) };
        if command == Command::DeleteServer {
            return Ok(Asked::Change(Change::DeleteServer { key, server: address }));
        }
        let method = self.method.unwrap_or(Method::Dr);
        let tunnelled = self.tunnel_options(method)?;
        // The packet stays as it is, its port too.
        if method != Method::Nat && matches!(key, ServiceKey::Address { .. }) {
            address.set_port(key.port());
        }
        if Family::of(address.ip()) != key.family() && method != Method::Tun {
            return fail("Different address family is allowed only for tunneling servers");
        }
        if tunnelled {
            return Ok(Asked::NotAvailable);
        }
        let server =
            Dest { address, method, weight: self.weight, upper: self.upper, lower: std::mem::take(&mut self.lower) };
        Ok(Asked::Change(match command {
            Command::AddServer => Change::AddServer { key, server },
            _ => Change::EditServer { key, server },
        }))
    }

    /// Whether it is another tunnel than a packet in a packet.
    fn tunnel_options(&self, method: Method) -> Result<bool, Wrong> {
        const SUMS: [Opt; 3] = [Opt::TunNocsum, Opt::TunCsum, Opt::TunRemcsum];
        let has = |opt| self.seen.has(opt);
        let all = [Opt::TunType, Opt::TunPort, Opt::TunNocsum, Opt::TunCsum, Opt::TunRemcsum];
        if !all.into_iter().any(has) {
            return Ok(false);
        }
        if method != Method::Tun {
            return fail("Tunnel options conflict with forward method");
        }
        let tunnel = self.tunnel.unwrap_or(Tunnel::Ipip);
        let illegal: &[Opt] = match tunnel {
            Tunnel::Ipip => &[Opt::TunPort, Opt::TunNocsum, Opt::TunCsum, Opt::TunRemcsum],
            Tunnel::Gue => &[],
            Tunnel::Gre => &[Opt::TunPort, Opt::TunRemcsum],
        };
        if tunnel == Tunnel::Gue && !has(Opt::TunPort) {
            return fail("You need to supply the 'tun-port' option for the 'gue' tunnel type");
        }
        if let Some(opt) = illegal.iter().find(|opt| has(**opt)) {
            return fail(format!("Illegal '{}' option with the '{}' tunnel type", opt.name(), tunnel.name()));
        }
        let mut sums = SUMS.into_iter().filter(|opt| has(*opt));
        if let (Some(first), Some(second)) = (sums.next(), sums.next()) {
            return fail(format!(
                "The option '{}' conflicts with the '{}' option in the '{}' tunnel type",
                second.name(),
                first.name(),
                tunnel.name()
            ));
        }
        Ok(tunnel != Tunnel::Ipip)
    }
}

#[cfg(test)]
mod tests;
