//! Loads the object of `bpf/` into the kernel, or takes over what an earlier process left there; attaches its programs; maps.
//!
//! ```text
//!    pins/                   a bpf file system of our own
//!      maps/NAME             outlive the process, so that no connection is lost when it stops, crashes or is upgraded
//!      links/IFACE-in, -out  a program at an interface (Linux 6.6 and newer); goes on without us, and
//!                            is exchanged in one step by the next process
//! ```
//!
//! Before 6.6 there are no such links: programs then hang at the clsact qdisc by a fixed priority and handle, which outlives the
//! process too. An empty folder of the same name stands for each, so that the next process knows where they are.

mod call;
mod fault;
mod map;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle};
use aya::programs::{LinkOrder, ProgramError, SchedClassifier, TcAttachType, tc};
use aya::util::KernelVersion;
use aya::{Ebpf, EbpfLoader};

use super::interfaces;

pub use fault::{Fault, OLDEST_KERNEL};
pub use map::Map;

/// The built object of `bpf/`.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/bpf/director.bpf.o"));

/// Which way packets go that a program sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    In,
    Out,
}

/// How a program is held at an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// A link of its own.
    Tcx,
    /// A filter at the clsact qdisc, as before Linux 6.6.
    Clsact,
}

/// At clsact: ours is found again by these, so that the next process replaces it.
const PRIORITY: u16 = 0x7265;
const HANDLE: TcHandle = TcHandle::new(0, 1);

/// How often a program is shown to the kernel again that was interrupted over it: as often as libbpf does.
const INTERRUPTIONS: usize = 5;

/// The object in the kernel.
pub struct Loaded {
    ebpf: Ebpf,
    maps: BTreeMap<String, Map>,
    pins: Option<PathBuf>,
    hook: Hook,
}

/// What an object is loaded with.
#[derive(Debug, Clone, Copy)]
pub struct Load<'a> {
    pub object: &'a [u8],
    /// The folder of pins, on a bpf file system (see [`mount`]); without one everything ends with the process.
    pub pins: Option<&'a Path>,
    /// Entries of maps, by name; those that are not named have the object's.
    pub sizes: &'a [(&'a str, u32)],
    /// The programs that are wanted: the others are not shown to the kernel.
    pub programs: &'a [&'a str],
}

/// A hash that an earlier process has pinned; none where there is none.
///
/// # Errors
/// When it cannot be opened, or is something else.
pub fn pinned(pins: &Path, name: &str) -> io::Result<Option<Map>> {
    let path = pins.join("maps").join(name);
    if !path.exists() {
        return Ok(None);
    }
    let data = aya::maps::MapData::from_pin(&path).map_err(io::Error::other)?;
    Map::new(data.fd().as_fd().try_clone_to_owned()?, name, 1).map(Some)
}

/// Mounts a bpf file system at `path` unless there is one. It is reached by root only.
///
/// # Errors
/// When it cannot be made or mounted.
pub fn mount(path: &Path) -> Result<(), Fault> {
    let fault = |error: io::Error| match error.kind() {
        io::ErrorKind::PermissionDenied => Fault::NotAllowed { doing: "mounting a bpf file system" },
        _ => Fault::Mount { path: path.to_owned(), error },
    };
    let folder = |error| Fault::Folder { path: path.to_owned(), error };
    std::fs::create_dir_all(path).map_err(folder)?;
    // <linux/magic.h>
    const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
    let there = rustix::fs::statfs(path).map_err(|error| fault(error.into()))?;
    if there.f_type as i64 == BPF_FS_MAGIC {
        return Ok(());
    }
    if std::fs::read_dir(path).map_err(folder)?.next().is_some() {
        let error = io::Error::new(io::ErrorKind::DirectoryNotEmpty, "there are files in it, which would be hidden");
        return Err(Fault::Mount { path: path.to_owned(), error });
    }
    rustix::mount::mount("bpf", path, "bpf", rustix::mount::MountFlags::empty(), Some(c"mode=0700"))
        .map_err(|error| fault(error.into()))
}

impl Loaded {
    /// Takes over the maps that are pinned, makes those that are not, and shows the programs to the kernel.
    ///
    /// # Errors
    /// Everything in [`Fault`] but `Interface` and `Attach`.
    pub fn open(load: Load<'_>) -> Result<Self, Fault> {
        let version = KernelVersion::current().map_err(|error| Fault::Call {
            what: "the kernel's version".to_owned(),
            error: io::Error::other(error.to_string()),
        })?;
        let (major, minor) = OLDEST_KERNEL;
        if version < KernelVersion::new(major, minor, 0) {
            return Err(Fault::Kernel { have: version.to_string() });
        }
        let hook = if version < KernelVersion::new(6, 6, 0) { Hook::Clsact } else { Hook::Tcx };
        let names = map_names(load.object)?;
        let mut loader = EbpfLoader::new();
        for (name, entries) in load.sizes {
            loader.map_max_entries(name, *entries);
        }
        if let Some(pins) = load.pins {
            for folder in ["maps", "links"] {
                let folder = pins.join(folder);
                std::fs::create_dir_all(&folder)
                    .map_err(|error| Fault::Call { what: folder.display().to_string(), error })?;
            }
            for name in &names {
                loader.map_pin_path(name, pins.join("maps").join(name));
            }
        }
        let mut ebpf = loader.load(load.object).map_err(|error| refused("the director's object", &error))?;
        let maps = take_maps(&mut ebpf)?;
        if load.pins.is_some() {
            check_sizes(&maps, &load)?;
        }
        for name in load.programs {
            let program = program(&mut ebpf, name)?;
            let mut loaded = program.load();
            for _ in 0..INTERRUPTIONS {
                if !loaded.as_ref().is_err_and(is_interrupted) {
                    break;
                }
                loaded = program.load();
            }
            loaded.map_err(|error| refused(&format!("program {name}"), &error))?;
        }
        Ok(Self { ebpf, maps, pins: load.pins.map(Path::to_owned), hook })
    }

    /// # Errors
    /// When the object has no such map.
    pub fn map(&self, name: &str) -> Result<&Map, Fault> {
        self.maps
            .get(name)
            .ok_or_else(|| Fault::Call { what: format!("map {name}"), error: io::Error::from(io::ErrorKind::NotFound) })
    }

    /// All of them, by name.
    pub fn maps(&self) -> impl Iterator<Item = (&str, &Map)> {
        self.maps.iter().map(|(name, map)| (name.as_str(), map))
    }

    /// How programs are held on this kernel.
    pub fn hook(&self) -> Hook {
        self.hook
    }

    /// Uses clsact also where there are links.
    pub fn use_clsact(&mut self) {
        self.hook = Hook::Clsact;
    }

    /// Puts a program at an interface, or in the place of the one that an earlier process put there, without a
    /// packet in between. With pins it stays when the process ends.
    ///
    /// # Errors
    /// `Interface`, `Attach`.
    pub fn attach(&mut self, name: &str, interface: &str, direction: Direction) -> Result<(), Fault> {
        if rustix::net::netdevice::name_to_index(rustix_socket()?, interface).is_err() {
            return Err(Fault::Interface { name: interface.to_owned() });
        }
        if let Some(kind) = interfaces::kind(interface).filter(|kind| ![1, 772].contains(kind)) {
            return Err(Fault::NotEthernet { name: interface.to_owned(), kind: kind.into() });
        }
        let fault = |error: &dyn std::fmt::Display| Fault::Attach {
            program: name.to_owned(),
            interface: interface.to_owned(),
            error: error.to_string(),
        };
        let way = way(direction);
        let pin = self.pins.as_deref().map(|pins| link_pin(pins, interface, direction));
        let hook = self.hook;
        let program = program(&mut self.ebpf, name)?;
        match hook {
            Hook::Tcx => {
                if let Some(pin) = &pin
                    && let Ok(old) = PinnedLink::from_pin(pin)
                {
                    let old = SchedClassifierLink::try_from(FdLink::from(old)).map_err(|error| fault(&error))?;
                    if program.attach_to_link(old).is_ok() {
                        return Ok(());
                    }
                    // The interface went away and another has its name: that link holds nothing any more.
                    std::fs::remove_file(pin).map_err(|error| fault(&error))?;
                }
                let options = TcAttachOptions::TcxOrder(LinkOrder::first());
                let id = program.attach_with_options(interface, way, options).map_err(|error| fault(&error))?;
                if let Some(pin) = &pin {
                    let link = program.take_link(id).map_err(|error| fault(&error))?;
                    let link = FdLink::try_from(link).map_err(|error| fault(&error))?;
                    link.pin(pin).map_err(|error| fault(&error))?;
                }
            }
            Hook::Clsact => {
                // First, for what is not written down is never taken off.
                if let Some(pin) = &pin {
                    std::fs::create_dir_all(pin).map_err(|error| fault(&error))?;
                }
                // It may be there already.
                let _ = tc::qdisc_add_clsact(interface);
                let there = SchedClassifierLink::attached(interface, way, PRIORITY, HANDLE, None)
                    .map_err(|error| fault(&error))?;
                let id = program.attach_to_link(there).or_else(|_| {
                    let options =
                        TcAttachOptions::Netlink(NlOptions { priority: PRIORITY, handle: HANDLE, classid: None });
                    program.attach_with_options(interface, way, options)
                });
                let id = id.map_err(|error| fault(&error))?;
                if pin.is_some() {
                    // Dropped, it would be taken off.
                    std::mem::forget(program.take_link(id).map_err(|error| fault(&error))?);
                }
            }
        }
        Ok(())
    }

    /// Takes a program off that this process or an earlier one put there with pins; whether there was one.
    ///
    /// # Errors
    /// `Attach`, when it is there and stays.
    pub fn detach(&mut self, interface: &str, direction: Direction) -> Result<bool, Fault> {
        let Some(pins) = &self.pins else { return Ok(false) };
        let pin = link_pin(pins, interface, direction);
        let removed = match self.hook {
            Hook::Tcx => std::fs::remove_file(pin),
            // Without a folder the filter is another one's, or there is none.
            Hook::Clsact => std::fs::remove_dir(pin).map(|()| {
                // Dropping it takes the filter off; with its interface it is gone already.
                drop(SchedClassifierLink::attached(interface, way(direction), PRIORITY, HANDLE, None));
            }),
        };
        match removed {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Fault::Attach {
                program: "nothing".to_owned(),
                interface: interface.to_owned(),
                error: error.to_string(),
            }),
        }
    }

    /// Interfaces that have a program that outlives the process, of this one or an earlier one.
    pub fn attached(&self) -> Vec<String> {
        self.pins.as_deref().map_or_else(Vec::new, attached)
    }

    /// Shows a packet to a program, without an interface (BPF_PROG_TEST_RUN).
    ///
    /// # Errors
    /// What the kernel says: it takes no packet shorter than an Ethernet header, nor one longer than a page has room for.
    pub fn run(&mut self, name: &str, packet: &Packet<'_>) -> Result<Ran, Fault> {
        let fd = program(&mut self.ebpf, name)?.fd().map_err(|error| refused(name, &error))?;
        run(fd.as_fd(), packet).map_err(|error| Fault::Call { what: format!("a run of {name}"), error })
    }
}

/// Interfaces that have a program by what is pinned in this folder, sorted.
pub fn attached(pins: &Path) -> Vec<String> {
    let Ok(folder) = std::fs::read_dir(pins.join("links")) else { return Vec::new() };
    let names = folder.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<_> = names.filter_map(|name| Some(name.rsplit_once('-')?.0.replace(':', "."))).collect();
    names.sort();
    names.dedup();
    names
}

/// A packet for [`Loaded::run`].
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    /// From the Ethernet header on.
    pub data: &'a [u8],
    /// The interface that it came by; 0: loopback.
    pub interface: u32,
    pub mark: u32,
    /// Payload bytes of each packet, when this is many in one; else 0.
    pub segment: u32,
    /// How often; the packet is the same each time as the last left it.
    pub repeat: u32,
}

impl<'a> Packet<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Self { data, interface: 0, mark: 0, segment: 0, repeat: 1 }
    }
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// What the program returned: TC_ACT_UNSPEC -1, TC_ACT_SHOT 2, TC_ACT_REDIRECT 7.
    pub returned: u32,
    pub data: Vec<u8>,
    /// Nanoseconds a turn.
    pub nanoseconds: u32,
}

/// Offsets in <linux/bpf.h>'s __sk_buff.
mod sk_buff {
    pub const SIZE: usize = 192;
    pub const MARK: usize = 8;
    pub const IFINDEX: usize = 40;
    pub const GSO_SEGS: usize = 164;
    pub const GSO_SIZE: usize = 176;
}

fn run(program: BorrowedFd<'_>, packet: &Packet<'_>) -> io::Result<Ran> {
    let mut context = [0u8; sk_buff::SIZE];
    let mut set = |at: usize, value: u32| context[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    set(sk_buff::MARK, packet.mark);
    set(sk_buff::IFINDEX, packet.interface);
    if packet.segment > 0 {
        set(sk_buff::GSO_SIZE, packet.segment);
        set(sk_buff::GSO_SEGS, (packet.data.len() as u32).div_ceil(packet.segment));
    }
    // Room for what a program may put in front.
    let mut out = vec![0; packet.data.len() + 256];
    let ran = call::test_run(program, packet.data, &mut out, &mut context, packet.repeat)?;
    out.truncate(ran.out_len);
    Ok(Ran { returned: ran.returned, data: out, nanoseconds: ran.duration })
}

fn way(direction: Direction) -> TcAttachType {
    match direction {
        Direction::In => TcAttachType::Ingress,
        Direction::Out => TcAttachType::Egress,
    }
}

fn link_pin(pins: &Path, interface: &str, direction: Direction) -> PathBuf {
    let end = match direction {
        Direction::In => "in",
        Direction::Out => "out",
    };
    // bpffs allows no dot in a name, interfaces do.
    pins.join("links").join(format!("{}-{end}", interface.replace('.', ":")))
}

fn rustix_socket() -> Result<OwnedFd, Fault> {
    use rustix::net::{AddressFamily, SocketType, socket};
    socket(AddressFamily::INET, SocketType::DGRAM, None)
        .map_err(|error| Fault::Call { what: "a socket".to_owned(), error: error.into() })
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier, Fault> {
    let none = || Fault::Call { what: format!("program {name}"), error: io::Error::from(io::ErrorKind::NotFound) };
    ebpf.program_mut(name).ok_or_else(none)?.try_into().map_err(|_| none())
}

/// The verifier gives up when a signal comes for the thread that it works for; nothing is wrong with the program then.
fn is_interrupted(error: &ProgramError) -> bool {
    let again = Some(rustix::io::Errno::AGAIN.raw_os_error());
    matches!(error, ProgramError::LoadError { io_error, .. } if io_error.raw_os_error() == again)
}

/// The causes of an error; a refusal for want of rights is said as such. It is EPERM: EACCES is the verifier's, who says in his
/// last lines why.
fn refused(what: &str, error: &(dyn std::error::Error + 'static)) -> Fault {
    let mut words = ends(&error.to_string());
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>()
            && error.raw_os_error() == Some(rustix::io::Errno::PERM.raw_os_error())
        {
            return Fault::NotAllowed { doing: "loading a program into the kernel" };
        }
        let more = ends(&error.to_string());
        if !words.contains(&more) {
            words = format!("{words}: {more}");
        }
        cause = error.source();
    }
    Fault::Load { what: what.to_owned(), error: words }
}

/// The first line of a text and its last ones: the verifier tells a program's whole way in between, in megabytes.
fn ends(text: &str) -> String {
    const LAST: usize = 8;
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = lines.len().saturating_sub(LAST).max(1);
    match lines.split_first() {
        Some((first, rest)) if last > 1 => [&[*first, "..."], &rest[last - 1..]].concat().join("\n"),
        _ => lines.join("\n"),
    }
}

/// The names of the object's maps.
fn map_names(object: &[u8]) -> Result<Vec<String>, Fault> {
    let object = aya_obj::Object::parse(object).map_err(|error| refused("the director's object", &error))?;
    // Sections of constants become maps as well, and are the object's own.
    Ok(object.maps.into_keys().filter(|name| !name.starts_with('.')).collect())
}

fn take_maps(ebpf: &mut Ebpf) -> Result<BTreeMap<String, Map>, Fault> {
    let cpus = aya::util::nr_cpus().map_err(|(what, error)| Fault::Call { what: what.to_owned(), error })?;
    let mut maps = BTreeMap::new();
    let names: Vec<String> = ebpf.maps().map(|(name, _)| name.to_owned()).collect();
    for name in names.into_iter().filter(|name| !name.starts_with('.')) {
        let fault = |error: io::Error| Fault::Call { what: format!("map {name}"), error };
        use aya::maps::Map::{Array, HashMap, LruHashMap, PerCpuArray};
        let Some(Array(data) | HashMap(data) | LruHashMap(data) | PerCpuArray(data)) = ebpf.map(&name) else {
            continue;
        };
        let fd = data.fd().as_fd().try_clone_to_owned().map_err(fault)?;
        maps.insert(name.clone(), Map::new(fd, &name, cpus).map_err(fault)?);
    }
    Ok(maps)
}

/// A map that was pinned must be as this object's would be.
fn check_sizes(maps: &BTreeMap<String, Map>, load: &Load<'_>) -> Result<(), Fault> {
    let pins = load.pins.unwrap_or(Path::new(""));
    let mut object = aya_obj::Object::parse(load.object).map_err(|error| refused("the director's object", &error))?;
    for (name, map) in maps {
        let Some(wanted) = object.maps.get_mut(name) else { continue };
        if let Some((_, entries)) = load.sizes.iter().find(|(sized, _)| sized == name) {
            wanted.set_max_entries(*entries);
        }
        let wanted = [wanted.map_type(), wanted.key_size(), wanted.value_size(), wanted.max_entries()];
        let there = map.shape();
        if there != wanted {
            return Err(Fault::Pinned {
                path: pins.to_owned(),
                what: format!(
                    "map {name} is of type {}, keys {}, values {}, entries {}, where {}, {}, {} and {} are wanted",
                    there[0], there[1], there[2], there[3], wanted[0], wanted[1], wanted[2], wanted[3]
                ),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Refused(io::Error);

    impl std::fmt::Display for Refused {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            writeln!(f, "refused")?;
            (0..1000).try_for_each(|line| writeln!(f, "line {line}"))
        }
    }

    impl std::error::Error for Refused {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn a_verifier_s_refusal_is_none_for_want_of_rights() {
        let said = |number| refused("it", &Refused(io::Error::from_raw_os_error(number))).to_string();
        let (access, rights) = (said(13), said(1));
        assert!(access.contains("refused\n...\nline 992\n") && access.contains("\nline 999"), "{access}");
        assert!(rights.contains("CAP_BPF"), "{rights}");
    }
}
