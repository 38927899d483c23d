//! A CiliumLoadBalancerIPPool, reduced to what can change an outcome.

use cilium_api::CiliumLoadBalancerIPPool;
use cilium_api::load_balancer_pool::AllowFirstLast;
use cilium_core::{Labels, Selector};

use crate::block::{Block, Invalid};

/// A pool. Blocks that cannot be read are left out, and the first of them is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// When it was made, in seconds since the epoch. The oldest of several has what they all have.
    pub(crate) created: i64,
    /// Services that it is for; `None` if it cannot be read: then it gives nothing, and takes nothing away.
    selector: Option<Selector>,
    /// It gives nothing, and takes nothing away.
    pub(crate) is_disabled: bool,
    /// In their order.
    pub(crate) blocks: Vec<Block>,
    /// A block cannot be read: nobody knows which addresses it has.
    pub(crate) is_partial: bool,
    /// What is wrong with it.
    pub(crate) invalid: Option<Invalid>,
}

impl Pool {
    /// Reads a pool.
    pub fn reduce(pool: &CiliumLoadBalancerIPPool) -> Self {
        let spec = &pool.spec;
        let mut invalid = None;
        let selector = match &spec.service_selector {
            None => Some(Selector::default()),
            Some(selector) => {
                Selector::parse(selector).map_err(|error| note(&mut invalid, selector_error(&error))).ok()
            }
        };
        let spare_ends = spec.allow_first_last_ips == Some(AllowFirstLast::No);
        let parsed = spec
            .blocks
            .iter()
            .flatten()
            .enumerate()
            .map(|(index, block)| Block::parse(block, &format!("spec.blocks[{index}]"), spare_ends));
        let blocks: Vec<Block> =
            parsed.filter_map(|block| block.map_err(|error| note(&mut invalid, error)).ok()).collect();
        let is_partial = spec.blocks.iter().flatten().count() > blocks.len();
        Self { created: created(pool), selector, is_disabled: spec.disabled, blocks, is_partial, invalid }
    }

    /// What is wrong with a pool that is about to be stored.
    ///
    /// # Errors
    /// The selector or a block cannot be read.
    pub fn check(pool: &CiliumLoadBalancerIPPool) -> Result<(), Invalid> {
        Self::reduce(pool).invalid.map_or(Ok(()), Err)
    }

    /// Whether Services with these labels get addresses of this pool.
    pub(crate) fn selects(&self, labels: &Labels) -> bool {
        self.selector.as_ref().is_some_and(|selector| selector.matches(labels))
    }

    /// Whether it says for whom it is.
    pub(crate) fn is_readable(&self) -> bool {
        self.selector.is_some()
    }

    /// Whether they may keep those that they have.
    pub(crate) fn leaves(&self, labels: &Labels) -> bool {
        self.selector.as_ref().is_none_or(|selector| selector.matches(labels))
    }
}

fn created(pool: &CiliumLoadBalancerIPPool) -> i64 {
    pool.metadata.creation_timestamp.as_ref().map_or(i64::MAX, |time| time.0.as_second())
}

/// Keeps the first.
fn note(first: &mut Option<Invalid>, invalid: Invalid) {
    first.get_or_insert(invalid);
}

fn selector_error(error: &cilium_core::selector::Error) -> Invalid {
    Invalid { field: format!("spec.serviceSelector.{}", error.path), reason: error.reason.clone() }
}
