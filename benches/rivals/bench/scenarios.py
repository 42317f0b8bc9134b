"""What is measured, and the bars that are to be met."""

from dataclasses import dataclass, field, replace

from .machine import CORES
from .texts import Setup

# The rivals' figures are divided into Reeve's; a bar is met up to this much above it.
TOLERANCE = 0.03
IDLE_CONNECTIONS = 9500
IDLE_BAR = 2.0  # KiB a connection
TLS_IDLE_CONNECTIONS = 4000
TLS_IDLE_BAR = 16.0
SPREAD_BAR = 0.10  # of the connections of a worker from the mean
SPREAD_CONNECTIONS = 2048

# What a setup asks for and Reeve has not learned yet: it is left out of such scenarios, and the summary says so.
REEVE_LACKS = set()


@dataclass(frozen=True)
class Arm:
    """A contender with its setup, as it takes part in a scenario."""

    name: str
    peer: str
    setup: Setup
    footnote: bool = False


@dataclass(frozen=True)
class Comparison:
    arm: str
    to: str
    bar: float | None = None
    footnote: bool = False


@dataclass(frozen=True, eq=False)
class Scenario:
    name: str
    title: str
    load: tuple = ()  # options of the load generator
    setup: Setup = Setup()
    body: str = "1k"  # the last segment of what is asked for
    bars: dict = field(default_factory=dict)
    unit: str = "request"  # request | message | 64 MiB
    kind: str = "load"  # load | idle | spread
    connections: int = 0  # of an idle or spread scenario
    prefixes: bool = False  # with the rivals' prefix maps as a footnote
    variants: tuple = ()  # (name, setup): every contender in each, the last against the first
    variant_bar: float | None = None
    only: tuple = ()  # kinds of contenders, when not all
    limit: float | None = None  # the bar of an idle or spread scenario
    seconds: float = 0.0  # at least
    cores: tuple = ("0", str(min(1, CORES - 1)))  # contender; origin and load

    def arms(self, peers):
        """Those that take part, in the order of the peers."""
        chosen = [peer for peer in peers if not self.only or any(word in peer for word in ("reeve", *self.only))]
        if self.name == "new-connection":
            chosen = [peer for peer in chosen if peer != "floor"]  # it keeps no connections to servers
        # Debian 12 has the HAProxy whose HTTP/2 is the one to beat; elsewhere it is only an older one.
        chosen = [peer for peer in chosen if not peer.endswith("-bookworm") or peer in self.bars]
        if self.variants:
            return [Arm(f"{peer}-{name}", peer, setup) for peer in chosen for name, setup in self.variants]
        arms = [Arm(peer, peer, self.setup) for peer in chosen]
        if self.prefixes:
            by_prefix = replace(self.setup, prefixes=True)
            arms += [Arm(f"{peer}-prefix", peer, by_prefix, footnote=True) for peer in chosen
                     if peer == "reeve" or peer.endswith("-sid")]
        return arms

    def comparisons(self, arms):
        """Which arm is divided by which, and what is to come of it."""
        names = {arm.name: arm for arm in arms}
        found = []
        if self.variants:
            first, last = self.variants[0][0], self.variants[-1][0]
            peers = list(dict.fromkeys(arm.peer for arm in arms))
            found = [Comparison(f"{peer}-{last}", f"{peer}-{first}", self.variant_bar if peer == "reeve" else None)
                     for peer in peers]
            found += [Comparison(f"reeve-{last}", f"{peer}-{last}") for peer in peers if peer != "reeve"]
        else:
            found = [Comparison("reeve", arm.name, self.bars.get(arm.name)) for arm in arms
                     if arm.name != "reeve" and not arm.footnote]
            found += [Comparison("reeve-prefix", arm.name, footnote=True) for arm in arms
                      if arm.footnote and arm.peer != "reeve"]
        return [pair for pair in found if pair.arm in names and pair.to in names]


def bars(nginx, haproxy, **others):
    """What is to be reached against the newest nginx and HAProxy, and against others that are better at it."""
    return {"nginx-sid": nginx, "haproxy-sid": haproxy, **{peer.replace("_", "-"): bar for peer, bar in others.items()}}


def regexes(count, limits, **more):
    setup = Setup(rules="regex", count=count)
    return Scenario(f"rules-{count}", f"{count:,} regex rules, 200,000 targets", ("--connections", "64"), setup,
                    bars=limits, prefixes=True, **more)


def farm(**more):
    # Checks of a thousand servers every two seconds would be measured here, not picking.
    return Setup(rules="prefix", count=1000, interval="10s", **more)


def https(name, title, load=(), setup=Setup(tls=True), **more):
    """Under TLS. Clients know the certificate they must see: the contender's, or the origin's where TLS is passed on."""
    shown = "origin" if setup.passthrough else "front"
    return Scenario(name, title, (*load, "--tls", f"certificates/{shown}.crt"), setup, **more)


TLS_BODIES = Setup(tls=True, bodies=True)
FRESH = ("--fresh", "--connections", "32", "--sources", "16")
SHARED = ("0,1", "0,1") if CORES < 4 else ("0,1", "2,3")
ALL = [
    Scenario("keepalive-64", "HTTP/1.1 keep-alive, 1 KiB, 64 connections", ("--connections", "64"),
             bars=bars(0.75, 0.75)),
    Scenario("keepalive-512", "the same, 512 connections", ("--connections", "512"), bars=bars(0.73, 0.73)),
    Scenario("new-connection", "a new connection for each request", FRESH, bars=bars(0.97, 0.90)),
    Scenario("post-10k", "POST of 10 KiB", ("--connections", "32", "--body", "10240"), body="0",
             bars=bars(0.80, 0.87)),
    Scenario("body-100k", "bodies of 100 KiB, rivals tuned", ("--connections", "32"), Setup(bodies=True),
             body="100k", bars=bars(0.85, 0.65)),
    Scenario("body-64m", "bodies of 64 MiB, rivals tuned", ("--connections", "4"), Setup(bodies=True),
             body="big", bars=bars(0.70, 0.80), unit="64 MiB", seconds=2),
    Scenario("open-6000", "6,000 requests a second", ("--connections", "64", "--rate", "6000"),
             bars=bars(0.80, 0.78)),
    Scenario("websocket", "WebSocket messages of 200 bytes", ("--connections", "64", "--message", "200"),
             Setup(websocket=True), bars=bars(1.0, 1.0), unit="message"),
    regexes(10, {}),
    regexes(1000, bars(0.30, 0.40)),
    regexes(10_000, bars(0.02, 0.05), seconds=2),
    regexes(100_000, bars(0.001, 0.002), seconds=4, only=("sid",)),
    https("tls-keepalive", "HTTPS, HTTP/1.1 keep-alive, 1 KiB, 64 connections", ("--connections", "64"),
          bars=bars(0.78, 0.70, envoy=0.78, pingora=0.78)),
    https("tls-100k", "HTTPS, bodies of 100 KiB, rivals tuned", ("--connections", "32"), TLS_BODIES, body="100k"),
    https("tls-64m", "HTTPS, bodies of 64 MiB, rivals tuned", ("--connections", "4"), TLS_BODIES, body="big",
          bars=bars(0.90, 0.65, envoy=1.0), unit="64 MiB", seconds=2),
    https("tls-handshakes", "a full TLS 1.3 handshake for each request", FRESH, bars=bars(0.50, 0.45, pingora=0.72)),
    https("tls-resumed", "a resumed TLS 1.3 handshake for each request", (*FRESH, "--resume"),
          bars=bars(0.54, 0.48, pingora=0.72)),
    https("h2-4x100", "HTTP/2 under TLS, 4 connections of 100 streams", ("--connections", "4", "--h2", "100"),
          Setup(tls=True, h2=True), bars=bars(0.60, 0.57, haproxy_bookworm=0.88, envoy=0.88, pingora=0.88)),
    https("h2-64x1", "HTTP/2 under TLS, 64 connections of one stream", ("--connections", "64", "--h2", "1"),
          Setup(tls=True, h2=True), bars=bars(0.88, 0.82, haproxy_bookworm=0.88, envoy=0.88, pingora=0.88)),
    Scenario("grpc", "unary calls of gRPC, 4 connections of 100 streams",
             ("--connections", "4", "--h2", "100", "--grpc", "100"), Setup(grpc=True), bars=bars(0.9, 0.9, envoy=0.9)),
    https("passthrough-64m", "TLS passed on sealed, bodies of 64 MiB, rivals tuned", ("--connections", "4"),
          Setup(passthrough=True, bodies=True), body="big", unit="64 MiB", seconds=2),
    Scenario("idle", f"memory of {IDLE_CONNECTIONS:,} idle connections", kind="idle", connections=IDLE_CONNECTIONS,
             limit=IDLE_BAR),
    https("tls-idle", f"memory of {TLS_IDLE_CONNECTIONS:,} idle HTTPS connections", kind="idle",
          connections=TLS_IDLE_CONNECTIONS, limit=TLS_IDLE_BAR),
    Scenario("servers", "1,000 servers in a pool against 10", ("--connections", "64"), only=("sid", "envoy"),
             variants=(("10-servers", farm(servers=10)), ("1000-servers", farm(servers=1000))), variant_bar=1.05),
    Scenario("pools", "1,000 pools of one server against one of 1,000", ("--connections", "64"),
             only=("sid", "envoy"), variants=(("1-pool", farm(servers=1000)),
                                              ("1000-pools", farm(pools=1000, servers=1))), variant_bar=1.05),
    Scenario("affinity", "an address tied to a server against round robin", ("--connections", "64"), only=("haproxy",),
             variants=(("rr", Setup()), ("by-address", Setup(affinity=True))),
             variant_bar=1.03),
    Scenario("workers", "two workers against one, 512 connections", ("--connections", "512"), only=("none",),
             variants=(("1-worker", Setup()), ("2-workers", Setup(workers=2))), variant_bar=1.05, cores=SHARED),
    Scenario("spread", f"{SPREAD_CONNECTIONS:,} connections over two workers", setup=Setup(workers=2), kind="spread",
             connections=SPREAD_CONNECTIONS, limit=SPREAD_BAR, only=("none",), cores=SHARED),
]


def find(names):
    known = {scenario.name: scenario for scenario in ALL}
    for name in names:
        if name not in known:
            raise KeyError(f"there is no scenario {name}; there are: {' '.join(known)}")
    return [known[name] for name in names] or ALL
