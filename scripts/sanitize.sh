#!/usr/bin/env bash
# Builds tests with a sanitizer of the compiler's and runs them.
#
#   scripts/sanitize.sh thread                    what threads share in the engine (engine/tests/threads.rs and its unit tests)
#   scripts/sanitize.sh thread pollgate TEST...   named tests of the gateway, as in: workers
#   scripts/sanitize.sh address                   the engine's and the gateway's tests, ordinary memory
#
# The thread sanitizer must know what the standard library does, so that is built with it, for which its source is needed:
# `rustup component add rust-src`, tried here when it is missing. Without it, reports of what the library does by itself are
# suppressed (scripts/lib/thread-sanitizer.txt), and that is said. The sanitizers are unstable options of the compiler;
# RUSTC_BOOTSTRAP=1 lets the one that builds everything else have them.
# Exit status: 0 nothing found, 1 a report or a failed test, 2 could not be run.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2
# shellcheck source=scripts/lib/packages.sh
source scripts/lib/packages.sh

# Both want a target triple, so that build scripts and macros are not built with them.
TARGET=$(rustc -vV | sed -n 's/^host: //p')
FOLDER=${CARGO_TARGET_DIR:-target}
export RUSTC_BOOTSTRAP=1 RUST_BACKTRACE=1

# sanitized NAME FLAGS ARGUMENTS...: cargo's tests with this sanitizer, in a build folder of its own.
sanitized() {
    local name=$1 flags=$2
    shift 2
    RUSTFLAGS="-Zsanitizer=$name $flags" timeout 1800 cargo test --locked --target "$TARGET" --target-dir "$FOLDER/sanitize-$name" "$@"
}

have_source() {
    [ -e "$(rustc --print sysroot)/lib/rustlib/src/rust/library/Cargo.lock" ]
}

threads() {
    local arguments=() flags="" tests
    if have_source || { command -v rustup >/dev/null && timeout 120 rustup component add rust-src >/dev/null 2>&1 && have_source; }; then
        arguments=(-Zbuild-std)
    else
        echo "the standard library's source is missing: what it does by itself is not looked at"
        # Its crates are mixed with ours, which the compiler would refuse.
        flags="-Cunsafe-allow-abi-mismatch=sanitizer"
        export TSAN_OPTIONS="suppressions=$PWD/scripts/lib/thread-sanitizer.txt ${TSAN_OPTIONS:-}"
    fi
    if [ $# = 0 ]; then
        sanitized thread "$flags" "${arguments[@]}" -p pollgate-engine --lib -- ring:: snapshot:: &&
            sanitized thread "$flags" "${arguments[@]}" -p pollgate-engine --test threads
        return
    fi
    [ "$1" = pollgate ] && shift
    tests=("$@")
    # shellcheck disable=SC2068 # one pair of words a test
    sanitized thread "$flags" "${arguments[@]}" -p pollgate --no-default-features ${tests[@]/#/--test=}
}

addresses() {
    # Not `control`: it runs the binary.
    sanitized address "" -p pollgate-engine -p pollgate --no-default-features --lib --tests "$@"
}

case ${1:-} in
thread) shift && install_to_build && threads "$@" ;;
address) shift && install_to_build && addresses "$@" ;;
*) sed -n '2,12s/^# \{0,1\}//p' "$0" && exit 2 ;;
esac
