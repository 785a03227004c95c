"""Appends one measurement to a CSV file and says it in a line.

record.py RESULTS.csv KEY=VALUE...: `trial` is a file with the generator's JSON (docs/pktgen.md); `counted` packets came out of
a device whose packets the generator does not get back, whose core was busy for `softirq` hundredths of a second; `mpps` stands for a trial where there is none; `status` is why there
is nothing to measure. Exit status 1 when packets came back that were wrong, or none.
"""

import csv
import json
import os
import sys

COLUMNS = ["round", "system", "load", "flows", "services", "purpose", "status", "share_percent", "asked_mpps", "sent_mpps",
           "mpps", "loss_ratio", "faults", "cycles", "busy", "p50_us", "p99_us", "p99_9_us"]


def from_trial(values):
    with open(values.pop("trial"), encoding="utf-8") as file:
        trial = json.load(file)["result"]
    row = {
        "asked_mpps": f"{trial['rate_asked'] / 1e6:.4f}" if trial["rate_asked"] else "",
        "sent_mpps": f"{trial['sent_pps'] / 1e6:.4f}",
        "faults": sum(trial["faults"].values()),
    }
    counted = values.pop("counted", None)
    if counted is not None:
        # None comes back, so nothing is known of latency.
        row["mpps"] = f"{int(counted) / trial['seconds'] / 1e6:.4f}"
        row["busy"] = f"{min(1, int(values.pop('softirq')) / 100 / trial['seconds']):.2f}"
        row["loss_ratio"] = f"{max(0, 1 - int(counted) / max(1, trial['sent'])):.6f}"
        return row, trial
    row["mpps"] = f"{trial['received_pps'] / 1e6:.4f}"
    row["loss_ratio"] = f"{trial['loss_ratio']:.6f}"
    for name in ("p50_us", "p99_us", "p99_9_us"):
        row[name] = f"{trial['latency'][name]:.1f}"
    return row, trial


def line(row):
    text = f"  {row['system']:20} {row['load']:13} {int(row['flows']):>9,} flows {int(row['services']):>5,} services"
    if row["status"] != "ok":
        return f"{text}  {row['status']}"
    if row["load"] != "calibration":
        text += f" {float(row['mpps']):9.3f} Mpps"
    if row.get("asked_mpps"):
        text += f" of {float(row['asked_mpps']):.3f}"
    if row.get("loss_ratio"):
        text += f", lost {float(row['loss_ratio']):.2%}"
    if row.get("busy"):
        text += f", core busy {float(row['busy']):.0%}"
    if row.get("p50_us"):
        text += f", p50 {row['p50_us']} µs, p99 {row['p99_us']} µs"
    if row.get("cycles"):
        text += f", {float(row['cycles']):.2f} cycles"
    return text


def main(path, settings):
    values = dict(setting.split("=", 1) for setting in settings)
    row, trial = from_trial(values) if "trial" in values else ({}, None)
    row.update(values)
    row.setdefault("purpose", "throughput")
    row.setdefault("status", "ok")
    if row["status"] == "ok" and row["system"] != "machine" and float(row["mpps"]) == 0:
        row["status"] = "failed: nothing came back"
    unknown = set(row) - set(COLUMNS)
    if unknown:
        raise SystemExit(f"record.py: no such column: {', '.join(sorted(unknown))}")
    if row.get("faults"):
        row["status"] = f"{row['faults']} packets came back wrong: {', '.join(trial['faults'])}"
    is_new = not os.path.exists(path)
    with open(path, "a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if is_new:
            writer.writeheader()
        writer.writerow(row)
    print(line(row), flush=True)
    if row.get("faults"):
        print(f"  WRONG: {trial['faults']} {trial.get('examples', [])[:1]}", flush=True)
    # Why it failed otherwise is known to the caller.
    return 1 if row["status"] != "ok" and "status" not in values else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
