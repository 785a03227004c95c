"""Writes the rules that kube-proxy writes for services with cluster IPs.

kube_proxy_rules.py iptables|nftables SERVICES BACKENDS

iptables: for `iptables-restore`, chains and order as in kubernetes 1.34's pkg/proxy/iptables/proxier.go (syncProxyRules;
the rules as a whole stand in proxier_test.go, TestOverallIPTablesRules). nftables: for `nft -f`, as in
pkg/proxy/nftables/proxier.go (setupNFTables, syncProxyRules; TestOverallNFTablesRules). Without `--cluster-cidr` and
`--masquerade-all`, so that nothing but hairpin traffic is masqueraded. Service i has the address 10.254.128.0 + i and the
UDP port 80; its backends are 172.30.9.2 and up, port 8080.
"""

import base64
import hashlib
import ipaddress
import sys

FIRST_SERVICE = ipaddress.IPv4Address("10.254.128.0")
FIRST_BACKEND = ipaddress.IPv4Address("172.30.9.2")


def digest(text, length):
    """kube-proxy's names of chains: the beginning of a SHA-256 in base 32."""
    return base64.b32encode(hashlib.sha256(text.encode()).digest()).decode()[:length]


def services(count, backends):
    for number in range(count):
        yield f"load/s{number}", FIRST_SERVICE + number, [f"{FIRST_BACKEND + place}" for place in range(backends)]


def iptables(count, backends):
    chains, entries, rules = [], [], []
    for name, address, endpoints in services(count, backends):
        service = "KUBE-SVC-" + digest(f"{name}:udpudp", 16)
        chains.append(service)
        entries.append(f'-A KUBE-SERVICES -m comment --comment "{name}:udp cluster IP" -m udp -p udp'
                       f" -d {address} --dport 80 -j {service}")
        for place, endpoint in enumerate(endpoints):
            chain = "KUBE-SEP-" + digest(f"{name}:udpudp{endpoint}:8080", 16)
            chains.append(chain)
            left = len(endpoints) - place
            chance = f" -m statistic --mode random --probability {1 / left:.10f}" if left > 1 else ""
            rules.append(f'-A {service} -m comment --comment "{name}:udp -> {endpoint}:8080"{chance} -j {chain}')
            rules.append(f"-A {chain} -m comment --comment {name}:udp -s {endpoint} -j KUBE-MARK-MASQ")
            rules.append(f"-A {chain} -m comment --comment {name}:udp -m udp -p udp"
                         f" -j DNAT --to-destination {endpoint}:8080")
    yield from filter_table()
    yield "*nat"
    for chain in ["KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-POSTROUTING", "KUBE-MARK-MASQ", *chains]:
        yield f":{chain} - [0:0]"
    for chain in ("PREROUTING", "OUTPUT"):
        yield f'-A {chain} -m comment --comment "kubernetes service portals" -j KUBE-SERVICES'
    yield '-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING'
    yield "-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN"
    yield "-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000"
    yield ('-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT"'
           " -j MASQUERADE --random-fully")
    yield "-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000"
    yield from entries
    yield ('-A KUBE-SERVICES -m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in'
           ' this chain" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS')
    yield from rules
    yield "COMMIT"


def filter_table():
    chains = ["KUBE-NODEPORTS", "KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES", "KUBE-FIREWALL", "KUBE-FORWARD",
              "KUBE-PROXY-FIREWALL"]
    new = "-m conntrack --ctstate NEW -m comment --comment"
    yield from ["*filter", *(f":{chain} - [0:0]" for chain in chains)]
    for chain in ("INPUT", "FORWARD", "OUTPUT"):
        yield f'-A {chain} {new} "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL'
        if chain == "INPUT":
            yield '-A INPUT -m comment --comment "kubernetes health check service ports" -j KUBE-NODEPORTS'
        if chain == "FORWARD":
            yield '-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD'
        if chain != "INPUT":
            yield f'-A {chain} {new} "kubernetes service portals" -j KUBE-SERVICES'
        if chain != "OUTPUT":
            yield f'-A {chain} {new} "kubernetes externally-visible service portals" -j KUBE-EXTERNAL-SERVICES'
    yield "-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP"
    yield '-A KUBE-FORWARD -m comment --comment "kubernetes forwarding rules" -m mark --mark 0x4000/0x4000 -j ACCEPT'
    yield ('-A KUBE-FORWARD -m comment --comment "kubernetes forwarding conntrack rule" -m conntrack'
           " --ctstate RELATED,ESTABLISHED -j ACCEPT")
    yield "COMMIT"


SKELETON = """\
table ip kube-proxy {
    set cluster-ips { type ipv4_addr; }
    set nodeport-ips { type ipv4_addr; }
    map no-endpoint-services { type ipv4_addr . inet_proto . inet_service : verdict; }
    map no-endpoint-nodeports { type inet_proto . inet_service : verdict; }
    map firewall-ips { type ipv4_addr . inet_proto . inet_service : verdict; }
    map service-ips { type ipv4_addr . inet_proto . inet_service : verdict; }
    map service-nodeports { type inet_proto . inet_service : verdict; }
    chain mark-for-masquerade { mark set mark or 0x4000; }
    chain masquerading {
        mark and 0x4000 == 0 return
        mark set mark xor 0x4000
        masquerade fully-random
    }
    chain reject-chain { reject; }
    chain cluster-ips-check { ip daddr @cluster-ips reject; ip daddr { 10.254.0.0/16 } drop; }
    chain service-endpoints-check { ip daddr . meta l4proto . th dport vmap @no-endpoint-services; }
    chain nodeport-endpoints-check { ip daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports; }
    chain firewall-check { ip daddr . meta l4proto . th dport vmap @firewall-ips; }
    chain services {
        ip daddr . meta l4proto . th dport vmap @service-ips
        ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
    }
    chain filter-prerouting-pre-dnat {
        type filter hook prerouting priority -110;
        ct state new jump firewall-check
    }
    chain filter-output-pre-dnat { type filter hook output priority -110; ct state new jump firewall-check; }
    chain filter-input {
        type filter hook input priority 0;
        ct state new jump nodeport-endpoints-check
        ct state new jump service-endpoints-check
    }
    chain filter-forward {
        type filter hook forward priority 0;
        ct state new jump service-endpoints-check
        ct state new jump cluster-ips-check
    }
    chain filter-output {
        type filter hook output priority 0;
        ct state new jump service-endpoints-check
        ct state new jump cluster-ips-check
    }
    chain nat-prerouting { type nat hook prerouting priority -100; jump services; }
    chain nat-output { type nat hook output priority -100; jump services; }
    chain nat-postrouting { type nat hook postrouting priority 100; jump masquerading; }
}"""


def nftables(count, backends):
    yield SKELETON
    rules = []
    for name, address, endpoints in services(count, backends):
        service = f"service-{digest(f'{name}udp', 8)}-{name}/udp/udp"
        chains = [f"endpoint-{digest(f'{name}udp{endpoint}', 8)}-{name}/udp/udp__{endpoint}/8080"
                  for endpoint in endpoints]
        for chain in (service, *chains):
            yield f"add chain ip kube-proxy {chain}"
        choices = ", ".join(f"{place} : goto {chain}" for place, chain in enumerate(chains))
        rules += [
            f"add element ip kube-proxy cluster-ips {{ {address} }}",
            f"add element ip kube-proxy service-ips {{ {address} . udp . 80 : goto {service} }}",
            f"add rule ip kube-proxy {service} numgen random mod {len(chains)} vmap {{ {choices} }}",
        ]
        for endpoint, chain in zip(endpoints, chains):
            rules.append(f"add rule ip kube-proxy {chain} ip saddr {endpoint} jump mark-for-masquerade")
            rules.append(f"add rule ip kube-proxy {chain} meta l4proto udp dnat to {endpoint}:8080")
    yield from rules


def main(arguments):
    writers = {"iptables": iptables, "nftables": nftables}
    if len(arguments) != 3 or arguments[0] not in writers:
        print(__doc__, file=sys.stderr)
        return 2
    for text in writers[arguments[0]](int(arguments[1]), int(arguments[2])):
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
