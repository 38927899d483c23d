# Shared by the cluster scripts: names, places, messages. Sourced, never run.

CACHE=${CILIUM_CACHE:-$HOME/.cache/cilium-rs}
BIN=$CACHE/bin
NAME=${CLUSTER_NAME:-box}
STATE=$CACHE/clusters/$NAME
KUBECONFIG_FILE=$STATE/kubeconfig

API_HOST=10
EXT_HOST=250
NET4=172.30.0
NET6=fd00:172:30:
POD_CIDRS=10.244.0.0/16,fd00:10:244::/48
SERVICE_CIDRS=10.96.0.0/16,fd00:10:96::/112
DNS_ADDRESS=10.96.0.10

die() {
    echo "${0##*/}: $*" >&2
    exit 1
}

# say TEXT...: one line of progress, with the seconds since the command began.
say() {
    printf '[%3d s] %s\n' "$SECONDS" "$*" >&2
}

# Names become file, namespace and cgroup names; a dash would make two clusters' names overlap.
check_name() {
    [[ $NAME =~ ^[a-z][a-z0-9]{0,11}$ ]] ||
        die "CLUSTER_NAME='$NAME': use 1 to 12 lower-case letters and digits, a letter first"
}

# wait_until SECONDS WHAT CMD...: polls CMD; names WHAT when the time is over.
wait_until() {
    local end=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < end)) || die "$what: not there in time"
        sleep 0.1
    done
}

# digest FILE...: one hash over names and contents.
digest() {
    sha256sum "$@" | sha256sum | cut -d' ' -f1
}
