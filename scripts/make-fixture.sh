#!/usr/bin/env bash
# Makes tests/fixtures/kernel-vxlan.pcap and kernel-vxlan-pod.pcap: what arrives at node 1 of the reference cluster, by
# eth0 and from its pod 172.30.76.5, when Linux's own vxlan device, bridge and TCP are on both sides.
#
# Four network namespaces, removed again at the end: two nodes joined by a veth pair, a pod behind each. Traffic:
#   - a pod on node 2 fetches 4 KiB by HTTP from the pod on node 1 (TCP 50051)
#   - the pod on node 1 pings the pod on node 2 with full packets (MTU 1450)
#   - the pod on node 2 opens 12 connections to 10.254.116.224:50051, which nobody answers here: first SYNs
#   - it sends 2 datagrams to 10.254.0.2:53, and 2 pings to 10.254.116.224
# Needs root, iproute2, ethtool, tcpdump, iputils-ping and python3.
set -euo pipefail
cd "$(dirname "$0")/.."

prefix="fixture-$$"
node1="$prefix-n1" node2="$prefix-n2" pod1="$prefix-p1" pod2="$prefix-p2"
folder="$(mktemp -d)"
processes=()

cleanup() {
    for process in "${processes[@]}"; do kill "$process" 2>/dev/null || true; done
    wait
    for namespace in "$node1" "$node2" "$pod1" "$pod2"; do ip netns delete "$namespace" 2>/dev/null || true; done
    rm -rf "$folder"
}
trap cleanup EXIT

in_namespace() { ip netns exec "$@"; }

# Checksums are computed and packets sent as they are: nothing is left to a network card that is not there.
up() { # namespace device mac mtu
    ip -n "$1" link set "$2" address "$3" mtu "$4" up
    in_namespace "$1" ethtool -K "$2" tx off rx off gso off tso off gro off >/dev/null
}

node() { # namespace, number, own /24, VTEP MAC, other /24's first three bytes, other VTEP MAC, other number, bridge MAC, pod namespace, pod address, pod MAC
    local name="$1" number="$2" own="$3" mac="$4" other="$5" other_mac="$6" other_number="$7" bridge_mac="$8" pod="$9"
    local pod_address="${10}" pod_mac="${11}"
    ip -n "$name" address add "192.168.0.$number/24" dev eth0
    ip -n "$name" link add flannel.1 address "$mac" mtu 1450 type vxlan id 1 dstport 8472 local "192.168.0.$number" dev eth0 nolearning
    ip -n "$name" address add "$own.0/32" dev flannel.1
    ip -n "$name" link set flannel.1 up
    ip -n "$name" route add "$other.0/24" via "$other.0" dev flannel.1 onlink
    ip -n "$name" neighbour add "$other.0" lladdr "$other_mac" dev flannel.1 nud permanent
    in_namespace "$name" bridge fdb append "$other_mac" dev flannel.1 dst "192.168.0.$other_number"
    ip -n "$name" link add docker0 type bridge forward_delay 0
    ip -n "$name" link set docker0 address "$bridge_mac" mtu 1450 up
    ip -n "$name" address add "$own.1/24" dev docker0
    ip -n "$name" link add pod0 type veth peer name eth0 netns "$pod"
    ip -n "$name" link set pod0 master docker0
    up "$name" pod0 "02:00:00:00:00:$number" 1450
    up "$pod" eth0 "$pod_mac" 1450
    ip -n "$pod" address add "$pod_address/24" dev eth0
    ip -n "$pod" route add default via "$own.1"
}

for namespace in "$node1" "$node2" "$pod1" "$pod2"; do
    ip netns add "$namespace"
    in_namespace "$namespace" sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1 net.ipv4.ip_forward=1
    ip -n "$namespace" link set lo up
done
ip -n "$node1" link add eth0 type veth peer name eth0 netns "$node2"
up "$node1" eth0 02:00:c0:a8:00:15 1500
up "$node2" eth0 02:00:c0:a8:00:16 1500
node "$node1" 21 172.30.76 8a:22:81:5e:d8:b7 172.30.9 96:8f:2d:49:c5:31 22 02:42:67:05:b5:30 "$pod1" 172.30.76.5 02:42:ac:1e:4c:05
node "$node2" 22 172.30.9 96:8f:2d:49:c5:31 172.30.76 8a:22:81:5e:d8:b7 21 02:42:67:05:b5:31 "$pod2" 172.30.9.2 02:42:ac:1e:09:02
ip -n "$node2" route add 10.254.0.0/16 via 172.30.76.0 dev flannel.1 onlink
ip -n "$node1" route add blackhole 10.254.0.0/16

head -c 4096 /dev/zero | tr '\0' 'x' >"$folder/file"
# Without the function: its background process would be a shell, and a signal would not reach what runs in it.
ip netns exec "$pod1" python3 -m http.server --directory "$folder" 50051 >/dev/null 2>&1 &
processes+=($!)
ip netns exec "$node1" tcpdump --immediate-mode -U -Q in -s 0 -i eth0 -w "$folder/eth0.pcap" 2>/dev/null &
captures=($!)
ip netns exec "$node1" tcpdump --immediate-mode -U -Q in -s 0 -i pod0 -w "$folder/pod.pcap" 2>/dev/null &
captures+=($!)
processes+=("${captures[@]}")
sleep 2

in_namespace "$pod2" python3 - <<'PYTHON'
import socket, urllib.request

# A question for an A record: header with one question, labels, type, class (RFC 1035, section 4.1).
def question(number, name):
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return bytes([0, number, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]) + labels + b"\0\0\1\0\1"

urllib.request.urlopen("http://172.30.76.5:50051/file", timeout=5).read()
for _ in range(12):
    with socket.socket() as connection:
        connection.settimeout(0.05)
        try:
            connection.connect(("10.254.116.224", 50051))
        except OSError:
            pass
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
    for number, name in enumerate(("kubernetes.default.svc.cluster.local", "pollgate.example")):
        datagrams.sendto(question(number, name), ("10.254.0.2", 53))
PYTHON
in_namespace "$pod1" ping -q -c 2 -i 0.2 -M 'do' -s 1422 172.30.9.2 >/dev/null
in_namespace "$pod2" ping -q -c 2 -i 0.2 -W 1 10.254.116.224 >/dev/null || true
sleep 1
kill "${captures[@]}"
wait "${captures[@]}" || true

mkdir -p tests/fixtures
cp --no-preserve=all "$folder/eth0.pcap" tests/fixtures/kernel-vxlan.pcap
cp --no-preserve=all "$folder/pod.pcap" tests/fixtures/kernel-vxlan-pod.pcap
ls -l tests/fixtures/kernel-vxlan.pcap tests/fixtures/kernel-vxlan-pod.pcap
