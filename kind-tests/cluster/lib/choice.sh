# Which cluster a recipe or test means: CLUSTER=box (default), kind, or context:NAME. Sourced, never run.

CLUSTER=${CLUSTER:-box}

check_choice() {
    case $CLUSTER in
    box | kind | context:?*) ;;
    *) die "CLUSTER='$CLUSTER': use box, kind or context:NAME" ;;
    esac
}

need() { # PROGRAM...
    local program
    for program; do
        command -v "$program" >/dev/null || die "CLUSTER=$CLUSTER needs $program, which is not installed"
    done
}

need_kind() {
    need kind docker
    docker info >/dev/null 2>&1 || die "CLUSTER=kind needs a running docker daemon; 'docker info' fails"
}

# The kubeconfig of the chosen cluster, with it as the current context.
choose_kubeconfig() {
    local name=${CLUSTER//[^a-zA-Z0-9.-]/_} text
    case $CLUSTER in
    box) echo "$KUBECONFIG_FILE" && return ;;
    kind) name+=-$NAME && text=$(kind get kubeconfig --name "$NAME") ;;
    *) text=$(kubectl config view --raw --minify --flatten --context "${CLUSTER#context:}") ;;
    esac || die "CLUSTER=$CLUSTER: no kubeconfig for it"
    mkdir -p "$CACHE"
    (umask 077 && echo "$text" >"$CACHE/kubeconfig-$name")
    echo "$CACHE/kubeconfig-$name"
}
