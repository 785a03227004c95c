#!/usr/bin/env bash
# Builds tests with a sanitizer of the compiler's and runs them.
#
#   scripts/sanitize.sh thread                    what threads share in the engine (engine/tests/threads.rs and its unit tests)
#   scripts/sanitize.sh thread pollgate TEST...   named tests of the gateway, as in: workers
#   scripts/sanitize.sh address                   the engine's and the gateway's tests, on ordinary memory
#   scripts/sanitize.sh prepare                   whether `thread` can run here; fetches what it needs
#
# The thread sanitizer must see what the standard library does, so that is built with it, from its source: the rustup component
# rust-src. The sanitizers are unstable options of the compiler; RUSTC_BOOTSTRAP=1 lets the one that builds everything else
# have them. Exit status: 0 nothing found, 66 a report, 101 a failed test, 2 could not be run.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2
# shellcheck source=scripts/lib/packages.sh
source scripts/lib/packages.sh

# With a target named, build scripts and macros are not built with the sanitizer.
TARGET=$(rustc -vV | sed -n 's/^host: //p')
export RUSTC_BOOTSTRAP=1 RUST_BACKTRACE=1

# sanitized NAME ARGUMENTS...: cargo's tests with this sanitizer, in a build folder of its own.
sanitized() {
    local name=$1
    shift
    RUSTFLAGS="-Zsanitizer=$name" timeout 1800 cargo test --locked --target "$TARGET" \
        --target-dir "${CARGO_TARGET_DIR:-target}/sanitize-$name" "$@"
}

have_source() {
    [ -e "$(rustc --print sysroot)/lib/rustlib/src/rust/library/Cargo.lock" ]
}

prepare() {
    install_to_build || return 2
    have_source && return
    command -v rustup >/dev/null && timeout 120 rustup component add rust-src && have_source && return
    echo "the standard library's source is missing: rustup component add rust-src" >&2
    return 2
}

threads() {
    if [ $# = 0 ]; then
        # Not the seqlock's own test, which waits for the reader to be scheduled; threads.rs has another.
        sanitized thread -Zbuild-std -p pollgate-engine --lib -- ring:: snapshot:: &&
            sanitized thread -Zbuild-std -p pollgate-engine --test threads
        return
    fi
    [ "$1" = pollgate ] && shift
    sanitized thread -Zbuild-std -p pollgate --no-default-features "${@/#/--test=}"
}

case ${1:-} in
thread) shift && prepare && threads "$@" ;;
address)
    # Little freed memory is kept back, so that the storm test sees its own and not the sanitizer's.
    export ASAN_OPTIONS=${ASAN_OPTIONS:-quarantine_size_mb=1}
    install_to_build && sanitized address --no-fail-fast -p pollgate-engine -p pollgate --no-default-features --lib --tests
    ;;
prepare) prepare ;;
*) sed -n '2,12s/^# \{0,1\}//p' "$0" && exit 2 ;;
esac
