# shellcheck shell=bash
# What is measured in a round, by whom, in which order: what matters most comes first, since a round has its part of the time
# and no more; what finds no time comes first in the next. Sourced. Callers set RESULTS (a CSV file), ROUND, QUICK and DEADLINE, which ends the round.

FAILURES=0 TIME_WAS_SHORT='' EVER_SHORT=''

# peers_record SYSTEM LOAD FLOWS SERVICES KEY=VALUE...: a line of the results, and one for people. Fails when packets came
# back wrong.
peers_record() {
    python3 "$PEERS_LIB/record.py" "$RESULTS" "round=$ROUND" "system=$1" "load=$2" "flows=$3" "services=$4" "${@:5}"
}

# measure SECONDS SYSTEM LOAD FLOWS SERVICES RATE [KEY=VALUE...]: one row, whatever comes of it; RATE 0 is as fast as can be.
# A measurement that fails is counted, and the others go on.
measure() {
    local length=$1 system=$2 load=$3 rate=$6 trial
    local what=("${@:2:4}") extra=("${@:7}")
    if [ $((SECONDS + length)) -ge "$DEADLINE" ]; then
        TIME_WAS_SHORT=yes EVER_SHORT=yes
        peers_record "${what[@]}" status="no time" "${extra[@]}"
        return
    fi
    case $system:$load in
    *:null-*) trial=null_trial ;;
    testpmd-*) trial=testpmd_trial ;;
    pollgate:*) trial=pollgate_trial ;;
    ovs:*) trial=ovs_trial ;;
    kernel-*) trial=kernel_trial ;;
    esac
    # For throughput the kernel's packets need not come back; for the rest they must.
    [ "$trial" = kernel_trial ] && [ ${#extra[@]} -gt 0 ] && trial=kernel_round_trip
    REASON='' FOUND=()
    if "$trial" "${what[@]}" "$rate"; then
        peers_record "${what[@]}" "${extra[@]}" "${FOUND[@]}" || FAILURES=$((FAILURES + 1))
    else
        FAILURES=$((FAILURES + 1))
        peers_record "${what[@]}" "${extra[@]}" status="failed: ${REASON:-no reason given}"
    fi
}

# The machine by itself: a loop whose speed the core's clock decides.
calibrate() {
    local step
    step=$(taskset -c "$DEVICE_CORE" "$CYCLES" --calibrate) || return 0
    peers_record machine calibration 0 0 mpps=0 "cycles=$step"
}

# side_by_side SECONDS LOAD FLOWS SERVICES SYSTEM...: one after the other.
side_by_side() {
    local length=$1 what=("${@:2:3}") system
    for system in "${@:5}"; do
        measure "$length" "$system" "${what[@]}" 0
    done
}

# share PERCENT SYSTEM LOAD FLOWS SERVICES: that part of what the system did in this round, in packets a second.
share() {
    python3 - "$RESULTS" "$ROUND" "$@" <<'PYTHON'
import csv, sys
path, number, percent, *wanted = sys.argv[1:]
with open(path, encoding="utf-8", newline="") as file:
    found = [float(row["mpps"]) for row in csv.DictReader(file)
             if row["round"] == number and row["status"] == "ok" and row["purpose"] == "throughput"
             and [row[name] for name in ("system", "load", "flows", "services")] == wanted]
print(int(max(found, default=0) * float(percent) * 10_000))
PYTHON
}

# latency PERCENT SYSTEM LOAD SERVICES: at that part of what it did with 64,000 flows; the kernel at half of that, since it
# has more to do without its sink.
latency() {
    local part=$1 rate
    [[ $2 != kernel-* ]] || part=$(($1 / 2))
    rate=$(share "$part" "$2" "$3" 64000 "$4")
    [ "$rate" = 0 ] || measure "$(length_of 5)" "$2" "$3" 64000 "$4" "$rate" purpose=latency "share_percent=$1"
}

# length_of SECONDS: how long a measurement may take whose trial takes TRIAL_S of it.
length_of() {
    echo $(($1 + TRIAL_S))
}

# Slow, and every packet checked: that the kernel's rules do what they are for.
check_rules() {
    measure "$(length_of 5)" kernel-iptables dnat 1000 10 2000 purpose=check
    measure "$(length_of 5)" kernel-nftables dnat 1000 10 2000 purpose=check
}

# What a round consists of, after the link by itself. What is compared with each other is in one section.
SECTIONS=()
# Where the next round begins: with what the one before had no time for.
FIRST_SECTION=0

choose_sections() {
    SECTIONS=(established new services few_flows large_packets)
    [ -n "$QUICK" ] || SECTIONS+=(plain many_flows new_of_many_services latency_curve)
    SECTIONS+=(frameworks)
}

one_round() {
    local short long kernels=(kernel-iptables) step place short_before next=0
    short=$(length_of 4) long=$(length_of 8) TIME_WAS_SHORT=
    [ -n "$QUICK" ] || kernels+=(kernel-nftables)
    calibrate
    side_by_side "$short" link 64000 1 testpmd-io testpmd-macswap
    for step in "${!SECTIONS[@]}"; do
        place=$(((FIRST_SECTION + step) % ${#SECTIONS[@]})) short_before=$TIME_WAS_SHORT
        "section_${SECTIONS[place]}"
        [ -n "$short_before" ] || [ -z "$TIME_WAS_SHORT" ] || next=$place
    done
    FIRST_SECTION=$next
}

section_established() {
    side_by_side "$long" dnat 64000 10 kernel-iptables kernel-nftables ovs pollgate
    latency 50 testpmd-macswap link 1
    latency 50 pollgate dnat 10
    [ "$ROUND" != 1 ] || check_rules
}

section_new() {
    side_by_side "$long" new 64000 10 kernel-iptables kernel-nftables ovs pollgate
}

section_services() {
    side_by_side "$long" dnat 64000 5000 "${kernels[@]}" ovs pollgate
}

section_few_flows() {
    side_by_side "$long" dnat 1000 10 "${kernels[@]}" ovs pollgate
}

section_large_packets() {
    side_by_side "$short" link-1500 64000 1 testpmd-macswap
    side_by_side "$long" dnat-1500 64000 10 pollgate
}

section_plain() {
    side_by_side "$long" plain 64000 1 kernel-plain ovs pollgate
}

# A million flows take Open vSwitch 13 seconds to be introduced to.
section_many_flows() {
    side_by_side $((long + 16)) dnat 1000000 10 ovs pollgate
}

section_new_of_many_services() {
    side_by_side "$long" new 64000 5000 "${kernels[@]}" ovs pollgate
}

section_latency_curve() {
    local point
    latency 50 kernel-iptables dnat 10
    latency 50 ovs dnat 10
    for point in 10 25 75 90; do
        latency "$point" testpmd-macswap link 1
        latency "$point" pollgate dnat 10
    done
}

section_frameworks() {
    side_by_side "$short" null-macswap 0 0 testpmd-macswap capsule pollgate
    [ -n "$QUICK" ] || side_by_side "$short" null-macswap 0 0 capsule-as-published
    [ -n "$QUICK" ] || side_by_side "$short" null-fill 64000 0 capsule
    side_by_side "$short" null-nat 64000 0 capsule
}

# round_end NUMBER STARTED: each round has the same part of the time that was left when the first one began.
round_end() {
    echo $(($2 + (LIMIT_S - 15 - $2) * $1 / ROUNDS))
}
