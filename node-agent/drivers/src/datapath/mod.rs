//! x
/// d
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// Packets that the device receives.
    Ingress,
    /// Packets that are sent through the device.
    Egress,
}
