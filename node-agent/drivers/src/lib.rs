//! The agent's hands: eBPF maps, programs and links, network devices, addresses, routes and neighbours, kernel parameters.
//!
//! Drivers read back, list and apply; what there should be is decided elsewhere and kept in a
//! [`cilium_delta::Tracker`]. This is the only crate with unsafe code, all of it in one module.
//!
//! | module | what |
//! |---|---|
//! | [`datapath`] | loads programs, pins and attaches them |
//! | [`maps`] | the pinned maps as typed tables |
//! | [`events`] | drops and verdicts as they happen |
//! | [`frames`] | frames of the agent itself, multicast groups |
//! | [`bgp_sockets`] | passwords and hop limits of sessions with routers |
//! | [`netlink`] | devices, addresses, routes, neighbours, sockets of programs |
//! | [`netns`] | network namespaces |
//! | [`sysctl`] | kernel parameters |
//! | [`probe`] | what the kernel can do |
//! | [`turns`] | how soon threads get a processor |
//! | [`testrun`], [`testing`] | running programs on packets; throwaway namespaces for tests |

pub mod bgp_sockets;
pub mod datapath;
pub mod events;
pub mod frames;
pub mod maps;
pub mod netlink;
pub mod netns;
pub mod probe;
mod sys;
pub mod sysctl;
pub mod testing;
pub mod testrun;
pub mod turns;
