//! Hosts in network namespaces of their own, on one wire: a client, a director, servers. Real kernels talk through the director,
//! with all the offloads that virtual interfaces have.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use reeve::sys::bpf;

use super::world::{own_network, run};
use crate::farm::Folder;

/// How long a peer waits before it says that nothing came.
pub const PATIENCE: Duration = Duration::from_secs(5);

type Order = Box<dyn FnOnce() + Send>;

/// A thread in a network namespace, which does what it is told. The namespace ends with it.
pub struct Host {
    orders: Sender<Order>,
    /// By which `ip link set ... netns` finds it.
    thread: u32,
}

impl Host {
    pub fn new() -> Self {
        let (orders, work): (Sender<Order>, Receiver<Order>) = channel();
        let (ready, started) = channel();
        thread::spawn(move || {
            own_network();
            run("ip link set lo up");
            ready.send(rustix::thread::gettid().as_raw_nonzero().get() as u32).expect("somebody who waits");
            for order in work {
                order();
            }
        });
        let thread = started.recv().expect("a network namespace");
        Self { orders, thread }
    }

    /// Does something there, and waits until it is done.
    pub fn does<T: Send + 'static>(&self, what: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, answer) = channel();
        let order = move || {
            let _ = done.send(what());
        };
        self.orders.send(Box::new(order)).expect("the host");
        answer.recv().expect("the host is well")
    }

    pub fn run(&self, lines: &str) {
        let lines = lines.to_owned();
        self.does(move || lines.lines().map(str::trim).filter(|line| !line.is_empty()).for_each(run));
    }

    pub fn set(&self, name: &str, value: &str) {
        let (name, value) = (name.to_owned(), value.to_owned());
        self.does(move || set(&name, &value));
    }
}

/// A sysctl below net, of this thread's namespace.
pub fn set(name: &str, value: &str) {
    std::fs::write(format!("/proc/sys/net/{name}"), value).unwrap_or_else(|error| panic!("{name}: {error}"));
}

/// The wire: the calling thread's namespace becomes the director's (interface `eth`, .1), then the client (.2), and the
/// servers (.11, .12), in 10.1.0.0/24 and 2001:db8:1::/64. Servers have the virtual addresses .100 on lo and do not say so; what they
/// send from their own address to the client goes by the director.
pub struct Lan {
    pub client: Host,
    pub servers: [Host; 2],
    _wire: Host,
}

impl Lan {
    pub fn new() -> Self {
        own_network();
        run("ip link set lo up");
        let lan = Self { client: Host::new(), servers: [Host::new(), Host::new()], _wire: Host::new() };
        let wire = &lan._wire;
        wire.run("ip link add wire type bridge\nip link set wire up");
        let plug = |name: &str, host: Option<&Host>| {
            run(&format!("ip link add eth type veth peer name {name} netns {}", wire.thread));
            wire.run(&format!("ip link set {name} master wire\nip link set {name} up"));
            if let Some(host) = host {
                run(&format!("ip link set eth netns {}", host.thread));
            }
        };
        let addresses = |last: &str| {
            format!(
                "ip link set eth up\nip addr add 10.1.0.{last}/24 dev eth\nip -6 addr add 2001:db8:1::{last}/64 dev eth nodad"
            )
        };
        plug("client", Some(&lan.client));
        lan.client.run(&addresses("2"));
        for (server, last) in lan.servers.iter().zip(["11", "12"]) {
            plug(&format!("server{last}"), Some(server));
            for name in ["ipv4/conf/all/arp_ignore", "ipv4/conf/eth/rp_filter", "ipv4/conf/all/rp_filter"] {
                server.set(name, if name.ends_with("ignore") { "1" } else { "0" });
            }
            server.set("ipv4/conf/all/arp_announce", "2");
            server.run(&addresses(last));
            server.run(&format!(
                "ip addr add 10.1.0.100/32 dev lo
                 ip -6 addr add 2001:db8:1::100/128 dev lo nodad
                 ip rule add from 10.1.0.{last} lookup 100
                 ip route add 10.1.0.2 via 10.1.0.1 dev eth table 100
                 ip -6 rule add from 2001:db8:1::{last} lookup 100
                 ip -6 route add 2001:db8:1::2 via 2001:db8:1::1 dev eth table 100"
            ));
        }
        plug("director", None);
        addresses("1").lines().for_each(run);
        run("ip addr add 10.1.0.100/32 dev eth");
        run("ip -6 addr add 2001:db8:1::100/128 dev eth nodad");
        for (name, value) in [
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/all/send_redirects", "0"),
            ("ipv4/conf/eth/send_redirects", "0"),
        ] {
            set(name, value);
        }
        lan
    }
}

/// Listens there on a port, of all addresses and both families, and sends back what comes, with the host's number before it.
pub fn echo(host: &Host, port: u16, number: u8) {
    host.does(move || {
        let listener = TcpListener::bind(("::", port)).expect("a port");
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || {
                    let mut stream = stream;
                    let _ = stream.set_read_timeout(Some(PATIENCE));
                    let _ = stream.write_all(&[number]);
                    let _ = std::io::copy(&mut stream.try_clone().expect("a second handle"), &mut stream);
                });
            }
        });
    });
}

/// The same of datagrams, at one address: what answers has to come from where it was asked.
pub fn echo_datagrams(host: &Host, at: SocketAddr, number: u8) {
    host.does(move || {
        let socket = UdpSocket::bind(at).expect("an address");
        thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok((len, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(&[&[number], &buffer[..len]].concat(), from);
            }
        });
    });
}

/// A connection from there; who took it.
pub fn connect(host: &Host, to: SocketAddr) -> std::io::Result<(TcpStream, u8)> {
    host.does(move || {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut number = [0];
        stream.read_exact(&mut number)?;
        Ok((stream, number[0]))
    })
}

/// Sends that many bytes and has them back.
pub fn exchange(stream: &TcpStream, len: usize) {
    let sent: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
    let mut writer = stream.try_clone().expect("a second handle");
    let to_send = sent.clone();
    let writing = thread::spawn(move || writer.write_all(&to_send));
    let mut back = vec![0; len];
    let mut reader = stream;
    reader.read_exact(&mut back).expect("all of it comes back");
    writing.join().expect("the writer").expect("all of it is sent");
    assert!(back == sent, "what came back is something else");
}

/// A bpf file system of the test's own, gone afterwards.
pub struct Pins {
    pub path: PathBuf,
    _folder: Folder,
}

impl Pins {
    pub fn new(label: &str) -> Self {
        let folder = Folder::new(label);
        let path = folder.path().join("bpf");
        bpf::mount(&path).expect("a bpf file system");
        bpf::mount(&path).expect("again, which does nothing");
        Self { path, _folder: folder }
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("--lazy").arg(&self.path).status();
    }
}
