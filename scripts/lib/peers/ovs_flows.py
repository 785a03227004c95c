"""Writes OpenFlow groups and flows for a load balancer as OVN builds them (northd: ls_in_pre_stateful, ls_in_lb).

ovs_flows.py plain|dnat|new SERVICES BACKENDS GROUPS_FILE FLOWS_FILE

plain: what comes by the tunnel goes back by it. Otherwise: connection tracking with NAT first; what is new and for a service
goes to that service's group, which draws a backend and commits the connection with its address; all else that is tracked goes
on. Service i has the address 10.254.128.0 + i and the UDP port 80; backends are 172.30.9.2 and up, port 8080.
"""

import ipaddress
import sys

FIRST_SERVICE = ipaddress.IPv4Address("10.254.128.0")
FIRST_BACKEND = ipaddress.IPv4Address("172.30.9.2")
# To the other end of the tunnel, one hop on, the way it came.
LEAVE = "set_field:8a:22:81:5e:d8:b7->eth_src,set_field:96:8f:2d:49:c5:31->eth_dst,dec_ttl,in_port"


def group(number, backends):
    buckets = (f"bucket=weight:100,actions=ct(commit,table=2,zone=1,nat(dst={FIRST_BACKEND + place}:8080))"
               for place in range(backends))
    return f"group_id={number + 1},type=select,selection_method=dp_hash,{','.join(buckets)}"


def flows(load, services):
    if load == "plain":
        yield f"table=0,priority=10,ip actions={LEAVE}"
        return
    yield "table=0,priority=10,ip actions=ct(table=1,zone=1,nat)"
    # Also what one might call established: a datagram's connection stays new here until it is answered, but comes
    # translated already.
    yield "table=1,priority=20,ip,ct_state=+trk actions=goto_table:2"
    for number in range(services):
        yield (f"table=1,priority=30,ct_state=+trk+new,udp,nw_dst={FIRST_SERVICE + number},tp_dst=80"
               f" actions=group:{number + 1}")
    yield f"table=2,priority=10,ip actions={LEAVE}"


def main(load, services, backends, groups_file, flows_file):
    with open(groups_file, "w", encoding="utf-8") as output:
        if load != "plain":
            output.writelines(f"{group(number, int(backends))}\n" for number in range(int(services)))
    with open(flows_file, "w", encoding="utf-8") as output:
        output.writelines(f"{line}\n" for line in flows(load, int(services)))


if __name__ == "__main__":
    main(*sys.argv[1:])
