#!/usr/bin/env bash
# Counts the instructions that each kind of packet, stage and table operation costs, under valgrind's callgrind, and compares
# them with benches/instructions.toml. The counts are the same on a busy machine and on an idle one.
#
#   scripts/bench-instructions.sh                                compares; fails on a rise above 5 %
#   scripts/bench-instructions.sh --update                       writes what was counted to the baseline
#   scripts/bench-instructions.sh --update --note "KIND: WHY"    the same, where a kind costs more: one --note for each
#   scripts/bench-instructions.sh --update --note "all: WHY"     the same, where many do for one reason
#
# Also fails where a kind allocates, and where the baseline itself was raised without a note since an earlier version in git.
# Exit status: 0 as it should be, 1 a rise, 2 nothing could be counted. Builds one small program as the release profile does
# (two to three minutes on two cores from nothing), counts for five seconds; needs no root unless valgrind has to be installed.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2
# shellcheck source=scripts/lib/packages.sh
source scripts/lib/packages.sh

BASELINE=benches/instructions.toml

# Versions of the baseline that git knows, newest first: a rise since any of them needs a note, so that neither several
# commits nor several small steps hide one.
VERSIONS=20

case ${1:-} in
--help | -h) sed -n '2,11s/^# \{0,1\}//p' "$0" && exit 0 ;;
esac
{ install_to_build && install_missing valgrind:valgrind; } || exit 2
# Flags from outside (another target processor) would count other instructions.
env -u RUSTFLAGS cargo build --profile instructions --locked --quiet -p pollgate-instructions || exit 2

FOLDER=$(mktemp -d) || exit 2
trap 'rm -rf "$FOLDER"' EXIT
trap 'exit 130' INT TERM
arguments=(--baseline "$BASELINE" --compiler "$(rustc --version)")
while read -r commit; do
    # None in a commit that removed it.
    git show "$commit:$BASELINE" >"$FOLDER/$commit.toml" 2>/dev/null && arguments+=(--previous "$FOLDER/$commit.toml")
done < <(git log "-$VERSIONS" --format=%H -- "$BASELINE" 2>/dev/null)
timeout 300 "${CARGO_TARGET_DIR:-target}/instructions/pollgate-instructions" "${arguments[@]}" "$@"
