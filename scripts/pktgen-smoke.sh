#!/usr/bin/env bash
# The generator against the gateway, two processes joined by memif: every kind of traffic once, a second each, every packet
# checked. It shows that both work over DPDK devices, and measures nothing.
#
#   scripts/pktgen-smoke.sh
#
# Takes no root, no hugepages and no network: memif is shared memory and a Unix socket in a folder of its own. Builds what is
# needed unless POLLGATE_BINARY and PKTGEN_BINARY name programs. Ends only what it started, cleans up always, takes half a
# minute after the build.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib/packages.sh
source scripts/lib/packages.sh

case ${1:-} in
"") ;;
--help | -h) sed -n '2,9s/^# \{0,1\}//p' "$0" && exit 0 ;;
*) echo "not understood: $1 (--help tells)" >&2 && exit 2 ;;
esac

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
install_missing timeout:coreutils
POLLGATE=${POLLGATE_BINARY:-} PKTGEN=${PKTGEN_BINARY:-}
if [ -z "$POLLGATE" ] || [ -z "$PKTGEN" ]; then
    cargo build --locked --quiet -p pollgate -p pollgate-pktgen
    POLLGATE=${POLLGATE:-${CARGO_TARGET_DIR:-target}/debug/pollgate}
    PKTGEN=${PKTGEN:-${CARGO_TARGET_DIR:-target}/debug/pollgate-pktgen}
fi

CONFIG=benches/pktgen/configs/overlay.toml
MEMIF="socket=$FOLDER/memif.sock,socket-abstract=no,bsize=2048"

# start_gateway FLAG...: with the configuration that fits the generator's.
start_gateway() {
    rm -f "$FOLDER/memif.sock"
    "$PKTGEN" gateway-config --config $CONFIG --gateway-device "net_memif0,role=server,$MEMIF" --gateway-memory none \
        --gateway-socket "$FOLDER/control.sock" --capacity 1000000 "$@" >"$FOLDER/gateway.toml"
    "$POLLGATE" run --config "$FOLDER/gateway.toml" --log-level warn >"$FOLDER/summary" 2>"$FOLDER/log" &
    GATEWAY=$!
    for _ in $(seq 100); do
        # The gateway answers before its ports are open.
        if [ -S "$FOLDER/control.sock" ] && [ -S "$FOLDER/memif.sock" ]; then return 0; fi
        kill -0 "$GATEWAY" 2>/dev/null || break
        sleep 0.1
    done
    cat "$FOLDER/summary" "$FOLDER/log" >&2
    return 1
}

# Its accounting must come out even, and no buffer be missing.
stop_gateway() {
    kill -TERM "$GATEWAY"
    wait "$GATEWAY" || { cat "$FOLDER/summary" "$FOLDER/log" >&2 && exit 1; }
    GATEWAY=
    if ! grep -q '^accounting: balanced' "$FOLDER/summary" || ! grep -q '^buffers in flight: 0' "$FOLDER/summary"; then
        echo "the gateway's accounts do not come out even" >&2
        cat "$FOLDER/summary" >&2
        exit 1
    fi
}

# offer NAME COMMAND FLAG...: a window and patience instead of a rate, so that a busy machine makes it slow and not wrong.
offer() {
    local name=$1
    shift
    if timeout 120 "$PKTGEN" "$@" --config $CONFIG --device "net_memif0,role=client,$MEMIF" --duration 1 \
        --set machine.memory=none --set rate.window=128 --set trial.drain_ms=5000 --set traffic.patience_ms=10000 \
        --set trial.warm_up_per_s=0 --set traffic.connections=64 >"$FOLDER/result" 2>"$FOLDER/errors"; then
        echo "ok       $name: $(grep -E '^(received|tcp|establishment|tear-down) ' "$FOLDER/result" | tail -1)"
    else
        echo "FAILED   $name"
        cat "$FOLDER/result" "$FOLDER/errors" >&2
        exit 1
    fi
}

start_gateway
offer "flows, answered" run --kind udp --flows 5000 --replies
offer "flows of mixed sizes" run --kind udp --flows 1000 --set 'traffic.sizes=[{bytes=64,weight=7},{bytes=594,weight=4},{bytes=1468,weight=1}]'
offer "each packet a new flow" run --kind udp-new --per-s 100000
offer "connections" run --kind tcp
offer "rate of establishment" establishment --set nat.connections=2000 --set search.max_per_s=5000 --set search.precision=0.5 --set rate.burst=64
offer "closing one by one" tear-down --set nat.connections=2000 --set nat.open_per_s=5000 --set search.max_per_s=5000 --set search.precision=0.5 --set rate.burst=64
stop_gateway
MASQUERADE='expect.masquerade=["172.30.76.0"]'
start_gateway --set "$MASQUERADE"
offer "flows, masqueraded and answered" run --kind udp --flows 5000 --replies --set "$MASQUERADE"
offer "connections, masqueraded" run --kind tcp --set "$MASQUERADE"
stop_gateway
echo "all passed; the gateway's accounts come out even"
