use cilium_api::node_slice::{CiliumNodeStateSliceSpec, SHARED};
use cilium_api::node_state::DesiredState;

/// What a watch saw.
#[derive(Clone, Debug)]
pub enum Event {
    /// The node's own `CiliumNodeState` with what it desires; `None` when it does not exist or says nothing yet.
    Header(Option<DesiredState>),
    /// A slice exists in this version.
    Slice(Slice),
    /// The slice of this name does not exist any more.
    SliceGone(String),
    /// The slices that exist follow, each as [`Event::Slice`].
    RelistStarted,
    /// All slices that exist were named since [`Event::RelistStarted`]; others are gone.
    RelistDone,
}

/// Whom a slice concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// All nodes: its parts are in force as soon as it is seen.
    Shared,
    /// This node: its parts are in force when a revision lists it.
    Node,
}

impl Owner {
    /// Reads the value of the label [`cilium_api::node_slice::OWNER_LABEL`].
    pub fn from_label(value: &str) -> Self {
        if value == SHARED { Self::Shared } else { Self::Node }
    }
}

/// A `CiliumNodeStateSlice`, reduced to what matters here.
#[derive(Clone, Debug)]
pub struct Slice {
    /// `metadata.name`.
    pub name: String,
    /// From the label.
    pub owner: Owner,
    /// The content.
    pub spec: CiliumNodeStateSliceSpec,
}
