"""A contender for one setup: its texts, its command, its process."""

import json
import os
import shutil
from pathlib import Path

from . import machine, texts
from .processes import Failed, Process

HERE = Path(__file__).resolve().parent.parent
# Contenders that lack what a setup asks for, and what to say of it.
PINGORA_LACKS = "Pingora is a library without rules, pools or schedulers of its own"


def lacks(peer, setup):
    """Why a contender cannot take part, or nothing."""
    if peer == "floor" and (setup.rules != "mixed" or setup.pools > 1):
        return "it looks at no byte"
    if peer == "pingora" and (setup.rules != "mixed" or setup.pools > 1):
        return PINGORA_LACKS
    if peer == "envoy" and setup.rules == "regex" and setup.count > 10_000:
        return "Envoy walks its list of routes: 100,000 were not tried"
    return None


class Contender:
    """One program that runs, or is ready to."""

    def __init__(self, name, peer, setup, bench):
        self.name, self.peer, self.setup, self.bench = name, peer, setup, bench
        self.folder = bench.state / name
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.port = bench.ports.one()
        self.socket = self.folder / "reeve.sock"
        self.process = None
        kind = peer.partition("-")[0]
        self.command = {"reeve": self.reeve, "nginx": self.nginx, "haproxy": self.haproxy, "envoy": self.envoy,
                        "pingora": self.pingora, "floor": self.floor}[kind]()

    def start(self, cores):
        """Returns when it answers."""
        log = self.folder / "output"
        if self.process is None:
            self.process = Process(self.name, self.command, cores, self.folder, log)
            # 100,000 regular expressions take their time.
            self.process.wait_for_port(self.port, 60 + self.setup.count / 100)

    def stop(self):
        if self.process:
            self.process.stop()
            self.process = None

    def pids(self):
        return machine.tree(self.process.pid)

    def after_visit(self):
        """Keeps Reeve's log file small; it is opened for appending, so that cutting it is safe."""
        log = self.folder / "access.log"
        if log.exists():
            os.truncate(log, 0)

    # ---- the texts

    def fill(self, template, to, **words):
        text = (HERE / "peers" / template).read_text()
        for key, value in {"name": self.name, "port": self.port, "workers": self.setup.workers, **words}.items():
            text = text.replace("{{" + key + "}}", str(value))
        if "{{" in text:
            raise Failed(f"{template}: a word was not filled in")
        path = self.folder / to
        path.write_text(text)
        return path

    def servers(self, pool):
        """The addresses of a pool's servers: each pool has its own ports."""
        first = self.bench.origin_port + pool * self.setup.servers
        return [f"127.0.0.1:{port}" for port in range(first, first + self.setup.servers)]

    def reeve(self):
        (self.folder / "rules").mkdir()
        (self.folder / "rules/site.rules").write_text(texts.reeve_rules(self.setup))
        check = '{ http = "/health", interval = "%s", timeout = "1s", rise = 2, fall = 3 }' % self.setup.interval
        lines = [
            "[listen.web]",
            f'address = ["127.0.0.1:{self.port}"]',
            'protocol = "http"',
            'rules = ["rules/site.rules"]',
            "",
            "[monitor]",
            f'metrics-address = ["127.0.0.1:{self.bench.ports.one()}"]',
            "",
            "[state]",
            'path = "state"',
            "",
            "[process]",
            f"workers = {self.setup.workers}",
            f'socket = "{self.socket}"',
            "",
            "[log]",
            f'access = {{ format = "json", path = "{self.folder}/access.log" }}',
            "",
            "[check.alive]",
            *check.strip("{} ").replace(", ", "\n").split("\n"),
        ]
        pools = {f"p{n}": self.servers(n) for n in range(self.setup.pools)}
        pools["beta"] = self.servers(0)[:1]
        for name, servers in pools.items():
            lines += ["", f"[pool.{name}]", 'check = "alive"', "servers = ["]
            lines += [f'  {{ name = "s{n}", address = "{address}" }},' for n, address in enumerate(servers)]
            lines += ["]"]
        (self.folder / "reeve.toml").write_text("\n".join(lines) + "\n")
        return [self.bench.reeve, "run", "-c", self.folder / "reeve.toml"]

    def nginx(self):
        (self.folder / f"{self.name}.temp").mkdir()
        upstreams = []
        for pool in range(self.setup.pools):
            servers = "".join(f"    server {address};\n" for address in self.servers(pool))
            keep = max(512, 2 * self.setup.servers) if self.setup.pools == 1 else 64
            upstreams.append(f"  upstream p{pool} {{\n{servers}    keepalive {keep};\n"
                             "    keepalive_requests 100000000;\n    keepalive_timeout 300s;\n  }\n")
        upgrade = 'proxy_set_header Connection "";'
        if self.setup.websocket:
            upgrade = 'proxy_set_header Upgrade $http_upgrade;\n  proxy_set_header Connection "upgrade";'
        buffers = "proxy_buffer_size 64k; proxy_buffers 8 128k; proxy_busy_buffers_size 256k;"
        path = self.fill(
            "nginx.conf", "nginx.conf", user="user root;" if os.geteuid() == 0 else "", upgrade=upgrade,
            buffers=buffers if self.setup.bodies else "", upstreams="".join(upstreams),
            routes=texts.nginx_routes(self.setup))
        program = self.bench.programs.command(self.peer)
        return [*program, "-p", f"{self.folder}/", "-e", self.folder / "error.log", "-c", path]

    def haproxy(self):
        backends = []
        for pool in range(self.setup.pools):
            servers = "".join(f"  server s{n} {address} pool-max-conn -1 pool-purge-delay 300s\n"
                              for n, address in enumerate(self.servers(pool)))
            backends.append(f"backend p{pool}\n  balance roundrobin\n{servers}")
        path = self.fill(
            "haproxy.cfg", "haproxy.cfg", connections=4000 if self.setup.bodies else 9900,  # pipes need descriptors
            splice="option splice-auto" if self.setup.bodies else "", backends="\n".join(backends),
            routes=texts.haproxy_routes(self.setup, self.folder))
        return [*self.bench.programs.command(self.peer), "-db", "-f", path]

    def envoy(self):
        clusters = []
        for pool in range(self.setup.pools):
            addresses = [address.rpartition(":") for address in self.servers(pool)]
            endpoints = [{"endpoint": {"address": {"socket_address": {"address": host, "port_value": int(port)}}}}
                         for host, _, port in addresses]
            breakers = {"max_connections": 20000, "max_pending_requests": 20000, "max_requests": 20000}
            clusters.append({
                "name": f"p{pool}", "connect_timeout": "5s", "type": "STATIC",
                "circuit_breakers": {"thresholds": [breakers]},
                "load_assignment": {"cluster_name": f"p{pool}", "endpoints": [{"lb_endpoints": endpoints}]}})
        upgrade = "upgrade_configs: [{ upgrade_type: websocket }]" if self.setup.websocket else ""
        path = self.fill("envoy.yaml", "envoy.yaml", upgrade=upgrade, clusters=json.dumps(clusters),
                         routes=json.dumps(texts.envoy_routes(self.setup)))
        return [*self.bench.programs.command(self.peer), "-c", path, "--concurrency", self.setup.workers, "-l", "error",
                "--disable-hot-restart"]

    def pingora(self):
        return [*self.bench.programs.command(self.peer), self.port, *self.servers(0)]

    def floor(self):
        return [self.bench.tools / "floor", "--port", self.port, "--to", self.bench.origin_port, "--servers",
                self.setup.servers]
