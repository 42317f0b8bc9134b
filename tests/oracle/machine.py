"""A machine of its own for the oracle: Debian's kernel, unpacked and not installed, in QEMU without KVM.

QEMU counts instructions (-icount): one is one nanosecond of the machine's clock, so that what happens in it does not depend on how
busy this one is. It has one processor, no disk and no network but what it makes for itself.
"""

import os
import re
import shutil
import stat
import subprocess
import sysconfig
import time
from pathlib import Path

# Beside the kernel; the libraries are ipvsadm's.
PACKAGES = ["busybox-static", "ipvsadm", "libpopt0", "libnl-3-200", "libnl-genl-3-200"]
SCHEDULERS = ["rr", "wrr", "lc", "wlc", "sed", "nq", "fo", "ovf", "sh", "dh", "mh"]
MODULES = [
    "crc32c_generic",  # libcrc32c wants one and does not say so
    *["veth", "sch_ingress", "cls_bpf", "pktgen", "ip_vs"],
    *[f"ip_vs_{name}" for name in SCHEDULERS],
]
PYTHON = "/usr/bin/python3"
MEMORY = 2048  # MiB: tables for 2^20 flows of both families are 470
INIT = """#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox mount -t bpf bpf /sys/fs/bpf
/bin/busybox mount -t tmpfs tmpfs /run
/bin/busybox mount -t tmpfs tmpfs /tmp
export PATH=/sbin:/usr/sbin:/bin:/usr/bin
while read -r module; do /bin/busybox insmod "$module" || echo "FAILED: $module"; done < /modules
%s -B /oracle/main.py %s
/bin/busybox poweroff -f
"""


class Missing(Exception):
    """Something that this machine does not have."""


def command(*words, **more):
    done = subprocess.run(words, capture_output=True, text=True, **more)
    if done.returncode:
        raise Missing(f"`{' '.join(map(str, words))}`: {(done.stderr or done.stdout).strip()[-300:]}")
    return done.stdout


def obtain(folder):
    """The folder with the kernel and the programs, which apt brings once."""
    if not shutil.which("apt-get"):
        raise Missing("no apt-get, by which kernel and programs come")
    if not shutil.which("qemu-system-x86_64"):
        raise Missing("no qemu-system-x86_64 (package qemu-system-x86)")
    if not Path(PYTHON).exists():
        raise Missing(f"no {PYTHON}")
    shown = command("apt-cache", "depends", "linux-image-amd64")
    kernel = re.search(r"Depends: (linux-image-\S+)", shown)
    if not kernel:
        raise Missing("apt knows no kernel: no package linux-image-amd64")
    root = folder / kernel[1]
    if (root / "complete").exists():
        return root
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    print(f"oracle: fetching {kernel[1]} and {', '.join(PACKAGES)}", flush=True)
    command("apt-get", "download", kernel[1], *PACKAGES, cwd=root)
    for package in root.glob("*.deb"):
        command("dpkg", "-x", package, root)
        package.unlink()
    (root / "complete").touch()
    return root


def modules(root):
    """Their files, each after those that it depends on."""
    there = {path.stem: path for path in root.glob("lib/modules/*/kernel/**/*.ko")}
    ordered = []

    def add(name):
        if name not in there:
            raise Missing(f"the kernel has no module {name}")
        depends = re.search(rb"\0depends=([^\0]*)\0", there[name].read_bytes())
        for other in filter(None, (depends[1] if depends else b"").decode().split(",")):
            add(other.replace("-", "_") if other.replace("-", "_") in there else other)
        if there[name] not in ordered:
            ordered.append(there[name])

    for name in MODULES:
        add(name)
    return ordered


class Archive:
    """What the machine begins with: a cpio archive of the kind that the kernel unpacks (newc)."""

    def __init__(self, root):
        self.bytes, self.names, self.root = bytearray(), set(), root
        where = sysconfig.get_config_var("MULTIARCH")
        self.search = {**os.environ, "LD_LIBRARY_PATH": f"{root}/usr/lib/{where}:{root}/lib/{where}"}

    def entry(self, name, mode, content=b""):
        name = name.strip("/")
        if name in self.names:
            return
        parent = os.path.dirname(name)
        if parent:
            self.entry(parent, stat.S_IFDIR | 0o755)
        self.names.add(name)
        self.raw(name, mode, content)

    def raw(self, name, mode, content=b""):
        fields = [len(self.names), mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0]
        self.bytes += b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        self.bytes += b"\0" * (-len(self.bytes) % 4) + content
        self.bytes += b"\0" * (-len(self.bytes) % 4)

    def file(self, name, content):
        self.entry(name, stat.S_IFREG | 0o755, content if isinstance(content, bytes) else content.encode())

    def program(self, name, path, content=None):
        """With the libraries that it is linked with."""
        self.file(name, content or Path(path).read_bytes())
        shown = subprocess.run(["ldd", path], capture_output=True, text=True, env=self.search).stdout
        if "not found" in shown:
            raise Missing(f"{path}: a library is missing: {shown.strip()}")
        for library in re.findall(r"(?:=>|^)\s*(/\S+) \(0x", shown, re.M):
            self.file(library.removeprefix(str(self.root)), Path(library).resolve().read_bytes())

    def close(self):
        self.raw("TRAILER!!!", 0)
        return bytes(self.bytes)


def python(archive, scripts):
    """The interpreter with the modules that the scripts import, and no others."""
    words = "import sys; sys.path[0] = sys.argv[1]; import main; print(*{m.__file__ for m in sys.modules.values() if getattr(m, '__file__', None)}, sep='\\n')"
    real = os.path.realpath(PYTHON)
    for path in command(real, "-B", "-c", words, scripts).split():
        if not path.startswith(str(scripts)):
            archive.program(path, path) if path.endswith(".so") else archive.file(path, Path(path).read_bytes())
    version = os.path.basename(real)
    archive.program(real, real)
    # By this it finds where its library is.
    archive.file(f"/usr/lib/{version}/os.py", Path(f"/usr/lib/{version}/os.py").read_bytes())
    archive.file(f"/usr/lib/{version}/lib-dynload/none", b"")
    return real


def stripped(program, folder):
    if not shutil.which("strip"):
        raise Missing("no strip (package binutils)")
    path = folder / "reeve"
    command("strip", "-o", path, program)
    return path


def pack(root, program, scripts, words, folder):
    """The archive, on disk."""
    archive = Archive(root)
    for name in ["proc", "sys", "dev", "run", "tmp"]:
        archive.entry(name, stat.S_IFDIR | 0o755)
    archive.file("bin/busybox", (root / "bin/busybox").read_bytes())
    files = modules(root)
    for path in files:
        archive.file(path.relative_to(root).as_posix(), path.read_bytes())
    archive.file("modules", "".join(f"/{path.relative_to(root).as_posix()}\n" for path in files))
    archive.program("sbin/ipvsadm", next(path for path in [root / "sbin/ipvsadm", root / "usr/sbin/ipvsadm"] if path.exists()))
    archive.program("sbin/ip", shutil.which("ip", path="/sbin:/usr/sbin:/bin:/usr/bin") or "/sbin/ip")
    small = stripped(program, folder)
    archive.program("usr/bin/reeve", small)
    for script in sorted(scripts.glob("*.py")):
        archive.file(f"oracle/{script.name}", script.read_bytes())
    archive.file("init", INIT % (python(archive, scripts), " ".join(words)))
    path = folder / "initrd"
    path.write_bytes(archive.close())
    return path


def boot(root, initrd, log, patience, line):
    """Runs it to its end, hands each line of its console to `line`; the seconds it took."""
    kernel = next(root.glob("boot/vmlinuz-*"))
    words = ["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off", "-cpu", "max", "-smp", "1", "-m", str(MEMORY)]
    words += ["-nographic", "-no-reboot", "-nodefaults", "-serial", "stdio", "-kernel", kernel, "-initrd", initrd]
    words += ["-append", "console=ttyS0 quiet panic=-1 mitigations=off"]
    begun = time.monotonic()
    machine = subprocess.Popen(
        ["nice", "-n", "12", "timeout", str(patience), "qemu-system-x86_64", *words],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
    )
    try:
        with open(log, "w", encoding="utf-8") as file:
            for text in machine.stdout:
                file.write(text)
                file.flush()
                line(text.rstrip())
    finally:
        machine.terminate()
        machine.wait()
    return time.monotonic() - begun
