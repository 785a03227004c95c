# shellcheck shell=bash
# The reference cluster out of network namespaces, around a gateway that stands in node 1's place. Sourced.
#
#   lan (192.168.0.1, a bridge) ── node1: `pollgate run`, its TAP ports ── pods of node 1, a namespace each
#     ├── node2: the kernel's vxlan device and bridge ── pods of node 2, a namespace each
#     ├── client: outside the cluster (192.168.0.50)
#     └── database (192.168.0.103), without a route to the pods
#
# Everything lives in namespaces whose names begin with CLUSTER_PREFIX and in the folder CLUSTER_DIR; nothing else on the
# host is touched. cluster_close removes all of it, whatever had been made until then.
# Callers run with `set -u` and set CLUSTER_PREFIX, CLUSTER_DIR and CLUSTER_BINARY (cluster_name gives the first two).

CLUSTER_LIB=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CLUSTER_ROOT=$(cd "$CLUSTER_LIB/../.." && pwd)
# shellcheck source=scripts/lib/wait.sh
source "$CLUSTER_LIB/wait.sh"

# Pods: namespace, address, name of the backend in it ("-": a client), ports that it listens on.
CLUSTER_PODS_NODE1="
bm1 172.30.76.7 business-manager-1 8080
bm2 172.30.76.6 business-manager-2 8080
dp1 172.30.76.5 data-product-1 50051
dp2 172.30.76.3 data-product-2 50051
ing 172.30.76.2 ingress-nginx 80 443
cl1 172.30.76.9 -"
CLUSTER_PODS_NODE2="
bm3 172.30.9.3 business-manager-3 8080
dp3 172.30.9.2 data-product-3 50051
cl2 172.30.9.9 -"
CLUSTER_NAMESPACES="node1 lan node2 client database bm1 bm2 dp1 dp2 ing cl1 bm3 dp3 cl2"

# Chooses the names of this run's namespaces and makes its folder.
cluster_name() {
    CLUSTER_DIR=$(mktemp -d "${TMPDIR:-/tmp}/pollgate-cluster.XXXXXX") || return 1
    CLUSTER_PREFIX="pg-${CLUSTER_DIR##*.}"
    # Resolved once: a version manager's wrapper would cost more than the program at every start.
    CLUSTER_PYTHON=$(python3 -c 'import sys; print(sys.executable)')
    export CLUSTER_PREFIX CLUSTER_DIR CLUSTER_PYTHON
}

# inside NAMESPACE COMMAND...: runs a command in one of the cluster's namespaces.
inside() {
    local namespace=$1
    shift
    ip netns exec "$CLUSTER_PREFIX-$namespace" "$@"
}

# link NAMESPACE ARGUMENTS...: `ip` for one of the cluster's namespaces.
link() {
    local namespace=$1
    shift
    ip -n "$CLUSTER_PREFIX-$namespace" "$@"
}

# background NAMESPACE LOG COMMAND...: starts a command that cluster_close ends; its pid is in BACKGROUND_PID.
background() {
    local namespace=$1 log=$2
    shift 2
    ip netns exec "$CLUSTER_PREFIX-$namespace" "$@" >"$log" 2>&1 </dev/null &
    BACKGROUND_PID=$!
    # Its end is no news for the shell to print.
    disown "$BACKGROUND_PID"
}

cluster_make_namespace() {
    ip netns add "$CLUSTER_PREFIX-$1" || return 1
    # Without IPv6 no router solicitations or multicast reports mix with what the checks count. A kernel without IPv6
    # has no such file, and needs none.
    # shellcheck disable=SC2016 # expanded by the inner shell
    inside "$1" sh -c '
        for name in all default; do
            file=/proc/sys/net/ipv6/conf/$name/disable_ipv6
            if [ -e "$file" ]; then echo 1 >"$file"; fi
        done'
    link "$1" link set lo up
}

# cluster_join_lan NAMESPACE ADDRESS/LENGTH: gives it eth0 on the nodes' network.
cluster_join_lan() {
    link "$1" link add eth0 type veth peer name "to-$1" netns "$CLUSTER_PREFIX-lan" &&
        link lan link set "to-$1" master br0 up &&
        link "$1" address add "$2" dev eth0 &&
        link "$1" link set eth0 up
}

# cluster_add_pod_node2 NAMESPACE ADDRESS
cluster_add_pod_node2() {
    link "$1" link add eth0 mtu 1450 type veth peer name "veth-$1" mtu 1450 netns "$CLUSTER_PREFIX-node2" &&
        link node2 link set "veth-$1" master docker0 up &&
        link "$1" address add "$2/24" dev eth0 &&
        link "$1" link set eth0 up &&
        link "$1" route add default via 172.30.9.1
}

# Node 2 as flannel sets it up on an ordinary node, with the kernel's own vxlan device.
cluster_make_node2() {
    cluster_join_lan node2 192.168.0.22/24 || return 1
    link node2 route add default via 192.168.0.1
    # Strict reverse-path filters, as many distributions ship them: an answer that leaves the tunnel is lost.
    inside node2 sh -c '
        echo 1 >/proc/sys/net/ipv4/ip_forward
        echo 1 >/proc/sys/net/ipv4/conf/all/rp_filter
        echo 1 >/proc/sys/net/ipv4/conf/default/rp_filter'
    # As on a plain network card, checksums are complete before a frame leaves the host. A veth would pass them on
    # unfinished, and captures here would show the kernel's own packets as broken.
    inside node2 ethtool -K eth0 tx off >/dev/null || return 1
    link node2 link add flannel.1 address 96:8f:2d:49:c5:31 mtu 1450 \
        type vxlan id 1 dstport 8472 local 192.168.0.22 dev eth0 nolearning || return 1
    link node2 address add 172.30.9.0/32 dev flannel.1
    link node2 link set flannel.1 up
    link node2 route add 172.30.76.0/24 via 172.30.76.0 dev flannel.1 onlink
    # Services are reached through the gateway's VTEP.
    link node2 route add 10.254.0.0/16 via 172.30.76.0 dev flannel.1 onlink
    link node2 neighbour add 172.30.76.0 lladdr 8a:22:81:5e:d8:b7 dev flannel.1 nud permanent
    inside node2 bridge fdb append 8a:22:81:5e:d8:b7 dev flannel.1 dst 192.168.0.21 || return 1
    link node2 link add docker0 mtu 1450 type bridge
    link node2 address add 172.30.9.1/24 dev docker0
    link node2 link set docker0 up
    local namespace address
    while read -r namespace address _; do
        [ -z "$namespace" ] || cluster_add_pod_node2 "$namespace" "$address" || return 1
    done <<<"$CLUSTER_PODS_NODE2"
}

# Everything but node 1's own devices, which the gateway brings.
cluster_open() {
    local namespace
    for namespace in $CLUSTER_NAMESPACES; do
        cluster_make_namespace "$namespace" || return 1
    done
    # A MAC of its own: by itself a bridge takes the lowest of its ports, another one whenever a port comes or goes.
    link lan link add br0 address 02:00:c0:a8:00:01 type bridge mcast_snooping 0 || return 1
    link lan address add 192.168.0.1/24 dev br0
    link lan link set br0 up
    cluster_join_lan client 192.168.0.50/24 || return 1
    link client route add default via 192.168.0.1
    cluster_join_lan database 192.168.0.103/24 || return 1
    cluster_make_node2
}

# cluster_serve NAMESPACE NAME PORT...: starts an HTTP server and waits until it listens.
cluster_serve() {
    local log="$CLUSTER_DIR/backend-$1.log" namespace=$1
    shift
    background "$namespace" "$log" "$CLUSTER_PYTHON" "$CLUSTER_LIB/backend.py" "$@"
    CLUSTER_SERVERS+=" $log"
}

# HTTP servers in every backend's namespace, on the host behind the gateway, and outside the cluster.
cluster_start_backends() {
    local namespace name ports log
    CLUSTER_SERVERS=
    while read -r namespace _ name ports; do
        # shellcheck disable=SC2086 # one word a port
        [ "${name:--}" = - ] || cluster_serve "$namespace" "$name" $ports
    done <<<"$CLUSTER_PODS_NODE1$CLUSTER_PODS_NODE2"
    cluster_serve database database 3306
    cluster_serve node2 api-server 6443
    cluster_serve node1 host-of-node-1 8022
    for log in $CLUSTER_SERVERS; do
        wait_until 20 grep -q listening "$log" || { echo "no server: $(cat "$log")" >&2 && return 1; }
    done
}

# The reference configuration with paths of its own, one more pod, and services that the checks need.
cluster_write_config() {
    local first_core last_core
    read -r first_core last_core < <("$CLUSTER_PYTHON" -c '
import os
cores = sorted(os.sched_getaffinity(0))
print(cores[0], cores[-1])')
    sed -e "s|^socket = .*|socket = \"$CLUSTER_DIR/control.sock\"|" \
        -e "s|^watch = .*|watch = ${CLUSTER_WATCH:-true}\nmanifests = \"manifests\"|" \
        -e "/^\[workers\]/,/^\[control\]/s|^cores = .*|cores = [$last_core]|" \
        -e "/^\[control\]/,/^\[metrics\]/s|^cores = .*|cores = [$first_core]|" \
        "$CLUSTER_ROOT/configs/reference-cluster.toml" || return 1
    cat <<'TOML'

# From here on: what the checks need besides the reference cluster.

[[ports]]
name = "client"
role = "pod"
device = "net_tap7,iface=pg-cl1"
mtu = 1450

[[service]]
namespace = "demo"
name = "weighted"
cluster_ip = "10.254.80.31"

[[service.ports]]
name = "http"
port = 80
backends = [
    { address = "172.30.76.7:8080", weight = 3 },
    { address = "172.30.9.3:8080", weight = 1 },
]

[[service]]
namespace = "demo"
name = "growing"
cluster_ip = "10.254.80.32"

[[service.ports]]
name = "http"
port = 80
backends = [
    { address = "172.30.76.5:50051" },
    { address = "172.30.9.2:50051" },
    # a third joins here
]
TOML
}

# Tells a gateway that does not watch its files that they have changed.
cluster_reload_unless_watched() {
    if grep -q '^watch = false' "$CLUSTER_DIR/pollgate.toml"; then
        kill -HUP "$(cat "$CLUSTER_DIR/gateway.pid")"
    fi
}

# The manifests of one more service, which only this node's endpoint takes outside connections for, and an object that is
# wrong. `cluster_write_manifests local` has that endpoint, `cluster_write_manifests remote` the other node's alone.
cluster_write_manifests() {
    local folder="$CLUSTER_DIR/manifests"
    mkdir -p "$folder" || return 1
    cat >"$folder/wrong.yaml" <<'YAML'
apiVersion: v1
kind: Service
metadata: { namespace: demo, name: wrong }
spec: { clusterIP: 10.254.80.999, ports: [{ port: 80 }] }
YAML
    {
        cat <<'YAML'
apiVersion: v1
kind: Node
metadata: { name: node-1 }
spec: { podCIDR: 172.30.76.0/24 }
status: { addresses: [{ type: InternalIP, address: 192.168.0.21 }] }
---
apiVersion: v1
kind: Service
metadata: { namespace: demo, name: shop }
spec:
  type: LoadBalancer
  clusterIP: 10.254.80.33
  externalTrafficPolicy: Local
  healthCheckNodePort: 30999
  ports: [{ name: http, port: 80, nodePort: 30888 }]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { namespace: demo, name: shop-1, labels: { kubernetes.io/service-name: shop } }
addressType: IPv4
ports: [{ name: http, port: 8080 }]
endpoints:
- { addresses: [172.30.9.3], nodeName: node-2 }
YAML
        [ "$1" != local ] || echo '- { addresses: [172.30.76.7], nodeName: node-1 }'
    } >"$folder/shop.new"
    # Replaced in one step, as configuration managers do.
    mv "$folder/shop.new" "$folder/shop.yaml"
}

# Starts `pollgate run` on node 1 and waits until it answers. In CLUSTER_DIR: gateway.out has the summary that it prints at
# its end, gateway.log its log, gateway.exit its exit status.
cluster_start_gateway() {
    cluster_write_config >"$CLUSTER_DIR/pollgate.toml" || return 1
    cluster_write_manifests local || return 1
    (
        ip netns exec "$CLUSTER_PREFIX-node1" "$CLUSTER_BINARY" run --config "$CLUSTER_DIR/pollgate.toml" \
            >"$CLUSTER_DIR/gateway.out" 2>"$CLUSTER_DIR/gateway.log" </dev/null &
        echo $! >"$CLUSTER_DIR/gateway.pid"
        wait $!
        echo $? >"$CLUSTER_DIR/gateway.exit"
    ) &
    # Its devices may be moved only once it has finished setting them up.
    if ! wait_until 30 cluster_gateway_settled || [ -e "$CLUSTER_DIR/gateway.exit" ]; then
        echo "the gateway does not answer; its log:" >&2
        cat "$CLUSTER_DIR/gateway.log" >&2
        return 1
    fi
}

# The gateway answers, or it has ended and there is nothing more to wait for.
cluster_gateway_settled() {
    [ -e "$CLUSTER_DIR/gateway.exit" ] || cluster_show ports
}

# cluster_show WHAT [OPTION...]: asks the running gateway.
cluster_show() {
    timeout 5 "$CLUSTER_BINARY" show --socket "$CLUSTER_DIR/control.sock" "$@"
}

# Moves the gateway's devices to where they are plugged in: eth0 into the nodes' network, each pod's into the pod.
cluster_attach() {
    local namespace address
    link node1 link set pg-eth0 netns "$CLUSTER_PREFIX-lan" || return 1
    link lan link set pg-eth0 mtu 1500 master br0 up || return 1
    while read -r namespace address _; do
        [ -n "$namespace" ] || continue
        link node1 link set "pg-$namespace" netns "$CLUSTER_PREFIX-$namespace" name eth0 || return 1
        link "$namespace" address add "$address/24" dev eth0
        link "$namespace" link set eth0 mtu 1450 up
        link "$namespace" route add default via 172.30.76.1 || return 1
    done <<<"$CLUSTER_PODS_NODE1"
    # The host's own stack has the node's address and one way out: the gateway, whose MAC there is the default of
    # `[exception] mac`.
    link node1 address add 192.168.0.21/32 dev pg-host
    link node1 link set pg-host up
    link node1 neighbour add 169.254.1.1 lladdr 02:70:67:00:00:01 dev pg-host nud permanent
    link node1 route add default via 169.254.1.1 dev pg-host onlink metric 1000 || return 1
    # Pods that never spoke are unknown to everybody; one answered ping shows that the whole path is up.
    wait_until 10 inside cl1 ping -c 1 -W 1 172.30.76.1 || { echo "the bridge does not answer" >&2 && return 1; }
    wait_until 10 inside cl1 ping -c 1 -W 1 172.30.9.2 || { echo "the tunnel does not answer" >&2 && return 1; }
    wait_until 10 inside client ping -c 1 -W 1 192.168.0.21 || { echo "the node does not answer" >&2 && return 1; }
}

# All of it, in order.
cluster_up() {
    cluster_open && cluster_start_backends && cluster_start_gateway && cluster_attach
}

# Ends the gateway with SIGTERM and waits for its end; fails when it does not come.
cluster_stop_gateway() {
    [ -s "$CLUSTER_DIR/gateway.pid" ] || return 0
    [ -e "$CLUSTER_DIR/gateway.exit" ] || kill -TERM "$(cat "$CLUSTER_DIR/gateway.pid")" 2>/dev/null
    wait_until 10 test -e "$CLUSTER_DIR/gateway.exit"
}

# Removes everything. Whatever still runs inside the cluster's namespaces was started there by it.
cluster_close() {
    local namespace pids
    [ -n "${CLUSTER_DIR:-}" ] || return 0
    cluster_stop_gateway
    for namespace in $CLUSTER_NAMESPACES; do
        [ -e "/run/netns/$CLUSTER_PREFIX-$namespace" ] || continue
        pids=$(ip netns pids "$CLUSTER_PREFIX-$namespace")
        # shellcheck disable=SC2086 # one word a pid
        [ -z "$pids" ] || kill -KILL $pids 2>/dev/null
        ip netns delete "$CLUSTER_PREFIX-$namespace"
    done
    rm -rf "$CLUSTER_DIR"
    CLUSTER_DIR=
}
