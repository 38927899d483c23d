# Daemons: start, find, end. Each writes "pid start-time" before it becomes its program, so that a
# reused process id is never mistaken for it. Sourced, never run.

# The folder of a component's member: `cp` for the control plane, else the node.
member_of() { # COMPONENT
    [[ $1 == */* ]] && echo "${1%%/*}" || echo cp
}

pid_file() { # COMPONENT
    echo "$STATE/$(member_of "$1")/run/${1##*/}.pid"
}

log_file() { # COMPONENT
    echo "$STATE/$(member_of "$1")/log/${1##*/}.log"
}

start_time_of() { # PID
    local stat
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    set -- ${stat##*) }
    echo "${20}"
}

# pid_of COMPONENT: its process id in this shell's view; fails when it does not run. The file holds
# the id that the process has in its own node.
pid_of() {
    local file pid start candidate
    file=$(pid_file "$1")
    [[ -s $file ]] && read -r pid start <"$file" || return 1
    for candidate in $(cg_pids "$(member_of "$1")/system"); do
        [[ $(start_time_of "$candidate") == "$start" ]] || continue
        grep -qE "^NSpid:.*\b$pid\b" "/proc/$candidate/status" 2>/dev/null && echo "$candidate" && return
    done
    return 1
}

running() { # COMPONENT
    pid_of "$1" >/dev/null
}

# end COMPONENT [SIGNAL]: sends the signal (KILL) and waits until the process is gone.
end() {
    local pid
    pid=$(pid_of "$1") || return 0
    kill -s "${2:-KILL}" "$pid"
    wait_until 30 "end of $1 (process $pid)" not_running "$1"
}

not_running() {
    ! running "$1"
}

# daemon COMPONENT NETNS CMD...: starts a daemon of the control plane.
daemon() {
    local component=$1 netns=$2
    shift 2
    (cg_exec cp/system setsid nsenter --net="/run/netns/$NAME-$netns" \
        "$HERE/lib/become" "$(pid_file "$component")" "$(log_file "$component")" "$@" 9>&-) &
}

# node_daemon NODE/PROGRAM CMD...: starts a daemon inside a node.
node_daemon() {
    local program=${1##*/} node=${1%%/*}
    shift
    in_node "$node" setsid --fork "$HERE/lib/become" "/run/box/run/$program.pid" "/run/box/log/$program.log" "$@" 9>&-
}

# in_node NODE CMD...: runs CMD in a node's namespaces and control group.
in_node() {
    local node=$1 init
    shift
    init=$(pid_of "$node/init") || die "node $node does not run: '$NAME' has $(nodes | xargs)"
    (cg_exec "$node/system" nsenter -t "$init" -m -u -i -n -p -C "$@")
}
