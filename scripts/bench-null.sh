#!/usr/bin/env bash
# What a packet costs the real binary: one worker on one core, frames that DPDK's net_pcap receives from memory for ever.
#
#   scripts/bench-null.sh [--seconds N] [--rounds N] [LOAD:FLOWS...]
#
# LOAD is dnat, masquerade or plain (benches/support/mod.rs says what each is), FLOWS any number. Prints TSC cycles a
# packet, device and loop included, and beside each round a calibration loop, since machines drift. Takes no root, no
# hugepages and no device; runs on the cores 0 (control) and 1 (worker). Ends only what it started, cleans up always.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib/packages.sh
source scripts/lib/packages.sh

SECONDS_EACH=3 ROUNDS=3 LOADS=()
while [ $# -gt 0 ]; do
    case $1 in
    --seconds) SECONDS_EACH=${2:?a number of seconds is wanted} && shift 2 ;;
    --rounds) ROUNDS=${2:?a number of rounds is wanted} && shift 2 ;;
    --help | -h) sed -n '2,9s/^# \{0,1\}//p' "$0" && exit 0 ;;
    dnat:[1-9]* | masquerade:[1-9]* | plain:[1-9]*) LOADS+=("$1") && shift ;;
    *) echo "not understood: $1 (--help tells)" >&2 && exit 2 ;;
    esac
done
[ ${#LOADS[@]} -gt 0 ] || LOADS=(plain:1000 plain:64000 dnat:1000 dnat:64000 masquerade:64000)

FOLDER=$(mktemp -d)
GATEWAY=
clean_up() {
    [ -z "$GATEWAY" ] || kill "$GATEWAY" 2>/dev/null || true
    [ -z "$GATEWAY" ] || wait "$GATEWAY" 2>/dev/null || true
    rm -rf "$FOLDER"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

install_to_build
install_missing python3:python3
BINARY=${POLLGATE_BINARY:-}
if [ -z "$BINARY" ]; then
    echo "building pollgate in release mode, which takes some minutes the first time"
    cargo build --release --locked --quiet -p pollgate
    BINARY=${CARGO_TARGET_DIR:-target}/release/pollgate
fi
# With the same features as the binary, which cargo builds along.
cycles() { cargo bench --locked --quiet -p pollgate --bench cycles -- "$@"; }
echo "building what makes the frames, which takes some minutes the first time"
cycles --calibrate >/dev/null

# worker_packets: packets so far, and the moment, from the gateway itself.
worker_packets() {
    "$BINARY" show workers --socket "$FOLDER/control.sock" --json |
        python3 -c 'import json, sys, time; w = json.load(sys.stdin)["rows"]
print(w[0]["packets"], time.monotonic_ns())'
}

# one LOAD FLOWS: starts the gateway, lets it see every flow, measures, stops it.
one() {
    local load=$1 flows=$2 rate before after
    rate=$(cycles --load "$load" --flows "$flows" --prepare "$FOLDER")
    "$BINARY" run --config "$FOLDER/pollgate.toml" --log-level warn >"$FOLDER/summary" 2>"$FOLDER/log" &
    GATEWAY=$!
    for _ in $(seq 100); do
        worker_packets >/dev/null 2>&1 && break
        kill -0 "$GATEWAY" 2>/dev/null || { cat "$FOLDER/log" >&2 && exit 1; }
        sleep 0.1
    done
    sleep 1
    for _ in $(seq "$ROUNDS"); do
        before=$(worker_packets)
        sleep "$SECONDS_EACH"
        after=$(worker_packets)
        python3 - "$rate" "$before" "$after" "$load" "$flows" "$(cycles --calibrate)" <<'PYTHON'
import sys
rate, load, flows, step = float(sys.argv[1]), *sys.argv[4:7]
packets, elapsed = (int(b) - int(a) for a, b in zip(sys.argv[2].split(), sys.argv[3].split()))
print(f"{load:12} {flows:>8} flows  {rate * elapsed / 1e9 / packets:7.1f} cycles  {packets / elapsed * 1e3:6.2f} Mpps"
      f"  (TSC {rate / 1e9:.3f} GHz, calibration {float(step):.2f} cycles a step)")
PYTHON
    done
    kill -TERM "$GATEWAY"
    wait "$GATEWAY" || { cat "$FOLDER/summary" "$FOLDER/log" >&2 && exit 1; }
    GATEWAY=
    grep -E '^(accounting|buffers)' "$FOLDER/summary" | sed 's/^/    /'
}

for load in "${LOADS[@]}"; do
    one "${load%%:*}" "${load##*:}"
done
