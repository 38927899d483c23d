//! Which nodes speak BGP with whom, and which prefixes they make known, as the five BGP kinds say.
//!
//! Pure. [`Bgp`] is fed with objects as they are; [`Bgp::plan`] decides, and says of which parts, objects and conditions there is something
//! new. Two halves hardly know of each other: *sessions* follow from configurations and nodes, *routes* from advertisements, Services and
//! nodes. They meet in the names of advertisements ([`cilium_api::bgp`]).
//!
//! | module | what |
//! |---|---|
//! | `cluster`, `peer`, `advertisement`, `overrides`, `service` | objects, reduced; what is wrong with them |
//! | `session` | a router of a node, out of all of them |
//! | `members` | which configuration a node goes by |
//! | `router_ids` | identifiers out of a pool |
//! | `routes` | who gives which prefix |
//! | `bgp` | what follows from what |
//! | `conditions` | what authors are told |
//! | `check` | what must hold after every plan |
//!
//! # Guarantees
//! - The outcome depends on the present objects only; with a pool of router ids, also on those that CiliumBGPNodeConfigs have already.
//! - A changed Service touches only prefixes that it gives or gave.
//! - A router without AS number or router id, and a peer without address or configuration, are in the CiliumBGPNodeConfig and not in the part.

mod advertisement;
mod bgp;
mod check;
mod cluster;
mod conditions;
mod fault;
mod members;
mod overrides;
mod peer;
mod router_ids;
mod routes;
mod service;
mod session;

pub use advertisement::Advertisement;
pub use bgp::{Bgp, Changes, Config, NodeConfig, RouterIds};
pub use cluster::ClusterConfig;
pub use conditions::CONDITIONS;
pub use fault::Fault;
pub use overrides::Override;
pub use peer::PeerConfig;
pub use service::{Claim, Served};
