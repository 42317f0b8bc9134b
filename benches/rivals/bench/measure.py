"""Runs the scenarios in rounds and keeps a row for every visit."""

import http.client
import json
import re
import signal
import socket
import subprocess
import time

from . import machine, peers, texts
from .processes import Failed, Process

COLUMNS = [
    "scenario", "round", "contender", "attempt", "kept", "time", "seconds", "requests", "cpu_us", "user_us", "system_us",
    "switches", "rps", "p50_us", "p90_us", "p99_us", "utilisation", "rss_kib", "pss_kib", "foreign", "steal", "waited_s",
    "errors", "first_error", "kib_a_connection", "spread", "ended_threads",
]
# Cores used by others, above which a visit is repeated.
FOREIGN = 0.35
BIG = 64 << 20
# Scenarios whose texts are kept; those of the others differ in little.
TOLD = ("keepalive-64", "body-64m", "websocket", "tls-keepalive", "grpc", "passthrough-64m")


class Bench:
    """Everything a run shares: programs, ports, folders, the origin."""

    def __init__(self, options, programs, tools, state, reeve):
        self.options, self.programs, self.tools, self.state, self.reeve = options, programs, tools, state, reeve
        self.before, self.log = options.before and options.before.resolve(), options.log
        self.ports = None
        self.origin_port = None
        self.origin = None
        self.running = []
        # For the record: how everything was started, and with which texts; paths as anybody would have them.
        self.commands, self.files, self.plain = [], {}, {}

    def section(self, scenario):
        self.commands.append(f"\n# {scenario.name}: {scenario.title}")

    def start_origin(self, cores, count=1000):
        self.origin_port = self.ports.block(count)
        command = [self.tools / "origin", "--port", self.origin_port, "--ports", count,
                   "--certificate", "certificates/origin.crt", "--key", "certificates/origin.key"]
        self.origin = Process("origin", command, cores, self.state, self.state / "origin.log")
        self.note("origin", cores, command)
        self.origin.wait_for_port(self.origin_port, 10)

    def note(self, name, cores, command):
        line = f"{name:24} taskset -c {cores} {self.as_anywhere(' '.join(map(str, command)))}"
        section = max((n for n, known in enumerate(self.commands) if known.startswith("\n#")), default=0)
        if line not in self.commands[section:]:
            self.commands.append(line)

    def as_anywhere(self, text):
        for path, word in self.plain.items():
            text = text.replace(path, word)
        return text

    def keep_texts(self, scenario, contender):
        """What a contender was told, unless it is a long list of generated rules."""
        for name in ("reeve.toml", "nginx.conf", "haproxy.cfg", "envoy.yaml"):
            path = contender.folder / name
            if path.exists() and path.stat().st_size < 10_000:
                self.files[f"texts/{scenario.name}-{contender.name}-{name}"] = self.as_anywhere(path.read_text())

    def count(self):
        """What the origin has answered so far."""
        connection = http.client.HTTPConnection("127.0.0.1", self.origin_port, timeout=10)
        connection.request("GET", "/count")
        text = connection.getresponse().read().decode()
        connection.close()
        return {key: int(value) for key, _, value in (word.partition("=") for word in text.split())}

    def ours(self):
        """CPU time of everything that belongs to the benchmark."""
        pids = [*machine.tree(self.origin.pid)]
        for contender in self.running:
            pids += contender.pids()
        return machine.Spent.of(pids).total + machine.own()

    def load(self, cores, options, **how):
        command = ["taskset", "-c", cores, self.tools / "load", *options]
        self.note("load", cores, [re.sub(r"(?<=^127.0.0.1:)\d+$", "PORT", str(word)) for word in command[3:]])
        return subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                text=True, cwd=self.state, **how)


def finish(load):
    out, fault = load.communicate()
    if load.returncode:
        raise Failed(f"the load generator: {fault.strip()[-300:]}")
    return json.loads(out.strip().splitlines()[-1])


def visit(bench, scenario, contender, options):
    """Loads one contender once."""
    seconds = max(bench.options.seconds, scenario.seconds)
    _, waited = machine.wait_for_quiet(bench.options.patience)
    pids = contender.pids()
    before, ours, (busy, steal) = machine.Spent.of(pids), bench.ours(), machine.busy()
    count, begin = bench.count(), time.monotonic()
    result = finish(bench.load(scenario.cores[1], ["--address", f"127.0.0.1:{contender.port}", "--seconds", seconds,
                                                   "--warm", bench.options.warm, *options]))
    elapsed = time.monotonic() - begin
    spent = machine.Spent.of(pids) - before
    served = {key: value - count[key] for key, value in bench.count().items()}
    busy_after, steal_after = machine.busy()
    foreign = max(0.0, (busy_after - busy) - (bench.ours() - ours)) / 1e6 / elapsed
    resident, shared = machine.memory(pids)
    done = {"request": served["requests"], "message": served["messages"], "64 MiB": served["sent"] / BIG}[scenario.unit]
    if done <= 0:
        raise Failed(f"no request reached the origin: {result['first_error']}")
    errors, why = result["errors"] + served["wrong"], result["first_error"]
    answered = served["messages"] if scenario.unit == "message" else served["requests"]
    if not errors and answered != result["answered"]:
        errors, why = 1, f"the origin answered {answered}, the clients got {result['answered']}"
    return {
        "seconds": round(elapsed, 2), "requests": round(done), "cpu_us": spent.total / done, "user_us": spent.user / done,
        "system_us": spent.system / done, "switches": spent.switches / done, "rps": result["rps"],
        "p50_us": result["p50"], "p90_us": result["p90"], "p99_us": result["p99"],
        "utilisation": spent.total / 1e6 / elapsed, "rss_kib": resident, "pss_kib": shared, "foreign": foreign,
        "steal": (steal_after - steal) / 1e6 / elapsed, "waited_s": round(waited, 1), "errors": errors,
        "first_error": why, "ended_threads": len(spent.threads),
    }


def held(bench, scenario, contender, look):
    """Opens connections, one request on each, and looks while they are idle."""
    connections = scenario.connections
    with bench.load(scenario.cores[1], ["--address", f"127.0.0.1:{contender.port}", "--hold", "--connections",
                                        connections, "--sources", 4, *scenario.load], stdin=subprocess.PIPE) as load:
        line = load.stdout.readline().strip()
        try:
            if line != "ready":
                raise Failed(f"the load generator: {(line or load.stderr.read())[-300:]}")
            seen = look()
        finally:
            load.stdin.close()
            rest = load.stdout.read()
    result = json.loads(rest.strip().splitlines()[-1])
    errors = result["errors"] + connections - result["open"]
    why = result["first_error"] or (f"{connections - result['open']} connections were closed" if errors else "")
    return seen, {"errors": errors, "first_error": why, "requests": result["answered"]}


def idle(bench, scenario, contender):
    """Memory of idle connections, of a process that has done nothing else."""
    contender.start(scenario.cores[0])
    try:
        before = machine.memory(contender.pids())
        after, row = held(bench, scenario, contender, lambda: settled(contender.pids()))
        row["kib_a_connection"] = (after[0] - before[0]) / scenario.connections
        row["rss_kib"], row["pss_kib"] = after
        return row
    finally:
        contender.stop()


def settled(pids):
    """Memory, once it stays the same."""
    deadline = time.monotonic() + 5
    last = machine.memory(pids)
    while time.monotonic() < deadline:
        time.sleep(0.3)
        now = machine.memory(pids)
        if now == last:
            break
        last = now
    return last


def spread(bench, scenario, contender):
    """How evenly connections lie on Reeve's workers: the largest distance from the mean, as a share of it."""
    contender.start(scenario.cores[0])
    try:
        def look():
            workers = [0] * scenario.setup.workers
            for connection in control(contender, "/api/v1/connections?limit=20000")["connections"]:
                workers[connection["id"] >> 48] += 1
            return workers
        workers, row = held(bench, scenario, contender, look)
        mean = sum(workers) / len(workers)
        row["spread"] = max(abs(n - mean) for n in workers) / mean
        return row
    finally:
        contender.stop()


def control(contender, path):
    """Asks Reeve's control socket."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(10)
        asking.connect(str(contender.socket))
        asking.sendall(f"GET {path} HTTP/1.1\r\nHost: reeve\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: asking.recv(1 << 16), b""))
    return json.loads(answer.partition(b"\r\n\r\n")[2])


def run(bench, scenario, arms, keep):
    """All rounds of a scenario; `keep` gets each row. Contenders that fail are named and left out."""
    paths = bench.state / f"{scenario.name}.targets"
    contenders, setups = [], {arm.setup for arm in arms}
    if scenario.kind == "load":
        texts.write(paths, texts.targets(next(iter(setups)), scenario.body))
    options = ["--paths", paths, *scenario.load]
    if scenario.unit == "message":
        options = ["--path", "/socket", *scenario.load]
    failures = {}
    for arm in arms:
        try:
            contender = peers.Contender(arm.name, arm.peer, arm.setup, bench)
            bench.note(arm.name, scenario.cores[0], contender.command)
            if scenario.name in TOLD:
                bench.keep_texts(scenario, contender)
            if scenario.kind == "load":
                warm_up(bench, scenario, contender, options)
            contenders.append(contender)
        except Failed as failure:
            failures[arm.name] = str(failure)
    try:
        for turn in range(bench.options.rounds):
            start = turn % max(1, len(contenders))
            for contender in contenders[start:] + contenders[:start]:
                if contender.name in failures:
                    continue
                try:
                    for row in visits(bench, scenario, contender, options):
                        keep({"scenario": scenario.name, "round": turn, "contender": contender.name, **row})
                except (Failed, machine.Gone) as failure:
                    failures[contender.name] = str(failure)
        if bench.options.profile and scenario.kind == "load":
            for contender in contenders:
                profile(bench, scenario, contender, options)
    finally:
        for contender in contenders:
            contender.stop()
        bench.running.clear()
    return failures


def profile(bench, scenario, contender, options):
    """Where the time goes: one more visit, not measured, in which perf looks on."""
    data = bench.state / "perf.data"
    pids = ",".join(map(str, contender.pids()))
    looking = subprocess.Popen(["perf", "record", "-q", "-e", "cpu-clock", "-F", "2999", "-p", pids, "-o", str(data)],
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    finish(bench.load(scenario.cores[1], ["--address", f"127.0.0.1:{contender.port}", "--seconds", 3, "--warm", 0.2, *options]))
    looking.send_signal(signal.SIGINT)
    looking.communicate(timeout=30)
    shown = subprocess.run(["perf", "report", "--stdio", "--no-children", "--percent-limit", "0.4", "--sort", "dso,symbol",
                            "-i", str(data)], capture_output=True, text=True)
    lines = [line.rstrip()[:140] for line in shown.stdout.splitlines() if "%" in line and not line.startswith("#")]
    text = f"{contender.name}, {scenario.title}: shares of CPU time by function\n\n" + "\n".join(lines) + "\n"
    bench.files[f"profiles/{scenario.name}-{contender.name}.txt"] = text
    contender.after_visit()


def warm_up(bench, scenario, contender, options):
    """Starts a contender and lets it do once what is done once: the first connection to each server, say."""
    contender.start(scenario.cores[0])
    try:
        finish(bench.load(scenario.cores[1], ["--address", f"127.0.0.1:{contender.port}", "--seconds", 0.2, "--warm", 0.2,
                                              *options]))
        contender.after_visit()
        bench.running.append(contender)
    except Failed:
        contender.stop()
        raise


def visits(bench, scenario, contender, options):
    """One visit, and again when others disturbed it; the least disturbed counts."""
    rows = []
    for attempt in range(1 + bench.options.repeats):
        now = time.strftime("%H:%M:%S", time.gmtime())
        if scenario.kind == "load":
            row = visit(bench, scenario, contender, options)
        else:
            row = {"idle": idle, "spread": spread}[scenario.kind](bench, scenario, contender)
        contender.after_visit()
        rows.append({"attempt": attempt, "time": now, "kept": 0, **row})
        if row.get("foreign", 0.0) <= FOREIGN:
            break
    min(rows, key=lambda row: row.get("foreign", 0.0))["kept"] = 1
    return rows
