"""One service of a director, fed step by step; each step says which server was chosen."""

import contextlib
import time

import frames
from farm import LETTERS, VIRTUAL, server, server_link
from frames import ACK, FIN, RST, SYN, TCP, UDP

CLOCK_MONOTONIC_COARSE = 6  # <linux/time.h>; it goes on when the kernel's clock ticks

METHODS = {"nat": "-m", "dr": "-g", "tun": "-i"}


class Connection:
    def __init__(self, client, port, virtual, mark):
        self.client, self.port, self.virtual, self.mark = client, port, virtual, mark
        self.server = None


class Ticks:
    """The kernel's clock, by its ticks (4 ms in Debian's kernel)."""

    def now(self):
        return time.clock_gettime_ns(CLOCK_MONOTONIC_COARSE)

    def wait(self, count):
        for _ in range(count):
            now = self.now()
            while self.now() == now:
                pass


class Trial:
    """Each step has its answer: a server's letter, `-` for nobody, `!` for nobody and the client is told."""

    count = 0

    def __init__(self, director, wires, name, protocol, method, scheduler, options="", mark=0):
        Trial.count += 1
        self.director, self.name, self.protocol, self.method = director, name, protocol, method
        self.clients, self.servers = wires
        self.mark = mark
        self.steps = []
        self.opened = 0
        self.number = Trial.count
        self.virtual = f"{VIRTUAL}.{self.number}.1"
        # Each has ports of its own, so that no connection is in the way of another trial's.
        self.server_port = 8000 + self.number if method == "nat" else 80
        what = "-t" if protocol == TCP else "-u"
        self.service = f"-f {mark}" if mark else f"{what} {self.virtual}:80"
        self.connections = []
        self.there = set()
        self.orders(f"-A {self.service} -s {scheduler} {options}")

    # --- orders ---

    def orders(self, *lines):
        self.director.orders("-R", "".join(f"{line}\n" for line in lines))

    def dest(self, letter):
        port = "" if self.mark and self.method != "nat" else f":{self.server_port}"
        return f"{self.service} -r {server(letter)}{port}"

    def line(self, order, letter, weight, more):
        return f"{order} {self.dest(letter)} {METHODS[self.method]} -w {weight} {more}"

    def add(self, **weights):
        """Adds servers, or changes those that are there."""
        orders = ["-e" if letter in self.there else "-a" for letter in weights]
        self.orders(*[self.line(order, *server, "") for order, server in zip(orders, weights.items())])
        self.there.update(weights)

    def edit(self, more="", **weights):
        self.orders(*[self.line("-e", letter, weight, more) for letter, weight in weights.items()])

    def remove(self, letter):
        """Takes a server out. Of UDP it gets the weight 0 instead: Reeve forgets its flows, on purpose (docs/director.md, `on-down`)."""
        if self.protocol == UDP:
            return self.edit(**{letter: 0})
        self.orders(f"-d {self.dest(letter)}")
        self.there.discard(letter)

    def schedule(self, scheduler, options=""):
        self.orders(f"-E {self.service} -s {scheduler} {options}")

    # --- packets ---

    def say(self, what, who):
        self.steps.append((what, who))

    def to_server(self, conn, flags):
        """Sends the client's packet; who got it."""
        packet = frames.transport(self.protocol, conn.client, conn.port, conn.virtual, 80, flags)
        self.clients.send(packet, conn.mark)
        came = frames.arrived(self.servers, self.clients)
        who = [self.who(frame) if wire is self.servers else "!" if frame.protocol == frames.ICMP else "?" for wire, frame in came]
        return "".join(who) or "-"

    def who(self, frame):
        """The letter of the server that a packet is for; `#` where it is not as that server wants it."""
        for letter in LETTERS:
            if frame.link == server_link(letter):
                to = {"nat": server(letter), "tun": server(letter)}.get(self.method, frame.destination)
                right = frame.destination == to and frame.right
                if self.method == "nat":
                    right = right and frame.ports[1] == self.server_port
                return letter if right else f"{letter}#"
        return "?"

    def to_client(self, conn, flags):
        """Sends the server's packet (nat); what the client gets."""
        if self.method != "nat" or conn.server not in tuple(LETTERS):
            return None
        address = server(conn.server)
        self.servers.send(frames.transport(self.protocol, address, self.server_port, conn.client, conn.port, flags))
        came = frames.arrived(self.clients, self.servers)
        if len(came) != 1 or came[0][0] is not self.clients:
            return f"{len(came)} packets"
        frame = came[0][1]
        right = frame.right and (frame.source, frame.ports) == (conn.virtual, (80, conn.port))
        return "" if right else f"{frame.source}:{frame.ports}"

    def exchange(self, conn, *packets):
        """`in` and `out` packets; who got those of the client, and what went wrong with those of the server."""
        said = ""
        for way, flags in packets:
            if way == "in":
                who = self.to_server(conn, flags)
                said += who if who != said[-1:] else ""
            elif got := self.to_client(conn, flags):
                said += f"({got})"
        return said

    def open(self, client=None, port=None, virtual=None, half=False):
        """A new connection."""
        self.opened += 1
        client = client or f"10.9.{self.opened * 7 % 256}.{1 + self.opened * 13 % 250}"
        port = port or 10000 + self.number * 100 + self.opened
        conn = Connection(client, port, virtual or self.virtual, self.mark)
        conn.server = self.to_server(conn, SYN)
        said = conn.server
        if conn.server in tuple(LETTERS) and not half:
            rest = [("out", SYN | ACK), ("in", ACK)] if self.protocol == TCP else [("out", 0)]
            more = self.exchange(conn, *rest)
            said += more if more != said else ""
        self.connections.append(conn)
        self.say(f"open {client}:{port}", said)
        return conn

    def opens(self, count, **more):
        return [self.open(**more) for _ in range(count)]

    def data(self, conn):
        self.say(f"data {conn.port}", self.exchange(conn, ("in", ACK), ("out", ACK)))

    def again(self, conn):
        """The same client's port once more."""
        conn.server = self.to_server(conn, SYN)
        self.say(f"again {conn.port}", conn.server)

    @contextlib.contextmanager
    def within_a_tick(self):
        """What is done here is done between two ticks of the kernel's clock; whether it was is a step too. Then three more pass, so that
        what its timers do is done."""
        ticks = Ticks()
        ticks.wait(1)
        begun = ticks.now()
        yield
        self.say("within a tick", "yes" if ticks.now() == begun else "no")
        ticks.wait(3)

    def close(self, conn):
        """The client begins."""
        if self.protocol == TCP:
            said = self.exchange(conn, ("in", FIN | ACK), ("out", FIN | ACK), ("in", ACK))
            self.say(f"close {conn.port}", said)

    def closed(self, conn):
        """The server begins."""
        if self.protocol == TCP:
            said = self.exchange(conn, ("out", FIN | ACK), ("in", ACK), ("in", FIN | ACK), ("out", ACK))
            self.say(f"closed {conn.port}", said)

    def reset(self, conn):
        if self.protocol == TCP:
            self.say(f"reset {conn.port}", self.exchange(conn, ("in", RST)))

    # --- listings ---

    def loads(self):
        """What is counted at its servers."""
        rows = [line.split() for line in self.director.orders(f"-Ln {self.service}").splitlines()]
        said = [f"{row[1]} {row[2]} {row[3]} {row[4]}/{row[5]}" for row in rows if row[0] == "->" and row[1][0].isdigit()]
        self.say("loads", ", ".join(sorted(said)))

    def state(self, conn, what):
        """How a connection is listed: the state, and the seconds that it still has."""
        said = "none"
        for line in self.director.orders("-Lnc").splitlines():
            row = line.split()
            if len(row) == 6 and row[3] == f"{conn.client}:{conn.port}" and row[4].startswith(f"{conn.virtual}:"):
                minutes, seconds = row[1].split(":")
                said = f"{row[2]} {int(minutes) * 60 + int(seconds)} s at {row[5]}"
        self.say(f"state after {what}", said)
