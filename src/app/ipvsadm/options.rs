//! The words of a command line of `ipvsadm`, and which options stand with which command: its syntax is popt's.

/// An option, in the order in which its misuse is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Opt {
    Numeric,
    Connection,
    Service,
    Scheduler,
    Persistent,
    Netmask,
    Server,
    Forward,
    Weight,
    Upper,
    Lower,
    McastInterface,
    Timeout,
    Daemon,
    Stats,
    Rate,
    Thresholds,
    PersistentConn,
    NoSort,
    SyncId,
    Exact,
    Ops,
    Pe,
    SchedFlags,
    McastGroup,
    McastPort,
    McastTtl,
    SyncMaxlen,
    TunInfo,
    TunType,
    TunPort,
    TunNocsum,
    TunCsum,
    TunRemcsum,
}

/// As messages call them.
const NAMES: [(Opt, &str); 34] = [
    (Opt::Numeric, "numeric"),
    (Opt::Connection, "connection"),
    (Opt::Service, "service-address"),
    (Opt::Scheduler, "scheduler"),
    (Opt::Persistent, "persistent"),
    (Opt::Netmask, "netmask"),
    (Opt::Server, "real-server"),
    (Opt::Forward, "forwarding-method"),
    (Opt::Weight, "weight"),
    (Opt::Upper, "u-threshold"),
    (Opt::Lower, "l-threshold"),
    (Opt::McastInterface, "mcast-interface"),
    (Opt::Timeout, "timeout"),
    (Opt::Daemon, "daemon"),
    (Opt::Stats, "stats"),
    (Opt::Rate, "rate"),
    (Opt::Thresholds, "thresholds"),
    (Opt::PersistentConn, "persistent-conn"),
    (Opt::NoSort, "nosort"),
    (Opt::SyncId, "syncid"),
    (Opt::Exact, "exact"),
    (Opt::Ops, "ops"),
    (Opt::Pe, "pe"),
    (Opt::SchedFlags, "sched-flags"),
    (Opt::McastGroup, "mcast-group"),
    (Opt::McastPort, "mcast-port"),
    (Opt::McastTtl, "mcast-ttl"),
    (Opt::SyncMaxlen, "sync-maxlen"),
    (Opt::TunInfo, "tun-info"),
    (Opt::TunType, "tun-type"),
    (Opt::TunPort, "tun-port"),
    (Opt::TunNocsum, "tun-nocsum"),
    (Opt::TunCsum, "tun-csum"),
    (Opt::TunRemcsum, "tun-remcsum"),
];

impl Opt {
    pub fn name(self) -> &'static str {
        NAMES[self as usize].1
    }

    fn bit(self) -> u64 {
        1 << self as u8
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    AddService,
    EditService,
    DeleteService,
    Flush,
    List,
    AddServer,
    DeleteServer,
    EditServer,
    Set,
    StartDaemon,
    StopDaemon,
    Restore,
    Save,
    Zero,
    Help,
    Version,
}

impl Command {
    fn name(self) -> &'static str {
        match self {
            Command::AddService => "add-service",
            Command::EditService => "edit-service",
            Command::DeleteService => "delete-service",
            Command::Flush => "flush",
            Command::List => "list",
            Command::AddServer => "add-server",
            Command::DeleteServer => "delete-server",
            Command::EditServer => "edit-server",
            Command::Set => "set",
            Command::StartDaemon => "start-daemon",
            Command::StopDaemon => "stop-daemon",
            Command::Restore => "restore",
            Command::Save => "save",
            Command::Zero => "zero",
            Command::Help => "help",
            Command::Version => "version",
        }
    }

    /// Options that it must have; that it may have; of which it may have one.
    fn rules(self) -> (&'static [Opt], &'static [Opt], &'static [Opt]) {
        use Opt::{
            Connection, Daemon, Exact, Forward, Lower, McastGroup, McastInterface, McastPort, McastTtl, Netmask,
            NoSort, Numeric, Ops, Pe, Persistent, PersistentConn, Rate, SchedFlags, Scheduler, Server, Service, Stats,
            SyncId, SyncMaxlen, Thresholds, Timeout, TunCsum, TunInfo, TunNocsum, TunPort, TunRemcsum, TunType, Upper,
            Weight,
        };
        match self {
            Command::AddService | Command::EditService => {
                (&[Service], &[Scheduler, Persistent, Netmask, Ops, Pe, SchedFlags], &[])
            }
            Command::DeleteService => (&[Service], &[], &[]),
            Command::List => (
                &[],
                &[Numeric, Stats, Rate, Thresholds, PersistentConn, NoSort, Exact, TunInfo],
                &[Connection, Service, Timeout, Daemon],
            ),
            Command::AddServer | Command::EditServer => (
                &[Service, Server],
                &[Forward, Weight, Upper, Lower, TunType, TunPort, TunNocsum, TunCsum, TunRemcsum],
                &[],
            ),
            Command::DeleteServer => (&[Service, Server], &[], &[]),
            Command::StartDaemon => (&[], &[McastInterface, SyncId, McastGroup, McastPort, McastTtl, SyncMaxlen], &[]),
            Command::StopDaemon => (&[], &[SyncId], &[]),
            Command::Save => (&[], &[Numeric], &[]),
            Command::Zero => (&[], &[Service], &[]),
            Command::Flush | Command::Set | Command::Restore | Command::Help | Command::Version => (&[], &[], &[]),
        }
    }
}

/// What a letter or a long name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    Command(Command),
    Option(Opt),
    /// `-t`, `-u`, `--sctp-service`: the protocol.
    Service(crate::model::director::Protocol),
    Mark,
    Ipv6,
    /// `-g`, `-i`, `-m`.
    Method(crate::model::director::Method),
    /// `--sort` does nothing.
    Sort,
}

/// Whether an option has a word of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    Nothing,
    Word,
    /// Only where the next word is no option.
    Perhaps,
}

const OPTIONS: [(&str, &str, Takes, Meaning); 55] = {
    use crate::model::director::{Method, Protocol};
    use Meaning as M;
    use Takes::{Nothing, Perhaps, Word};
    [
        ("add-service", "A", Nothing, M::Command(Command::AddService)),
        ("edit-service", "E", Nothing, M::Command(Command::EditService)),
        ("delete-service", "D", Nothing, M::Command(Command::DeleteService)),
        ("clear", "C", Nothing, M::Command(Command::Flush)),
        ("list", "L", Nothing, M::Command(Command::List)),
        ("list", "l", Nothing, M::Command(Command::List)),
        ("zero", "Z", Nothing, M::Command(Command::Zero)),
        ("add-server", "a", Nothing, M::Command(Command::AddServer)),
        ("edit-server", "e", Nothing, M::Command(Command::EditServer)),
        ("delete-server", "d", Nothing, M::Command(Command::DeleteServer)),
        ("set", "", Nothing, M::Command(Command::Set)),
        ("help", "h", Nothing, M::Command(Command::Help)),
        ("version", "v", Nothing, M::Command(Command::Version)),
        ("restore", "R", Nothing, M::Command(Command::Restore)),
        ("save", "S", Nothing, M::Command(Command::Save)),
        ("start-daemon", "", Word, M::Command(Command::StartDaemon)),
        ("stop-daemon", "", Word, M::Command(Command::StopDaemon)),
        ("tcp-service", "t", Word, M::Service(Protocol::Tcp)),
        ("udp-service", "u", Word, M::Service(Protocol::Udp)),
        ("sctp-service", "", Word, M::Service(Protocol::Sctp)),
        ("fwmark-service", "f", Word, M::Mark),
        ("scheduler", "s", Word, M::Option(Opt::Scheduler)),
        ("persistent", "p", Perhaps, M::Option(Opt::Persistent)),
        ("netmask", "M", Word, M::Option(Opt::Netmask)),
        ("real-server", "r", Word, M::Option(Opt::Server)),
        ("masquerading", "m", Nothing, M::Method(Method::Nat)),
        ("ipip", "i", Nothing, M::Method(Method::Tun)),
        ("gatewaying", "g", Nothing, M::Method(Method::Dr)),
        ("weight", "w", Word, M::Option(Opt::Weight)),
        ("u-threshold", "x", Word, M::Option(Opt::Upper)),
        ("l-threshold", "y", Word, M::Option(Opt::Lower)),
        ("numeric", "n", Nothing, M::Option(Opt::Numeric)),
        ("connection", "c", Nothing, M::Option(Opt::Connection)),
        ("mcast-interface", "", Word, M::Option(Opt::McastInterface)),
        ("syncid", "", Word, M::Option(Opt::SyncId)),
        ("timeout", "", Nothing, M::Option(Opt::Timeout)),
        ("daemon", "", Nothing, M::Option(Opt::Daemon)),
        ("stats", "", Nothing, M::Option(Opt::Stats)),
        ("rate", "", Nothing, M::Option(Opt::Rate)),
        ("thresholds", "", Nothing, M::Option(Opt::Thresholds)),
        ("persistent-conn", "", Nothing, M::Option(Opt::PersistentConn)),
        ("nosort", "", Nothing, M::Option(Opt::NoSort)),
        ("sort", "", Nothing, M::Sort),
        ("exact", "X", Nothing, M::Option(Opt::Exact)),
        ("ipv6", "6", Nothing, M::Ipv6),
        ("ops", "o", Nothing, M::Option(Opt::Ops)),
        ("pe", "", Word, M::Option(Opt::Pe)),
        ("sched-flags", "b", Word, M::Option(Opt::SchedFlags)),
        ("mcast-group", "", Word, M::Option(Opt::McastGroup)),
        ("mcast-port", "", Word, M::Option(Opt::McastPort)),
        ("mcast-ttl", "", Word, M::Option(Opt::McastTtl)),
        ("sync-maxlen", "", Word, M::Option(Opt::SyncMaxlen)),
        ("tun-info", "", Nothing, M::Option(Opt::TunInfo)),
        ("tun-type", "", Word, M::Option(Opt::TunType)),
        ("tun-port", "", Word, M::Option(Opt::TunPort)),
    ]
};

const SUMS: [(&str, &str, Takes, Meaning); 3] = [
    ("tun-nocsum", "", Takes::Nothing, Meaning::Option(Opt::TunNocsum)),
    ("tun-csum", "", Takes::Nothing, Meaning::Option(Opt::TunCsum)),
    ("tun-remcsum", "", Takes::Nothing, Meaning::Option(Opt::TunRemcsum)),
];

/// A word that popt does not understand, with what it says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadWord(pub String);

/// Takes a command line apart, one option at a time.
pub struct Words<'a> {
    words: std::slice::Iter<'a, String>,
    /// Letters of a word of several, still to come, and that word.
    letters: Option<(&'a str, &'a str)>,
    /// Words that are no options.
    pub left: Vec<&'a str>,
    over: bool,
    /// What was looked at last.
    last: &'a str,
}

impl<'a> Words<'a> {
    pub fn new(words: &'a [String]) -> Words<'a> {
        Words { words: words.iter(), letters: None, left: Vec::new(), over: false, last: "" }
    }

    /// The word that was taken last.
    pub fn last(&self) -> &'a str {
        self.last
    }

    /// The next option, and its word.
    pub fn next(&mut self) -> Option<Result<(Meaning, Option<&'a str>), BadWord>> {
        if let Some((letters, whole)) = self.letters.take() {
            return Some(self.letter(letters, whole));
        }
        loop {
            let word = self.words.next()?;
            self.last = word;
            if self.over || !word.starts_with('-') || word == "-" {
                self.left.push(word);
            } else if word == "--" {
                self.over = true;
            } else if let Some(long) = word.strip_prefix("--") {
                return Some(self.long(long, word));
            } else {
                return Some(self.letter(&word[1..], word));
            }
        }
    }

    fn long(&mut self, long: &'a str, whole: &'a str) -> Result<(Meaning, Option<&'a str>), BadWord> {
        let (name, value) = long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
        let found = OPTIONS.iter().chain(&SUMS).find(|(known, ..)| *known == name);
        let Some((.., takes, meaning)) = found else { return Err(BadWord(format!("{whole}: unknown option"))) };
        self.taken(*takes, *meaning, value, whole)
    }

    fn letter(&mut self, letters: &'a str, whole: &'a str) -> Result<(Meaning, Option<&'a str>), BadWord> {
        let first = letters.chars().next().map_or(0, char::len_utf8);
        let (letter, rest) = letters.split_at(first);
        let found = OPTIONS.iter().find(|(_, short, ..)| !short.is_empty() && *short == letter);
        let Some((.., takes, meaning)) = found else { return Err(BadWord(format!("{whole}: unknown option"))) };
        let given = (!rest.is_empty()).then_some(rest);
        if *takes == Takes::Nothing && !rest.starts_with('=') {
            self.letters = given.map(|rest| (rest, whole));
            return Ok((*meaning, None));
        }
        self.taken(*takes, *meaning, given.map(|rest| rest.strip_prefix('=').unwrap_or(rest)), whole)
    }

    fn taken(
        &mut self,
        takes: Takes,
        meaning: Meaning,
        value: Option<&'a str>,
        whole: &str,
    ) -> Result<(Meaning, Option<&'a str>), BadWord> {
        match (takes, value) {
            (Takes::Nothing, Some(_)) => Err(BadWord(format!("{whole}: option does not take an argument"))),
            (Takes::Nothing, None) => Ok((meaning, None)),
            (_, Some(value)) => Ok((meaning, Some(value))),
            (Takes::Word, None) => match self.words.next() {
                Some(word) => {
                    self.last = word;
                    Ok((meaning, Some(word)))
                }
                None => Err(BadWord(format!("{whole}: missing argument"))),
            },
            (Takes::Perhaps, None) => {
                let next = self.words.as_slice().first().filter(|word| !word.starts_with('-'));
                if next.is_some() {
                    self.words.next();
                }
                Ok((meaning, next.map(String::as_str)))
            }
        }
    }
}

/// Which options there were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen(u64);

impl Seen {
    pub fn has(self, opt: Opt) -> bool {
        self.0 & opt.bit() != 0
    }

    /// # Errors
    /// In words, where it was there already.
    pub fn set(&mut self, opt: Opt) -> Result<(), String> {
        if self.has(opt) {
            return Err(format!("multiple '{}' options specified", opt.name()));
        }
        self.0 |= opt.bit();
        Ok(())
    }

    /// # Errors
    /// In words, where they do not stand with the command.
    pub fn check(self, command: Command) -> Result<(), String> {
        let (must, may, one) = command.rules();
        let mut first = None;
        for (opt, name) in NAMES {
            if !self.has(opt) {
                if must.contains(&opt) {
                    return Err(format!("You need to supply the '{name}' option for the '{}' command", command.name()));
                }
            } else if one.contains(&opt) {
                if let Some(first) = first {
                    let command = command.name();
                    return Err(format!(
                        "The option '{name}' conflicts with the '{first}' option in the '{command}' command"
                    ));
                }
                first = Some(name);
            } else if !must.contains(&opt) && !may.contains(&opt) {
                return Err(format!("Illegal '{name}' option with the '{}' command", command.name()));
            }
        }
        Ok(())
    }
}
