use cilium_rest::Client;
use cilium_rest::model::Status;

use crate::failure::Failure;

/// Whether ADD could work. Pods that are connected already do not depend on the agent, so this never says more than
/// "not available".
pub(crate) fn status(client: &Client) -> Result<(), Failure> {
    let status: Status = client
        .get("/v1/healthz")
        .map_err(|error| Failure::new(Failure::NOT_AVAILABLE, "the agent does not answer", error.chain()))?;
    if status.cilium.state == "Failure" {
        return Err(Failure::new(Failure::NOT_AVAILABLE, "the agent is not ready", status.cilium.msg));
    }
    Ok(())
}
