//! nginx that speaks TLS, as a server or as whoever says who may pass.

use super::peer::daemon;
use super::ports::Port;
use super::process::{Process, listens};
use super::{Folder, Issued, skip};

/// nginx with a server of its own for each certificate.
pub struct Nginx {
    _process: Process,
    pub ports: Vec<Port>,
}

impl Nginx {
    /// `servers`: a certificate and more of its configuration.
    pub fn start(folder: &Folder, servers: &[(&str, &Issued, &str)]) -> Option<Nginx> {
        let Some(mut nginx) = daemon("nginx") else {
            skip("no nginx");
            return None;
        };
        let ports: Vec<Port> = servers.iter().map(|_| Port::free()).collect();
        let mut blocks = String::new();
        for ((name, issued, more), port) in servers.iter().zip(&ports) {
            let (certificate, key) = issued.write(folder, &format!("nginx/{name}"));
            blocks += &format!(
                "server {{ listen {} ssl; ssl_certificate {}; ssl_certificate_key {}; {more}\n\
                 location / {{ return 200 \"{name} $ssl_protocol sni=$ssl_server_name reused=$ssl_session_reused \
                 requests=$connection_requests client=$ssl_client_s_dn\"; }}\n\
                 location /files/ {{ alias {}/; }} }}\n",
                port.address(),
                certificate.display(),
                key.display(),
                folder.path().display(),
            );
        }
        let root = folder.path().display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|kind| format!("{kind}_temp_path {root}/nginx/{kind};"))
            .collect();
        let text = format!(
            "daemon off; master_process off; pid {root}/nginx/pid; error_log {root}/nginx/error.log;\n\
             events {{ worker_connections 256; }}\nhttp {{ access_log off; ssl_protocols TLSv1.2 TLSv1.3; {temporary}\n{blocks}}}\n"
        );
        let file = folder.write("nginx/nginx.conf", text);
        let mut process = Process::start(nginx.arg("-c").arg(file).arg("-p").arg(folder.path()));
        ports.iter().for_each(|port| listens(&mut process, &port.address()));
        Some(Nginx { _process: process, ports })
    }
}
