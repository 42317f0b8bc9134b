//! The command line: what can be asked of `reeve`, and the help that says so.
//!
//! Only what works is here. Texts become types while clap reads them, so that a wrong one is told
//! with the option it was given to.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::import::Dialect;
use crate::config;
use crate::wire::http1;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  an `expect` line failed, a request has no route, or a drain was not over in time
  2  a fault in a text: the configuration, a rule file, the command line; a reload or an upgrade that was refused
  3  the running process was not reached
  4  the start failed: an address in use, a privilege missing

Environment:
  REEVE_LOG            what is logged to stderr: error, warn, info (default), debug, trace
  REEVE_HAND_OVER      set by `reeve upgrade` for the process that takes over; not for people
  REEVE_SECTION__KEY   overrides a key of the configuration: REEVE_LIMITS__HEADER_COUNT=50

Start here:
  reeve demo                                a farm with origins of its own, no files needed
  reeve check -c config/reeve.toml          are the texts right?
  reeve explain GET http://shop.example/a   where would this request go, and why?
  reeve run -c config/reeve.toml            serve";

macro_rules! not_reached {
    () => {
        "\n\nExits with 3 when the running process is not reached."
    };
}

/// Director of a web and media farm: sends each request to the servers that hold its content.
#[derive(Debug, Parser)]
#[command(name = "reeve", version, max_term_width = 110, after_help = "`reeve --help` says more, with exit codes.")]
#[command(after_long_help = EXIT_CODES)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve in the foreground until SIGTERM or Ctrl-C, then finish what is under way and stop.
    #[command(
        after_help = "Example: reeve run -c /etc/reeve/config/reeve.toml --set process.workers=2\n\nExits with 0 when it \
                            was told to stop, 2 when a text has a fault, 4 when it cannot start."
    )]
    Run(RunArguments),
    /// Try Reeve: small origins of its own, Reeve in front of them, and what to try printed.
    #[command(after_help = "Example: reeve demo --for 10s\n\nUses ports 8080, 8443 and 9901 of 127.0.0.1, or free \
                            ones where these are taken. Its files are in a temporary folder that is removed at the end.")]
    Demo(DemoArguments),
    /// Check the configuration, the rules and their `expect` lines; opens nothing, changes nothing.
    #[command(
        after_help = "Examples:\n  reeve check --format json\n  reeve check --overlaps\n\nExits with 0 when all is well, 1 when only \
                            `expect` lines fail, 2 when a text has a fault."
    )]
    Check(CheckArguments),
    /// Say where a request would go, and why not elsewhere; asks the files, or with --live the running process.
    #[command(
        after_help = "Examples:\n  reeve explain GET http://shop.example/img/a.png\n  reeve explain tcp sni:mail.example\n  reeve explain GET /api/v1 \
                            -H 'host: shop.example' -H 'x-beta: 1' --roll 7\n  reeve explain POST /rpc -H 'host: shop.example' \
                            -H 'content-type: application/json' --body '{\"type\": \"buy\"}'\n  reeve explain --live GET http://shop.example/img/a.png\n\nExits \
                            with 1 when no rule takes the request; with --live, with 3 when the running process is not reached."
    )]
    Explain(ExplainArguments),
    /// Say which requests of an access log other rules would send elsewhere.
    #[command(
        after_help = "Example: reeve replay access.log --rules new/\n\nThe log is a JSON one, as `[log] access = { format = \"json\" }` writes it; - is \
                            stdin. Exits with 0 whatever moves, 2 when a text has a fault or the log cannot be read."
    )]
    Replay(ReplayArguments),
    /// Print the JSON schema of the configuration, for editors.
    #[command(
        after_help = "Example: reeve schema > reeve.schema.json\n\nThen, as the first line of reeve.toml, for editors that know taplo:\n  \
                            #:schema ./reeve.schema.json"
    )]
    Schema,
    /// Print another program's configuration as reeve.toml and rules, with a note at what has no equal here.
    #[command(
        after_help = "Examples:\n  reeve import nginx /etc/nginx/nginx.conf\n  reeve import haproxy haproxy.cfg --out new\n\nExits with 0 \
                            also when there are notes, 2 when the file cannot be read at all. Nothing is overwritten."
    )]
    Import(ImportArguments),
    /// Print a line for the file of `auth basic`; the password is one line of stdin.
    #[command(after_help = "Example: reeve hash-password joe >> auth/users < password.txt")]
    HashPassword(HashPasswordArguments),
    /// What the running process is doing: since when, how much, how well.
    #[command(after_help = concat!("Example: reeve status --format json", not_reached!()))]
    Status(ClientArguments),
    /// Each server of each pool: up or down and why, its weight, what it has in hand.
    #[command(after_help = concat!("Examples:\n  reeve servers\n  reeve servers web/web1\n  reeve servers --long", not_reached!()))]
    Servers(ServersArguments),
    /// The connections of each listener, and those kept to each server.
    #[command(after_help = concat!("Example: reeve connections --socket /run/reeve/reeve.sock", not_reached!()))]
    Connections(ClientArguments),
    /// The lists and maps of the running process; add entries to one, or remove some, in its file and in force at once.
    #[command(
        after_help = concat!("Examples:\n  reeve list\n  reeve list bots\n  reeve list bots add badbot worsebot\n  reeve list bots remove badbot\n  \
                              reeve list tenants add 'ann web'\n  reeve list bots add - < new.txt\n\nOf a map, entries to add are 'KEY VALUE' and those to remove keys. Exits with 2 \
                              when nothing has the name, or the rules would have a fault with it: then nothing has changed.", not_reached!())
    )]
    List(ListArguments),
    /// Have the running process read its texts anew; nothing that stays is touched, and a fault changes nothing.
    #[command(
        after_help = concat!("Examples:\n  reeve reload\n  reeve reload lists\n\nSIGHUP does the same and writes into the log. Exits \
                              with 2 when the texts have a fault or an address cannot be had: what was in force still is.", not_reached!())
    )]
    Reload(ReloadArguments),
    /// Have a new process take over, of a new program or of the same: no connection is lost, and if it fails, the running one goes on.
    #[command(
        after_help = concat!("Examples:\n  reeve upgrade\n  reeve upgrade --binary /opt/reeve-1.3/reeve\n\nThe new process reads its texts anew, with the                               words and the environment of the old one, takes over its sockets, counters, health and drains, and serves. The old one                               finishes what it has and ends. SIGUSR2 does the same and writes into the log. Exits with 2 when the new one was refused or                               failed; then nothing has changed.", not_reached!())
    )]
    Upgrade(UpgradeArguments),
    /// Take a server, a pool or a listener out of service; what it has in hand is finished.
    #[command(
        after_help = concat!("Examples:\n  reeve drain web/web1 --wait\n  reeve drain web --for 30s\n  reeve drain listen.web\n\nA drain \
                              lasts over reloads until `reeve ready`, and ends with the process. Exits with 1 when --for is over \
                              before all is finished, 2 when nothing has the name.", not_reached!())
    )]
    Drain(DrainArguments),
    /// Layer 4 by the command line of ipvsadm 1.31; also what this program does when it is called `ipvsadm`.
    #[command(
        disable_help_flag = true,
        after_help = "Examples:\n  reeve ipvsadm -Ln --stats\n  reeve ipvsadm -A -t 203.0.113.10:80 -s wrr\n  reeve ipvsadm -a -t 203.0.113.10:80 -r 10.0.0.1:8080 -m\n  \
                      reeve ipvsadm --socket /run/reeve/reeve.sock -L\n\nWhich process is asked is said before ipvsadm's own words. Its exit codes and messages are ipvsadm's; \
                      `reeve ipvsadm -h` has its help, docs/director.md the rest."
    )]
    Ipvsadm(IpvsadmArguments),
    /// Make this machine a real server of a director that sends by tunnel: what comes is opened, in the kernel, from now on.
    #[command(
        after_help = "Example: reeve real-server --interface eth0 --director 10.0.0.1\n\nThe virtual address must be on lo \
                            (ip addr add 203.0.113.10/32 dev lo) and not be answered for (net.ipv4.conf.all.arp_ignore=1, arp_announce=2), and \
                            rp_filter be 0. Nothing goes on running. Exits with 2 when the kernel does not do it."
    )]
    RealServer(RealServerArguments),
    /// Take back into service what was drained.
    #[command(after_help = concat!("Example: reeve ready web/web1\n\nExits with 2 when nothing has the name.", not_reached!()))]
    Ready(ReadyArguments),
}

#[derive(Debug, Args)]
pub struct UpgradeArguments {
    /// The program to start [default: the one that the process was started by, as it is now].
    #[arg(long, value_name = "PATH")]
    pub binary: Option<PathBuf>,
    /// How long the new process may take until it could serve, 60s at most.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub within: Option<Duration>,
    #[command(flatten)]
    pub client: ClientArguments,
}

#[derive(Debug, Args)]
pub struct IpvsadmArguments {
    /// What ipvsadm would be told.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "WORDS")]
    pub words: Vec<String>,
}

#[derive(Debug, Args)]
pub struct RealServerArguments {
    /// Where the director's packets come in.
    #[arg(long, value_name = "NAME")]
    pub interface: String,
    /// A director's address, from which its tunnels come; may be said more than once.
    #[arg(long, value_name = "ADDRESS", required_unless_present_any = ["any_director", "stop"])]
    pub director: Vec<IpAddr>,
    /// Open everybody's tunnels. Whoever reaches this machine can then send it packets of any source.
    #[arg(long, conflicts_with = "director")]
    pub any_director: bool,
    /// The largest segment that SYN-ACKs of IPv4 offer; what fits into a tunnel by default.
    #[arg(long, value_name = "BYTES")]
    pub mss4: Option<u16>,
    /// The same for IPv6.
    #[arg(long, value_name = "BYTES")]
    pub mss6: Option<u16>,
    /// A folder where a bpf file system is, or is mounted.
    #[arg(long, value_name = "FOLDER", default_value = "/run/reeve/real-server")]
    pub pins: PathBuf,
    /// Open no more.
    #[arg(long)]
    pub stop: bool,
}

#[derive(Debug, Args)]
pub struct DrainArguments {
    /// POOL/SERVER, POOL or listen.LISTENER.
    pub name: String,
    /// Wait until nothing is left in hand, and show how much there is.
    #[arg(long)]
    pub wait: bool,
    /// Wait so long at most, such as 30s.
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    pub within: Option<Duration>,
    #[command(flatten)]
    pub client: ClientArguments,
}

#[derive(Debug, Args)]
pub struct ReadyArguments {
    /// POOL/SERVER, POOL or listen.LISTENER.
    pub name: String,
    #[command(flatten)]
    pub client: ClientArguments,
}

#[derive(Debug, Args)]
pub struct ListArguments {
    /// The list or map [default: tell which there are].
    pub name: Option<String>,
    /// What to do with its entries [default: print them].
    #[arg(value_enum, requires = "entries")]
    pub what: Option<EntriesWhat>,
    /// The entries; - reads them from stdin, one a line.
    pub entries: Vec<String>,
    #[command(flatten)]
    pub client: ClientArguments,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EntriesWhat {
    Add,
    Remove,
}

#[derive(Debug, Args)]
pub struct ReloadArguments {
    /// Only the files of lists and maps, and not what else has been edited [default: everything].
    #[arg(value_enum)]
    pub what: Option<ReloadWhat>,
    #[command(flatten)]
    pub client: ClientArguments,
}

#[derive(Debug, Args)]
pub struct ServersArguments {
    /// Only this pool, or this server of it, with what became of them lately.
    #[arg(value_name = "POOL[/SERVER]")]
    pub name: Option<String>,
    /// What became of each lately, and what its checks said and heard then.
    #[arg(long)]
    pub long: bool,
    #[command(flatten)]
    pub client: ClientArguments,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReloadWhat {
    Lists,
}

/// Which texts are read, and what overrides them.
#[derive(Debug, Clone, Args)]
pub struct TextArguments {
    /// The configuration.
    #[arg(short, long, value_name = "FILE", default_value = "config/reeve.toml")]
    pub config: PathBuf,
    /// Where relative paths start [default: the folder above `config/`, else the file's own].
    #[arg(long, value_name = "DIR")]
    pub base: Option<PathBuf>,
    #[command(flatten)]
    pub set: SetArguments,
}

#[derive(Debug, Clone, Args)]
pub struct SetArguments {
    /// Override one key of the file and of the environment; can be given again.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    pub overrides: Vec<(String, String)>,
}

#[derive(Debug, Args)]
pub struct RunArguments {
    #[command(flatten)]
    pub texts: TextArguments,
    /// The control socket [default: /run/reeve/reeve.sock as root, else $XDG_RUNTIME_DIR/reeve.sock].
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct DemoArguments {
    /// Stop by itself after this time, such as 10s or 5m [default: run until Ctrl-C].
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    pub stop_after: Option<Duration>,
    /// Print one line of JSON with the addresses, for scripts, and nothing else on stdout.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub set: SetArguments,
}

#[derive(Debug, Args)]
pub struct CheckArguments {
    /// Also list the pairs of rules that some request both match, with different outcomes: their order matters.
    #[arg(long)]
    pub overlaps: bool,
    #[command(flatten)]
    pub texts: TextArguments,
    #[command(flatten)]
    pub output: OutputArguments,
}

#[derive(Debug, Args)]
pub struct ExplainArguments {
    /// The method, as it would be sent: GET, POST ...; or tcp, for a connection that is passed on unread.
    #[arg(value_parser = method)]
    pub method: String,
    /// http://HOST/PATH?QUERY, or /PATH with a `host` field by -H. For tcp, what is known of the connection:
    /// sni:NAME alpn:NAME,NAME no-tls.
    #[arg(value_name = "URL")]
    pub url: Vec<String>,
    /// A field of the request, as 'name: value'; can be given again.
    #[arg(short = 'H', long = "header", value_name = "FIELD", value_parser = field)]
    pub headers: Vec<(String, String)>,
    /// The client has shown a good certificate with this subject: CN=joe,O=Ex.
    #[arg(long, value_name = "SUBJECT")]
    pub cert: Option<String>,
    /// The body of the request.
    #[arg(long, value_name = "TEXT")]
    pub body: Option<String>,
    /// The client's address.
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    pub from: IpAddr,
    /// The listener that the request arrives at [default: the first for its protocol].
    #[arg(long, value_name = "NAME")]
    pub listener: Option<String>,
    /// The dice of percentages, 0 to 99.99.
    #[arg(long, value_name = "N", default_value = "0", value_parser = roll)]
    pub roll: Roll,
    /// Ask the running process: what is in force there, the server it would choose now, and why none of the others.
    #[arg(long)]
    pub live: bool,
    /// With --live, the control socket [default: what the configuration says].
    #[arg(long, value_name = "PATH", requires = "live")]
    pub socket: Option<PathBuf>,
    #[command(flatten)]
    pub texts: TextArguments,
    #[command(flatten)]
    pub output: OutputArguments,
}

#[derive(Debug, Args)]
pub struct ReplayArguments {
    /// The access log.
    pub log: PathBuf,
    /// The folder of the new rule files: they stand in for those that the configuration names, by their names.
    #[arg(long, value_name = "DIR")]
    pub rules: PathBuf,
    #[command(flatten)]
    pub texts: TextArguments,
    #[command(flatten)]
    pub output: OutputArguments,
}

#[derive(Debug, Args)]
pub struct HashPasswordArguments {
    /// The user's name.
    #[arg(value_parser = user)]
    pub name: String,
}

#[derive(Debug, Args)]
pub struct ImportArguments {
    /// Whose configuration it is.
    #[arg(value_enum)]
    pub from: Dialect,
    /// The file to read.
    pub file: PathBuf,
    /// Write config/reeve.toml and rules/ below this folder instead of printing them.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub output: OutputArguments,
}

/// A command that asks the running process.
#[derive(Debug, Clone, Args)]
pub struct ClientArguments {
    /// The control socket [default: what the configuration says, else /run/reeve/reeve.sock as root, else
    /// $XDG_RUNTIME_DIR/reeve.sock].
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// The configuration of the running process, read for its socket alone.
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub output: OutputArguments,
}

#[derive(Debug, Clone, Copy, Args)]
pub struct OutputArguments {
    /// Text for people or JSON for programs.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Text,
    Json,
}

/// Dice in hundredths of a percent, 0 to 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roll(pub u32);

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.trim().to_owned())),
        _ => Err("write KEY=VALUE, such as timeouts.connect=1s".to_owned()),
    }
}

fn user(text: &str) -> Result<String, String> {
    let wrong =
        text.is_empty() || text.len() > 128 || text.contains(|c: char| c.is_control() || matches!(c, ' ' | ':'));
    if wrong { Err("a name has 1 to 128 bytes, no blanks and no `:`".to_owned()) } else { Ok(text.to_owned()) }
}

fn method(text: &str) -> Result<String, String> {
    if http1::is_token(text.as_bytes()) {
        Ok(text.to_owned())
    } else {
        Err("a method is one word, such as GET".to_owned())
    }
}

fn field(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        // RFC 9110 §5.5: no CR, LF or NUL can be in a value.
        Some((name, value)) if http1::is_token(name.as_bytes()) && !value.contains(['\r', '\n', '\0']) => {
            Ok((name.to_owned(), value.trim().to_owned()))
        }
        _ => Err("write 'name: value', such as 'x-beta: 1'".to_owned()),
    }
}

fn roll(text: &str) -> Result<Roll, String> {
    let fault = || "write 0 to 99.99, with two decimals at most".to_owned();
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str, most: usize| {
        let fits = (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        if fits { text.parse::<u32>().map_err(|_| fault()) } else { Err(fault()) }
    };
    let hundredths = digits(decimals, 2)? * if decimals.len() == 1 { 10 } else { 1 };
    Ok(Roll(digits(whole, 2)? * 100 + hundredths))
}

fn duration(text: &str) -> Result<Duration, String> {
    config::duration(text).ok_or_else(|| "write a number and a unit: ms, s, m, h or d".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Arguments::try_parse_from(line.split(' ')).map(|arguments| arguments.command.unwrap())
    }

    #[test]
    fn clap_finds_nothing_wrong() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn defaults_are_those_of_the_documents() {
        let Command::Run(run) = parse("reeve run").unwrap() else { panic!("not run") };
        assert_eq!(run.texts.config, PathBuf::from("config/reeve.toml"));
        assert!(run.texts.base.is_none() && run.socket.is_none() && run.texts.set.overrides.is_empty());
        let Command::Demo(demo) = parse("reeve demo").unwrap() else { panic!("not demo") };
        assert!(!demo.json && demo.stop_after.is_none());
        let Command::Servers(ServersArguments { client, .. }) =
            parse("reeve servers --socket /x --format json").unwrap()
        else {
            panic!()
        };
        assert_eq!((client.socket, client.output.format), (Some("/x".into()), Format::Json));
    }

    #[test]
    fn a_request_to_explain() {
        let words =
            ["reeve", "explain", "GET", "/api", "-H", "X-Beta: 1", "-H", "a:", "--roll", "7.5", "--from", "::1"];
        let Some(Command::Explain(explain)) = Arguments::try_parse_from(words).unwrap().command else { panic!() };
        assert_eq!(explain.headers, [("X-Beta".to_owned(), "1".to_owned()), ("a".to_owned(), String::new())]);
        assert_eq!(explain.roll, Roll(750));
        assert_eq!(explain.from, "::1".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn values_are_read_or_refused() {
        assert_eq!(duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["", "10", "s", "-1s", "10 s", "10sec", "99999999999999999999s", "18446744073709551615d"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert_eq!(roll("0"), Ok(Roll(0)));
        assert_eq!(roll("99.99"), Ok(Roll(9999)));
        assert_eq!(roll("7.5"), Ok(Roll(750)));
        assert_eq!(roll("7.05"), Ok(Roll(705)));
        for wrong in ["", "100", "-1", "1.", ".5", "1.234", "+1", "1.+1", "x"] {
            assert!(roll(wrong).is_err(), "{wrong}");
        }
        assert_eq!(key_value("a.b = c=d"), Ok(("a.b".to_owned(), "c=d".to_owned())));
        assert!(key_value("a.b").is_err() && key_value("=x").is_err());
        assert!(field("no colon").is_err() && field("bad name: x").is_err() && field("x: a\nb").is_err());
        assert!(method("G E T").is_err() && method("").is_err());
    }

    #[test]
    fn wrong_lines_exit_with_two() {
        for line in ["reeve walk", "reeve explain", "reeve demo --for 10", "reeve check --format xml"] {
            let Err(error) = parse(line) else { panic!("{line} was taken") };
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn every_command_has_an_example_and_every_option_a_sentence() {
        for command in Arguments::command().get_subcommands() {
            let name = command.get_name();
            assert!(command.get_after_help().is_some_and(|help| help.to_string().contains("Example")), "{name}");
            for argument in command.get_arguments().filter(|argument| argument.get_id() != "help") {
                assert!(argument.get_help().is_some(), "{name} {}", argument.get_id());
            }
        }
    }
}
