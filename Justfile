# Everything this project can do. `just --list` explains each recipe.

set shell := ["bash", "-euo", "pipefail", "-c"]
set positional-arguments

export CILIUM_CACHE := env("CILIUM_CACHE", env("HOME") / ".cache/cilium-rs")
# One for each checkout: cargo takes what was built from another one for fresh when its files are newer.
export CARGO_TARGET_DIR := env("CARGO_TARGET_DIR", CILIUM_CACHE / "target" / replace_regex(sha256(justfile_directory()), '^(.{8}).*', '$1'))

import 'kind-tests/cluster/cluster.just'
import 'kind-tests/demo/demo.just'
import 'kind-tests/tests/tests.just'

# What can be done here
default:
    @just --list --unsorted

# Build what ships, optimised: operator, agent, CNI plugin, DNS proxy, cilium-dbg, cilium, demo server, probe
build:
    cargo build --release --locked -p cilium-operator -p cilium-agent -p cilium-cni -p cilium-dns-proxy -p cilium-bgp -p cilium-dbg -p cilium-cli -p starwars -p probe

# Format the code
fmt:
    cargo fmt --all

# Formatting and lints, warnings refused
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --all-features --locked -- -D warnings

# Licences, sources and banned crates (needs cargo-deny)
deny:
    cargo deny check licenses bans sources

# Write the CRDs, RBAC rules and the kustomize base from the code and the chart
generate: build
    cargo run --locked -q -p crd-gen -- --write crds/yaml
    manifests/generate

# Random policies against the programs, and random histories against the planner, for an hour and from where nobody began before
test-nightly:
    ORACLE_TUPLES=10000000 ORACLE_SEED="$RANDOM$RANDOM" cargo test --locked --release -p bpf-tests --test datapath oracle -- --nocapture
    PROPTEST_CASES=20000 cargo test --locked --release -p cilium-policy -p cilium-plan -p cilium-lbipam -p cilium-l2 -p cilium-bgp-plan -p cilium-dataplane -p cilium-state

# Go on with one fuzz test (any_policy, any_object, any_state, any_answer, any_message, any_packet, any_reply, any_socket, any_manifest), with libFuzzer (needs cargo-bolero and a nightly toolchain)
fuzz TEST *ARGS:
    cargo bolero test -p fuzz {{ TEST }} --toolchain nightly "${@:2}"

# Measure: a table with floors, figures and ratios (on the cluster in a box)
bench *ARGS:
    kind-tests/bench/run "$@"

# Measure planning: 10,000 policies, 50,000 pods, 1,000 nodes, addresses of 20,000 Services, who announces these, and their prefixes for BGP; fails when a goal is missed
bench-plan:
    cargo run --locked --release -p cilium-plan --example scale
    cargo run --locked --release -p cilium-lbipam --example services
    cargo run --locked --release -p cilium-l2 --example addresses
    cargo run --locked --release -p cilium-bgp-plan --example prefixes

# Measure the eBPF programs: each packet path, and what policy adds to it; fails when a goal is missed
bench-packets:
    cargo run --locked --release -p bpf-tests --example cost

# Measure an agent alone on its node: memory, CNI ADD, round trips, the way from a write to a switched policy, what the DNS proxy adds
bench-node: build
    CILIUM_CNI="$CARGO_TARGET_DIR/release/cilium-cni" CILIUM_DNS_PROXY="$CARGO_TARGET_DIR/release/cilium-dns-proxy" \
        cargo test --locked --release -p cilium-agent --test node measure -- --ignored --nocapture
