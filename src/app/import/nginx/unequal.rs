//! What has no equal here, and why; and what needs none.

use super::tree::Directive;
use crate::app::import::site::{Account, Fate};

/// Tells of every directive that nothing was made of.
pub fn tell(tree: &[Directive], account: &mut Account) {
    let mut left: Vec<(&Directive, bool)> = tree.iter().map(|one| (one, false)).collect();
    while let Some((one, foreign)) = left.pop() {
        let open = account.items.get(one.item).is_some_and(|item| item.fate == Fate::Open);
        if open {
            match reason(one) {
                Reason::Needless => account.done(one.item),
                Reason::None(why) => account.none(one.item, why),
                Reason::Unknown if foreign => account.none(one.item, "belongs to a block that has no equal here"),
                Reason::Unknown => account.none(one.item, "no place here says this"),
            }
        }
        let foreign = foreign || open && !matches!(one.name.as_str(), "events");
        left.extend(one.body().iter().map(|inner| (inner, foreign)));
    }
}

enum Reason {
    /// Reeve does so anyway, or there is nothing to do.
    Needless,
    None(&'static str),
    Unknown,
}

fn reason(one: &Directive) -> Reason {
    let name = one.name.as_str();
    Reason::None(match name {
        "worker_connections" | "worker_rlimit_nofile" => {
            "connections are bound by [limits] connections and by descriptors"
        }
        "use"
        | "multi_accept"
        | "accept_mutex"
        | "tcp_nopush"
        | "tcp_nodelay"
        | "sendfile"
        | "daemon"
        | "server_names_hash_bucket_size"
        | "server_names_hash_max_size"
        | "types_hash_max_size"
        | "pcre_jit"
        | "variables_hash_max_size"
        | "map_hash_bucket_size"
        | "reuseport"
        | "server_tokens"
        | "default_type"
        | "worker_cpu_affinity"
        | "ssl_session_cache"
        | "ssl_session_timeout"
        | "ssl_session_tickets"
        | "http2"
        | "preread_timeout" => return Reason::Needless,
        "user" | "pid" => "is the service manager's: user and pid are said in the unit",
        "include" => "another file: import it too; nothing of it is here",
        "load_module" => "there are no modules to load",
        "log_format" | "access_log" => "the access log has two formats of its own: [log] access",
        "error_log" => "messages go to stderr; REEVE_LOG says how much",
        "gzip" | "gzip_types" | "gzip_min_length" | "gzip_vary" | "gzip_proxied" | "gzip_comp_level"
        | "gzip_static" | "brotli" => "Reeve passes answers on as servers send them: compress there",
        "root" | "alias" | "index" | "autoindex" | "try_files" | "types" | "open_file_cache" | "expires" | "etag" => {
            "Reeve serves no files"
        }
        "proxy_buffering"
        | "proxy_buffers"
        | "proxy_buffer_size"
        | "proxy_busy_buffers_size"
        | "proxy_request_buffering"
        | "proxy_max_temp_file_size"
        | "fastcgi_buffers" => "Reeve never buffers a whole answer or request",
        "proxy_cache"
        | "proxy_cache_path"
        | "proxy_cache_valid"
        | "proxy_cache_key"
        | "proxy_cache_bypass"
        | "proxy_no_cache"
        | "proxy_cache_use_stale"
        | "proxy_cache_lock"
        | "proxy_cache_methods" => "Reeve has no cache",
        "fastcgi_pass" | "uwsgi_pass" | "scgi_pass" | "memcached_pass" => "Reeve speaks HTTP to servers",
        "add_header" | "more_set_headers" | "proxy_hide_header" | "proxy_pass_header" | "proxy_ignore_headers" => {
            "answers are passed on with the fields that servers give them"
        }
        "proxy_redirect" | "proxy_cookie_path" | "proxy_cookie_domain" | "sub_filter" => "answers are not rewritten",
        "error_page" | "proxy_intercept_errors" => "pages for Reeve's own errors: [errors] 503 = \"FILE\"",
        "limit_conn" | "limit_conn_zone" | "limit_rate" | "limit_rate_after" | "limit_req_status" => {
            "connections of one client are not counted"
        }
        "set_real_ip_from" | "real_ip_header" | "real_ip_recursive" => {
            "the source is the connection's or its PROXY header's, never X-Forwarded-For: see accept-proxy-protocol and trusted"
        }
        "resolver" | "resolver_timeout" => "names of servers are looked up as the system does, every 30 s",
        "ssl_ciphers" | "ssl_prefer_server_ciphers" | "ssl_dhparam" | "ssl_ecdh_curve" | "ssl_conf_command" => {
            "the ciphers of TLS 1.2 and 1.3 are those of the library, all of them strong"
        }
        "ssl_stapling" | "ssl_stapling_verify" | "ssl_trusted_certificate" => "no stapling of OCSP answers",
        "stub_status" => "see `reeve status` and [monitor] metrics-address",
        "auth_request" => "auth forward URL is the refinement nearest to it",
        "auth_basic_user_file" | "auth_basic" | "satisfy" => "not said of a place that a pool is used at",
        "mirror" => "the refinement `mirror POOL` names a pool",
        "rewrite" | "set" | "if" | "break" => "is not a case that rules can say",
        "geo" | "split_clients" | "limit_req_zone" | "map" => "nothing that could be taken over uses it",
        "upstream" => "nothing that could be taken over uses it",
        "proxy_set_header" | "grpc_set_header" => "nothing that could be taken over uses it",
        "internal" => "there are no internal redirects",
        "proxy_http_version" | "chunked_transfer_encoding" => return Reason::Needless,
        _ if name.ends_with("_by_lua_block") || name.ends_with("_by_lua_file") || name.starts_with("js_") => {
            "Reeve runs no scripts"
        }
        _ if name.starts_with("fastcgi_") || name.starts_with("uwsgi_") => "Reeve speaks HTTP to servers",
        _ => return Reason::Unknown,
    })
}
