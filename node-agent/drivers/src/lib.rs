//! The agent's hands: eBPF maps, programs and links, network devices, addresses, routes and neighbours, kernel parameters.
//!
//! Drivers read back, list and apply; what there should be is decided elsewhere and kept in a
//! [`cilium_delta::Tracker`]. This is the only crate with unsafe code, all of it in one module.
//!
//! | module | what |
//! |---|---|
//! | [`netlink`] | devices, addresses, routes, neighbours |
//! | [`netns`] | network namespaces |
//! | [`sysctl`] | kernel parameters |

pub mod netlink;
pub mod netns;
mod sys;
pub mod sysctl;
pub mod datapath;
