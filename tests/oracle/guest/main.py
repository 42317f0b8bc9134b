"""Runs in the oracle's machine: builds the network, feeds IPVS and then Reeve, prints what each did."""

import sys
import time
import traceback

import choices
import costs
import farm


def main(what, most, wanted):
    print("oracle: the machine is up", flush=True)
    wires = farm.build()
    if "costs" in what:
        costs.plain()
    before = {}
    for kind in [farm.Ipvs, farm.Reeve]:
        begun = time.monotonic()
        director = kind()
        if "choices" in what:
            before = choices.trials(director, wires, wanted, before)
        if "costs" in what:
            # IPVS's table of 4,096 lists is no place for a million.
            costs.of(director, min(int(most), 100_000) if director.name == "ipvs" else int(most))
            if director.name == "ipvs":
                costs.slab()
        director.close()
        print(f"oracle: {director.name} took {time.monotonic() - begun:.0f} s of the machine's time", flush=True)
    print("oracle: complete", flush=True)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except BaseException:
        traceback.print_exc()
