#!/usr/bin/env python3
"""A client whose every wait has a bound: sends requests, counts the answers, and says whether they are as expected.

    client.py spread ADDRESS:PORT (--count N | --seconds S) [--expect NAME=WEIGHT ...] [--sources ADDRESS ...]
                       [--keep-open] [--pause-ms P]
    client.py refused tcp|udp ADDRESS:PORT [--within-ms M]

`spread` sends HTTP requests one after the other, each on a new connection unless --keep-open. It fails when a request
fails, when an answer comes from a backend that is not expected, when the spread over the expected ones is not what
their weights say, or when the backends saw other source addresses than --sources. `refused` asks once and fails unless
the refusal (ICMP port unreachable, or a reset) comes within the bound. Both print one line and exit 0 or 1.
"""

import argparse
import http.client
import socket
import sys
import time
from collections import Counter

# The chi-squared statistic that a fair draw exceeds once in a million runs (about five standard deviations), for 1 to 7
# degrees of freedom. At 300 requests it still tells equal weights from 3:1 with certainty.
CHI_SQUARED_LIMITS = [23.93, 27.63, 30.66, 33.38, 35.89, 38.26, 40.52]

# Requests that may fail before the rest is not worth the wait.
FAILURE_LIMIT = 5


def chi_squared(answers, weights):
    """How far the answers lie from what the weights say, and how far they may."""
    total_weight, total = sum(weights.values()), sum(answers.values())
    statistic = sum(
        (answers[name] - total * weight / total_weight) ** 2 / (total * weight / total_weight)
        for name, weight in weights.items()
    )
    return statistic, CHI_SQUARED_LIMITS[len(weights) - 2]


def send_requests(options):
    """Counts answers, sources and failures, and finds the slowest request in milliseconds."""
    host, port = options.target
    answers, sources, failures, slowest_ms = Counter(), Counter(), Counter(), 0.0
    started = time.monotonic()
    connection = None
    while True:
        sent = answers.total() + failures.total()
        if options.count is not None and sent >= options.count:
            break
        if options.seconds is not None and time.monotonic() - started >= options.seconds:
            break
        asked = time.monotonic()
        try:
            if connection is None:
                connection = http.client.HTTPConnection(host, port, timeout=options.timeout_ms / 1000)
            connection.request("GET", "/")
            response = connection.getresponse()
            answers[response.read().decode().strip()] += 1
            sources[response.headers["X-Seen-From"]] += 1
        except (OSError, http.client.HTTPException) as error:
            failures[type(error).__name__] += 1
            # A kept-open connection that fails once has failed for good: a new one may reach another backend.
            if options.keep_open or failures.total() == FAILURE_LIMIT:
                break
        finally:
            # The client closes first, so TIME-WAIT is on its side, where the kernel avoids the port; on the server's
            # side a port that the gateway draws again within a minute could meet it.
            if not options.keep_open and connection is not None:
                connection.close()
                connection = None
        slowest_ms = max(slowest_ms, 1000 * (time.monotonic() - asked))
        time.sleep(options.pause_ms / 1000)
    return answers, sources, failures, slowest_ms


def listed(counter):
    return ", ".join(f"{name} {count}" for name, count in sorted(counter.items()))


def spread(options):
    answers, sources, failures, slowest_ms = send_requests(options)
    wrong = []
    line = f"{answers.total() + failures.total()} requests: {listed(answers) or 'no answer'}"
    if failures:
        wrong.append(f"failed: {listed(failures)}")
    if not answers:
        wrong.append("nobody answered")
    if options.expect:
        weights = dict(options.expect)
        strangers = sorted(set(answers) - set(weights))
        if strangers:
            wrong.append(f"not a backend of this service: {', '.join(strangers)}")
        if answers and len(weights) > 1:
            statistic, limit = chi_squared(answers, weights)
            line += f" (chi-squared {statistic:.1f}, may be {limit})"
            if statistic > limit:
                wrong.append("the spread is not what the weights say")
    if options.keep_open and len(answers) > 1:
        wrong.append("one connection was answered by several backends")
    if options.sources and set(sources) != set(options.sources):
        wrong.append(f"seen from {listed(sources)}, not from {', '.join(options.sources)}")
    elif sources:
        line += f"; seen from {', '.join(sorted(sources))}"
    line += f"; slowest {slowest_ms:.1f} ms"
    return line, wrong


def refused(options):
    kind = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}[options.protocol]
    asked = time.monotonic()
    with socket.socket(socket.AF_INET, kind) as asking:
        asking.settimeout(options.within_ms / 1000)
        try:
            asking.connect(options.target)
            if options.protocol == "udp":
                asking.send(b"?")
                asking.recv(512)
            outcome = "answered"
        except ConnectionRefusedError:
            outcome = "refused"
        except OSError as error:
            outcome = f"not refused: {error}"
    line = f"{options.protocol} {outcome} after {1000 * (time.monotonic() - asked):.1f} ms"
    return line, [] if outcome == "refused" else [f"expected a refusal within {options.within_ms} ms"]


def target(text):
    host, _, port = text.rpartition(":")
    return host, int(port)


def weighted(text):
    name, _, weight = text.partition("=")
    return name, int(weight)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("spread")
    command.set_defaults(run=spread)
    command.add_argument("target", type=target, metavar="ADDRESS:PORT")
    length = command.add_mutually_exclusive_group(required=True)
    length.add_argument("--count", type=int)
    length.add_argument("--seconds", type=float)
    command.add_argument("--expect", type=weighted, nargs="+", default=[], metavar="NAME=WEIGHT")
    command.add_argument("--sources", nargs="+", default=[], metavar="ADDRESS")
    command.add_argument("--keep-open", action="store_true")
    command.add_argument("--pause-ms", type=float, default=0)
    # Above the kernel's first retransmissions of a SYN (1 s, then 2 s): a packet lost once shows as a slow request, and
    # one that never comes as a failure.
    command.add_argument("--timeout-ms", type=int, default=2500)
    command = commands.add_parser("refused")
    command.set_defaults(run=refused)
    command.add_argument("protocol", choices=["tcp", "udp"])
    command.add_argument("target", type=target, metavar="ADDRESS:PORT")
    # Below the first retransmission: a refusal that needs a second try was not given at once.
    command.add_argument("--within-ms", type=int, default=800)
    return parser.parse_args()


def main():
    options = arguments()
    line, wrong = options.run(options)
    print("; ".join([line, *wrong]))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
