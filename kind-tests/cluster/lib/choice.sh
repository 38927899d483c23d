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
    local file
    case $CLUSTER in
    box) "$HERE/box" kubeconfig && return ;;
    kind) file=$CACHE/kubeconfig-kind-$NAME ;;
    *) file=$CACHE/kubeconfig-context-${CLUSTER#context:} && file=${file//\//_} ;;
    esac
    mkdir -p "$CACHE"
    if [[ $CLUSTER == kind ]]; then
        kind get kubeconfig --name "$NAME" >"$file.new"
    else
        kubectl config view --raw --minify --flatten --context "${CLUSTER#context:}" >"$file.new"
    fi || die "CLUSTER=$CLUSTER: no kubeconfig for it"
    chmod 600 "$file.new" && mv "$file.new" "$file"
    echo "$file"
}
