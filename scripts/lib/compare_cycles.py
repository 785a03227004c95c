"""Says for each load whether one build is faster than the other by more than the noise.

compare_cycles.py BASE.txt... -- CURRENT.txt...: what `cycles` printed, one file a round, the rounds in order.
Exit status: 0 nothing is slower, 1 something is, 2 the files do not fit together.
"""

import re
import statistics
import sys

# Below this nothing is believed, however quiet the rounds were: code that only moved in memory does as much.
LEAST_NOISE = 0.01


def read(path):
    """Median cycles a packet by load, flows and services. A row: `load flows services min / median / max ...`."""
    rows = {}
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            row = re.match(r"(\S+)\s+(\d+)\s+(\d+)\s+[\d.]+ / ([\d.]+) / [\d.]+", line)
            if row:
                rows[row.group(1, 2, 3)] = float(row.group(4))
    return rows


def error(values):
    """Two standard errors of the median of values, relative to it. From the median absolute deviation, so that one bad
    round does not widen it; 1.4826: that to sigma of a normal distribution; 1.2533: a median's error to a mean's."""
    middle = statistics.median(values)
    deviation = statistics.median(abs(value - middle) for value in values)
    return 2 * 1.4826 * 1.2533 * deviation / middle / len(values) ** 0.5


def noise(pairs):
    """How much the ratios differ from round to round, or each build from itself, whichever is more: a machine that is
    busy now and then can make a few ratios agree by chance."""
    before, after = zip(*pairs)
    ratios = [now / then for then, now in pairs]
    return max(LEAST_NOISE, error(ratios), (error(before) ** 2 + error(after) ** 2) ** 0.5)


def verdict(ratios, change, limit):
    """A change must be beyond the noise, and at least four of five rounds must agree about its direction."""
    agreeing = sum((ratio > 1) == (change > 0) for ratio in ratios)
    if abs(change) <= limit or agreeing * 5 < len(ratios) * 4:
        return "no difference"
    return "slower" if change > 0 else "faster"


def main(arguments):
    split = arguments.index("--")
    base, current = ([read(path) for path in paths] for paths in (arguments[:split], arguments[split + 1 :]))
    kinds = [kind for kind in current[0] if all(kind in rows for rows in base + current)]
    if not kinds or len(base) != len(current):
        print("the two builds have no load in common", file=sys.stderr)
        return 2
    print(f"{'load':16} {'flows':>9} {'services':>9} {'base':>7} {'now':>7} {'change':>8} {'noise':>8}  verdict"
          "          ratio of each round")
    slower = 0
    for kind in kinds:
        pairs = [(before[kind], after[kind]) for before, after in zip(base, current)]
        ratios = [after / before for before, after in pairs]
        change, limit = statistics.median(ratios) - 1, noise(pairs)
        word = verdict(ratios, change, limit)
        slower += word == "slower"
        before, after = (statistics.median(side) for side in zip(*pairs))
        print(f"{kind[0]:16} {kind[1]:>9} {kind[2]:>9} {before:7.0f} {after:7.0f} {change:+8.1%} {limit:8.1%}"
              f"  {word:15}  {' '.join(f'{ratio:.3f}' for ratio in ratios)}")
    left_out = {kind[0] for rows in base + current for kind in rows} - {kind[0] for kind in kinds}
    if left_out:
        print(f"only one of the two builds has: {', '.join(sorted(left_out))}")
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
