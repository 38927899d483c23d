//! Addresses for Services of type LoadBalancer, out of CiliumLoadBalancerIPPools.
//!
//! Pure. [`Lbipam`] is fed with pools and Services as they are; [`Lbipam::plan`] decides, [`Lbipam::outcome`] and
//! [`Lbipam::pool_conditions`] say what is to stand in their status. What a Service has is what its status says: there is no other record.
//!
//! | module | what |
//! |---|---|
//! | `claim` | a Service, reduced to what it asks for and whose it is |
//! | `block`, `pool` | a pool, reduced; what is malformed in it |
//! | `free` | free addresses of one range |
//! | `pools` | all pools: who may have which address, which pools conflict |
//! | `sharing` | which Services may have an address together |
//! | `failure` | why a Service has no address |
//! | `lbipam` | the order of a plan |
//! | `check` | what must hold after every plan |
//! | `conditions` | the same in the words of a status |
//!
//! # Guarantees
//! - The outcome depends on the present objects only. Services come by age, then namespace, then name; requested addresses before others.
//!   Pools come by age, then name.
//! - No two Services have an address unless both allow it, and no Service has one outside of the pools that select it.
//! - An address once given stays as long as a pool that selects the Service has it, disabled or not, and the Service still asks for it;
//!   where Services that had an address together may no longer, one that changed in what sharing depends on loses it.
//! - A plan after a restart changes nothing.
//! - An address that another controller wrote, whatever the class, is left alone, and given to nobody.

mod block;
mod check;
mod claim;
mod conditions;
mod failure;
mod free;
mod lbipam;
mod pool;
mod pools;
mod sharing;

pub use block::Invalid;
pub use claim::{ADDRESSES, CROSS_NAMESPACE, Claim, Config, FIELD_MANAGER, Role, SHARING_KEY};
pub use conditions::{POOL_OPTIONAL, SATISFIED};
pub use failure::{Clash, Failure};
pub use lbipam::{Changes, Lbipam, Numbers, Outcome, PoolNumbers};
pub use pool::Pool;
