use std::collections::BTreeSet;

use cilium_drivers::netlink::Netlink;
use cilium_rest::Client;
use cilium_rest::model::Endpoint;

use crate::arguments::attachment;
use crate::config::Config;
use crate::failure::Failure;

/// Disconnects every pod that the runtime does not list.
pub(crate) fn gc(config: &Config, client: &Client) -> Result<(), Failure> {
    let Some(valid) = &config.attachments else {
        let details = "cni.dev/valid-attachments is missing, which would mean that no pod is left";
        return Err(Failure::new(Failure::CONFIG, "nothing says what to keep", details));
    };
    let valid: BTreeSet<String> =
        valid.iter().map(|valid| attachment(&valid.container, &valid.device)).collect();
    let endpoints: Vec<Endpoint> =
        client.get("/v1/endpoint").map_err(|error| Failure::agent("no list of pods", &error))?;
    let mut stale = endpoints.iter().filter(|endpoint| {
        let name = &endpoint.status.external_identifiers.cni_attachment_id;
        !name.is_empty() && !valid.contains(name)
    });
    stale.try_for_each(|endpoint| remove(endpoint, client))
}

fn remove(endpoint: &Endpoint, client: &Client) -> Result<(), Failure> {
    let name = &endpoint.status.external_identifiers.cni_attachment_id;
    client
        .delete(&format!("/v1/endpoint/cni-attachment-id:{name}"))
        .map_err(|error| Failure::agent("the agent does not disconnect the pod", &error))?;
    let device = &endpoint.status.networking.interface_name;
    Netlink::open()
        .and_then(|mut netlink| netlink.delete_link(device))
        .map_err(|error| Failure::link("the pod's device cannot be removed", &error))
}
