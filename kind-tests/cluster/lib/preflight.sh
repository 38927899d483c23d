# What a machine must have. Sourced, never run.

need_tools() {
    local tool missing=()
    for tool in ip bridge nsenter unshare setsid flock openssl containerd ctr runc bpftool python3 sysctl hostname; do
        command -v $tool >/dev/null || missing+=("$tool")
    done
    ((${#missing[@]} == 0)) || die "missing programs: ${missing[*]}; './dev' installs them"
}

# can WHAT CMD...: notes WHAT as missing when CMD fails.
can() {
    local what=$1
    shift
    "$@" >/dev/null 2>&1 || MISSING+=("$what")
}

can_overlay() {
    local dir rc=0
    mkdir -p "$CACHE"
    dir=$(mktemp -d "$CACHE/overlay.XXXX")
    mkdir "$dir"/{lower,upper,work,merged}
    unshare --mount mount -t overlay -o "lowerdir=$dir/lower,upperdir=$dir/upper,workdir=$dir/work" overlay "$dir/merged" || rc=1
    rm -rf "$dir"
    return $rc
}

preflight() {
    MISSING=()
    need_tools
    case $STATE/ in /etc/* | /opt/* | /usr/* | /var/lib/* | /var/log/* | /run/*)
        die "CILIUM_CACHE=$CACHE cannot be below /etc, /opt, /usr, /var/lib, /var/log or /run: nodes have their own there" ;;
    esac
    [[ ! -d /lib/modules/$(uname -r) ]] || modprobe -aq overlay bridge veth vxlan || true # built in, perhaps
    can "network namespaces" unshare --net true
    can "bridge devices (CONFIG_BRIDGE)" unshare --net ip link add br0 type bridge
    can "veth devices (CONFIG_VETH)" unshare --net ip link add veth0 type veth peer name veth1
    can "VXLAN devices (CONFIG_VXLAN)" unshare --net ip link add vxlan0 type vxlan external dstport 8472
    can "overlayfs in $CACHE (CONFIG_OVERLAY_FS, a real disk)" can_overlay
    can "the bpf system call (CONFIG_BPF_SYSCALL)" bpftool prog list
    can "the bpf file system" unshare --mount mount -t bpf bpf /mnt
    can "a mounted cgroup2 hierarchy below /sys/fs/cgroup" test -n "$CG2"
    can "kernel type information (CONFIG_DEBUG_INFO_BTF: /sys/kernel/btf/vmlinux)" test -r /sys/kernel/btf/vmlinux
    ((${#MISSING[@]} == 0)) || die "this kernel or machine lacks: $(printf '%s; ' "${MISSING[@]}")"
}
