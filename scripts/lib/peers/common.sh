# shellcheck shell=bash
# What all peers of scripts/bench-peers.sh share: a folder, processes and namespaces that are ended and removed, settings of
# the host that are put back, and one trial by the generator. Sourced.
#
# Callers run with `set -u` and set GENERATOR_CORE, DEVICE_CORE, PKTGEN, TRIAL_S and LIMIT_S.

PEERS_LIB=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib/wait.sh
source "$PEERS_LIB/../wait.sh"
PEERS_PIDS=() PEERS_NAMESPACES=() PEERS_SETTINGS=()
# Why the last measurement failed, for its row.
REASON=

# The generator is node 2 of the reference cluster, the device under test node 1. generator.toml says the same.
PEERS_BACKENDS=3
GENERATOR_MAC=02:00:c0:a8:00:22
DEVICE_MAC=02:00:c0:a8:00:15
GENERATOR_VTEP_MAC=96:8f:2d:49:c5:31
DEVICE_VTEP_MAC=8a:22:81:5e:d8:b7
# The largest inner frame, check sequence included, that the tunnel carries in a packet of 1,500 bytes.
LARGEST_FRAME=1468

# peers_open: the folder, and the prefix of all namespaces.
peers_open() {
    PEERS_FOLDER=$(mktemp -d "${TMPDIR:-/tmp}/pollgate-peers.XXXXXX") || return 1
    PEERS_PREFIX="pg-${PEERS_FOLDER##*.}"
    # Rings of 2,048 and buffers that hold any frame.
    PEERS_MEMIF="socket=$PEERS_FOLDER/memif.sock,socket-abstract=no,rsize=11,bsize=2048"
}

# peers_close: ends and removes all that was made, whatever had been made until then.
peers_close() {
    local pid namespace setting
    for pid in "${PEERS_PIDS[@]}"; do
        peers_stop "$pid"
    done
    for namespace in "${PEERS_NAMESPACES[@]}"; do
        ip netns delete "$namespace" 2>/dev/null
    done
    # The oldest value last: a setting that was changed twice goes back to what it was first.
    while [ ${#PEERS_SETTINGS[@]} -gt 0 ]; do
        setting=${PEERS_SETTINGS[-1]}
        unset 'PEERS_SETTINGS[-1]'
        sysctl -q -w "$setting" 2>/dev/null || echo "bench-peers: could not put back $setting" >&2
    done
    [ -z "${PEERS_FOLDER:-}" ] || rm -rf "$PEERS_FOLDER"
}

# fail_because WORDS: always fails; the words go into the row of what is measured.
fail_because() {
    REASON=$*
    return 1
}

# peers_start LOG COMMAND...: runs it in the background; its pid is in STARTED.
peers_start() {
    local log=$1
    shift
    "$@" >"$log" 2>&1 </dev/null &
    STARTED=$!
    PEERS_PIDS+=("$STARTED")
}

# peers_run SECONDS LOG COMMAND...: runs it to its end, for so long at the most and never beyond the end of all. In the
# background, since a shell hears of Ctrl-C only when what it runs in the foreground has ended.
peers_run() {
    local bound=$1 log=$2 left=$((LIMIT_S - SECONDS)) status
    shift 2
    [ "$bound" -le "$left" ] || bound=$((left > 1 ? left : 1))
    peers_start "$log" timeout --foreground --kill-after=5 "$bound" "$@"
    wait "$STARTED"
    status=$?
    peers_forget "$STARTED"
    return "$status"
}

# peers_forget PID: it has ended and was waited for: another process may have the number by now. Fails when it was not known.
peers_forget() {
    local other left=() known=1
    for other in "${PEERS_PIDS[@]}"; do
        if [ "$other" = "$1" ]; then known=0; else left+=("$other"); fi
    done
    PEERS_PIDS=("${left[@]}")
    return "$known"
}

# peers_stop PID: asks it to end, and makes it end after five seconds. Gives its exit status.
peers_stop() {
    local pid=$1 status
    peers_forget "$pid" || return 0
    kill "$pid" 2>/dev/null
    for _ in $(seq 100); do
        # Ended and not waited for, or gone.
        grep -qs '^State:[[:space:]]*[^Z]' "/proc/$pid/status" || break
        sleep 0.05
    done
    kill -KILL "$pid" 2>/dev/null
    wait "$pid" 2>/dev/null
    status=$?
    return "$status"
}

# peers_stop_device PID NAME: the same for what has a memif. DPDK 22.11 unmaps a link's memory when the other end goes, while
# the thread that polls it may still read there; a fault then is memif's, and comes after the trial. Gives its exit status
# otherwise.
peers_stop_device() {
    peers_stop "$1" 2>/dev/null
    local status=$?
    [ "$status" = 139 ] || return "$status"
    echo "  ($2 was ended by a fault when the generator had gone: memif's, see docs/peers.md)"
}

# peers_set NAME VALUE: a setting of the host, until the end.
peers_set() {
    local before
    before=$(sysctl -n "$1" 2>/dev/null) || return 1
    [ "$before" != "$2" ] || return 0
    PEERS_SETTINGS+=("$1=$before")
    sysctl -q -w "$1=$2"
}

free_hugepages() {
    awk '/^HugePages_Free/ { count = $2 } END { print count + 0 }' /proc/meminfo
}

# peers_memory COUNT: so many free pages of 2 MiB until the end, for all who use DPDK; ordinary pages for all when they
# cannot be had. MEMORY is huge or none, EAL_MEMORY what DPDK's EAL is told.
peers_memory() {
    local free
    free=$(free_hugepages)
    [ "$free" -ge "$1" ] || peers_set vm.nr_hugepages $(($(sysctl -n vm.nr_hugepages) + $1 - free))
    if [ "$(free_hugepages)" -ge "$1" ]; then
        MEMORY=huge EAL_MEMORY=(--in-memory)
    else
        MEMORY=none EAL_MEMORY=(--no-huge --no-shconf -m 1024)
    fi
}

# peers_namespace NAME
peers_namespace() {
    ip netns add "$PEERS_PREFIX-$1" || return 1
    PEERS_NAMESPACES+=("$PEERS_PREFIX-$1")
    # No router solicitations or multicast reports among what is counted. A kernel without IPv6 needs nothing.
    # shellcheck disable=SC2016 # expanded by the inner shell
    peers_inside "$1" sh -c '
        for name in all default; do
            file=/proc/sys/net/ipv6/conf/$name/disable_ipv6
            if [ -e "$file" ]; then echo 1 >"$file"; fi
        done'
    peers_link "$1" link set lo up
}

# peers_inside NAMESPACE COMMAND...
peers_inside() {
    local namespace=$1
    shift
    ip netns exec "$PEERS_PREFIX-$namespace" "$@"
}

# peers_link NAMESPACE ARGUMENTS...: `ip` for that namespace.
peers_link() {
    local namespace=$1
    shift
    ip -n "$PEERS_PREFIX-$namespace" "$@"
}

# memif_listens PID: whether the device's end takes the generator's: the socket may be there before anybody listens. Sockets
# are listed by network namespace.
memif_listens() {
    awk -v path="$PEERS_FOLDER/memif.sock" '$4 == "00010000" && $NF == path { found = 1 } END { exit !found }' "/proc/$1/net/unix"
}

# address_of NUMBER ADDRESS: that many addresses on.
address_of() {
    local a b c d value
    IFS=. read -r a b c d <<<"$2"
    value=$(((a << 24 | b << 16 | c << 8 | d) + $1))
    echo "$((value >> 24 & 255)).$((value >> 16 & 255)).$((value >> 8 & 255)).$((value & 255))"
}

# peers_traffic LOAD FLOWS SERVICES: what of the generator's configuration follows from the load, as flags in TRAFFIC.
peers_traffic() {
    local load=$1 flows=$2 services=$3 kind=udp list last
    last=$(address_of $((services - 1)) 10.254.128.0)
    list="{addresses=\"10.254.128.0-$last\",port=80,backends=[\"172.30.9.2-172.30.9.$((1 + PEERS_BACKENDS)):8080\"]}"
    case $load in
    # Pods of another node: no service, no backend, nothing translated.
    link* | plain) list='{addresses="172.30.9.2-172.30.9.201",port=80}' ;;
    new) kind=udp-new ;;
    esac
    TRAFFIC=(--kind $kind --flows "$flows" --set "services=[$list]")
    case $load in *-1500) TRAFFIC+=(--sizes $LARGEST_FRAME) ;; esac
}

# peers_generate FLAG...: one trial, its JSON in the file TRIAL. Fails when there is no result, not when it is a bad one.
peers_generate() {
    local status
    TRIAL=$PEERS_FOLDER/trial.json
    peers_run $((TRIAL_S + 45)) "$TRIAL.log" "${GENERATE_IN[@]}" sh -c 'output=$1 && shift && exec "$@" >"$output"' sh "$TRIAL" \
        "$PKTGEN" run --json --config "$PEERS_LIB/generator.toml" --duration "$TRIAL_S" \
        --set "machine.core=$GENERATOR_CORE" --set "machine.memory=$MEMORY" "$@"
    status=$?
    [ "$status" -le 1 ] || fail_because "the generator ended with $status: $(tail -n 1 "$TRIAL.log")"
}
# Where the generator runs: a command before it, for peers in namespaces.
GENERATE_IN=()
