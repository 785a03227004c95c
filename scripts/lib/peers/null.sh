# shellcheck shell=bash
# Frameworks on DPDK's net_null, where nothing is moved: what a packet costs by itself when its MAC addresses are exchanged.
# testpmd, capsule (CAPSULE names the peer's binary) and Pollgate's engine (NULL_FORWARD names its example). Sourced.

# null_failed: always fails, with what was said last.
null_failed() {
    fail_because "$(tail -n 1 "$PEERS_FOLDER/null.log")"
}

null_testpmd() {
    local mpps log=$PEERS_FOLDER/null.log
    # Two looks at the counters, once it forwards: testpmd gives the rate between them.
    # shellcheck disable=SC2016 # expanded by the inner shell
    peers_run 60 "$log" bash -c '(
            for _ in $(seq 100); do
                ! grep -q "Checking link statuses" "$2" || break
                sleep 0.1
            done
            sleep 0.3
            echo "show port stats 0"
            sleep "$1"
            echo "show port stats 0"
            echo quit
        ) | dpdk-testpmd "${@:3}"' bash "$TRIAL_S" "$log" \
        --lcores "0@$GENERATOR_CORE,1@$DEVICE_CORE" "${EAL_MEMORY[@]}" --no-pci --no-telemetry \
        --vdev net_null0 -- --nb-cores=1 --forward-mode=macswap --auto-start --total-num-mbufs=16384 -i ||
        null_failed || return 1
    mpps=$(awk '/Rx-pps:/ { rate = $2 } END { printf "%.3f", rate / 1e6 }' "$log")
    FOUND=("mpps=$mpps")
}

null_pollgate() {
    local mpps cycles log=$PEERS_FOLDER/null.log
    # Some 20 million packets a second at the least.
    peers_run 60 "$log" "$NULL_FORWARD" $((TRIAL_S * 20000000)) "$DEVICE_CORE" net_null0 || null_failed || return 1
    mpps=$(sed -n 's/.* cycles a packet, \([0-9.]*\) Mpps.*/\1/p' "$log")
    cycles=$(sed -n 's/.* refused, \([0-9.]*\) cycles a packet.*/\1/p' "$log")
    FOUND=("mpps=$mpps" "cycles=$cycles")
}

# null_capsule MODE FLOWS [--as-published]
null_capsule() {
    local log=$PEERS_FOLDER/null.log result
    [ -x "$CAPSULE" ] || fail_because "not built" || return 1
    local memory=(--huge)
    [ "$MEMORY" = huge ] || memory=()
    # It wants a number of flows also where there are none, and its last words are a stack.
    peers_run 60 "$log" "$CAPSULE" "$1" --seconds "$TRIAL_S" --core "$DEVICE_CORE" --flows $(($2 > 0 ? $2 : 1)) \
        "${memory[@]}" "${@:3}" || fail_because "$(grep -m 1 '^Error' "$log")" || return 1
    result=$(grep -o '^{.*}' "$log" | python3 -c 'import json, sys
result = json.load(sys.stdin)
print("mpps=%s cycles=%s" % (result["mpps"], result["cycles"]))') || fail_because "no result" || return 1
    read -ra FOUND <<<"$result"
}

# null_trial SYSTEM LOAD FLOWS
null_trial() {
    case $1 in
    testpmd-*) null_testpmd ;;
    pollgate) null_pollgate ;;
    capsule-as-published) null_capsule "${2#null-}" "$3" --as-published ;;
    capsule) null_capsule "${2#null-}" "$3" ;;
    esac
}
