# shellcheck shell=bash
# What the reference cluster must show through the gateway. Sourced after cluster.sh, with a cluster that is up.
#
# Each check is a function `check_NAME` that prints one line of evidence and succeeds or fails. Every wait in it has a
# bound. CHECKS lists them in order with the sentence that the evidence stands for.

declare -A CHECK_TITLES=()
CHECKS=()

title() {
    CHECKS+=("$1")
    CHECK_TITLES[$1]=$2
}

# client NAMESPACE ARGUMENTS...: the HTTP client, inside a namespace, stopped for good after 40 seconds.
client() {
    local namespace=$1
    shift
    inside "$namespace" timeout --foreground 40 "$CLUSTER_PYTHON" "$CLUSTER_LIB/client.py" "$@"
}

DATA_PRODUCT="data-product-1=1 data-product-2=1 data-product-3=1"

# The pod's own address reaches every backend: its answers pass the gateway by themselves.
title spread_node1 "a pod on node 1 reaches data-product, spread over three backends"
check_spread_node1() {
    # shellcheck disable=SC2086 # one word a backend
    client cl1 spread 10.254.116.224:50051 --count 300 --expect $DATA_PRODUCT --sources 172.30.76.9
}

# Masqueraded with the address of the device that the packet leaves by: the bridge's, or the VTEP's through the tunnel.
title spread_node2 "a pod on node 2 reaches data-product through the gateway's VTEP"
check_spread_node2() {
    # shellcheck disable=SC2086 # one word a backend
    client cl2 spread 10.254.116.224:50051 --count 300 --expect $DATA_PRODUCT --sources 172.30.76.0 172.30.76.1
}

# To itself the pod comes from the bridge's address (hairpin), to the others from its own.
title hairpin "a backend reaches its own service, and itself through it"
check_hairpin() {
    # shellcheck disable=SC2086 # one word a backend
    client dp1 spread 10.254.116.224:50051 --count 120 --expect $DATA_PRODUCT --sources 172.30.76.1 172.30.76.5
}

title node_port "an outside client reaches the ingress proxy by node port 30799"
check_node_port() {
    client client spread 192.168.0.21:30799 --count 100 --expect ingress-nginx=1 --sources 172.30.76.1
}

title weighted "a service weighted 3:1 is spread 3:1"
check_weighted() {
    client cl1 spread 10.254.80.31:80 --count 400 --expect business-manager-1=3 business-manager-3=1
}

title database "a database outside the cluster is reached through its service, from the node's address"
check_database() {
    client cl1 spread 10.254.84.209:3306 --count 50 --expect database=1 --sources 192.168.0.21
}

title api_server "a service whose backend is a node is reached"
check_api_server() {
    client cl1 spread 10.254.0.1:443 --count 50 --expect api-server=1 --sources 192.168.0.21
}

title host_stack "what belongs to the node itself reaches the host's own stack"
check_host_stack() {
    client client spread 192.168.0.21:8022 --count 20 --expect host-of-node-1=1 --sources 192.168.0.50
}

title refused "a service without endpoints refuses at once, TCP and UDP, from both nodes"
check_refused() {
    local namespace protocol evidence wrong=0
    for namespace in cl1 cl2; do
        for protocol in tcp udp; do
            evidence=$(client "$namespace" refused "$protocol" 10.254.0.2:53) || wrong=1
            echo -n "$namespace $evidence; "
        done
    done
    echo "bound 800 ms"
    return "$wrong"
}

# Silent: neither an answer nor an error that says why there is none.
title vip_silent "a service's address does not answer a ping"
check_vip_silent() {
    local output
    output=$(inside cl1 ping -n -c 3 -i 0.2 -W 1 10.254.116.224)
    summary_of_ping <<<"$output"
    grep -q ' 0 received, 100% packet loss' <<<"$output"
}

# 1,422 bytes of data, 8 of ICMP and 20 of IPv4 fill the pods' MTU of 1,450; with VXLAN's 50 the packet fills the
# underlay's 1,500. -M do forbids fragments. Two routers take two from the TTL of 64.
title full_mtu "pods ping each other across nodes at the full MTU, both ways"
check_full_mtu() {
    local there back
    there=$(inside cl1 ping -n -c 5 -i 0.2 -W 2 -M 'do' -s 1422 172.30.9.9)
    back=$(inside cl2 ping -n -c 5 -i 0.2 -W 2 -M 'do' -s 1422 172.30.76.9)
    echo "$(summary_of_ping <<<"$there") and $(summary_of_ping <<<"$back")"
    [ "$(grep -c 'ttl=62' <<<"$there")" = 5 ] && [ "$(grep -c 'ttl=62' <<<"$back")" = 5 ]
}

title own_addresses "the gateway's own addresses answer: bridge, node, and VTEP through the tunnel"
check_own_addresses() {
    local pair output wrong=0
    for pair in cl1:172.30.76.1 client:192.168.0.21 cl2:172.30.76.0; do
        output=$(inside "${pair%:*}" ping -n -c 3 -i 0.2 -W 2 "${pair#*:}") || wrong=1
        grep -q ' 3 received' <<<"$output" || wrong=1
        echo -n "${pair#*:} $(summary_of_ping <<<"$output"); "
    done
    echo "asked by a pod, an outside client and a pod on node 2"
    return "$wrong"
}

summary_of_ping() {
    sed -n 's/^\([0-9]* packets transmitted, [0-9]* received\).*/\1/p; s/.* icmp_seq=1 \(ttl=[0-9]*\) .*/\1,/p' | paste -sd ' '
}

# One client opens a connection for each request, another keeps one open; meanwhile the third backend joins.
title reload "a reload adds a backend while requests run, and none is lost"
check_reload() {
    local config="$CLUSTER_DIR/pollgate.toml" fresh kept fresh_pid kept_pid wrong=0
    fresh="$CLUSTER_DIR/reload-fresh" kept="$CLUSTER_DIR/reload-kept"
    client cl1 spread 10.254.80.32:80 --seconds 5 --pause-ms 2 >"$fresh" &
    fresh_pid=$!
    client cl2 spread 10.254.80.32:80 --seconds 5 --pause-ms 2 --keep-open >"$kept" &
    kept_pid=$!
    sleep 1.5
    sed 's|^    # a third joins here|    { address = "172.30.76.3:50051" },|' "$config" >"$config.new"
    # Replaced in one step, as editors and configuration managers do.
    mv "$config.new" "$config"
    cluster_reload_unless_watched
    wait "$fresh_pid" || wrong=1
    wait "$kept_pid" || wrong=1
    grep -q 'data-product-2 [0-9]' "$fresh" || wrong=1
    echo "new connections: $(cat "$fresh"); one connection: $(cat "$kept")"
    # Once more, with all three known: now the spread must be even.
    # shellcheck disable=SC2086 # one word a backend
    echo -n "; afterwards: " && client cl1 spread 10.254.80.32:80 --count 150 --expect $DATA_PRODUCT || wrong=1
    return "$wrong"
}

# health_of_shop STATUS COUNT: what a load balancer is told, within a second of a change.
health_of_shop() {
    local status=$1 count=$2
    inside client timeout --foreground 10 "$CLUSTER_PYTHON" - "$status" "$count" <<'PYTHON'
import json, sys, time, urllib.error, urllib.request

wanted, started = (int(sys.argv[1]), int(sys.argv[2])), time.monotonic()
while True:
    try:
        with urllib.request.urlopen("http://192.168.0.21:30999/healthz", timeout=1) as answer:
            status, text = answer.status, answer.read()
    except urllib.error.HTTPError as error:
        status, text = error.code, error.read()
    seen = (status, json.loads(text)["localEndpoints"])
    took_ms = (time.monotonic() - started) * 1000
    if seen == wanted or took_ms > 1000:
        print(f"health check node port: {seen[0]} with {seen[1]} local endpoints after {took_ms:.0f} ms")
        sys.exit(seen != wanted)
    time.sleep(0.02)
PYTHON
}

title manifests "a service from manifests: this node's endpoint alone, the client's own address; a change acts within a second"
check_manifests() {
    local wrong=0
    client cl1 spread 10.254.80.33:80 --count 100 --expect business-manager-1=1 business-manager-3=1 || wrong=1
    echo -n "; from outside: "
    client client spread 192.168.0.21:30888 --count 50 --expect business-manager-1=1 --sources 192.168.0.50 || wrong=1
    echo -n "; " && health_of_shop 200 1 || wrong=1
    cluster_write_manifests remote
    cluster_reload_unless_watched
    echo -n "without the endpoint here: " && health_of_shop 503 0 || wrong=1
    client cl1 spread 10.254.80.33:80 --count 50 --expect business-manager-3=1 || wrong=1
    cluster_write_manifests local
    cluster_reload_unless_watched
    echo -n "; with it again: " && health_of_shop 200 1 || wrong=1
    # The object that is wrong is named, and nothing else suffers from it.
    grep -o 'wrong.yaml:[0-9]*:[0-9]*: error: Service demo/wrong: spec.clusterIP: .*no IP address' \
        "$CLUSTER_DIR/gateway.log" | head -n 1 | grep . || wrong=1
    return "$wrong"
}

# An answering gateway ends on SIGTERM with status 0, every packet accounted for and every buffer back.
title stop "the gateway stops on SIGTERM, with every packet accounted for and no buffer in flight"
check_stop() {
    local status summary
    cluster_stop_gateway || { echo "still running after 10 s" && return 1; }
    status=$(cat "$CLUSTER_DIR/gateway.exit")
    summary=$(cat "$CLUSTER_DIR/gateway.out" "$CLUSTER_DIR/gateway.log" | grep -oE '(accounting|buffers in flight): .*')
    echo "exit status $status; ${summary//$'\n'/; }"
    [ "$status" = 0 ] && grep -q '^accounting: balanced' <<<"$summary" &&
        grep -qx 'buffers in flight: 0' <<<"$summary"
}

# run_check NAME: prints its verdict, its title and its evidence.
run_check() {
    local evidence
    if evidence=$("check_$1" 2>&1); then
        printf 'ok      %s\n          %s\n' "${CHECK_TITLES[$1]}" "${evidence//$'\n'/ }"
    else
        printf 'FAILED  %s\n          %s\n' "${CHECK_TITLES[$1]}" "${evidence//$'\n'/ }"
        return 1
    fi
}
