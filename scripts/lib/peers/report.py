"""Tables of what scripts/bench-peers.sh measured: minimum, median and maximum over the rounds, and ratios round by round.

report.py RESULTS.csv RATIOS.csv: tables on standard output; each ratio with its round in RATIOS.csv. Exit status 1 when a
row was measured in no round.
"""

import csv
import statistics
import sys
from collections import defaultdict

REFERENCE = "pollgate"
# What the link and the generator can do, by the load whose frames have the same size.
CEILING = "testpmd-macswap"
TITLES = {
    "link": "the link and the generator alone: frames go back as they came (io) or with their MAC addresses exchanged",
    "link-1500": "the same with packets of 1,500 bytes",
    "plain": "VXLAN, route, VXLAN",
    "dnat": "DNAT, established flows",
    "dnat-1500": "DNAT, established flows, packets of 1,500 bytes",
    "new": "DNAT, every packet a new connection",
    "null-macswap": "on net_null: MAC addresses exchanged, no packet moved",
    "null-fill": "on net_null: a frame written into each buffer",
    "null-nat": "on net_null: a frame written into each buffer and translated",
}


def read(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def triple(values, digits):
    values = sorted(values)
    return " / ".join(f"{value:.{digits}f}" for value in (values[0], statistics.median(values), values[-1]))


def key_of(row):
    return row["load"], int(row["flows"]), int(row["services"])


def throughput(rows):
    """Rows by load (with flows and services), then system, then round: the best of a round's trials."""
    found = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        if row["purpose"] != "throughput" or row["load"] == "calibration":
            continue
        rounds, number = found[key_of(row)][row["system"]], int(row["round"])
        if row["status"] == "ok" and float(row["mpps"]) > float(rounds.get(number, {}).get("mpps", 0)):
            rounds[number] = row
    return found


def ceiling_of(load, found):
    if load.startswith(("link", "null")):
        return {}
    wanted = "link-1500" if load.endswith("-1500") else "link"
    return next((systems.get(CEILING, {}) for key, systems in found.items() if key[0] == wanted), {})


def title(load, flows, services):
    text = TITLES.get(load, load)
    if flows and not load.startswith("link"):
        text += f"; {flows:,} flows"
    if load.startswith(("dnat", "new")):
        text += f", {services:,} services"
    return text


def print_system(system, rounds):
    rates = [float(row["mpps"]) for row in rounds.values()]
    losses = [float(row["loss_ratio"]) for row in rounds.values() if row["loss_ratio"]]
    cycles = [float(row["cycles"]) for row in rounds.values() if row["cycles"]]
    busy = [float(row["busy"]) for row in rounds.values() if row["busy"]]
    line = f"  {system:22} {triple(rates, 3):>26}"
    line += f"   lost {statistics.median(losses):6.2%}" if losses else ""
    line += f"   {statistics.median(cycles):.0f} cycles a packet, as it says itself" if cycles else ""
    line += f"   core busy {statistics.median(busy):.0%}" if busy else ""
    print(line)


def ratios_of(ours, others):
    common = sorted(number for number in set(others) & set(ours) if float(others[number]["mpps"]) > 0)
    return [(number, float(ours[number]["mpps"]) / float(others[number]["mpps"])) for number in common]


def print_throughput(found):
    """Also gives the ratios, as rows, and whether each system was measured at least once."""
    print("Mpps on one core: minimum / median / maximum of the rounds")
    rows, complete = [], True
    for key, systems in found.items():
        print(f"\n{title(*key)}")
        for system, rounds in systems.items():
            if rounds:
                print_system(system, rounds)
            else:
                complete = False
                print(f"  {system:22} {'not measured':>26}")
        ours = systems.get(REFERENCE, {})
        others = {system: rounds for system, rounds in systems.items() if system != REFERENCE}
        others.setdefault(CEILING, ceiling_of(key[0], found))
        for system, rounds in others.items():
            ratios = ratios_of(ours, rounds)
            if not ratios:
                continue
            by_round = ", ".join(f"{ratio:.2f}" for _, ratio in ratios)
            middle = statistics.median(ratio for _, ratio in ratios)
            print(f"  {REFERENCE} / {system:22} {middle:8.2f}   by round: {by_round}")
            rows += [{"round": number, "load": key[0], "flows": key[1], "services": key[2], "system": system,
                      "ratio": f"{ratio:.4f}"} for number, ratio in ratios]
    return rows, complete


def latencies(rows):
    """Rows by system and by the part of its own throughput that was offered, in percent."""
    points = defaultdict(list)
    for row in rows:
        if row["purpose"] == "latency" and row["status"] == "ok":
            points[row["system"], int(row["share_percent"])].append(row)
    return points


def print_latency(points):
    if points:
        print("\nLatency in microseconds, p50 / p99 / p99.9, 64 bytes, 64,000 flows; medians over the rounds")
    for (system, share), group in sorted(points.items()):
        middle = {name: statistics.median(float(row[name]) for row in group)
                  for name in ("asked_mpps", "sent_mpps", "p50_us", "p99_us", "p99_9_us", "loss_ratio")}
        # The kernel's rate was counted where packets leave it; here they also come back.
        at = f"{share // 2 if system.startswith('kernel') else share} % of its throughput"
        print(f"  {system:18} at {at:22} {middle['sent_mpps']:8.3f} of {middle['asked_mpps']:.3f} Mpps offered"
              f"  {middle['p50_us']:8.1f} / {middle['p99_us']:8.1f} / {middle['p99_9_us']:8.1f}"
              f"  lost {middle['loss_ratio']:.2%}")


def print_misses(rows):
    """What was not measured, or came back wrong, and in which rounds."""
    misses = defaultdict(list)
    for row in rows:
        if row["status"] != "ok":
            purpose = "" if row["purpose"] == "throughput" else f", {row['purpose']}"
            misses[f"{row['system']}, {title(*key_of(row))}{purpose}: {row['status']}"].append(row["round"])
    if misses:
        print("\nNot measured, or wrong")
    for words, numbers in misses.items():
        print(f"  round {', '.join(numbers)}: {words}")


def main(results, ratios_file):
    rows = read(results)
    steps = [float(row["cycles"]) for row in rows if row["load"] == "calibration"]
    if steps:
        print(f"Calibration, TSC cycles a step: {triple(steps, 2)} (the core's clock against its TSC; it should not move)\n")
    ratios, complete = print_throughput(throughput(rows))
    print_latency(latencies(rows))
    print_misses(rows)
    checked = sum(1 for row in rows if row["faults"] != "")
    print(f"\nPackets that came back wrong: {sum(int(row['faults'] or 0) for row in rows)}, in {checked} trials")
    with open(ratios_file, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["round", "load", "flows", "services", "system", "ratio"])
        writer.writeheader()
        writer.writerows(ratios)
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
