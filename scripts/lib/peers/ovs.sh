# shellcheck shell=bash
# Open vSwitch with its userspace datapath: VXLAN in and out over memif, connection tracking with NAT, select groups as OVN
# builds load balancers; one forwarding thread on the device's core. Everything in a namespace and folder of its own: its own
# database, and nothing of an Open vSwitch that the host may run. Sourced.

OVS_DAEMON=/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk
OVS_DATABASE_PID='' OVS_SWITCH_PID='' OVS_HAS_NAMESPACE=''

ovs_vsctl() {
    ovs-vsctl --db="unix:$OVS_FOLDER/db.sock" --timeout=30 "$@"
}

ovs_ask() {
    ovs-appctl --timeout=20 -t "$OVS_FOLDER/switch.ctl" "$@"
}

ovs_flows() {
    ovs-ofctl --timeout=120 -O OpenFlow15 "$1" "unix:$OVS_FOLDER/br-int.mgmt" "${@:2}"
}

ovs_knows_route() {
    ovs_ask ovs/route/show | grep -q 192.168.0.0/24
}

ovs_start_daemons() {
    local memory=("${EAL_MEMORY[@]}")
    # Without --legacy-mem it adds --in-memory by itself, which ordinary pages do not go with.
    [ "$MEMORY" = huge ] || memory+=(--legacy-mem)
    OVS_FOLDER=$PEERS_FOLDER/ovs
    rm -rf "$OVS_FOLDER" "$PEERS_FOLDER/memif.sock"
    mkdir "$OVS_FOLDER" || return 1
    export OVS_RUNDIR=$OVS_FOLDER OVS_DBDIR=$OVS_FOLDER OVS_LOGDIR=$OVS_FOLDER OVS_SYSCONFDIR=$OVS_FOLDER
    ovsdb-tool create "$OVS_FOLDER/conf.db" /usr/share/openvswitch/vswitch.ovsschema || return 1
    peers_start "$OVS_FOLDER/database.log" ovsdb-server "$OVS_FOLDER/conf.db" --remote="punix:$OVS_FOLDER/db.sock" \
        --unixctl="$OVS_FOLDER/db.ctl"
    OVS_DATABASE_PID=$STARTED
    wait_until 10 test -S "$OVS_FOLDER/db.sock" || return 1
    ovs_vsctl --no-wait init || return 1
    ovs_vsctl --no-wait set Open_vSwitch . other_config:dpdk-init=true other_config:smc-enable=true \
        other_config:dpdk-lcore-mask="$(printf '0x%x' $((1 << GENERATOR_CORE)))" \
        other_config:pmd-cpu-mask="$(printf '0x%x' $((1 << DEVICE_CORE)))" \
        "other_config:dpdk-extra=${memory[*]} --no-pci --no-telemetry" || return 1
    # Of hugepages no more than it needs: others want theirs.
    [ "$MEMORY" = none ] || ovs_vsctl --no-wait set Open_vSwitch . other_config:dpdk-socket-mem=512 || return 1
    # The tunnel's routes come from the kernel's, so the bridge's own port needs a namespace.
    peers_start "$OVS_FOLDER/switch.log" ip netns exec "$PEERS_PREFIX-ovs" "$OVS_DAEMON" "unix:$OVS_FOLDER/db.sock" \
        --unixctl="$OVS_FOLDER/switch.ctl"
    OVS_SWITCH_PID=$STARTED
    wait_until 10 ovs_ask version
}

ovs_make_bridges() {
    ovs_vsctl add-br br-phy -- set bridge br-phy datapath_type=netdev "other_config:hwaddr=$DEVICE_MAC" || return 1
    # Two queues at either end: the forwarding thread sends by its second, and memif joins queues by number.
    ovs_vsctl add-port br-phy memif0 -- set interface memif0 type=dpdk options:n_rxq=2 \
        options:n_rxq_desc=2048 options:n_txq_desc=2048 \
        "options:dpdk-devargs=net_memif0,role=server,$PEERS_MEMIF" || return 1
    ovs_vsctl add-br br-int -- set bridge br-int datapath_type=netdev || return 1
    ovs_vsctl add-port br-int vxlan0 -- set interface vxlan0 type=vxlan options:remote_ip=192.168.0.22 \
        options:local_ip=192.168.0.21 options:key=1 options:dst_port=8472 || return 1
    peers_link ovs address replace 192.168.0.21/24 dev br-phy && peers_link ovs link set br-phy up || return 1
    ovs_ask tnl/arp/set br-phy 192.168.0.22 "$GENERATOR_MAC" >/dev/null || return 1
    wait_until 10 memif_listens "$OVS_SWITCH_PID" && wait_until 10 ovs_knows_route
}

# ovs_up LOAD SERVICES
ovs_up() {
    if [ -z "$OVS_HAS_NAMESPACE" ]; then
        peers_namespace ovs || return 1
        OVS_HAS_NAMESPACE=yes
    fi
    if ! ovs_start_daemons || ! ovs_make_bridges; then
        fail_because "Open vSwitch: $(tail -qn 1 "$OVS_FOLDER"/*.log | tail -n 1)" || return 1
    fi
    python3 "$PEERS_LIB/ovs_flows.py" "$1" "$2" "$PEERS_BACKENDS" "$OVS_FOLDER/groups" "$OVS_FOLDER/flows" || return 1
    ovs_flows del-flows || return 1
    [ ! -s "$OVS_FOLDER/groups" ] || ovs_flows add-groups "$OVS_FOLDER/groups" || return 1
    ovs_flows add-flows "$OVS_FOLDER/flows"
}

ovs_down() {
    [ -z "$OVS_SWITCH_PID" ] || peers_stop_device "$OVS_SWITCH_PID" "Open vSwitch"
    [ -z "$OVS_DATABASE_PID" ] || peers_stop "$OVS_DATABASE_PID"
    OVS_SWITCH_PID='' OVS_DATABASE_PID=''
}

# Cycles a packet of the forwarding thread, since its start.
ovs_cycles() {
    ovs_ask dpif-netdev/pmd-stats-show |
        awk '/^pmd thread/ { here = 1 } /^main thread/ { here = 0 }
             here && /avg processing cycles per packet/ { print $6; exit }'
}

# ovs_trial SYSTEM LOAD FLOWS SERVICES RATE: a fresh start for each.
ovs_trial() {
    local load=$2 flows=$3 services=$4 rate=$5 cycles='' status=1
    peers_traffic "$load" "$flows" "$services"
    if ovs_up "$load" "$services"; then
        peers_generate "${TRAFFIC[@]}" --per-s "$rate" \
            --device "net_memif0,role=client,$PEERS_MEMIF" --set machine.queues=2 --set trial.warm_up_per_s=80000
        status=$?
        cycles=$(ovs_cycles)
    fi
    ovs_down
    FOUND=("trial=$TRIAL" "cycles=$cycles")
    return "$status"
}
