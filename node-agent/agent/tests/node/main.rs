//! The agent and the CNI plugin on the real kernel, in network namespaces and a BPF file system of their own. The API
//! server is a small one of the tests, which can be taken away. Needs root.

mod announce;
mod announce_devices;
mod announce_leases;
mod api;
mod balancing;
mod cgroup;
mod dns;
mod health;
mod histories;
mod measure;
mod parts;
mod redirects;
mod scenarios;
mod sockets;
mod stage;
mod stream;
