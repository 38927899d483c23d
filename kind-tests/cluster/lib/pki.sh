# Certificates and kubeconfigs, made once per cluster. Sourced, never run.

PKI=$STATE/pki

# new_ca NAME: a certificate authority.
new_ca() {
    [[ -e $PKI/$1.crt ]] && return
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=$NAME-$1" \
        -addext keyUsage=critical,keyCertSign,cRLSign -keyout "$PKI/$1.key" -out "$PKI/$1.crt" 2>/dev/null
}

# new_cert FILE CA SUBJECT USAGE [ALT_NAMES]: a certificate for a client or a server.
new_cert() {
    local file=$PKI/$1 ca=$PKI/$2 subject=$3 usage=$4 names=${5:-}
    [[ -e $file.crt ]] && return
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "$subject" \
        -keyout "$file.key" -out "$file.csr" 2>/dev/null
    openssl x509 -req -in "$file.csr" -CA "$ca.crt" -CAkey "$ca.key" -days 3650 -out "$file.new" \
        -set_serial "0x$(openssl rand -hex 8)" -extfile <(
        echo "keyUsage=critical,digitalSignature"
        echo "extendedKeyUsage=$usage"
        [[ -z $names ]] || echo "subjectAltName=$names"
    ) 2>/dev/null
    rm "$file.csr"
    mv "$file.new" "$file.crt"
}

# new_client NAME SUBJECT: a client certificate and the kubeconfig that holds it.
new_client() {
    new_cert "$1" ca "$2" clientAuth
    kubeconfig "$1" >"$PKI/$1.conf"
}

embed() { # FILE
    base64 -w0 "$1"
}

kubeconfig() { # CLIENT
    cat <<T
apiVersion: v1
kind: Config
clusters: [{name: $NAME, cluster: {server: "https://$NET4.$API_HOST:6443", certificate-authority-data: $(embed "$PKI/ca.crt")}}]
users: [{name: $1, user: {client-certificate-data: $(embed "$PKI/$1.crt"), client-key-data: $(embed "$PKI/$1.key")}}]
contexts: [{name: $NAME, context: {cluster: $NAME, user: $1}}]
current-context: $NAME
T
}

pki_up() {
    mkdir -p -m 700 "$PKI"
    new_ca ca
    new_ca front-proxy-ca
    new_cert apiserver ca /CN=kube-apiserver serverAuth "$(api_names)"
    new_cert apiserver-kubelet-client ca /CN=kube-apiserver-kubelet-client clientAuth
    new_cert front-proxy-client front-proxy-ca /CN=front-proxy-client clientAuth
    new_client admin /O=system:masters/CN=admin
    new_client controller-manager /CN=system:kube-controller-manager
    new_client scheduler /CN=system:kube-scheduler
    [[ -e $PKI/sa.key ]] || openssl ecparam -name prime256v1 -genkey -noout -out "$PKI/sa.key"
    install -m 600 "$PKI/admin.conf" "$KUBECONFIG_FILE"
}

api_names() {
    local name names=DNS:localhost
    for name in kubernetes{,.default{,.svc{,.cluster.local}}}; do names+=,DNS:$name; done
    for name in 127.0.0.1 ::1 10.96.0.1 fd00:10:96::1 "$NET4.$API_HOST" "$NET6:$API_HOST"; do names+=,IP:$name; done
    echo "$names"
}

# node_pki NODE HOST: what a kubelet shows to the API server, and to those who call it.
node_pki() {
    new_client "$1" "/O=system:nodes/CN=system:node:$1"
    new_cert "$1-kubelet" ca "/CN=$1" serverAuth "DNS:$1,IP:$NET4.$2,IP:$NET6:$2"
}
