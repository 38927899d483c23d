# Control groups. A cluster is one subtree of every hierarchy, cilium-NAME, with a child for the
# control plane (cp) and one for each node. In v1 hierarchies it lies below the group that `up` was called
# in, so that limits and accounts of the caller hold for the cluster, too. Sourced, never run.
#
# Every process of a cluster is in it from before its first instruction, so `down` needs no list of
# process ids: what is in the subtree is ours, and nothing else is.

# The mount points of all hierarchies: one on a cgroup v2 machine, many with v1 controllers.
mapfile -t CG_MOUNTS < <(awk '$3 ~ /^cgroup2?$/ && $2 ~ "^/sys/fs/cgroup" {print $2}' /proc/self/mounts | sort -u)
CG2=$(awk '$3 == "cgroup2" && $2 ~ "^/sys/fs/cgroup" {print $2; exit}' /proc/self/mounts)
CG_ROOT=cilium-$NAME

# cg_dir MOUNT: the cluster's directory in a hierarchy, as the first `up` noted it.
cg_dir() {
    [[ -e $STATE/groups ]] || cg_note
    awk -v mount="$1" '$1 == mount {print $2}' "$STATE/groups"
}

cg_note() {
    local mount controllers path
    mkdir -p "$STATE"
    for mount in "${CG_MOUNTS[@]}"; do
        path=/
        if [[ $mount != "$CG2" ]]; then
            controllers=${mount##*/}
            path=$(awk -F: -v c="$controllers" '$2 == c || $2 == "name=" c {print $3}' /proc/self/cgroup)
        fi
        echo "$mount $mount${path%/}/$CG_ROOT"
    done >"$STATE/groups"
}

# A v1 cpuset group without processors takes no process.
cg_fill_cpuset() { # DIR
    local file
    for file in cpuset.cpus cpuset.mems; do
        [[ -e $1/$file && -z $(<"$1/$file") ]] && cat "$1/../$file" >"$1/$file"
    done
    return 0
}

# On v2 a group hands its controllers to its children only when told so. The root keeps what it was
# told: by the time of `down`, others may count on it.
cg_delegate() { # DIR
    local controller
    [[ $CG2 == /sys/fs/cgroup ]] || return 0
    for controller in $(<"$1/cgroup.controllers"); do
        echo "+$controller" >"$1/cgroup.subtree_control" 2>/dev/null || true # some refuse delegation
    done
}

# cg_make MEMBER: the groups of one member of the cluster, in every hierarchy.
cg_make() {
    local mount dir
    for mount in "${CG_MOUNTS[@]}"; do
        dir=$(cg_dir "$mount")
        mkdir -p "$dir"
        cg_delegate "$mount"
        cg_delegate "$dir"
        mkdir -p "$dir/$1/system"
        for dir in "$dir" "$dir/$1" "$dir/$1/system"; do cg_fill_cpuset "$dir"; done
    done
}

# cg_exec GROUP CMD...: becomes CMD inside GROUP (n1, cp/system, ...). Call it in a subshell.
cg_exec() {
    local mount
    for mount in "${CG_MOUNTS[@]}"; do echo $BASHPID >"$(cg_dir "$mount")/$1/cgroup.procs"; done
    shift
    exec "$@"
}

# cg_pids GROUP: the processes of a group, without its children's.
cg_pids() {
    cat "$CG2/$CG_ROOT/$1/cgroup.procs" 2>/dev/null || true
}

cg_empty() { # GROUP
    [[ ! -e $CG2/$CG_ROOT/$1/cgroup.events ]] || grep -q '^populated 0' "$CG2/$CG_ROOT/$1/cgroup.events"
}

# cg_kill [GROUP]: ends every process in a group and below, by default of the whole cluster, and
# waits for it.
cg_kill() {
    local dir=$CG2/$CG_ROOT${1:+/$1}
    [[ -e $dir/cgroup.kill ]] || return 0
    echo 1 >"$dir/cgroup.kill"
    wait_until 30 "end of the processes in $dir" cg_empty "$dir"
}

cg_empty() { # DIR
    [[ ! -e $1/cgroup.events ]] || grep -q '^populated 0' "$1/cgroup.events"
}

# cg_forget_pods NODE: removes the groups of pods of a node without processes, as a machine has none that boots. The kubelet would
# look three seconds for the container of each. A group whose last process has just ended can still be busy: it stays.
cg_forget_pods() {
    local dir
    [[ -e $STATE/groups ]] || return 0
    while read -r _ dir; do
        [[ ! -d $dir/$1/kubepods ]] || find "$dir/$1/kubepods" -depth -type d -exec rmdir {} + 2>/dev/null || true
    done <"$STATE/groups"
}

# cg_remove: removes the cluster's groups. One whose last process has just ended can still be busy.
cg_remove() {
    wait_until 30 "removal of the control groups $CG_ROOT" cg_try_remove
}

cg_try_remove() {
    local dir left=0
    [[ -e $STATE/groups ]] || return 0
    while read -r _ dir; do
        [[ ! -d $dir ]] || find "$dir" -depth -type d -exec rmdir {} + || left=1
    done <"$STATE/groups"
    return $left
}
