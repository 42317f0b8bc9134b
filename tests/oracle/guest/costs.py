"""What a packet costs, in instructions of everything that handles it: the kernel's own generator (pktgen) sends UDP packets of 64
bytes at one end, and they are counted at the other. The machine's clock goes by instructions: a nanosecond is one.

Generator, veth and receiver are in the figures of all alike; what plain routing costs is the measure. While packets are counted
Reeve's process is ended: what it left in the kernel goes on, and its sweeps would be counted too.
"""

import re
import statistics
import time

import farm

GENERATOR = "/proc/net/pktgen"
ROUNDS = 5
COUNT = 2_000
METHODS = {"nat": "-m", "dr": "-g", "tun": "-i"}
# 62,500 ports (the last is not used) and 17 addresses, one further with each packet: these have no common divisor, so that a million
# packets are as many flows.
PORTS, ADDRESSES = (1024, 63524), ("10.9.0.1", "10.9.0.17")
TABLE = [1_000, 100_000, 1_000_000]


def tell(name, words):
    with open(f"{GENERATOR}/{name}", "w") as file:
        file.write(words + "\n")


def received(device):
    with open(f"/sys/class/net/{device}/statistics/rx_packets") as file:
        return int(file.read())


def send(sender, receiver, link, count, source, destination, ports, sources=None):
    """Instructions of each packet, all of which have to arrive."""
    tell("kpktgend_0", "rem_device_all")
    tell("kpktgend_0", f"add_device {sender}")
    first, last = sources or (source, source)
    source_ports, destination_port = ports
    for words in [
        f"count {count}", "delay 0", "clone_skb 0", "pkt_size 64", "flag UDPCSUM",
        f"dst_mac {link.hex(':')}", f"dst {destination}", f"src_min {first}", f"src_max {last}",
        f"udp_src_min {source_ports[0]}", f"udp_src_max {source_ports[1]}",
        f"udp_dst_min {destination_port}", f"udp_dst_max {destination_port}",
    ]:
        tell(sender, words)
    before = received(receiver)
    tell("pgctrl", "start")
    deadline = time.monotonic() + 1
    while received(receiver) - before < count and time.monotonic() < deadline:
        time.sleep(0.001)
    arrived = received(receiver) - before
    with open(f"{GENERATOR}/{sender}") as file:
        took = re.search(r"Result: OK: (\d+)\(", file.read())
    if arrived != count or not took:
        raise SystemExit(f"FAILED: {arrived} of {count} packets from {source} to {destination} arrived")
    return int(took[1]) * 1000 / count


def one_flow(destination):
    return send("clients", "servers", farm.FRONT, COUNT, "10.9.0.1", destination, ((1024, 1024), 80))


def say(who, what, figures):
    said = " ".join(f"{figure:.0f}" for figure in figures)
    print(f"cost {who} {what}: {statistics.median(figures):.0f} ({said})", flush=True)


def again(what, *words, rounds=ROUNDS):
    return [what(*words) for _ in range(rounds)]


def plain():
    """No director: routing."""
    send("clients", "servers", farm.FRONT, 100, "10.9.0.1", farm.server("A"), ((1024, 1024), 80))
    say("route", "in", again(one_flow, farm.server("A")))


def flows(count):
    """As many flows as packets, from the first on."""
    return send("clients", "servers", farm.FRONT, count, "", f"{farm.VIRTUAL}.210.1", (PORTS, 80), ADDRESSES)


def of(director, most):
    """A director that has nothing to do yet. `most`: flows in its table at last."""
    lines = []
    for number, (method, word) in enumerate(METHODS.items()):
        virtual = f"{farm.VIRTUAL}.{211 + number}.1"
        port = 8080 if method == "nat" else 80
        lines += [f"-A -u {virtual}:80 -s rr", f"-a -u {virtual}:80 -r {farm.server('A')}:{port} {word} -w 1"]
    table = f"{farm.VIRTUAL}.210.1:80"
    lines += [f"-A -u {table} -s rr", f"-a -u {table} -r {farm.server('B')}:8081 -m -w 1"]
    director.orders("-R", "".join(f"{line}\n" for line in lines))
    director.rest()
    for number, method in enumerate(METHODS):
        virtual = f"{farm.VIRTUAL}.{211 + number}.1"
        one_flow(virtual)
        say(director.name, method, again(one_flow, virtual))
        if method == "nat":
            answers = ("servers", "clients", farm.BACK, COUNT, farm.server("A"), "10.9.0.1", ((8080, 8080), 1024))
            say(director.name, "nat-reply", again(send, *answers))
    there = 0
    for size in [size for size in TABLE if size <= most]:
        # It begins at the first flow each time: those that are there are no news.
        took = flows(size)
        if there == 0:
            say(director.name, "nat-new", [took])
        there = size
        say(director.name, f"nat-of-{size}", again(flows, 1000, rounds=10))


def slab():
    """What IPVS takes for a connection."""
    with open("/proc/slabinfo") as file:
        row = re.search(r"^ip_vs_conn +\d+ +\d+ +(\d+)", file.read(), re.M)
    print(f"cost ipvs bytes-a-connection: {row[1]} ()" if row else "no slab of ip_vs_conn", flush=True)
