//! The configuration and the rules that the demonstration runs with.
//!
//! They are meant to be read: `reeve demo` says where they are. `run` reads them as it reads any
//! other texts.

use std::fmt::Write;
use std::path::Path;

use super::Addresses;
use super::camera::Camera;
use super::origins::{Origin, Origins};

/// The listener in clear, the one by TLS, and the one for media.
pub const LISTENER: &str = "demo";
pub const SECURE_LISTENER: &str = "demo-tls";
pub const MEDIA_LISTENER: &str = "demo-media";

/// `config/reeve.toml`. The folder is the base, where relative paths start.
pub fn configuration(addresses: &Addresses, folder: &Path, Origins { servers, cameras, .. }: &Origins) -> String {
    let Addresses { http, https, rtsp, metrics } = addresses;
    let mut text = format!(
        r#"# The configuration of `reeve demo`: three listeners, pools of small servers on this machine.

[listen.{LISTENER}]
address  = ["{http}"]
protocol = "http"
rules    = ["rules/demo.rules"]

[listen.{SECURE_LISTENER}]
address  = ["{https}"]
protocol = "http"
rules    = ["rules/demo.rules"]
tls      = {{ certificates = "certs" }}  # made for this run

[listen.{MEDIA_LISTENER}]
address  = ["{rtsp}"]
protocol = "rtsp"
media    = "relay"                      # what goes by UDP passes through Reeve too
rules    = ["rules/demo.rules"]

[pool.web]
scheduler = "wrr"                       # in turn, in proportion to the weights
check     = {{ http = "/health", expect-status = "200-299", interval = "1s", timeout = "500ms", rise = 2, fall = 2 }}
servers   = [
  {{ name = "web1", address = "{web1}", weight = 2 }},
  {{ name = "web2", address = "{web2}" }},
]
"#,
        web1 = address(servers, "web1"),
        web2 = address(servers, "web2"),
    );
    for (pool, scheduler, why) in [
        ("images", r#"{ hash = "path" }"#, "a picture always comes from the same server"),
        ("api", r#""rr""#, "in turn"),
        ("beta", r#""rr""#, "the canary: one server, the next version"),
    ] {
        let _ = write!(text, "\n[pool.{pool}]\nscheduler = {scheduler:<28}# {why}\n");
        text.push_str("check     = { tcp = true, interval = \"1s\", timeout = \"500ms\" }\nservers   = [\n");
        for origin in servers.iter().filter(|origin| origin.pool == pool) {
            let _ = writeln!(text, "  {{ name = \"{}\", address = \"{}\" }},", origin.name, origin.address);
        }
        text.push_str("]\n");
    }
    for Camera { name, address, .. } in cameras {
        let _ = write!(
            text,
            "\n[pool.{name}]\ncheck     = {{ rtsp = \"OPTIONS\", interval = \"1s\", timeout = \"500ms\" }}\n\
             servers   = [{{ name = \"{name}\", address = \"{address}\" }}]\n"
        );
    }
    let _ = write!(
        text,
        r#"
[monitor]
metrics-address = ["{metrics}"]    # bare /metrics

[log]
access = {{ format = "json", path = {log} }}

[process]
socket = {socket}

[state]
path = {state}
"#,
        log = quoted(&folder.join("access.log")),
        socket = quoted(&folder.join("reeve.sock")),
        state = quoted(&folder.join("state")),
    );
    text
}

/// `rules/demo.rules`.
pub const RULES: &str = r#"# The rules of `reeve demo`. Inside a section the first rule that matches takes the request.

http *
  robots  : header user-agent ~"(?i)badbot"        answer 403 "No robots, please."
  beta    : path /api/** & header x-beta = "1"     use beta 50% else api
  api     : path /api/**                           use api
  images  : path /img/** | *.svg                   use images by path
  user    : path /users/{who}/**                   use web by {who}
              set header x-user: {who}
  product : path ~"^/p/(\d+)$"                     redirect 301 /product/$1
  teapot  : path /teapot                           answer 418 "I am a teapot."
  private : path /private/**                       deny
  rest    : any                                    use web

rtsp *
  cam1    : path /cam1/**                          use cam1
  cam2    : path /cam2/**                          use cam2

# Tests, run at every start and by `reeve check`: roll fixes the dice of a percentage.
expect GET  http://demo.example/                                    -> web
expect GET  http://demo.example/img/fox.svg                         -> images by /img/fox.svg
expect GET  http://demo.example/api/time                            -> api
expect GET  http://demo.example/api/time  x-beta:1  roll:49         -> beta
expect GET  http://demo.example/api/time  x-beta:1  roll:50         -> api
expect POST http://demo.example/users/ann/basket                    -> web by ann
expect GET  http://demo.example/p/42                                -> 301 /product/42
expect GET  http://demo.example/teapot                              -> 418
expect GET  http://demo.example/private/keys                        -> deny
expect GET  http://demo.example/  user-agent:BadBot/1.0             -> 403
expect DESCRIBE rtsp://demo.example/cam1                            -> cam1
expect SETUP    rtsp://demo.example/cam2/track1                     -> cam2
"#;

/// One thing to try: what to add to `curl`, the path, and what is to be seen.
pub struct Try {
    pub options: &'static str,
    pub path: &'static str,
    pub shows: &'static str,
    /// Whether a plain GET of it answers 2xx: these are listed for scripts.
    pub plain: bool,
}

/// At least one for every rule.
pub const TRIES: [Try; 11] = [
    Try { options: "", path: "/", shows: "a page from web1 or web2; web1 has twice the weight", plain: true },
    Try { options: "", path: "/img/fox.svg", shows: "a picture, each time from the same server", plain: true },
    Try { options: "", path: "/img/owl.svg", shows: "another one, perhaps from the other server", plain: true },
    Try { options: "", path: "/api/time", shows: "JSON from api1 and api2 in turn", plain: true },
    Try {
        options: "-H 'x-beta: 1'",
        path: "/api/time",
        shows: "every second time from beta1, by chance",
        plain: false,
    },
    Try { options: "-d hello", path: "/api/echo", shows: "hello", plain: false },
    Try { options: "", path: "/users/ann/basket", shows: "ann always meets the same web server", plain: true },
    Try { options: "-i", path: "/p/42", shows: "301 to /product/42", plain: false },
    Try { options: "-i", path: "/teapot", shows: "418, answered by Reeve itself", plain: false },
    Try { options: "-i", path: "/private/keys", shows: "403: the rule says deny", plain: false },
    Try { options: "-i -A BadBot", path: "/", shows: "403: robots are not served", plain: false },
];

fn address(origins: &[Origin], name: &str) -> String {
    origins.iter().find(|origin| origin.name == name).map(|origin| origin.address.to_string()).unwrap_or_default()
}

/// A TOML string.
fn quoted(path: &Path) -> String {
    toml::Value::String(path.to_string_lossy().into_owned()).to_string()
}
