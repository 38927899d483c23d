//! Packets of known clients from outside, before the stack: whether, and how, on this node.

use cilium_drivers::datapath::{Attached, Datapath, EarlyMode, Error};
use cilium_drivers::netlink::Link;

/// What the settings want (`bpf-lb-acceleration`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Acceleration {
    Disabled,
    /// In the driver of the node's device, or the node is not served at all.
    Native,
    /// In the driver, where it can.
    BestEffort,
    /// On packets of the stack, with any device: for tests.
    Generic,
}

impl Acceleration {
    fn mode(self) -> Option<EarlyMode> {
        match self {
            Self::Disabled => None,
            Self::Native | Self::BestEffort => Some(EarlyMode::Driver),
            Self::Generic => Some(EarlyMode::Generic),
        }
    }
}

/// Puts the early program in its place, or takes it away. Returns how it runs there; `None` is not at all.
pub(crate) fn set_up(
    datapath: &Datapath,
    wanted: Acceleration,
    device: &Link,
) -> anyhow::Result<Option<EarlyMode>> {
    let Some(mode) = wanted.mode() else {
        datapath.detach_early()?;
        return Ok(None);
    };
    match datapath.attach_early(device, mode) {
        Ok(_) => Ok(Some(mode)),
        // Some drivers can, but not with this MTU, or so many queues; or another program is there.
        Err(error) if wanted == Acceleration::BestEffort => {
            let error = format!("{:#}", anyhow::Error::from(error));
            tracing::info!(device = device.name, error, "no acceleration on this node");
            Ok(None)
        }
        Err(error @ Error::NoDriverSupport { .. }) => Err(anyhow::Error::from(error).context(
            "bpf-lb-acceleration is native, which this node cannot do; set best-effort or disabled",
        )),
        Err(error) => Err(error.into()),
    }
}

/// Makes sure that the program is where [`set_up`] has put it. Returns whether it was not.
pub(crate) fn keep(datapath: &Datapath, mode: Option<EarlyMode>, device: &Link) -> anyhow::Result<bool> {
    let Some(mode) = mode else { return Ok(false) };
    Ok(datapath.attach_early(device, mode)? != Attached::Unchanged)
}

/// For the status.
pub(crate) fn describe(wanted: Acceleration, mode: Option<EarlyMode>) -> String {
    let text = match (wanted, mode) {
        (Acceleration::Disabled, _) => "Disabled",
        (Acceleration::Native, _) => "Native",
        (Acceleration::Generic, _) => "Generic",
        (Acceleration::BestEffort, Some(_)) => "Best-Effort",
        (Acceleration::BestEffort, None) => "Best-Effort (none on this node, the agent's log says why)",
    };
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_says_what_is_wanted_and_what_there_is() {
        assert_eq!(describe(Acceleration::Disabled, None), "Disabled");
        assert_eq!(describe(Acceleration::Native, Some(EarlyMode::Driver)), "Native");
        assert_eq!(describe(Acceleration::Generic, Some(EarlyMode::Generic)), "Generic");
        assert_eq!(describe(Acceleration::BestEffort, Some(EarlyMode::Driver)), "Best-Effort");
        assert!(describe(Acceleration::BestEffort, None).contains("none"));
    }
}
