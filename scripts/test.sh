#!/usr/bin/env bash
# Checks everything: formatting, lints with and without DPDK, dependencies, documentation, scripts, all tests, models of the
# lock-free parts, thread sanitizer, instruction counts, and (as root) the end-to-end tests and the quickstart on network namespaces.
# Installs what is missing from Debian when root.
#
#   scripts/test.sh
#
# Goes on after a failure, prints a summary, and exits 0 only when no step failed. With CI=true nothing may be skipped but what
# needs a part of the toolchain that not every machine can fetch.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
# shellcheck source=scripts/lib/packages.sh
source scripts/lib/packages.sh

CARGO_DENY_VERSION=0.20.2
TOOLS=$PWD/target/tools
PATH=$TOOLS/bin:$PATH
SUMMARY=() PASSED=0 FAILED=0 SKIPPED=0

# step NAME COMMAND...
step() {
    local name=$1 started=$SECONDS
    shift
    printf '\n== %s\n' "$name"
    if "$@" </dev/null; then
        SUMMARY+=("ok       $name ($((SECONDS - started)) s)") PASSED=$((PASSED + 1))
    else
        SUMMARY+=("FAILED   $name ($((SECONDS - started)) s)") FAILED=$((FAILED + 1))
    fi
}

# skip NAME REASON: what a workstation may lack, CI must have.
skip() {
    if [ "${CI:-}" = true ]; then
        step "$1" eval "echo '$2' >&2; false"
    else
        SUMMARY+=("skipped  $1: $2") SKIPPED=$((SKIPPED + 1))
    fi
}

# leave_out NAME REASON: what not every fresh machine can have, CI's neither.
leave_out() {
    SUMMARY+=("left out $1: $2") SKIPPED=$((SKIPPED + 1))
}

install_what_is_missing() {
    install_to_build || return 1
    # Without root the tests that need these programs are skipped, each saying so.
    [ "$(id -u)" = 0 ] || return 0
    # shellcheck disable=SC2086 # one word a pair
    install_missing $PACKAGES_FOR_CLUSTER $PACKAGES_FOR_CAPTURES $PACKAGES_FOR_RULES shellcheck:shellcheck \
        valgrind:valgrind
}

lint() {
    cargo clippy --workspace --all-targets --locked -- -D warnings
}

# A pkg-config that always fails shows that no system library is asked for.
lint_without_dpdk() {
    PKG_CONFIG=false cargo clippy --workspace --all-targets --locked --no-default-features -- -D warnings
}

# Compiled when it is not there: a minute on two cores without optimisation, and three times that with it.
check_dependencies() {
    cargo deny --version 2>/dev/null || {
        cargo install --quiet --locked --debug --root "$TOOLS" --target-dir "$TOOLS/build" \
            "cargo-deny@$CARGO_DENY_VERSION" || return 1
        rm -rf "$TOOLS/build"
    }
    cargo deny --locked check --hide-inclusion-graph bans licenses sources
}

document() {
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --quiet
}

# The rings and the snapshot under every interleaving that the memory model allows.
model() {
    RUSTFLAGS="--cfg loom" cargo test --locked -p pollgate-engine --lib --target-dir "${CARGO_TARGET_DIR:-target}/loom" loom_model
}

# Ordinary memory, no root.
generator() {
    POLLGATE_BINARY="${POLLGATE_BINARY:-${CARGO_TARGET_DIR:-target}/debug/pollgate}" \
        PKTGEN_BINARY="${PKTGEN_BINARY:-${CARGO_TARGET_DIR:-target}/debug/pollgate-pktgen}" scripts/pktgen-smoke.sh
}

quickstart() {
    POLLGATE_BINARY="${POLLGATE_BINARY:-${CARGO_TARGET_DIR:-target}/debug/pollgate}" scripts/quickstart.sh
}

main() {
    step "what is missing is installed" install_what_is_missing
    if cargo fmt --version >/dev/null 2>&1; then
        step "formatting" cargo fmt --all -- --check
    else
        skip "formatting" "this toolchain has no cargo fmt"
    fi
    if cargo clippy --version >/dev/null 2>&1; then
        step "lints" lint
        step "lints without the dpdk feature" lint_without_dpdk
    else
        skip "lints" "this toolchain has no cargo clippy"
    fi
    step "dependencies: bans, licences, sources" check_dependencies
    step "documentation" document
    if command -v shellcheck >/dev/null; then
        step "scripts" shellcheck -x scripts/*.sh .ci/run
    else
        skip "scripts" "shellcheck is not installed"
    fi
    # The end-to-end tests are among these; they say why when they cannot run.
    step "tests" cargo test --workspace --locked --no-fail-fast
    step "generator against gateway over memif" generator
    step "models of rings and snapshots" model
    if scripts/sanitize.sh prepare; then
        step "what threads share, under the thread sanitizer" scripts/sanitize.sh thread
    else
        leave_out "what threads share, under the thread sanitizer" "the standard library's source could not be had"
    fi
    if command -v valgrind >/dev/null; then
        step "instruction counts" scripts/bench-instructions.sh
    else
        skip "instruction counts" "valgrind is not installed"
    fi
    if [ "$(id -u)" = 0 ] && [ -c /dev/net/tun ]; then
        step "quickstart" quickstart
    else
        skip "quickstart" "makes network namespaces and TAP devices, which needs root and /dev/net/tun"
    fi
    printf '\n== summary\n'
    printf '%s\n' "${SUMMARY[@]}"
    echo "$PASSED passed, $FAILED failed, $SKIPPED skipped"
    [ "$FAILED" = 0 ]
}

main
