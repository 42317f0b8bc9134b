"""The picture of a run: one row a scenario, a bar for each of two rivals, readable on light and dark."""

from .report import digits

WIDTH, LEFT, ROW, TOP = 840, 330, 40, 62
SCALE = (WIDTH - LEFT - 90) / 1.2  # pixels of ratio 1


def draw(ratios, rivals=("nginx-sid", "haproxy-sid"), versions=None):
    """`ratios` of `report.Ratio`; footnotes and comparisons of Reeve with itself are not drawn."""
    rows = {}
    for ratio in ratios:
        if ratio.comparison.to in rivals and ratio.comparison.arm == "reeve":
            rows.setdefault(ratio.scenario, {})[ratio.comparison.to] = ratio
    height = TOP + ROW * len(rows) + 46
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'role="img" aria-labelledby="title">',
        "<title id=\"title\">CPU time per request of Reeve, divided by that of nginx and of HAProxy</title>",
        "<style>text{font:13px system-ui,sans-serif;fill:#24292f}.small{font-size:11px;fill:#57606a}"
        ".nginx{fill:#2f81b7}.haproxy{fill:#c4642c}.axis{stroke:#57606a;stroke-width:1}.one{stroke:#57606a;"
        "stroke-width:1;stroke-dasharray:3 3}.whisker{stroke:#24292f;stroke-width:1.5}.goal{stroke:#1a7f37;"
        "stroke-width:2}@media (prefers-color-scheme:dark){text{fill:#e6edf3}.small{fill:#9198a1}.nginx{fill:#58a6d6}"
        ".haproxy{fill:#e08a54}.axis,.one{stroke:#9198a1}.whisker{stroke:#e6edf3}.goal{stroke:#3fb950}}</style>",
        text(12, 22, "CPU time per request, divided by the rival's in the same round: less than 1 is cheaper"),
    ]
    x = 12
    for rival in rivals:
        name = (versions or {}).get(rival, rival)
        kind = rival.partition("-")[0]
        lines.append(f'<rect class="{kind}" x="{x}" y="34" width="12" height="12"/>')
        lines.append(text(x + 18, 45, f"to {name}"))
        x += 200
    lines.append(f'<line class="goal" x1="{x}" x2="{x}" y1="33" y2="47"/>')
    lines.append(text(x + 8, 45, "what was aimed for"))
    bottom = TOP + ROW * len(rows)
    for mark in (0, 0.25, 0.5, 0.75, 1.0):
        at = LEFT + mark * SCALE
        kind = "one" if mark == 1 else "axis"
        reach = (TOP, bottom) if mark in (0, 1) else (bottom, bottom + 4)
        lines.append(f'<line class="{kind}" x1="{at:.0f}" x2="{at:.0f}" y1="{reach[0]}" y2="{reach[1]}"/>')
        lines.append(text(at, bottom + 18, f"{mark:g}", "small", "middle"))
    for number, (scenario, found) in enumerate(rows.items()):
        y = TOP + ROW * number
        lines.append(text(LEFT - 10, y + 23, shorten(scenario.title), "", "end"))
        for place, rival in enumerate(rivals):
            if rival in found:
                lines += one(found[rival], rival.partition("-")[0], y + 6 + 15 * place)
    lines.append(text(12, height - 10, "Whiskers: lowest and highest round.", "small"))
    return "\n".join([*lines, "</svg>", ""])


def one(ratio, kind, y):
    width = min(ratio.median, 1.2) * SCALE
    low, high = (LEFT + min(value, 1.2) * SCALE for value in (min(ratio.rounds), max(ratio.rounds)))
    lines = [f'<rect class="{kind}" x="{LEFT}" y="{y}" width="{max(width, 1):.1f}" height="12"/>']
    if high - low > 1:
        lines.append(f'<line class="whisker" x1="{low:.1f}" x2="{high:.1f}" y1="{y + 6}" y2="{y + 6}"/>')
    goal = LEFT
    if ratio.comparison.bar is not None:
        goal = LEFT + min(ratio.comparison.bar, 1.2) * SCALE
        lines.append(f'<line class="goal" x1="{goal:.1f}" x2="{goal:.1f}" y1="{y - 1}" y2="{y + 13}"/>')
    lines.append(text(max(LEFT + width, high, goal) + 6, y + 11, digits(ratio.median), "small"))
    return lines


def shorten(title):
    return title.replace("HTTP/1.1 ", "").replace(", 200,000 targets", "").replace(", rivals tuned", "")


def text(x, y, words, kind="", anchor=""):
    words = words.replace("&", "&amp;").replace("<", "&lt;")
    kind = f' class="{kind}"' if kind else ""
    anchor = f' text-anchor="{anchor}"' if anchor else ""
    return f'<text x="{x:.0f}" y="{y:.0f}"{kind}{anchor}>{words}</text>'
