//! What has no equal here, and why; and what needs none.

use super::text::{Line, Section};
use crate::app::import::site::{Account, Fate};

/// Tells of every line that nothing was made of.
pub fn tell(sections: &[Section], account: &mut Account) {
    let open = |account: &Account, item: usize| account.items.get(item).is_some_and(|item| item.fate == Fate::Open);
    for section in sections {
        if open(account, section.item) {
            let why = match section.kind.as_str() {
                "userlist" => {
                    "users and passwords stand in a file: auth basic \"FILE\", with lines by `reeve hash-password`"
                }
                "peers" => "tables are not shared with other machines",
                "resolvers" => "names of servers are looked up as the system does, every 30 s",
                "cache" => "Reeve has no cache",
                _ => "Reeve has no such part",
            };
            account.none(section.item, why);
            section.lines.iter().for_each(|line| account.none(line.item, "stands in a section that has no equal here"));
            continue;
        }
        for line in section.lines.iter().filter(|line| open(account, line.item)).collect::<Vec<_>>() {
            match reason(line, section) {
                None => account.done(line.item),
                Some(why) => account.none(line.item, why),
            }
        }
    }
}

/// `None`: Reeve does so anyway.
fn reason(line: &Line, section: &Section) -> Option<&'static str> {
    Some(match (line.word(0), line.word(1)) {
        ("daemon" | "master-worker" | "nbproc" | "nbthread" | "cpu-map", _) => return None,
        (
            "option",
            "httplog" | "tcplog" | "dontlognull" | "http-server-close" | "http-keep-alive" | "httpclose" | "forwardfor"
            | "redispatch" | "splice-auto" | "splice-request" | "splice-response" | "tcpka" | "clitcpka" | "srvtcpka"
            | "http-use-htx" | "prefer-last-server" | "contstats",
        ) => return None,
        ("http-reuse" | "hash-type" | "mode" | "description", _) => return None,
        ("user" | "group" | "chroot" | "pidfile" | "uid" | "gid", _) => {
            "is the service manager's: it is said in the unit"
        }
        ("log", _) | ("log-format" | "log-tag" | "capture" | "unique-id-format" | "unique-id-header", _) => {
            "the access log has two formats of its own: [log] access"
        }
        ("stats", _) => "see `reeve status`, `reeve servers` and [monitor] metrics-address",
        (
            "ssl-default-bind-ciphers"
            | "ssl-default-bind-ciphersuites"
            | "ssl-default-bind-options"
            | "ssl-default-server-options"
            | "ssl-default-server-ciphers"
            | "tune.ssl.default-dh-param"
            | "ssl-dh-param-file",
            _,
        ) => {
            "TLS 1.2 and 1.3 with the ciphers of the library, all of them strong; minimum = \"1.3\" of a listener asks for more"
        }
        ("ca-base" | "crt-base", _) => "paths are relative to the folder above config/",
        ("errorfile" | "errorloc" | "errorloc302" | "errorloc303" | "errorfiles", _) => {
            "a page is its body alone here, without the head that HAProxy's file has: [errors] 503 = \"FILE\""
        }
        ("stick-table" | "stick", _) | ("tcp-request" | "http-request", "track-sc0" | "track-sc1") => {
            "there are no tables of what clients did: rates are `limit N/s per source`, affinity is of a pool"
        }
        ("compression" | "filter", _) => "Reeve passes answers on as servers send them",
        ("http-response" | "rspadd" | "rspidel" | "http-after-response" | "tcp-response", _) => {
            "answers are passed on with the fields that servers give them"
        }
        ("maxconn" | "backlog" | "fullconn" | "rate-limit", _) => {
            "the bound on connections is that of the whole process: [limits] connections"
        }
        ("timeout", "tarpit") => "nobody is kept waiting",
        ("timeout", _) => "one time for the clients of all listeners: [timeouts]",
        ("acl", _) => "nothing that could be taken over uses it",
        ("option", _) => "Reeve has no such option",
        ("lua-load" | "lua-load-per-thread", _) => "Reeve runs no scripts",
        ("tune.bufsize", _) => "heads are bound by [limits] header-bytes",
        ("load-server-state-from-file" | "server-state-file", _) => "what is drained or down is not kept over a start",
        ("use-server" | "dispatch", _) => "a scheduler chooses the server: make a pool of it",
        ("use_backend" | "default_backend" | "http-request" | "redirect" | "server" | "balance", _) => {
            "nothing that could be taken over leads here"
        }
        _ if section.kind == "global" => "a setting of the process that Reeve does not have",
        _ => "no place here says this",
    })
}
