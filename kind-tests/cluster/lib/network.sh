# The node network: one bridge in a namespace of its own, to which every member is plugged.
# Sourced, never run.

netns_exists() { # MEMBER
    [[ -e /run/netns/$NAME-$1 ]]
}

# netns_names: the namespaces of this cluster, and of no other.
netns_names() {
    local path
    for path in /run/netns/"$NAME"-*; do
        [[ ${path##*/} =~ ^$NAME-(cp|ext|fab|n[0-9]+)$ ]] && echo "${path##*/}"
    done
    return 0
}

in_netns() { # MEMBER CMD...
    local member=$1
    shift
    nsenter --net="/run/netns/$NAME-$member" "$@"
}

netns_make() { # MEMBER
    netns_exists "$1" || ip netns add "$NAME-$1"
    in_netns "$1" sysctl -qw net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.default.disable_ipv6=0 \
        net.ipv6.conf.default.accept_ra=0 net.ipv6.conf.default.accept_dad=0 \
        net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0
    ip -n "$NAME-$1" link set lo up
}

fabric_up() {
    netns_make fab
    ip -n "$NAME-fab" link show br0 >/dev/null 2>&1 ||
        # Ports do not flood: an address that was learned must not be forgotten while its owner is silent.
        ip -n "$NAME-fab" link add br0 type bridge forward_delay 0 mcast_snooping 0 ageing_time 100000000
    ip -n "$NAME-fab" link set br0 up
}

# plug MEMBER HOST: puts a member on the bridge, as host number HOST of both networks.
plug() {
    local ns=$NAME-$1 port=p-$1
    netns_make "$1"
    ip -n "$ns" link show e0 >/dev/null 2>&1 ||
        ip -n "$NAME-fab" link add "$port" type veth peer name e0 netns "$ns"
    ip -n "$NAME-fab" link set "$port" master br0 up
    # A network card drops frames for other addresses; a veth takes what the bridge floods.
    in_netns fab bridge link set dev "$port" flood off
    ip -n "$ns" addr replace "$NET4.$2/24" dev e0
    ip -n "$ns" addr replace "$NET6:$2/64" dev e0 nodad
    ip -n "$ns" link set e0 up
}

# The outside is everyone's way to the world. It knows no pod address, as a real router would not.
default_route() { # MEMBER
    ip -n "$NAME-$1" route replace default via "$NET4.$EXT_HOST"
    ip -n "$NAME-$1" -6 route replace default via "$NET6:$EXT_HOST"
}

forward() { # MEMBER
    in_netns "$1" sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
}

# The outside: a member that is no node, and two addresses of "the internet" behind it.
outside_up() {
    plug ext $EXT_HOST
    ip -n "$NAME-ext" addr replace 203.0.113.10/32 dev lo
    ip -n "$NAME-ext" addr replace 2001:db8::10/128 dev lo
    running ext || daemon ext ext "$BIN/agnhost" netexec --http-port 8080 --udp-port 8081
}

# network_part NODE: everybody else goes on to reach the node, and it them.
network_part() {
    local other
    network_whole "$1"
    in_netns fab nft add table bridge "part-$1"
    in_netns fab nft add chain bridge "part-$1" forward '{ type filter hook forward priority 0; }'
    for other in $(nodes); do
        [[ $other != "$1" ]] || continue
        in_netns fab nft add rule bridge "part-$1" forward iifname "p-$1" oifname "p-$other" drop
        in_netns fab nft add rule bridge "part-$1" forward iifname "p-$other" oifname "p-$1" drop
    done
}

network_whole() { # NODE
    ! in_netns fab nft list table bridge "part-$1" >/dev/null 2>&1 || in_netns fab nft delete table bridge "part-$1"
}

network_down() {
    local name
    for name in $(netns_names); do ip netns del "$name"; done
}
