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

# Build what ships, optimised: operator, agent, CNI plugin, cilium-dbg, cilium, demo server, probe
build:
    cargo build --release --locked -p cilium-operator -p cilium-agent -p cilium-cni -p cilium-dbg -p cilium-cli -p starwars -p probe

# Format the code
fmt:
    cargo fmt --all

# Formatting and lints, warnings refused
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings

# Licences, sources and banned crates (needs cargo-deny)
deny:
    cargo deny check licenses bans sources

# Write the CRDs, RBAC rules and the kustomize base from the code and the chart
generate: build
    cargo run --locked -q -p crd-gen -- --write crds/yaml
    manifests/generate

# Measure: a table with floors, figures and ratios (on the cluster in a box)
bench *ARGS:
    kind-tests/bench/run "$@"
