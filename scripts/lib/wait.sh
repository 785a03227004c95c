# shellcheck shell=bash
# Waiting for what other programs do. Sourced.

# wait_until SECONDS COMMAND...: tries a command until it succeeds; fails when it has not in that time.
wait_until() {
    local tries=$(($1 * 20))
    shift
    while ! "$@" >/dev/null 2>&1; do
        ((tries-- > 0)) || return 1
        sleep 0.05
    done
}
