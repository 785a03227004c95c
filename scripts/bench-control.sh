#!/usr/bin/env bash
# What tables cost to build and to change: time, memory, and the time from a change of one endpoint to its first use.
#
#   scripts/bench-control.sh [--quick]
#
# Installs what is missing from Debian when root, builds the benchmark in release mode and runs it: clusters of up to 50,000
# services and 250,000 endpoints, on two cores. No root, no device, no network. --quick: small clusters, fewer changes.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib/packages.sh
source scripts/lib/packages.sh

case ${1:-} in
"" | --quick) ;;
--help | -h) sed -n '2,7s/^# \{0,1\}//p' "$0" && exit 0 ;;
*) echo "not understood: $1 (--help tells)" >&2 && exit 2 ;;
esac

install_to_build
echo "building in release mode, which takes some minutes the first time"
cargo bench --quiet --locked -p pollgate --bench control --no-run
# Not cut short when something hangs, but bounded.
exec timeout 900 cargo bench --quiet --locked -p pollgate --bench control -- "$@"
