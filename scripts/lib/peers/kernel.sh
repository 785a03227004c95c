# shellcheck shell=bash
# The kernel as a node: a network namespace with the reference cluster's VXLAN device, and kube-proxy's rules in it. The
# generator sends by AF_PACKET into a veth from a namespace of its own; receive packet steering moves all work to the
# device's core. For throughput, packets that have been forwarded are counted and dropped at the egress hook of the device
# they leave by, so that receiving them costs nothing; without that the generator gets them back and checks them. Sourced.

# By namespace: what forwards there, or why it could not be made.
declare -A KERNEL_MODES=() KERNEL_FAULTS=()
KERNEL_IPTABLES=none

# kernel_up NAME MODE SERVICES: namespace NAME with the rules of MODE (plain, iptables, nftables). Names are short: a device's
# has 15 letters.
kernel_up() {
    local name=$1 mode=$2 services=$3 device=gen-$1
    if [ ${#KERNEL_MODES[@]} = 0 ]; then
        peers_namespace gen || return 1
        # Before the first rule there may be no connection tracking whose bounds could be set.
        modprobe nf_conntrack 2>/dev/null
        # Flows that are tracked, of all namespaces together, and the buckets of their hash.
        peers_set net.netfilter.nf_conntrack_max 1048576
        peers_set net.netfilter.nf_conntrack_buckets 1048576
    fi
    peers_namespace "$name" || return 1
    peers_link gen link add "$device" type veth peer name eth0 netns "$PEERS_PREFIX-$name" || return 1
    peers_link gen link set "$device" address "$GENERATOR_MAC" up || return 1
    # Checksums are complete in what the generator sends, and no frames are to be joined.
    peers_inside gen ethtool -K "$device" tx off rx off gso off tso off gro off >/dev/null 2>&1
    peers_inside "$name" ethtool -K eth0 gro off tx off >/dev/null 2>&1
    kernel_make_node "$name" || return 1
    peers_inside "$name" sh -c "printf '%x' $((1 << DEVICE_CORE)) >/sys/class/net/eth0/queues/rx-0/rps_cpus" || return 1
    if [ "$mode" != plain ]; then
        python3 "$PEERS_LIB/kube_proxy_rules.py" "$mode" "$services" "$PEERS_BACKENDS" >"$PEERS_FOLDER/rules" || return 1
    fi
    case $mode in
    iptables) kernel_load_iptables "$name" || return 1 ;;
    nftables) kernel_load "$name" nft -f "$PEERS_FOLDER/rules" || return 1 ;;
    esac
    KERNEL_MODES[$name]=$mode
}

# kernel_load NAME COMMAND...: kube-proxy's 5,000 services take nft half a minute.
kernel_load() {
    local name=$1
    shift
    peers_run 90 "$PEERS_FOLDER/rules.log" ip netns exec "$PEERS_PREFIX-$name" "$@" ||
        fail_because "the rules could not be loaded: $(tail -n 1 "$PEERS_FOLDER/rules.log")"
}

# The legacy tables where the kernel has them: going through thousands of rules, they are faster than iptables on nf_tables.
# KERNEL_IPTABLES says which it is.
kernel_load_iptables() {
    KERNEL_IPTABLES=iptables-legacy
    if command -v iptables-legacy-restore >/dev/null &&
        kernel_load "$1" iptables-legacy-restore "$PEERS_FOLDER/rules"; then
        return 0
    fi
    KERNEL_IPTABLES="iptables on nf_tables"
    kernel_load "$1" iptables-restore "$PEERS_FOLDER/rules"
}

# Node 1 of the reference cluster as flannel sets it up, with node 2 behind its tunnel.
kernel_make_node() {
    local name=$1
    peers_link "$name" link set eth0 address "$DEVICE_MAC" &&
        peers_link "$name" address add 192.168.0.21/24 dev eth0 &&
        peers_link "$name" link set eth0 up &&
        peers_link "$name" link add flannel.1 address "$DEVICE_VTEP_MAC" mtu 1450 \
            type vxlan id 1 dstport 8472 local 192.168.0.21 dev eth0 nolearning noudpcsum &&
        peers_link "$name" address add 172.30.76.0/32 dev flannel.1 &&
        peers_link "$name" link set flannel.1 up &&
        peers_link "$name" neighbour add 192.168.0.22 lladdr "$GENERATOR_MAC" dev eth0 nud permanent &&
        peers_link "$name" neighbour add 172.30.9.0 lladdr "$GENERATOR_VTEP_MAC" dev flannel.1 nud permanent &&
        peers_inside "$name" bridge fdb append "$GENERATOR_VTEP_MAC" dev flannel.1 dst 192.168.0.22 &&
        peers_link "$name" route add default via 172.30.9.0 dev flannel.1 onlink || return 1
    # Clients come in by the device that they are routed to; filters and redirects would only cost.
    # shellcheck disable=SC2016 # expanded by the inner shell
    peers_inside "$name" sh -c '
        echo 1 >/proc/sys/net/ipv4/ip_forward
        for folder in /proc/sys/net/ipv4/conf/*; do
            echo 0 >"$folder/rp_filter"
            echo 0 >"$folder/send_redirects"
        done'
}

# kernel_sink NAME on|off
kernel_sink() {
    peers_inside "$1" nft delete table netdev pollgate-sink 2>/dev/null
    [ "$2" = on ] || return 0
    peers_inside "$1" nft -f - <<'NFT'
table netdev pollgate-sink {
    counter left { }
    chain egress {
        type filter hook egress device "eth0" priority 0;
        udp dport 8472 counter name "left" drop
    }
}
NFT
}

# Packets that the sink has counted.
kernel_left() {
    peers_inside "$1" nft list counter netdev pollgate-sink left | awk '/packets/ { print $2 }'
}

# kernel_generate NAME FLAG...: a trial against that namespace.
kernel_generate() {
    local name=$1 status
    shift
    GENERATE_IN=(ip netns exec "$PEERS_PREFIX-gen")
    peers_generate --device "net_af_packet0,iface=gen-$name,qdisc_bypass=1" "$@"
    status=$?
    GENERATE_IN=()
    return "$status"
}

# kernel_name SYSTEM SERVICES: its namespace, short: devices are named after it.
kernel_name() {
    case $1 in
    *-iptables) echo "ipt$2" ;;
    *-nftables) echo "nft$2" ;;
    *) echo plain ;;
    esac
}

# Hundredths of a second that the device's core has spent in softirqs, where packets are received and forwarded.
kernel_softirq() {
    awk -v core="cpu$DEVICE_CORE" '$1 == core { print $8 }' /proc/stat
}

# kernel_trial SYSTEM LOAD FLOWS SERVICES RATE: throughput by the sink.
kernel_trial() {
    local name load=$2 flows=$3 services=$4 rate=$5 before after softirq
    name=$(kernel_name "$1" "$services")
    [ -n "${KERNEL_MODES[$name]:-}" ] || fail_because "${KERNEL_FAULTS[$name]:-has no namespace}" || return 1
    peers_traffic "$load" "$flows" "$services"
    peers_inside "$name" conntrack -F >/dev/null 2>&1
    kernel_sink "$name" on || fail_because "no sink" || return 1
    # Flows are introduced by a run of its own: the sink cannot tell their first packets from the others.
    if [ "$load" = dnat ]; then
        kernel_generate "$name" "${TRAFFIC[@]}" --set trial.duration_s=0.01 \
            --set trial.warm_up_per_s=80000 --set trial.drain_ms=1 || return 1
    fi
    before=$(kernel_left "$name") softirq=$(kernel_softirq)
    kernel_generate "$name" "${TRAFFIC[@]}" --per-s "$rate" \
        --set trial.warm_up_rounds=0 --set trial.drain_ms=1 || return 1
    after=$(kernel_left "$name")
    kernel_sink "$name" off
    FOUND=("trial=$TRIAL" "counted=$((after - before))" "softirq=$(($(kernel_softirq) - softirq))")
}

# kernel_round_trip SYSTEM LOAD FLOWS SERVICES RATE: with the way back, every packet checked.
kernel_round_trip() {
    local name load=$2 flows=$3 services=$4 rate=$5
    name=$(kernel_name "$1" "$services")
    [ -n "${KERNEL_MODES[$name]:-}" ] || fail_because "${KERNEL_FAULTS[$name]:-has no namespace}" || return 1
    peers_traffic "$load" "$flows" "$services"
    kernel_generate "$name" "${TRAFFIC[@]}" --per-s "$rate" --set trial.warm_up_per_s=50000 || return 1
    FOUND=("trial=$TRIAL")
}
