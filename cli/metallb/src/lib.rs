//! MetalLB's objects, said in ours: pools of addresses, announcements on the local network, and what Services ask for.
//!
//! Pure. [`convert`] takes the text of manifests and gives objects, changes of Services, and notes: whatever has no counterpart, or
//! another meaning, is a [`Note`] with its field, and with what to do.
//!
//! | module | what |
//! |---|---|
//! | `document` | objects of YAML and JSON; fields with the path that errors name |
//! | `input` | MetalLB's objects and Services, reduced |
//! | `legacy` | the older forms: AddressPool, and the ConfigMap |
//! | `range` | addresses, and blocks of a pool |
//! | `selector` | selectors: one of several, and all of several |
//! | `pool`, `policy`, `service` | the conversion |
//! | `output` | what is printed |
//!
//! # Guarantees
//! - The same input gives the same output, and it is whole or an [`Error`].
//! - A pool is never for more Services than it is with MetalLB: where that cannot be said, it is disabled, and a note says why.
//! - Nothing is left out silently: a field that is not known is a note, too.

mod document;
mod input;
mod legacy;
mod output;
mod policy;
mod pool;
mod range;
mod selector;
mod service;

pub use document::{Error, Source};
pub use output::{Converted, Note, ServiceChange};

use crate::input::Input;

/// How to convert.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Namespace of Services that name none.
    pub namespace: String,
    /// A label, key and value: policies select only Services that have it. For the time in which MetalLB runs beside.
    pub moved_label: Option<(String, String)>,
    /// Nodes with the label `node.kubernetes.io/exclude-from-external-load-balancers` announce, too, as with MetalLB's flag of this name.
    pub ignore_exclude_lb: bool,
}

/// Converts all objects of some files.
///
/// # Errors
/// A text is neither YAML nor JSON, an object cannot be read, or MetalLB would refuse it, too: addresses twice, for one.
pub fn convert(sources: &[Source<'_>], options: &Options) -> Result<Converted, Error> {
    let input = Input::read(sources, &options.namespace)?;
    let pools = pool::convert(&input)?;
    let mut notes = input.notes.clone();
    notes.extend(pools.iter().flat_map(|pool| pool.notes.iter().cloned()));
    let policies = policy::convert(&input, &pools, options, &mut notes)?;
    let services = service::convert(&input, &pools, &mut notes);
    let objects = pools.iter().map(pool::Pool::object).chain(policies.iter().map(policy::Policy::object));
    Ok(Converted { objects: objects.collect(), services, notes, passed_over: input.passed_over })
}
