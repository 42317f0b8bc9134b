"""A contender for one setup: its texts, its command, its process."""

import json
import os
import re
import shutil
from pathlib import Path

from . import machine, texts
from .processes import Failed, Process
from .scenarios import REEVE_LACKS

HERE = Path(__file__).resolve().parent.parent
# Contenders that lack what a setup asks for, and what to say of it.
ENVOY = "type.googleapis.com/envoy.extensions"
PINGORA_LACKS = "Pingora is a library without rules, pools or schedulers of its own"


def lacks(peer, setup):
    """Why a contender cannot take part, or nothing."""
    if peer == "reeve" and any(getattr(setup, word) for word in REEVE_LACKS):
        return "not built yet"
    if peer == "floor" and (setup.tls or setup.grpc):
        return "it looks at no byte"
    if peer == "pingora" and (setup.grpc or setup.passthrough):
        return "it would be another program: only its HTTP proxy is built here"
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

    def certificate(self, kind="crt"):
        return self.bench.state / f"certificates/front.{kind}"

    def reeve(self):
        (self.folder / "rules").mkdir()
        (self.folder / "rules/site.rules").write_text(texts.reeve_rules(self.setup))
        check = '{ http = "/health", interval = "%s", timeout = "1s", rise = 2, fall = 3 }' % self.setup.interval
        tls = []
        if self.setup.tls:
            (self.folder / "certs").mkdir()
            for kind in ("crt", "key"):
                shutil.copy(self.certificate(kind), self.folder / f"certs/front.{kind}")
            tls = ['tls = { certificates = "certs", minimum = "1.3" }']
        lines = [
            "[listen.web]",
            f'address = ["127.0.0.1:{self.port}"]',
            f'protocol = "{"tls-passthrough" if self.setup.passthrough else "http"}"',
            *tls,
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
            f'access = {{ format = "{getattr(self.bench, "log", "json")}", path = "{self.folder}/access.log" }}',
            "",
            "[check.alive]",
            *check.strip("{} ").replace(", ", "\n").split("\n"),
        ]
        pools = {f"p{n}": self.servers(n) for n in range(self.setup.pools)}
        pools["beta"] = self.servers(0)[:1]
        for name, servers in pools.items():
            protocol = ['protocol = "h2c"'] if self.setup.grpc else []
            ties = ['affinity = { source = "32" }'] if self.setup.affinity else []
            lines += ["", f"[pool.{name}]", 'check = "alive"', *protocol, *ties, "servers = ["]
            lines += [f'  {{ name = "s{n}", address = "{address}" }},' for n, address in enumerate(servers)]
            lines += ["]"]
        (self.folder / "reeve.toml").write_text("\n".join(lines) + "\n")
        program = self.bench.before if self.peer == "reeve-before" else self.bench.reeve
        return [program, "run", "-c", self.folder / "reeve.toml"]

    def is_old(self, *version):
        """Whether the contender is older than that."""
        found = re.search(r"(\d+)\.(\d+)", self.bench.programs.version(self.peer))
        return found is not None and (int(found[1]), int(found[2])) < version

    def nginx(self):
        program, user = self.bench.programs.command(self.peer), "user root;" if os.geteuid() == 0 else ""
        if self.setup.passthrough:
            servers = "\n".join(f"    server {address};" for address in self.servers(0))
            path = self.fill("nginx-stream.conf", "nginx.conf", user=user, servers=servers,
                             module=self.bench.programs.nginx_module(self.peer, "stream"))
            return [*program, "-p", f"{self.folder}/", "-e", self.folder / "error.log", "-c", path]
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
        listen, protocols = [], []
        if self.setup.tls:
            listen.append("ssl")
            protocols += [
                "ssl_protocols TLSv1.3;", "ssl_ecdh_curve X25519;", "ssl_session_tickets on;",
                "ssl_session_cache shared:sessions:10m;", f"ssl_certificate {self.certificate()};",
                f"ssl_certificate_key {self.certificate('key')};"]
        if self.setup.tls or self.setup.grpc:
            if self.is_old(1, 25):
                listen.append("http2")
            else:
                protocols.append("http2 on;")
            protocols.append("http2_max_concurrent_streams 1000;")
        path = self.fill(
            "nginx.conf", "nginx.conf", user=user, upgrade=upgrade, buffers=buffers if self.setup.bodies else "",
            upstreams="".join(upstreams), routes=texts.nginx_routes(self.setup), listen=" ".join(listen),
            protocols="\n    ".join(protocols))
        return [*program, "-p", f"{self.folder}/", "-e", self.folder / "error.log", "-c", path]

    def haproxy(self):
        backends, bind = [], ""
        options = "" if self.setup.passthrough else "pool-max-conn -1 pool-purge-delay 300s"
        if self.setup.grpc:
            bind, options = "proto h2", f"{options} proto h2"
        elif self.setup.tls:
            bind = f"ssl crt {self.certificate('pem')} alpn h2,http/1.1"
        for pool in range(self.setup.pools):
            servers = "".join(f"  server s{n} {address} {options}\n" for n, address in enumerate(self.servers(pool)))
            ties = "  stick-table type ip size 100k expire 30m\n  stick on src\n" if self.setup.affinity else ""
            backends.append(f"backend p{pool}\n  balance roundrobin\n{ties}{servers}")
        if not self.setup.passthrough:
            backends.append("backend none\n  http-request return status 404\n")
        path = self.fill(
            "haproxy.cfg", "haproxy.cfg", connections=4000 if self.setup.bodies else 9900,  # pipes need descriptors
            splice="option splice-auto" if self.setup.bodies else "", backends="\n".join(backends), bind=bind,
            mode="tcp" if self.setup.passthrough else "http",
            http="" if self.setup.passthrough else "http-reuse always\n  option forwardfor",
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
        if self.setup.grpc:
            options = {"@type": f"{ENVOY}.upstreams.http.v3.HttpProtocolOptions",
                       "explicit_http_config": {"http2_protocol_options": {}}}
            for cluster in clusters:
                cluster["typed_extension_protocol_options"] = {
                    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options}
        tls = {"@type": f"{ENVOY}.transport_sockets.tls.v3.DownstreamTlsContext", "common_tls_context": {
            "alpn_protocols": ["h2", "http/1.1"], "tls_params": {"tls_minimum_protocol_version": "TLSv1_3"},
            "tls_certificates": [{"certificate_chain": {"filename": str(self.certificate())},
                                  "private_key": {"filename": str(self.certificate("key"))}}]}}
        socket = {"name": "envoy.transport_sockets.tls", "typed_config": tls}
        upgrade = "upgrade_configs: [{ upgrade_type: websocket }]" if self.setup.websocket else ""
        if self.setup.passthrough:
            path = self.fill("envoy-stream.yaml", "envoy.yaml", clusters=json.dumps(clusters))
        else:
            path = self.fill("envoy.yaml", "envoy.yaml", upgrade=upgrade, clusters=json.dumps(clusters),
                             routes=json.dumps(texts.envoy_routes(self.setup)),
                             tls=f"transport_socket: {json.dumps(socket)}" if self.setup.tls else "name: plain",
                             codec="AUTO" if self.setup.tls or self.setup.grpc else "HTTP1")
        return [*self.bench.programs.command(self.peer), "-c", path, "--concurrency", self.setup.workers, "-l", "error",
                "--disable-hot-restart"]

    def pingora(self):
        tls = ["--tls", self.certificate(), self.certificate("key")] if self.setup.tls else []
        return [*self.bench.programs.command(self.peer), self.port, *tls, *self.servers(0)]

    def floor(self):
        return [self.bench.tools / "floor", "--port", self.port, "--to", self.bench.origin_port, "--servers",
                self.setup.servers]
