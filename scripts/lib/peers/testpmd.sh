# shellcheck shell=bash
# dpdk-testpmd sends every frame back, as it came (io) or with its MAC addresses exchanged (macswap): what the link and the
# generator can do. Sourced.

TESTPMD_PID=

# testpmd_up MODE
testpmd_up() {
    rm -f "$PEERS_FOLDER/memif.sock" "$PEERS_FOLDER/testpmd.in"
    # Commands by a pipe that stays open: it would end with its input. Its main thread sleeps there, on the generator's core.
    mkfifo "$PEERS_FOLDER/testpmd.in" && exec {TESTPMD_INPUT}<>"$PEERS_FOLDER/testpmd.in" || return 1
    dpdk-testpmd --lcores "0@$GENERATOR_CORE,1@$DEVICE_CORE" "${EAL_MEMORY[@]}" --no-pci --no-telemetry \
        --vdev "net_memif0,role=server,$PEERS_MEMIF" -- --nb-cores=1 --forward-mode="$1" --auto-start \
        --rxd=2048 --txd=2048 --total-num-mbufs=16384 -i \
        <"$PEERS_FOLDER/testpmd.in" >"$PEERS_FOLDER/testpmd.log" 2>&1 &
    TESTPMD_PID=$!
    PEERS_PIDS+=("$TESTPMD_PID")
    # It listens before it forwards; this is what it says then.
    wait_until 10 grep -q 'Checking link statuses' "$PEERS_FOLDER/testpmd.log" &&
        wait_until 5 memif_listens "$TESTPMD_PID" || fail_because "testpmd: $(tail -n 1 "$PEERS_FOLDER/testpmd.log")"
}

testpmd_down() {
    [ -z "$TESTPMD_PID" ] || peers_stop_device "$TESTPMD_PID" testpmd
    TESTPMD_PID=
    [ -z "${TESTPMD_INPUT:-}" ] || exec {TESTPMD_INPUT}>&-
    TESTPMD_INPUT=
}

# testpmd_trial SYSTEM LOAD FLOWS SERVICES RATE: the system's name ends in the mode.
testpmd_trial() {
    local mode=${1#testpmd-} load=$2 flows=$3 services=$4 rate=$5 status=1
    peers_traffic "$load" "$flows" "$services"
    if testpmd_up "$mode"; then
        peers_generate "${TRAFFIC[@]}" --per-s "$rate" \
            --device "net_memif0,role=client,$PEERS_MEMIF" --set expect.mirror=true --set trial.warm_up_rounds=0
        status=$?
    fi
    testpmd_down
    FOUND=("trial=$TRIAL")
    return "$status"
}
