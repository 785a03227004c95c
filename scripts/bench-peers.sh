#!/usr/bin/env bash
# Pollgate beside dpdk-testpmd, Open vSwitch on DPDK, the kernel with kube-proxy's rules, and capsule: the same packets from
# the same generator, in turn, round after round, on one core each. Needs root on Debian 12 or later and two cores that nothing
# else uses; installs what is missing.
#
#   scripts/bench-peers.sh [--quick] [--rounds N] [--cores GENERATOR,DEVICE] [--out FOLDER]
#
# Three rounds in 20 minutes after the build; --quick: fewer loads, shorter trials, 5 minutes. Writes machine.txt,
# results.csv, ratios.csv, summary.txt and peers.svg to FOLDER (target/bench-peers). Everything runs in namespaces and
# folders of its own; hugepages and connection tracking's bounds are put back; whatever was started is ended, also on Ctrl-C.
# Exit status: 0 when all was measured, 1 when something failed, came back wrong or was never measured for want of time, 2
# when nothing could run. docs/peers.md tells how to read the results. POLLGATE_BINARY, PKTGEN_BINARY, CAPSULE_BINARY,
# NULL_FORWARD_BINARY and CYCLES_BINARY name programs to use instead of building them.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2
# shellcheck source=scripts/lib/packages.sh
source scripts/lib/packages.sh
# shellcheck source=scripts/lib/peers/common.sh
source scripts/lib/peers/common.sh
# shellcheck source=scripts/lib/peers/testpmd.sh
source scripts/lib/peers/testpmd.sh
# shellcheck source=scripts/lib/peers/pollgate.sh
source scripts/lib/peers/pollgate.sh
# shellcheck source=scripts/lib/peers/ovs.sh
source scripts/lib/peers/ovs.sh
# shellcheck source=scripts/lib/peers/kernel.sh
source scripts/lib/peers/kernel.sh
# shellcheck source=scripts/lib/peers/null.sh
source scripts/lib/peers/null.sh
# shellcheck source=scripts/lib/peers/rounds.sh
source scripts/lib/peers/rounds.sh

GENERATOR_CORE=0 DEVICE_CORE=1 ROUNDS=3 QUICK='' OUTPUT=target/bench-peers
# 1.5 GiB: Open vSwitch takes a third of it, the generator and one gateway a tenth each.
HUGEPAGES=768

fail() {
    echo "bench-peers: $*" >&2
    exit 2
}

read_arguments() {
    local core
    while [ $# -gt 0 ]; do
        case $1 in
        --help | -h) sed -n '2,16s/^# \{0,1\}//p' scripts/bench-peers.sh && exit 0 ;;
        --quick) QUICK=yes && shift ;;
        --rounds) ROUNDS=${2:-} && shift $(($# > 1 ? 2 : 1)) ;;
        --cores) IFS=, read -r GENERATOR_CORE DEVICE_CORE <<<"${2:-}" && shift $(($# > 1 ? 2 : 1)) ;;
        --out) OUTPUT=${2:-} && shift $(($# > 1 ? 2 : 1)) ;;
        *) fail "not understood: $1 (--help tells)" ;;
        esac
    done
    [[ $ROUNDS =~ ^[1-9]$ ]] || fail "--rounds wants a number of 1 to 9"
    [[ $GENERATOR_CORE =~ ^[0-9]+$ && $DEVICE_CORE =~ ^[0-9]+$ && $GENERATOR_CORE != "$DEVICE_CORE" ]] ||
        fail "--cores wants two different cores, as in 0,1"
    for core in "$GENERATOR_CORE" "$DEVICE_CORE"; do
        [ -d "/sys/devices/system/cpu/cpu$core" ] || fail "there is no core $core"
    done
    [ -n "$OUTPUT" ] || fail "--out wants a folder"
    if [ -n "$QUICK" ]; then TRIAL_S=1 LIMIT_S=300; else TRIAL_S=2 LIMIT_S=1200; fi
}

install_all() {
    [ "$(id -u)" = 0 ] || fail "makes network namespaces and reserves hugepages, which needs root: sudo $0"
    install_to_build || fail "could not install what is missing"
    install_missing python3:python3 ip:iproute2 bridge:iproute2 ethtool:ethtool nft:nftables iptables:iptables \
        conntrack:conntrack sysctl:procps timeout:coreutils taskset:util-linux dpdk-testpmd:dpdk-dev \
        ovs-vsctl:openvswitch-switch-dpdk || fail "could not install what is missing"
    [ -x "$OVS_DAEMON" ] || install_packages openvswitch-switch-dpdk || fail "no Open vSwitch with DPDK"
}

# The program of `cargo bench --bench cycles`, which cargo tells in JSON, one object a line.
build_cycles() {
    cargo bench --locked --quiet -p pollgate --bench cycles --no-run --message-format=json | python3 -c 'import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("executable") and message["target"]["name"] == "cycles":
        print(message["executable"])'
}

build_all() {
    local target=${CARGO_TARGET_DIR:-$PWD/target}
    POLLGATE=${POLLGATE_BINARY:-} PKTGEN=${PKTGEN_BINARY:-} CAPSULE=${CAPSULE_BINARY:-}
    NULL_FORWARD=${NULL_FORWARD_BINARY:-} CYCLES=${CYCLES_BINARY:-}
    [ -n "$POLLGATE" ] && [ -n "$PKTGEN" ] && [ -n "$CAPSULE" ] && [ -n "$NULL_FORWARD" ] && [ -n "$CYCLES" ] ||
        echo "building in release mode, which takes some minutes the first time"
    if [ -z "$POLLGATE" ] || [ -z "$PKTGEN" ]; then
        cargo build --release --locked --quiet -p pollgate -p pollgate-pktgen || fail "the build failed"
        POLLGATE=${POLLGATE:-$target/release/pollgate} PKTGEN=${PKTGEN:-$target/release/pollgate-pktgen}
    fi
    if [ -z "$NULL_FORWARD" ]; then
        cargo build --release --locked --quiet -p pollgate-engine --features dpdk --example null_forward ||
            fail "the build failed"
        NULL_FORWARD=$target/release/examples/null_forward
    fi
    [ -n "$CYCLES" ] || CYCLES=$(build_cycles)
    [ -n "$CYCLES" ] || fail "the build failed"
    if [ -z "$CAPSULE" ]; then
        CAPSULE=$target/peers/release/capsule-peer
        # One row without which the others are still worth having.
        cargo build --release --locked --quiet --manifest-path benches/peers/capsule/Cargo.toml \
            --target-dir "$target/peers" || echo "capsule cannot be built; its rows will say so" >&2
    fi
}

# The namespaces stay for all rounds: nft takes half a minute for 5,000 services.
make_kernels() {
    local mode services name
    echo "making the kernel's namespaces ($PEERS_PREFIX-*)"
    for name in plain:0 iptables:10 nftables:10 iptables:5000 nftables:5000; do
        mode=${name%:*} services=${name#*:} REASON=
        [ -z "$QUICK" ] || [ "$name" != nftables:5000 ] || continue
        name=$(kernel_name "kernel-$mode" "$services")
        kernel_up "$name" "$mode" "$services" || KERNEL_FAULTS["$name"]=${REASON:-cannot be made}
    done
}

describe() {
    echo "$(sed -n 's/^model name.*: //p;T;q' /proc/cpuinfo), $(nproc) cores, Linux $(uname -r); generator on core" \
        "$GENERATOR_CORE, device on core $DEVICE_CORE"
    echo "$("$POLLGATE" --version) ($(git describe --always --dirty 2>/dev/null || echo 'no revision known')), DPDK" \
        "$(pkg-config --modversion libdpdk), $(ovs-vsctl --version | head -n 1), $(iptables --version)," \
        "$(nft --version | cut -d ' ' -f 1,2), $(sed -n 's/^PRETTY_NAME="\(.*\)"/\1/p' /etc/os-release)"
    if [ "$MEMORY" = huge ]; then
        echo "memory: hugepages of 2 MiB, $(free_hugepages) free"
    else
        echo "memory: ordinary pages for all, since $HUGEPAGES hugepages cannot be had; testpmd and Open vSwitch suffer" \
            "more from that than Pollgate (docs/peers.md)"
    fi
    echo "load before: $(cut -d ' ' -f 1-3 /proc/loadavg) (1, 5 and 15 minutes; after the build the first should be near 0)"
}

# Ends this script when it hangs where nothing else has a bound; is itself ended by finish.
start_watchdog() {
    (
        trap 'kill "$!" 2>/dev/null; exit' TERM
        sleep $((LIMIT_S + 30)) &
        wait "$!"
        echo "bench-peers: not done after $((LIMIT_S + 30)) s" >&2
        # Again until it hears: bash 5.2 can lose a signal that comes while it reads a command substitution.
        while kill -TERM "$$" 2>/dev/null; do
            sleep 2 &
            wait "$!"
        done
    ) &
    WATCHDOG_PID=$!
}

finish() {
    trap '' INT TERM HUP
    [ -z "${WATCHDOG_PID:-}" ] || kill "$WATCHDOG_PID" 2>/dev/null
    peers_close
}

report() {
    echo
    [ -e "$RESULTS" ] || fail "nothing was measured"
    python3 "$PEERS_LIB/report.py" "$RESULTS" "$OUTPUT/ratios.csv" | tee "$OUTPUT/summary.txt"
    # Its status: 1 when a row was measured in no round.
    [ "${PIPESTATUS[0]}" = 0 ] || FAILURES=$((FAILURES + 1))
    python3 "$PEERS_LIB/plot.py" "$RESULTS" "$OUTPUT/peers.svg" || FAILURES=$((FAILURES + 1))
    echo
    [ -z "$EVER_SHORT" ] || echo "not every round had time for everything"
    echo "$OUTPUT: machine.txt, results.csv, ratios.csv, summary.txt, peers.svg; $FAILURES failures, $SECONDS s"
    [ "$FAILURES" = 0 ]
}

main() {
    local started
    read_arguments "$@"
    install_all
    build_all
    mkdir -p "$OUTPUT" || fail "no folder $OUTPUT"
    RESULTS=$(realpath "$OUTPUT")/results.csv
    rm -f "$RESULTS"
    export PYTHONDONTWRITEBYTECODE=1
    SECONDS=0
    trap finish EXIT
    trap 'exit 130' INT TERM HUP
    peers_open || fail "no temporary folder"
    start_watchdog
    peers_memory $HUGEPAGES
    describe | tee "$OUTPUT/machine.txt"
    make_kernels
    echo "the kernel's iptables mode: $KERNEL_IPTABLES" | tee -a "$OUTPUT/machine.txt"
    choose_sections
    started=$SECONDS
    for ROUND in $(seq "$ROUNDS"); do
        DEADLINE=$(round_end "$ROUND" "$started")
        printf '\nround %s of %s, %s s since the start\n' "$ROUND" "$ROUNDS" "$SECONDS"
        one_round
    done
    report
}

main "$@"
