"""The network around the director, and the two directors: the kernel's IPVS and Reeve, which take the same orders.

    clients 10.9.0.0/16 ---- front [director] back ---- servers 10.2.0.11 .. (A, B, C ...)

The far ends of both interfaces are in the same namespace, so that marks outlive the way; nobody but the scripts here answers
there: link addresses of clients and servers are nobody's.
"""

import subprocess
import time

import frames

LETTERS = "ABCDEFGH"
VIRTUAL = "10.8"  # 10.8.0.0/16 are the director's own
GATEWAY = "10.1.0.2"
CLIENT_LINK = bytes.fromhex("02000000aa01")
FRONT, BACK = bytes.fromhex("020000000101"), bytes.fromhex("020000000201")


def server(letter):
    return f"10.2.0.{11 + LETTERS.index(letter)}"


def server_link(letter):
    return bytes.fromhex("02000000bb") + bytes([LETTERS.index(letter)])


def run(*words, text=None, check=True):
    done = subprocess.run(words, input=text, capture_output=True, text=True)
    if check and done.returncode:
        raise SystemExit(f"FAILED: {' '.join(words)}: {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def ip(words):
    run("ip", *words.split())


def setting(name, value):
    with open(f"/proc/sys/net/{name}", "w") as file:
        file.write(str(value))


def build():
    """The network; the far ends of it, clients' and servers'."""
    setting("ipv6/conf/all/disable_ipv6", 1)
    setting("ipv6/conf/default/disable_ipv6", 1)
    setting("ipv4/conf/all/rp_filter", 0)
    setting("ipv4/conf/default/rp_filter", 0)
    ip("link set lo up")
    for near, far, link in [("front", "clients", FRONT), ("back", "servers", BACK)]:
        ip(f"link add {near} address {link.hex(':')} type veth peer name {far}")
        ip(f"link set {near} up")
        ip(f"link set {far} up")
    ip("addr add 10.1.0.1/24 dev front")
    ip("addr add 10.2.0.1/24 dev back")
    ip(f"neigh add {GATEWAY} lladdr {CLIENT_LINK.hex(':')} dev front nud permanent")
    for letter in LETTERS:
        ip(f"neigh add {server(letter)} lladdr {server_link(letter).hex(':')} dev back nud permanent")
    ip(f"route add 10.9.0.0/16 via {GATEWAY} dev front")
    ip(f"route add local {VIRTUAL}.0.0/16 dev lo")
    setting("ipv4/ip_forward", 1)
    setting("ipv4/conf/all/send_redirects", 0)
    setting("ipv4/conf/front/send_redirects", 0)
    setting("ipv4/conf/back/send_redirects", 0)
    # Nobody may be told too often here.
    setting("ipv4/icmp_ratelimit", 0)
    return frames.Wire("clients", FRONT, CLIENT_LINK), frames.Wire("servers", BACK, server_link("A"))


class Ipvs:
    name = "ipvs"

    def __init__(self):
        self.orders("-C")

    def orders(self, words, text=None):
        return run("ipvsadm", *words.split(), text=text)

    def rest(self):
        pass

    def close(self):
        self.orders("-C")


class Reeve:
    name = "reeve"
    socket = "/run/reeve.sock"

    def __init__(self):
        with open("/run/reeve.toml", "w") as file:
            file.write(
                f'[process]\nworkers = 1\nsocket = "{self.socket}"\n[state]\npath = "/run/state"\n'
                '[director]\ninterfaces = ["front", "back"]\nflows = 1048576\n'
            )
        with open("/run/reeve.log", "w") as log:
            self.process = subprocess.Popen(["reeve", "run", "-c", "/run/reeve.toml"], stdout=log, stderr=log)
        deadline = time.monotonic() + 40
        while True:
            asked = subprocess.run(["reeve", "ipvsadm", "--socket", self.socket, "-Ln"], capture_output=True, text=True)
            if asked.returncode == 0:
                break
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"FAILED: Reeve's director does not answer: {asked.stderr}{self.log()}")
            time.sleep(0.2)
        if log := self.log():
            print(log, flush=True)

    def log(self):
        with open("/run/reeve.log") as file:
            return file.read()

    def orders(self, words, text=None):
        return run("reeve", "ipvsadm", "--socket", self.socket, *words.split(), text=text)

    def rest(self):
        """Ends the process; what it left in the kernel goes on."""
        self.process.terminate()
        self.process.wait()

    def close(self):
        self.rest()
