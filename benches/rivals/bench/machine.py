"""What the kernel says about processes and cores. All times are microseconds."""

import os
import re
import resource
import time

TICK = 1e6 / os.sysconf("SC_CLK_TCK")
CORES = os.cpu_count() or 1


class Gone(Exception):
    """A process that should be running is not."""


def read(path):
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def threads(pid):
    try:
        return os.listdir(f"/proc/{pid}/task")
    except OSError:
        raise Gone(f"process {pid} has ended") from None


def tree(pid):
    """The process, its children and theirs."""
    found, queue = [], [pid]
    while queue:
        pid = queue.pop()
        found.append(pid)
        for thread in threads(pid):
            queue += map(int, read(f"/proc/{pid}/task/{thread}/children").split())
    return sorted(found)


class Spent:
    """What processes have used so far; subtract an earlier one from a later one.

    `total` is the scheduler's own figure, in nanoseconds a thread (schedstat). It includes the network work that the
    kernel does in the thread's context. `user` and `system` come from /proc/PID/stat, in ticks of 10 ms.
    """

    def __init__(self, total=0.0, user=0.0, system=0.0, switches=0, threads=frozenset()):
        self.total, self.user, self.system, self.switches, self.threads = total, user, system, switches, threads

    @staticmethod
    def of(pids):
        spent, known = Spent(), set()
        for pid in pids:
            fields = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
            if len(fields) < 13:
                raise Gone(f"process {pid} has ended")
            spent.user += int(fields[11]) * TICK
            spent.system += int(fields[12]) * TICK
            for thread in threads(pid):
                known.add(thread)
                spent.total += int((read(f"/proc/{pid}/task/{thread}/schedstat").split() or ["0"])[0]) / 1e3
                status = read(f"/proc/{pid}/task/{thread}/status")
                spent.switches += sum(map(int, re.findall(r"ctxt_switches:\s*(\d+)", status)))
        spent.total = spent.total or spent.user + spent.system
        spent.threads = frozenset(known)
        return spent

    def __sub__(self, earlier):
        return Spent(
            self.total - earlier.total,
            self.user - earlier.user,
            self.system - earlier.system,
            self.switches - earlier.switches,
            earlier.threads - self.threads,  # those that ended meanwhile, and took their figures along
        )


def memory(pids):
    """KiB: resident, every process in full; and in proportion, what they share counted once."""
    resident = sum(int(n) for pid in pids for n in re.findall(r"VmRSS:\s*(\d+)", read(f"/proc/{pid}/status")))
    shared = sum(int(n) for pid in pids for n in re.findall(r"^Pss:\s*(\d+)", read(f"/proc/{pid}/smaps_rollup"), re.M))
    return resident, shared


def busy():
    """All cores together: busy, and stolen by the host."""
    values = list(map(int, read("/proc/stat").split("\n", 1)[0].split()[1:9]))
    user, nice, system, _idle, _wait, irq, softirq, steal = values
    return (user + nice + system + irq + softirq) * TICK, steal * TICK


def own():
    """This program and the children it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used) * 1e6


def wait_for_quiet(limit, most=0.25):
    """Waits until all cores together are busy for less than `most` of one, at most `limit` seconds.

    Gives how busy it was in the end, and how long was waited.
    """
    begin = time.monotonic()
    while True:
        before, _ = busy()
        since = time.monotonic()
        time.sleep(0.3)
        share = (busy()[0] - before) / 1e6 / (time.monotonic() - since)
        waited = time.monotonic() - begin
        if share < most or waited > limit:
            return share, waited


def cpu_model():
    found = re.search(r"model name\s*:\s*(.+)", read("/proc/cpuinfo"))
    return found[1].strip() if found else os.uname().machine


def memory_size():
    found = re.search(r"MemTotal:\s*(\d+)", read("/proc/meminfo"))
    return f"{int(found[1]) / 1048576:.0f} GiB" if found else "?"


def word():
    """A short name for this kind of machine: processor and number of cores."""
    model = re.sub(r"\((R|TM|r|tm)\)|\b(CPU|Processor|with|Radeon|Graphics)\b|@.*", " ", cpu_model())
    return "-".join(re.findall(r"[a-z0-9]+", model.lower())[:4] + [f"{CORES}-cores"])
