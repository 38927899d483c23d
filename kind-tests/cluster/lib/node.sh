# Nodes: each has its own namespaces, control groups, containerd and kubelet. Sourced, never run.

# nodes: the nodes that this cluster is meant to have, one per line.
nodes() {
    local path
    for path in "$STATE"/n*/host; do
        if [[ -e $path ]]; then basename "${path%/host}"; fi
    done | sort -V
}

is_node() { # NAME
    [[ -e $STATE/$1/host ]]
}

# node_make NODE HOST: everything that outlives a restart of the node.
node_make() {
    local dir=$STATE/$1
    mkdir -p "$dir"/{run,log,imported,containerd,kubelet,cilium}
    node_pki "$1" "$2"
    cg_make "$1"
    plug "$1" "$2"
    forward "$1"
    default_route "$1"
    containerd_config >"$dir/containerd.toml"
    kubelet_config "$1" >"$dir/kubelet.yaml"
    echo "$2" >"$dir/host"
}

containerd_config() {
    cat <<'T'
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "registry.k8s.io/pause:3.10.2"
  # Containers may not ask for less than containerd itself has: it may lack CAP_SYS_RESOURCE.
  restrict_oom_score_adj = true
T
}

# Image collection is off: images come from archives, there is no registry to fetch them from again.
kubelet_config() { # NODE
    cat <<T
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $PKI/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $PKI/$1-kubelet.crt
tlsPrivateKeyFile: $PKI/$1-kubelet.key
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /
failCgroupV1: false
failSwapOn: false
clusterDNS: [$DNS_ADDRESS]
clusterDomain: cluster.local
maxPods: 250
podsPerCore: 0
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%, nodefs.inodesFree: 1%}
serializeImagePulls: false
registryPullQPS: 0
eventRecordQPS: 0
kubeAPIQPS: 100
kubeAPIBurst: 200
volumePluginDir: /var/lib/kubelet/volume-plugins
crashLoopBackOff: {maxContainerRestartPeriod: 5s}
nodeStatusUpdateFrequency: 2s
nodeStatusReportFrequency: 5m
registerWithTaints: [{key: node.cilium.io/agent-not-ready, effect: NoExecute}]
T
}

# node_up NODE: starts what is missing on a node.
node_up() {
    local node=$1
    running "$node/init" || node_boot "$node"
    running "$node/containerd" || node_daemon "$node/containerd" containerd --config /run/box/containerd.toml
    wait_until 30 "containerd of $node (its log: $(log_file "$node/containerd"))" in_node "$node" ctr version
    running "$node/kubelet" || kubelet_start "$node"
}

# node_boot NODE: ends what a dead node left, then makes its namespaces. The shell that prepares them
# becomes the node's first process; when that ends, the kernel ends everything on the node.
node_boot() {
    local launcher
    cg_kill "$1"
    cg_forget_pods "$1"
    (cg_exec "$1" unshare --cgroup "$HERE/lib/node-boot" "$1" "$STATE/$1" "$BIN/pause" "$CG_ROOT" 9>&-) &
    launcher=$!
    wait_until 30 "namespaces of $1 (their log: $(log_file "$1/init"))" booted_or_ended "$1" $launcher
    booted "$1" || die "node $1 did not start: $(tail -1 "$(log_file "$1/init")")"
}

booted_or_ended() { # NODE LAUNCHER
    booted "$1" || ! kill -0 "$2"
}

booted() { # NODE
    running "$1/init" && [[ $(cat "/proc/$(pid_of "$1/init")/comm") == pause ]]
}

kubelet_start() { # NODE
    local host
    host=$(<"$STATE/$1/host")
    node_daemon "$1/kubelet" "$BIN/kubelet" --config /run/box/kubelet.yaml --kubeconfig "$PKI/$1.conf" \
        --hostname-override "$1" --node-ip "$NET4.$host,$NET6:$host"
}

# load_images NODE DIR: imports the archives of a folder that the node does not have as they are.
load_images() {
    local node=$1 archive stamp mark
    for archive in "$2"/*.tar; do
        [[ -e $archive ]] || die "no image archive (*.tar) in $2"
        mark=$STATE/$node/imported/$(basename "$archive")
        stamp=$(stat -c '%n %s %y' "$archive")
        [[ -e $mark && $(<"$mark") == "$stamp" ]] && continue
        in_node "$node" ctr -n k8s.io images import "$archive" >/dev/null ||
            die "node $node could not import $archive"
        echo "$stamp" >"$mark"
    done
}

registered() { # NODE
    [[ -n $(kube get node "$1" -o 'jsonpath={.spec.podCIDR}') ]]
}

# The control plane reaches pods (webhooks, aggregated APIs) through their nodes.
node_routes() { # NODE
    local host cidr
    host=$(<"$STATE/$1/host")
    wait_until 60 "registration of $1 (kubelet's log: $(log_file "$1/kubelet"))" registered "$1"
    for cidr in $(kube get node "$1" -o 'jsonpath={.spec.podCIDRs[*]}'); do
        case $cidr in
        *:*) ip -n "$NAME-cp" -6 route replace "$cidr" via "$NET6:$host" ;;
        *) ip -n "$NAME-cp" route replace "$cidr" via "$NET4.$host" ;;
        esac
    done
}
