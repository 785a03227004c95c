# shellcheck shell=bash
# Pollgate on memif, one worker, with the configuration that fits the generator's. Sourced. POLLGATE names the binary.

POLLGATE_PID=

pollgate_works() {
    timeout --foreground 5 "$POLLGATE" show workers --socket "$PEERS_FOLDER/control.sock"
}

# pollgate_up: TRAFFIC says what for.
pollgate_up() {
    rm -f "$PEERS_FOLDER/memif.sock" "$PEERS_FOLDER/control.sock"
    "$PKTGEN" gateway-config --config "$PEERS_LIB/generator.toml" "${TRAFFIC[@]}" \
        --gateway-device "net_memif0,role=server,$PEERS_MEMIF" --gateway-core "$DEVICE_CORE" \
        --gateway-control-core "$GENERATOR_CORE" --gateway-socket "$PEERS_FOLDER/control.sock" \
        --gateway-memory "$MEMORY" >"$PEERS_FOLDER/gateway.toml" || fail_because "no configuration for it" || return 1
    peers_start "$PEERS_FOLDER/gateway.log" "$POLLGATE" run --config "$PEERS_FOLDER/gateway.toml" --log-level warn
    POLLGATE_PID=$STARTED
    wait_until 20 pollgate_works && wait_until 5 memif_listens "$POLLGATE_PID" || fail_because "pollgate: $(tail -n 1 "$PEERS_FOLDER/gateway.log")"
}

# Its accounts must come out even, if it was there to say so.
pollgate_down() {
    local status log=$PEERS_FOLDER/gateway.log
    [ -n "$POLLGATE_PID" ] || return 0
    peers_stop_device "$POLLGATE_PID" "the gateway"
    status=$?
    POLLGATE_PID=
    grep -q '^accounting:' "$log" || [ "$status" != 0 ] || return 0
    [ "$status" = 0 ] && grep -q '^accounting: balanced' "$log" && return 0
    fail_because "pollgate ended with $status: $(tail -n 1 "$log")"
}

# pollgate_trial SYSTEM LOAD FLOWS SERVICES RATE
pollgate_trial() {
    local load=$2 flows=$3 services=$4 rate=$5 status=1
    peers_traffic "$load" "$flows" "$services"
    if pollgate_up; then
        peers_generate "${TRAFFIC[@]}" --per-s "$rate" \
            --device "net_memif0,role=client,$PEERS_MEMIF" --set trial.warm_up_per_s=500000
        status=$?
    fi
    pollgate_down || status=1
    FOUND=("trial=$TRIAL")
    return "$status"
}
