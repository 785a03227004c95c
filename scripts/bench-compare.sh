#!/usr/bin/env bash
# Tells whether the working tree is faster than another revision, by more than the noise: builds both, runs the cycle
# benchmark of each in turn, and compares round by round, since machines drift more than changes matter.
#
#   scripts/bench-compare.sh BASE [--rounds N] [--core N] [-- ARGUMENTS...]
#
# BASE is any git revision; it is built in a temporary worktree. 7 rounds if not told otherwise, on the last core. ARGUMENTS
# go to the benchmark (`--quick` if there are none). A verdict is given for each load that both
# revisions have, each with the benchmark as it was in that revision.
# Exit status: 0 when nothing is slower, 1 when something is, 2 when it could not be run. Nothing else should run meanwhile.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2
# shellcheck source=scripts/lib/packages.sh
source scripts/lib/packages.sh

BASE='' ROUNDS=7 CORE=$(($(nproc) - 1)) ARGUMENTS=(--quick)

fail() {
    echo "bench-compare: $*" >&2
    exit 2
}

while [ $# -gt 0 ]; do
    case $1 in
    --help | -h) sed -n '2,11s/^# \{0,1\}//p' "$0" && exit 0 ;;
    --rounds) ROUNDS=${2:-} && shift $(($# > 1 ? 2 : 1)) ;;
    --core) CORE=${2:-} && shift $(($# > 1 ? 2 : 1)) ;;
    --) shift && ARGUMENTS=("$@") && break ;;
    -*) fail "not understood: $1 (--help tells)" ;;
    *) BASE=$1 && shift ;;
    esac
done
# Fewer rounds can agree by chance.
if ! [[ $ROUNDS =~ ^[1-9][0-9]?$ ]] || [ "$ROUNDS" -lt 5 ]; then fail "--rounds wants a number of 5 to 99"; fi
[[ $CORE =~ ^[0-9]+$ ]] || fail "--core wants a core's number"
[ -n "$BASE" ] || fail "which revision? (--help tells)"
REVISION=$(git rev-parse --verify --quiet "$BASE^{commit}") || fail "no such revision: $BASE"
{ install_to_build && install_missing python3:python3 taskset:util-linux; } || exit 2

FOLDER=$(mktemp -d) || exit 2
clean_up() {
    git worktree remove --force "$FOLDER/tree" 2>/dev/null
    rm -rf "$FOLDER"
}
trap clean_up EXIT
trap 'exit 130' INT TERM HUP

# build FOLDER: builds the benchmark of the tree there and prints where it is. Cargo says so in JSON, one object a line.
build() {
    (cd "$1" && cargo bench --locked --quiet -p pollgate --no-default-features --bench cycles --no-run \
        --target-dir "$TARGET/compare" --message-format=json) |
        python3 -c 'import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("executable") and message["target"]["name"] == "cycles":
        print(message["executable"])'
}

TARGET=$(realpath -m "${CARGO_TARGET_DIR:-target}")
git worktree add --quiet --detach "$FOLDER/tree" "$REVISION" || fail "no worktree of $BASE"
echo "building $BASE ($(git rev-parse --short "$REVISION")) and the working tree, which takes some minutes"
for side in base current; do
    tree=$PWD
    [ $side = current ] || tree=$FOLDER/tree
    built=$(build "$tree")
    [ -n "$built" ] || fail "the $side revision does not build, or has no cycle benchmark"
    cp "$built" "$FOLDER/$side" || exit 2
done

# run SIDE ROUND
run() {
    taskset -c "$CORE" "$FOLDER/$1" "${ARGUMENTS[@]}" >"$FOLDER/$1.$2" || fail "the benchmark of $1 failed"
}

echo "$ROUNDS rounds on core $CORE: $(sed -n 's/^model name.*: //p;T;q' /proc/cpuinfo)"
for round in $(seq -w "$ROUNDS"); do
    # The one that goes first changes, so that a steady drift hurts both.
    if ((10#$round % 2)); then
        run base "$round" && run current "$round"
    else
        run current "$round" && run base "$round"
    fi
done
python3 scripts/lib/compare_cycles.py "$FOLDER"/base.* -- "$FOLDER"/current.*
