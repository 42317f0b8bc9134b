"""What came of a run: the table, the rows, the circumstances."""

import csv
import os
import statistics
from dataclasses import dataclass

from . import machine
from .measure import COLUMNS, FOREIGN
from .scenarios import TOLERANCE


@dataclass
class Ratio:
    """One contender's CPU time divided by another's, round by round."""

    scenario: object
    comparison: object
    rounds: list

    @property
    def median(self):
        return statistics.median(self.rounds)

    @property
    def met(self):
        bar = self.comparison.bar
        return None if bar is None else self.median <= bar + TOLERANCE


def digits(number):
    """Two decimals, more where a number is small."""
    if number >= 0.095 or number == 0:
        return f"{number:.2f}"
    return f"{number:.3f}" if number >= 0.0095 else f"{number:.2g}"


def ratios(scenario, comparisons, rows):
    """Same-round ratios of the rows that count."""
    cpu = {(row["contender"], row["round"]): row["cpu_us"] for row in rows if row["kept"] and row.get("cpu_us")}
    found = []
    for pair in comparisons:
        rounds = sorted({turn for _, turn in cpu})
        values = [cpu[pair.arm, turn] / cpu[pair.to, turn] for turn in rounds
                  if (pair.arm, turn) in cpu and (pair.to, turn) in cpu]
        if values:
            found.append(Ratio(scenario, pair, values))
    return found


def verdict(met):
    return {None: "", True: "met", False: "**not met**"}[met]


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "|".join(["---"] + ["---:"] * (len(head) - 1)) + "|"]
    return lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows] + [""]


def middle(rows, column):
    return statistics.median(row[column] for row in rows if row.get(column) is not None)


class Report:
    """Gathers rows and ratios, prints as they come, and writes the folder."""

    def __init__(self, options, peers):
        self.options, self.peers = options, peers
        self.scenarios, self.rows, self.ratios, self.missing, self.bars = [], [], [], [], []
        self.failed = False

    def keep(self, row):
        self.rows.append(row)
        if self.options.verbose and "cpu_us" in row:
            print(f"    {row['contender']:24} {row['cpu_us']:10.2f} us  {row['rps']:9.0f}/s  used {row['utilisation']:.2f}"
                  f"  others {row['foreign']:.2f}  errors {row['errors']} {row['first_error']}", flush=True)

    def add(self, scenario, arms, failures, left_out):
        rows = [row for row in self.rows if row["scenario"] == scenario.name]
        found = ratios(scenario, scenario.comparisons(arms), rows)
        self.scenarios.append(scenario)
        self.ratios += found
        self.failed = self.failed or bool(failures)
        self.missing += [(scenario.name, name, why) for name, why in [*failures.items(), *left_out]]
        text = "\n".join(self.section(scenario, arms, rows, found))
        print(text, flush=True)

    def section(self, scenario, arms, rows, found):
        """One scenario as Markdown."""
        lines = [f"### {scenario.name}: {scenario.title}", ""]
        kept = {arm.name: [row for row in rows if row["contender"] == arm.name and row["kept"]] for arm in arms}
        kept = {name: rows for name, rows in kept.items() if rows}
        if scenario.kind == "idle":
            body = []
            for name, mine in kept.items():
                each = middle(mine, "kib_a_connection")
                if name == "reeve":
                    self.bar(scenario, "KiB a connection", scenario.limit, each, each <= scenario.limit)
                body.append([name, f"{each:.2f}", f"{middle(mine, 'rss_kib') / 1024:.1f}",
                             f"{middle(mine, 'pss_kib') / 1024:.1f}", max(row["errors"] for row in mine)])
            return lines + table(["", "KiB a connection", "RSS MiB", "PSS MiB", "errors"], body)
        if scenario.kind == "spread":
            body = []
            for name, mine in kept.items():
                worst = max(row["spread"] for row in mine)
                self.bar(scenario, "from the mean", scenario.limit, worst, worst <= scenario.limit)
                body.append([name, f"{middle(mine, 'spread'):.1%}", f"{worst:.1%}", max(row["errors"] for row in mine)])
            return lines + table(["", "from the mean", "at most", "errors"], body)
        body = []
        for name, mine in kept.items():
            body.append([
                name, digits(middle(mine, "cpu_us")), f"{middle(mine, 'rps'):,.0f}", f"{middle(mine, 'p50_us'):,.0f}",
                f"{middle(mine, 'rss_kib') / 1024:.1f}", f"{middle(mine, 'utilisation'):.2f}",
                f"{middle(mine, 'switches'):.2f}", f"{max(row['foreign'] for row in mine):.2f}",
                sum(row["errors"] for row in mine)])
        lines += table(["", f"CPU us a {scenario.unit}", "a second", "p50 us", "RSS MiB", "cores used", "switches",
                        "others' cores, at most", "errors"], body)
        body = []
        for ratio in found:
            pair = ratio.comparison
            if pair.bar is not None:
                self.bar(scenario, f"{pair.arm} / {pair.to}", pair.bar, ratio.median, ratio.met)
            body.append([f"{pair.arm} / {pair.to}", f"**{digits(ratio.median)}**",
                         f"{digits(min(ratio.rounds))}-{digits(max(ratio.rounds))}",
                         "" if pair.bar is None else pair.bar, verdict(ratio.met)])
        return lines + table(["CPU, same round", "median", "spread", "bar", ""], body)

    def bar(self, scenario, what, bar, value, met):
        entry = (scenario.name, what, bar, value, met)
        if entry not in self.bars:
            self.bars.append(entry)

    def errors(self):
        return sum(row["errors"] for row in self.rows)

    def write(self, folder, facts, commands, files, picture):
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "visits.csv", "w", newline="") as out:
            writer = csv.DictWriter(out, COLUMNS, restval="")
            writer.writeheader()
            for row in self.rows:
                writer.writerow({key: f"{value:.5g}" if isinstance(value, float) else value for key, value in row.items()})
        (folder / "commands.txt").write_text("".join(f"{line}\n" for line in commands))
        for name, text in files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text)
        (folder / "ratios.svg").write_text(picture)
        (folder / "summary.md").write_text("\n".join(self.summary(facts)))

    def summary(self, facts):
        lines = ["# Reeve beside its rivals", "", "![CPU time per request, divided by the rivals'](ratios.svg)", ""]
        lines += table(["", ""], [[key, value] for key, value in facts.items()])
        lines += [
            "CPU time is that of the whole process tree, user and kernel, by the scheduler's own account, divided by the "
            "requests that the origin answered. A ratio belongs to two visits of the same round; its spread is shown. "
            f"A bar is met up to {TOLERANCE} above it. Reeve runs with 1,000 mixed rules unless a scenario names its "
            "own, health checks, metrics, a JSON access log in a file, and every timeout; the rivals only relay.", ""]
        if self.options.quick:
            lines += ["A quick run: one short round a scenario. It shows that everything works, not how fast it is.", ""]
        disturbed = sum(1 for row in self.rows if row["kept"] and row.get("foreign", 0) > FOREIGN)
        if disturbed:
            lines += [f"{disturbed} of the visits that count were disturbed: others used over {FOREIGN} cores.", ""]
        lines += ["## Bars", ""]
        lines += table(["scenario", "what", "bar", "measured", ""],
                       [[name, what, bar, digits(value), verdict(met)] for name, what, bar, value, met in self.bars])
        lines += ["## Scenarios", ""]
        # The bars are gathered once; sections are written again from the same rows.
        for scenario in self.scenarios:
            arms = scenario.arms(self.peers)
            rows = [row for row in self.rows if row["scenario"] == scenario.name]
            found = [ratio for ratio in self.ratios if ratio.scenario is scenario]
            lines += self.section(scenario, arms, rows, found)
        lines += ["## Left out", ""]
        lines += [f"- `{name}`: {who}: {why}" for name, who, why in self.missing]
        return [*lines, ""]


def facts(programs, peers, reeve_version, tools_version):
    """The circumstances of a run."""
    import platform

    found = {
        "machine": f"{machine.cpu_model()}, {machine.CORES} cores, {machine.memory_size()}",
        "kernel": f"Linux {platform.release()}",
        "system": next((line.partition("=")[2].strip('"') for line in machine.read("/etc/os-release").splitlines()
                        if line.startswith("PRETTY_NAME=")), "?"),
        "reeve": reeve_version,
        "built with": tools_version,
    }
    for peer in peers:
        if peer != "reeve":
            found[peer] = programs.version(peer)
    found["load on entering"] = f"{os.getloadavg()[0]:.2f}"
    return found
