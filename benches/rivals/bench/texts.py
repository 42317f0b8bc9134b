"""The rules that are measured, in every contender's language, and targets that hit them.

A rule is a literal prefix of its own and a tail that is a regular expression; the tails have four shapes. Targets are
all different: HAProxy remembers the answers for the last 10,000 values, and a short list would measure that memory.
"""

from dataclasses import dataclass

KINDS = ["users", "orders", "images", "carts", "search"]
# A prefix, a tail, and what fits the tail.
SHAPES = [
    ("/api/{kind}/svc{i}/", "v[0-9]+/[a-z]+/[0-9]+(/items)?$", "v2/detail/{n}"),
    ("/shop/{kind}/p{i}/", "(new|sale|all)/[a-z-]+_[0-9]+$", "sale/red-shoe_{n}"),
    ("/files/{kind}/d{i}/", "[0-9]{4}/[0-9]{2}/[a-z0-9]+[.](jpg|png|webp)$", "2026/11/i{n}.jpg"),
    ("/u/{kind}/t{i}/", "(en|de|fr)/[a-z]+(/[0-9]+)?$", "de/page/{n}"),
]
TARGETS = 200_000
# Of the mixed rules: those of the host that is asked for; the others belong to 40 other hosts.
HOSTS = 40


@dataclass(frozen=True)
class Setup:
    """What a contender has to be configured for."""

    rules: str = "mixed"  # mixed | regex | prefix
    count: int = 1000
    pools: int = 1
    servers: int = 4  # in each pool
    bodies: bool = False  # large bodies: the settings that make the most of them
    websocket: bool = False
    workers: int = 1
    prefixes: bool = False  # instead of regexes, their literal prefixes
    interval: str = "2s"  # of Reeve's health checks
    tls: bool = False  # HTTPS, ALPN h2 and http/1.1
    h2: bool = False  # HTTP/2: clients speak nothing else
    grpc: bool = False  # HTTP/2 with prior knowledge in both directions
    affinity: bool = False  # a client's address keeps its server
    passthrough: bool = False  # TLS that the server ends; the name in the hello chooses the pool


def prefix(i):
    return SHAPES[i % 4][0].format(kind=KINDS[i % 5], i=i)


def regex(i):
    return "^" + prefix(i) + SHAPES[i % 4][1]


def target(i, serial):
    return prefix(i) + SHAPES[i % 4][2].format(n=serial)


def targets(setup, body="1k"):
    """What is asked for, all of it taken by a rule."""
    state = 20261120
    count = TARGETS if setup.rules != "mixed" else 4000
    for serial in range(1, count + 1):
        state = (state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        dice = state >> 33
        if setup.rules != "mixed":
            yield target(dice % setup.count, serial)
        elif serial % 10 == 0:
            yield f"/assets/{serial}/{body}"  # no rule names it: it goes to the last one
        else:
            i = dice % (setup.count - setup.count * 6 // 10)
            yield f"/v{serial % 3}/app{i}/{body}" if i % 8 == 2 else f"/app{i}/item{serial}/{body}"


def reeve_rules(setup):
    """Reeve's rule file. A cookie and a field are asked about before anything else."""
    if setup.passthrough:
        return "tcp\n  site : sni bench.test  use p0\n"
    lines = [
        "http *",
        '  canary : cookie canary = "1"                use beta',
        '  staff  : header x-staff = "1"               use beta',
    ]
    if setup.rules == "mixed":
        return "\n".join(mixed(lines, setup.count - 2)) + "\n"
    for i in range(setup.count):
        pool = f"p{i % setup.pools}"
        test = f"{prefix(i)}**" if setup.rules == "prefix" or setup.prefixes else f'~"{regex(i)}"'
        lines.append(f"  r{i} : path {test}  use {pool}")
    return "\n".join(lines) + "\n"


def mixed(lines, count):
    """Hosts, prefixes, a few regexes, cookies, fields and methods, as one farm's rules have them."""
    elsewhere = count * 6 // 10
    for i in range(count - elsewhere - 1):
        test = {
            0: f'path /app{i}/** & cookie plan = "gold"',
            1: f'path /app{i}/** & header x-channel = "stable" | "beta"',
            2: f'path ~"^/v[0-9]+/app{i}/"',
            3: f"method GET HEAD POST & path /app{i}/**",
        }.get(i % 8, f"path /app{i}/**")
        lines.append(f"  a{i} : {test}  use p0")
    lines.append("  rest : any  use p0")
    for host in range(HOSTS):
        mine = range(elsewhere * host // HOSTS, elsewhere * (host + 1) // HOSTS)
        lines += ["", f"http shop{host}.example www.shop{host}.example"] if mine else []
        lines += [f"  s{i} : path /c{i}/** | *.t{i}  use p0" for i in mine]
    return lines


def nginx_routes(setup):
    if setup.grpc:
        return "    location / { grpc_pass grpc://p0; grpc_set_header X-Forwarded-For $proxy_add_x_forwarded_for; }"
    if setup.rules == "mixed":
        return "    location / { proxy_pass http://p0; }"
    whole = setup.rules == "prefix" or setup.prefixes
    lines = []
    for i in range(setup.count):
        test = prefix(i) if whole else f'~ "{regex(i)}"'
        lines.append(f"    location {test} {{ proxy_pass http://p{i % setup.pools}; }}")
    return "\n".join([*lines, "    location / { return 404; }"])


def haproxy_routes(setup, folder):
    """The lines of the frontend; long lists go to files in `folder`."""
    if setup.passthrough:
        return ("  tcp-request inspect-delay 5s\n  tcp-request content accept if { req.ssl_hello_type 1 }\n"
                "  use_backend p0 if { req.ssl_sni -i bench.test }")
    if setup.rules == "mixed":
        return "  default_backend p0"
    if setup.rules == "prefix" or setup.prefixes:
        lines = [f"{prefix(i)} p{i % setup.pools}" for i in range(setup.count)]
        write(folder / "prefixes.map", lines)
        return f"  use_backend %[path,map_beg({folder}/prefixes.map,none)]"
    # One pool: a list of patterns is cheaper than a map from each of them to that pool.
    write(folder / "regexes.list", [regex(i) for i in range(setup.count)])
    return f"  use_backend p0 if {{ path_reg -f {folder}/regexes.list }}\n  default_backend none"


def envoy_routes(setup):
    """Envoy's list of routes."""
    if setup.rules == "mixed":
        return [{"match": {"prefix": "/"}, "route": {"cluster": "p0", "timeout": "0s"}}]
    whole = setup.rules == "prefix" or setup.prefixes
    routes = []
    for i in range(setup.count):
        match = {"prefix": prefix(i)} if whole else {"safe_regex": {"regex": regex(i)[:-1]}}  # matches as a whole
        routes.append({"match": match, "route": {"cluster": f"p{i % setup.pools}", "timeout": "0s"}})
    return routes


def write(path, lines):
    with open(path, "w") as file:
        file.writelines(line + "\n" for line in lines)
