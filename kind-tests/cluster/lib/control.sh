# The control plane: etcd, API server, controller manager, scheduler, in one network namespace.
# Sourced, never run.

CONTROL_PLANE=(etcd apiserver controller-manager scheduler)

kube() {
    netns_exists cp || die "cluster '$NAME' does not run; 'up' makes it"
    in_netns cp "$BIN/kubectl" --kubeconfig "$KUBECONFIG_FILE" "$@"
}

start_etcd() {
    # A test cluster does not outlive its machine: no need to wait for the disk on every write.
    daemon etcd cp "$BIN/etcd" --data-dir "$STATE/cp/etcd" --unsafe-no-fsync --log-level warn \
        --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
        --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
        --initial-cluster default=http://127.0.0.1:2380
}

# Aggregator routing: nothing in this namespace knows service addresses, so the API server calls
# webhooks at their pods.
start_apiserver() {
    daemon apiserver cp "$BIN/kube-apiserver" --etcd-servers http://127.0.0.1:2379 \
        --bind-address :: --advertise-address "$NET4.$API_HOST" --secure-port 6443 \
        --service-cluster-ip-range "$SERVICE_CIDRS" --allow-privileged \
        --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction \
        --client-ca-file "$PKI/ca.crt" --tls-cert-file "$PKI/apiserver.crt" --tls-private-key-file "$PKI/apiserver.key" \
        --kubelet-certificate-authority "$PKI/ca.crt" --kubelet-preferred-address-types InternalIP \
        --kubelet-client-certificate "$PKI/apiserver-kubelet-client.crt" \
        --kubelet-client-key "$PKI/apiserver-kubelet-client.key" \
        --service-account-issuer https://kubernetes.default.svc.cluster.local \
        --service-account-key-file "$PKI/sa.key" --service-account-signing-key-file "$PKI/sa.key" \
        --requestheader-client-ca-file "$PKI/front-proxy-ca.crt" --requestheader-allowed-names front-proxy-client \
        --requestheader-username-headers X-Remote-User --requestheader-group-headers X-Remote-Group \
        --requestheader-extra-headers-prefix X-Remote-Extra- \
        --proxy-client-cert-file "$PKI/front-proxy-client.crt" --proxy-client-key-file "$PKI/front-proxy-client.key" \
        --enable-aggregator-routing --max-requests-inflight 1000 --max-mutating-requests-inflight 500
}

start_controller-manager() {
    daemon controller-manager cp "$BIN/kube-controller-manager" --kubeconfig "$PKI/controller-manager.conf" \
        --leader-elect=false --use-service-account-credentials \
        --allocate-node-cidrs --cluster-cidr "$POD_CIDRS" --service-cluster-ip-range "$SERVICE_CIDRS" \
        --node-cidr-mask-size-ipv4 24 --node-cidr-mask-size-ipv6 64 \
        --service-account-private-key-file "$PKI/sa.key" --root-ca-file "$PKI/ca.crt" \
        --cluster-signing-cert-file "$PKI/ca.crt" --cluster-signing-key-file "$PKI/ca.key" \
        --flex-volume-plugin-dir "$STATE/cp/volume-plugins" --kube-api-qps 100 --kube-api-burst 200
}

start_scheduler() {
    daemon scheduler cp "$BIN/kube-scheduler" --kubeconfig "$PKI/scheduler.conf" --leader-elect=false \
        --kube-api-qps 100 --kube-api-burst 200
}

control_up() {
    local component
    mkdir -p "$STATE"/cp/{run,log}
    cg_make cp
    plug cp $API_HOST
    default_route cp
    outside_up
    for component in "${CONTROL_PLANE[@]}"; do
        running "$component" || start_"$component"
    done
}

# What every cluster has from the start: rights of the API server on kubelets, and DNS.
addons_up() {
    wait_until 60 "the API server (its log: $(log_file apiserver))" kube get --raw /readyz
    kube apply --server-side --field-manager=cluster-in-a-box -f "$HERE/manifests" >/dev/null
}
