//! What the origins of the demonstration answer with.

use std::fmt::Write;

use hyper::header::HeaderMap;
use hyper::http::request::Parts;
use hyper::{Request, Version};

use super::origins::Origin;

/// Colours by the last letter of a server's name, so that two servers of a pool never look alike.
fn hue(origin: &Origin) -> u32 {
    let of_pool = match origin.pool {
        "web" => 205,
        "images" => 280,
        "api" => 150,
        _ => 35,
    };
    of_pool + if origin.name.ends_with('2') { 45 } else { 0 }
}

/// A page that says which server made it and what reached that server.
pub fn page<B>(origin: &Origin, request: &Request<B>) -> String {
    let (name, pool, hue) = (origin.name, origin.pool, hue(origin));
    let method = escape(request.method().as_str());
    let target = escape(request.uri().path_and_query().map_or("/", |target| target.as_str()));
    let mut fields = String::new();
    for (field, value) in request.headers() {
        let value = escape(&String::from_utf8_lossy(value.as_bytes()));
        let _ = write!(fields, "<tr><th>{}</th><td>{value}</td></tr>", escape(field.as_str()));
    }
    let mut pictures = String::new();
    for picture in ["fox", "owl", "elk", "bee", "cat", "ant"] {
        let _ = write!(pictures, "<img src=\"/img/{picture}.svg\" alt=\"{picture}\" width=\"160\" height=\"120\">");
    }
    format!(
        r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{name} · Reeve</title>
<link rel="icon" href="/img/favicon.svg">
<style>
:root {{ --accent: hsl({hue} 70% 38%); --line: #0002; --soft: #00000008; }}
@media (prefers-color-scheme: dark) {{ :root {{ --accent: hsl({hue} 75% 68%); --line: #fff3; --soft: #ffffff0d; }} }}
* {{ box-sizing: border-box; }}
body {{ font: 1rem/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 46rem; padding: 1.5rem 1rem 3rem; }}
h1 {{ font-size: clamp(2rem, 9vw, 3.5rem); line-height: 1.1; margin: 0 0 .5rem; color: var(--accent); }}
h2 {{ font-size: 1.1rem; margin: 2rem 0 .5rem; }}
a {{ color: var(--accent); }}
code, td {{ font-family: ui-monospace, monospace; font-size: .875rem; overflow-wrap: anywhere; }}
.pictures {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(7rem, 1fr)); gap: .5rem; }}
.pictures img {{ width: 100%; height: auto; border-radius: .5rem; display: block; }}
table {{ width: 100%; border-collapse: collapse; background: var(--soft); border-radius: .5rem; }}
th, td {{ text-align: left; vertical-align: top; padding: .4rem .6rem; border-bottom: 1px solid var(--line); }}
tr:last-child > * {{ border-bottom: 0; }}
th {{ font-weight: 500; width: 35%; }}
</style>
</head>
<body>
<h1>{name}</h1>
<p>This page was made by the server <strong>{name}</strong> of the pool <strong>{pool}</strong>.
<a href="">Load it again</a>: web1 has twice the weight of web2.</p>
<h2>Pictures, from two servers by a hash of their path</h2>
<div class="pictures">{pictures}</div>
<h2>Other ways through the rules</h2>
<p><a href="/api/time">/api/time</a> · <a href="/users/ann/basket">/users/ann/basket</a> ·
<a href="/p/42">/p/42</a> (redirected) · <a href="/teapot">/teapot</a> · <a href="/private/keys">/private/keys</a> (denied)</p>
<h2>What reached this server</h2>
<p><code>{method} {target}</code></p>
<table>{fields}</table>
</body>
</html>
"#
    )
}

/// A picture of its own for each path, with the server's name and colour.
pub fn picture(origin: &Origin, path: &str) -> String {
    let (name, hue) = (origin.name, hue(origin));
    let label = escape(path.rsplit('/').next().unwrap_or_default());
    // FNV-1a: any spread will do, as long as it is always the same one.
    let mut hash = path
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let mut circles = String::new();
    for _ in 0..5 {
        hash = hash.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (x, y, radius) = (hash >> 33 & 0xff, hash >> 41 & 0x7f, 14 + (hash >> 48 & 0x1f));
        let _ = write!(
            circles,
            "<circle cx=\"{}\" cy=\"{}\" r=\"{radius}\" fill=\"hsl({hue} 80% {}%)\" fill-opacity=\".55\"/>",
            x * 200 / 256,
            y * 150 / 128,
            45 + (hash >> 54 & 0x1f),
        );
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 200 150\" role=\"img\" aria-label=\"{label}, from {name}\">\
         <rect width=\"200\" height=\"150\" fill=\"hsl({hue} 45% 22%)\"/>{circles}\
         <g fill=\"#fff\" font-family=\"system-ui, sans-serif\" text-anchor=\"middle\">\
         <text x=\"100\" y=\"78\" font-size=\"30\" font-weight=\"700\">{name}</text>\
         <text x=\"100\" y=\"132\" font-size=\"14\" opacity=\".85\">{label}</text></g></svg>\n"
    )
}

/// What reached this server, for programs.
pub fn json(origin: &Origin, head: &Parts, body_bytes: u64) -> String {
    let value = serde_json::json!({
        "server": origin.name,
        "pool": origin.pool,
        "method": head.method.as_str(),
        "path": head.uri.path(),
        "query": head.uri.query(),
        "proto": if head.version == Version::HTTP_10 { "HTTP/1.0" } else { "HTTP/1.1" },
        "headers": fields(&head.headers),
        "body_bytes": body_bytes,
    });
    format!("{value}\n")
}

fn fields(headers: &HeaderMap) -> Vec<[String; 2]> {
    headers
        .iter()
        .map(|(name, value)| [name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()])
        .collect()
}

/// Text for the inside of an element or a quoted attribute.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // XML has no way to write these.
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::origins::Content;
    use super::*;

    const ORIGIN: Origin = Origin {
        pool: "web",
        name: "web1",
        content: Content::Pages,
        address: std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1),
    };

    #[test]
    fn what_a_client_sends_is_text_in_the_page() {
        let request = Request::builder().uri("/?a=1&r='").header("x-a", "\"<script>").body(()).unwrap();
        let page = page(&ORIGIN, &request);
        assert!(page.contains("&quot;&lt;script&gt;") && !page.contains("<script"));
        assert!(page.contains("/?a=1&amp;r=&#39;"));
    }

    #[test]
    fn pictures_differ_by_path_and_stay_small() {
        let (fox, owl) = (picture(&ORIGIN, "/img/fox.svg"), picture(&ORIGIN, "/img/owl.svg"));
        assert_ne!(fox, owl);
        assert_eq!(fox, picture(&ORIGIN, "/img/fox.svg"));
        assert!(fox.len() < 2048);
    }
}
