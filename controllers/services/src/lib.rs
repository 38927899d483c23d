//! Services and their EndpointSlices, turned into the parts that nodes translate cluster addresses with, and into what policies mean
//! by a Service. [`redirect`] reads what leads away from Services to pods of a client's own node.
//!
//! Pure. [`Services`] keeps both sides in reduced form, knows which Services changed, and builds the part of one Service on demand.
//!
//! # Guarantees
//! - The part depends on nothing but the present objects: the order in which they came leaves no trace.
//! - A change of a Service or of one of its EndpointSlices marks that Service and no other.
//! - A change that cannot change a part (most labels and annotations, an unknown address type) marks nothing.

mod build;
mod complaints;
mod index;
mod own_nodes;
pub mod redirect;
mod reduce;
mod selectable;
mod target;

pub use index::{Face, ServiceName, Services};
pub use own_nodes::own_nodes;
pub use selectable::{BGP_CLASS, L2_CLASS, NAMESPACE_LABEL, selectable_labels};
pub use target::{Described, Target};
