use cilium_drivers::netlink::{Netlink, lxc_name};
use cilium_rest::Client;

use crate::arguments::Arguments;
use crate::failure::Failure;
use crate::queue;

/// Disconnects a pod, whatever is left of it. Works while the agent is down: the agent learns of it when it starts.
pub(crate) fn del(arguments: &Arguments, client: &Client) -> Result<(), Failure> {
    let attachment = arguments.attachment();
    let told = client.delete(&format!("/v1/endpoint/cni-attachment-id:{attachment}"));
    if let Err(error) = told {
        if !error.is_unreachable() {
            return Err(Failure::agent("the agent does not disconnect the pod", &error));
        }
        queue::push(&attachment)?;
    }
    // Both ends go together, also when the pod's namespace is gone already.
    let host = lxc_name(&arguments.container, &arguments.device);
    Netlink::open()
        .and_then(|mut netlink| netlink.delete_link(&host))
        .map_err(|error| Failure::link("the pod's device cannot be removed", &error))
}
