#!/usr/bin/env bash
# Counts the instructions that each kind of packet, stage and table operation costs, under valgrind's callgrind, and compares
# them with benches/instructions.toml. The counts are the same on a busy machine and on an idle one.
#
#   scripts/bench-instructions.sh                                compares; fails on a rise above 5 %
#   scripts/bench-instructions.sh --update                       writes what was counted to the baseline
#   scripts/bench-instructions.sh --update --note "KIND: WHY"    the same, where a kind costs more: one --note for each
#
# Also fails where a kind allocates, and where the baseline itself was raised without a note since its last version in git.
# Exit status: 0 as it should be, 1 a rise, 2 nothing could be counted. Builds one small program with the release profile
# (a minute and a half on two cores), counts for four seconds; needs no root unless valgrind has to be installed.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2
# shellcheck source=scripts/lib/packages.sh
source scripts/lib/packages.sh

BASELINE=benches/instructions.toml

# The baseline as it was before its last change, if git knows.
previous_version() {
    local commit
    if git diff --quiet HEAD -- "$BASELINE"; then
        commit=$(git log -1 --format=%H -- "$BASELINE") && [ -n "$commit" ] && git show "$commit^:$BASELINE"
    else
        git show "HEAD:$BASELINE"
    fi
}

case ${1:-} in
--help | -h) sed -n '2,11s/^# \{0,1\}//p' "$0" && exit 0 ;;
esac
{ install_to_build && install_missing valgrind:valgrind; } || exit 2
# Flags from outside (another target processor) would count other instructions.
env -u RUSTFLAGS cargo build --release --locked --quiet -p pollgate-instructions || exit 2

FOLDER=$(mktemp -d) || exit 2
trap 'rm -rf "$FOLDER"' EXIT
trap 'exit 130' INT TERM
arguments=(--baseline "$BASELINE" --compiler "$(rustc --version)")
if previous_version >"$FOLDER/previous.toml" 2>/dev/null; then
    arguments+=(--previous "$FOLDER/previous.toml")
fi
timeout 300 "${CARGO_TARGET_DIR:-target}/release/pollgate-instructions" "${arguments[@]}" "$@"
