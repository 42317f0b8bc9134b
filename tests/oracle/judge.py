"""Reads the console of the oracle's machine: what each director did, and what packets cost."""

import re

# Seconds by which listed times may differ: between a packet and its listing the machine needs some.
SLACK = 3
# What a packet may cost more in a table of many than in one of a thousand: 2 %.
FLAT = 1.02
METHODS = ["nat", "nat-reply", "dr", "tun"]
TABLE = [1_000, 100_000, 1_000_000]


class Heard:
    def __init__(self):
        self.trials = {}  # name -> {director: who at each step}
        self.steps = {}  # (trial, number) -> what, of those that differ
        self.figures = {}  # (who, what) -> instructions
        self.complete = False

    def line(self, text):
        if trial := re.fullmatch(r"(ipvs|reeve) (\S+): (.*)", text):
            self.trials.setdefault(trial[2], {})[trial[1]] = trial[3].split()
        elif step := re.fullmatch(r"step (\S+) (\d+) (.*)", text):
            self.steps[step[1], int(step[2])] = step[3]
        elif cost := re.fullmatch(r"cost (\S+) (\S+): (\d+) \(.*\)", text):
            self.figures[cost[1], cost[2]] = int(cost[3])
        elif text == "oracle: complete":
            self.complete = True


def alike(ipvs, reeve):
    listed = r"(\w+?)_(\d+)_s_at_(\S+)"
    one, other = re.fullmatch(listed, ipvs), re.fullmatch(listed, reeve)
    if not one or not other:
        return ipvs == reeve
    return one[1] == other[1] and one[3] == other[3] and abs(int(one[2]) - int(other[2])) <= SLACK


def choices(heard):
    """Faults: the first difference of each trial. Later ones follow from it."""
    faults = []
    for name, both in heard.trials.items():
        ipvs, reeve = both.get("ipvs", []), both.get("reeve", [])
        if len(ipvs) != len(reeve):
            faults.append(f"DIFFERENT: {name}: IPVS took {len(ipvs)} steps, Reeve {len(reeve)}")
        for number, (one, other) in enumerate(zip(ipvs, reeve)):
            if not alike(one, other):
                what = heard.steps.get((name, number), "")
                faults.append(f"DIFFERENT: {name}, step {number + 1} ({what}): IPVS {one}, Reeve {other}; before: {' '.join(ipvs[:number][-12:])}")
                break
    steps = sum(len(both.get("reeve", [])) for both in heard.trials.values())
    print(f"  oracle: {len(heard.trials)} trials, {steps} steps, {len(faults)} trials differ")
    return faults if heard.trials else ["oracle: nothing was chosen"]


def costs(heard, most):
    """Faults: what costs more than with IPVS, and what is not flat."""
    faults, figure = [], heard.figures.get
    route = figure(("route", "in"))
    if route is None:
        return ["oracle: plain routing was not counted"]
    print(f"  oracle: instructions of a packet; plain routing {route}")
    for what in METHODS:
        ipvs, reeve = figure(("ipvs", what)), figure(("reeve", what))
        if ipvs is None or reeve is None:
            faults.append(f"oracle: {what} was not counted")
            continue
        print(f"  oracle: {what}: IPVS {ipvs} ({ipvs - route:+}), Reeve {reeve} ({reeve - route:+})")
        if reeve >= ipvs:
            faults.append(f"DEARER: {what}: Reeve {reeve} instructions a packet, IPVS {ipvs}")
    few = figure(("reeve", f"nat-of-{TABLE[0]}"))
    for size in [size for size in TABLE if size <= most]:
        many = figure(("reeve", f"nat-of-{size}"))
        if few is None or many is None:
            faults.append(f"oracle: {size} connections were not counted")
            continue
        print(f"  oracle: among {size:,} connections: Reeve {many}, IPVS {figure(('ipvs', f'nat-of-{size}'), '-')}")
        if many > few * FLAT:
            faults.append(f"NOT FLAT: {many} instructions a packet among {size:,} connections, {few} among {TABLE[0]:,}")
    return faults
