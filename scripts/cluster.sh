#!/usr/bin/env bash
# The reference cluster around a gateway, for exploring and for tests. Needs root.
#
#   scripts/cluster.sh hold [BINARY]     builds the cluster around `BINARY run`, prints how to reach it, and removes it
#                                        when its standard input ends (Enter on a terminal, or Ctrl-C)
#   scripts/cluster.sh check NAME...     runs checks on a cluster that another process holds, with the CLUSTER_PREFIX,
#                                        CLUSTER_DIR, CLUSTER_PYTHON and CLUSTER_BINARY that `hold` printed
#   scripts/cluster.sh checks            lists the checks' names in order
#
# `hold` removes the cluster also when the process that started it dies: its pipe ends then. CLUSTER_WATCH=false: the
# gateway reloads on SIGHUP alone, not when its file changes.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=scripts/lib/cluster.sh
source "$here/lib/cluster.sh"
# shellcheck source=scripts/lib/checks.sh
source "$here/lib/checks.sh"

hold() {
    CLUSTER_BINARY=${1:-$CLUSTER_ROOT/target/release/pollgate}
    cluster_name || return 1
    trap cluster_close EXIT
    trap 'exit 130' INT TERM HUP
    cluster_up || return 1
    printf 'CLUSTER_PREFIX=%s\nCLUSTER_DIR=%s\nCLUSTER_PYTHON=%s\nCLUSTER_BINARY=%s\n' \
        "$CLUSTER_PREFIX" "$CLUSTER_DIR" "$CLUSTER_PYTHON" "$CLUSTER_BINARY"
    echo "ready: ip netns exec $CLUSTER_PREFIX-cl1 curl 10.254.116.224:50051"
    read -r
    return 0
}

check() {
    local name failed=0
    for name in "$@"; do
        run_check "$name" || failed=1
    done
    return "$failed"
}

command=${1:-}
[ $# -eq 0 ] || shift
case $command in
    hold) hold "$@" ;;
    check) check "$@" ;;
    checks) printf '%s\n' "${CHECKS[@]}" ;;
    *) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" && exit 2 ;;
esac
