"""What both directors are fed: sequences for every scheduler, drawn ones, persistence, marks, states."""

import random
import re

from frames import ACK, FIN, RST, SYN, TCP, UDP
from trial import Trial

SCHEDULERS = ["rr", "wrr", "lc", "wlc", "sed", "nq", "fo", "ovf", "sh", "dh", "mh"]
FLAGS = {"sh": ["-b sh-port", "-b sh-fallback", "-b sh-port,sh-fallback"], "mh": ["-b mh-port", "-b mh-fallback"]}


def changes(t):
    """Servers come, go and change while clients do."""
    t.add(A=4, B=3, C=2)
    first = t.opens(10)
    for conn in first[::3]:
        t.close(conn)
    t.opens(4)
    t.edit(A=0)
    t.opens(4)
    t.data(first[1])
    t.add(D=5)
    more = t.opens(6)
    t.loads()
    t.remove("B")
    t.opens(4)
    for conn in first[:4]:
        t.data(conn)
    t.add(B=1)
    t.opens(4)
    for conn in first[:4]:
        t.data(conn)
    t.edit(A=6, C=4, D=8)
    t.opens(8)
    for conn in more:
        t.closed(conn)
    t.edit("-x 4 -y 2", C=4)
    t.opens(6)
    t.edit(A=0, B=0, D=0)
    t.opens(5)
    t.edit(C=0)
    t.opens(2)
    t.edit(A=1, B=1, C=1, D=1)
    t.opens(6)
    t.loads()


def equals(t):
    """All alike, and one after the other busy."""
    t.add(A=1, B=1, C=1, D=1)
    conns = t.opens(6)
    t.reset(conns[2])
    t.close(conns[4])
    t.opens(4)
    # The old connection counts until the kernel's clock ticks.
    with t.within_a_tick():
        t.again(conns[4])
        t.opens(2, half=True)
    t.opens(3, half=True)
    t.loads()


def drawn(t, seed):
    """Whatever comes."""
    draw = random.Random(seed)
    t.add(A=3, B=1)
    for _ in range(60):
        what = draw.random()
        if what < 0.55:
            t.open(client=f"10.9.{draw.randrange(4)}.{1 + draw.randrange(250)}")
        elif what < 0.75 and t.connections:
            conn = draw.choice(t.connections)
            draw.choice([t.close, t.closed, t.data, t.reset])(conn)
        elif what < 0.85:
            letter, weight = draw.choice("ABCDEF"), draw.choice([0, 1, 1, 2, 3, 6, 9, 40])
            if letter in t.there:
                limit = draw.choice(["", "", "-x 3", "-x 5 -y 4"])
                t.edit(limit, **{letter: weight})
            else:
                t.add(**{letter: weight})
        elif what < 0.9 and len(t.there) > 1:
            t.remove(draw.choice(sorted(t.there)))
    t.loads()


def many_ends(t):
    """Several virtual addresses: by a mark."""
    t.add(A=1, B=2, C=1)
    for last in range(1, 25):
        t.open(virtual=f"10.8.200.{last * 9}")
    t.edit(B=0)
    for last in range(1, 13):
        t.open(virtual=f"10.8.201.{last * 9}")
    t.loads()


def held(t):
    """Clients come back to their server."""
    t.add(A=3, B=2, C=1)
    clients = [f"10.9.{number}.7" for number in range(6)]
    for client in clients * 2:
        t.open(client=client)
    t.open(client="10.9.0.8")
    t.edit(A=0)
    for client in clients:
        t.open(client=client)
    t.remove("C")
    for client in clients:
        t.open(client=client)
    t.add(C=9)
    for client in clients:
        t.open(client=client)
    t.open(client="10.9.77.7")
    t.loads()


def moved(t):
    """Its scheduler changes."""
    t.add(A=4, B=3, C=2)
    for scheduler in ["wrr", "wlc", "rr", "sed", "wrr", "sh", "nq"]:
        t.schedule(scheduler)
        t.opens(5)


IN, OUT = "in", "out"
LIVES = {
    "short": [(IN, SYN), (OUT, SYN | ACK), (IN, ACK), (IN, FIN | ACK), (OUT, FIN | ACK), (IN, ACK), (IN, SYN)],
    "server-first": [(IN, SYN), (OUT, SYN | ACK), (IN, ACK), (OUT, FIN | ACK), (IN, ACK), (IN, FIN | ACK), (OUT, ACK)],
    "reset": [(IN, SYN), (OUT, SYN | ACK), (IN, ACK), (IN, RST), (IN, SYN)],
    "refused": [(IN, SYN), (OUT, RST | ACK), (IN, SYN)],
    "impatient": [(IN, SYN), (IN, FIN), (OUT, SYN | ACK), (IN, RST)],
    "crossed": [(IN, SYN), (OUT, SYN), (IN, SYN | ACK), (OUT, ACK), (IN, 0)],
}


def states(t):
    t.add(A=1)
    for name, packets in LIVES.items():
        t.opened += 1
        conn = None
        for number, (way, flags) in enumerate(packets):
            if conn is None:
                conn = t.open(half=True)
            elif way == IN:
                t.to_server(conn, flags)
            elif t.to_client(conn, flags) is None:
                continue
            t.state(conn, f"{name} {number + 1} {way} {flags}")


def trials(director, wires, wanted, before):
    """Runs those whose name matches `wanted`. Prints each as `DIRECTOR TRIAL: WHO, WHO, ...`, one of each step, and steps that are
    different in `before`, what another director did, as `step TRIAL NUMBER WHAT`. What this one did, by name."""
    done = {}

    def trial(what, name, protocol, method, scheduler, options="", mark=0, **more):
        # Numbers go on, whether it is run or not: it is the same in a shorter run.
        if not re.search(wanted, name):
            Trial.count += 1
            return
        trial = Trial(director, wires, name, protocol, method, scheduler, options, mark)
        what(trial, **more)
        done[name] = trial.steps
        # Without blanks and repetitions: the console is slow.
        print(f"{director.name} {name}:", *(who.replace(" ", "_") for _, who in trial.steps), flush=True)
        for number, (one, other) in enumerate(zip(before.get(name, []), trial.steps)):
            if one != other:
                print(f"step {name} {number} {other[0]}", flush=True)

    Trial.count = 0
    for scheduler in SCHEDULERS:
        for protocol, word in [(TCP, "tcp"), (UDP, "udp")]:
            trial(changes, f"{scheduler}-{word}-changes", protocol, "nat", scheduler)
        trial(drawn, f"{scheduler}-tcp-drawn", TCP, "nat", scheduler, seed=scheduler)
        for options in FLAGS.get(scheduler, []):
            trial(changes, f"{scheduler}-tcp-{options[3:]}", TCP, "nat", scheduler, options)
    for scheduler in ["lc", "wlc", "sed", "nq"]:
        trial(equals, f"{scheduler}-tcp-equals", TCP, "nat", scheduler)
    for method in ["dr", "tun"]:
        trial(changes, f"wlc-tcp-{method}", TCP, method, "wlc")
    trial(held, "wlc-tcp-held", TCP, "nat", "wlc", "-p 300")
    trial(held, "rr-udp-held-mask", UDP, "nat", "rr", "-p 300 -M 255.255.255.0")
    for number, scheduler in enumerate(["dh", "mh", "rr"]):
        trial(many_ends, f"{scheduler}-tcp-mark", TCP, "nat", scheduler, mark=7 + number)
    trial(moved, "moved-tcp", TCP, "nat", "lc")
    for method in ["nat", "dr", "tun"]:
        trial(states, f"states-{method}", TCP, method, "rr")
    return done
