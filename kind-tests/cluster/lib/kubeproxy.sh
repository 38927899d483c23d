# kube-proxy on a node, beside whatever else serves Services there. It is part of no cluster: tests and people who compare start it.
# Sourced, never run.

# kube_proxy_start NODE MODE: in the mode nftables or iptables, with its own settings but for those that a namespace may not change.
kube_proxy_start() {
    local program=nft
    [[ $2 == nftables ]] || program=iptables
    command -v $program >/dev/null || die "kube-proxy in mode $2 needs $program: './dev' installs it"
    "$HERE/build" kube-proxy 9>&-
    new_client kube-proxy /CN=system:kube-proxy
    end "$1/kube-proxy" TERM
    node_daemon "$1/kube-proxy" "$BIN/kube-proxy" --proxy-mode "$2" --kubeconfig "$PKI/kube-proxy.conf" \
        --hostname-override "$1" --cluster-cidr "$POD_CIDRS" --conntrack-max-per-core 0
    wait_until 60 "rules of kube-proxy on $1 (its log: $(log_file "$1/kube-proxy"))" kube_proxy_works "$1" "$2"
}

# kube_proxy_works NODE MODE: the Service that every cluster has is in its rules.
kube_proxy_works() {
    case $2 in
    nftables) in_node "$1" nft list table ip kube-proxy | grep -q default/kubernetes/ ;;
    iptables) in_node "$1" iptables-save -t nat | grep -q default/kubernetes: ;;
    esac
}

# kube_proxy_end NODE: without it and its rules, as a node that never had it.
kube_proxy_end() {
    end "$1/kube-proxy" TERM
    [[ ! -x $BIN/kube-proxy ]] || in_node "$1" "$BIN/kube-proxy" --cleanup >>"$(log_file "$1/kube-proxy")" 2>&1
}
