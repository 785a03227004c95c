#!/usr/bin/env bash
# Shows the whole gateway at work: builds Pollgate, builds the reference cluster out of network namespaces around it, and
# prints a verdict for each thing that it must do. Needs root on Debian 12 or later; installs what is missing.
#
#   scripts/quickstart.sh
#
# Ends within two minutes after the build, with 0 only when everything was as it should be, and removes whatever it made,
# also on Ctrl-C. POLLGATE_BINARY names a binary to use instead of building one.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=scripts/lib/packages.sh
source "$here/lib/packages.sh"
# shellcheck source=scripts/lib/cluster.sh
source "$here/lib/cluster.sh"
# shellcheck source=scripts/lib/checks.sh
source "$here/lib/checks.sh"

TIME_LIMIT_S=115

fail() {
    echo "quickstart: $*" >&2
    exit 1
}

prepare() {
    [ "$(id -u)" = 0 ] || fail "makes network namespaces, which needs root: sudo $0"
    [ -c /dev/net/tun ] || fail "needs /dev/net/tun for the gateway's ports"
    # shellcheck disable=SC2086 # one word a pair
    install_missing $PACKAGES_FOR_CLUSTER || fail "could not install what is missing"
    if [ -n "${POLLGATE_BINARY:-}" ]; then
        CLUSTER_BINARY=$(realpath "$POLLGATE_BINARY")
        return
    fi
    install_to_build || fail "could not install what is missing"
    echo "building pollgate in release mode, which takes some minutes the first time"
    cd "$CLUSTER_ROOT" || fail "no such folder"
    cargo build --quiet --release -p pollgate || fail "the build failed"
    CLUSTER_BINARY=$(realpath "${CARGO_TARGET_DIR:-target}/release/pollgate")
}

# Ends this script when it takes too long; is itself ended by finish.
start_watchdog() {
    (
        own=$BASHPID
        sleep "$TIME_LIMIT_S" &
        trap 'kill "$!" 2>/dev/null' TERM
        # Only while this script is still its parent: a pid that is free may be anybody's by then.
        wait "$!" && [ "$(ps -o ppid= -p "$own" | tr -d ' ')" = "$$" ] &&
            echo "quickstart: not done after $TIME_LIMIT_S s" >&2 && kill -TERM "$$"
    ) &
    WATCHDOG_PID=$!
}

finish() {
    [ -z "${WATCHDOG_PID:-}" ] || kill "$WATCHDOG_PID" 2>/dev/null
    cluster_close
}

show_counters() {
    local what
    for what in workers services drops; do
        echo
        echo "pollgate show $what"
        cluster_show "$what" | sed 's/^/    /'
    done
    echo
}

main() {
    local started failures=0 name
    case ${1:-} in
    "") ;;
    --help | -h) sed -n '2,8s/^# \{0,1\}//p' "$here/quickstart.sh" && exit 0 ;;
    *) echo "quickstart: not understood: $1 (--help tells)" >&2 && exit 2 ;;
    esac
    prepare
    started=$SECONDS
    trap finish EXIT
    trap 'exit 130' INT TERM HUP
    cluster_name || fail "no temporary folder"
    start_watchdog
    echo "building the cluster (namespaces $CLUSTER_PREFIX-*)"
    cluster_up || fail "the cluster did not come up"
    echo
    for name in "${CHECKS[@]}"; do
        [ "$name" != stop ] || show_counters
        run_check "$name" || failures=$((failures + 1))
    done
    echo
    echo "counters at the end:"
    sed 's/^/    /' "$CLUSTER_DIR/gateway.out"
    echo
    echo "${#CHECKS[@]} verdicts, $failures FAILED, in $((SECONDS - started)) s"
    [ "$failures" = 0 ]
}

main "$@"
