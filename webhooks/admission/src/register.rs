//! Tells the API server where the webhook is and whom to believe.
//!
//! The ValidatingWebhookConfiguration and the Service come with the installation. The leader puts its address into an EndpointSlice of
//! the Service and its certificate into the configuration, and looks now and then whether both are still there.

use std::net::SocketAddr;

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::{NAME, WEBHOOK};

/// Who owns the fields that are written here.
const MANAGER: &str = "cilium-operator";

/// Names of the EndpointSlices, one for each family.
pub const SLICES: [&str; 2] = ["cilium-webhook-ipv4", "cilium-webhook-ipv6"];

/// What can go wrong with the registration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration does not exist, or has no webhook of ours.
    #[error(
        "there is no ValidatingWebhookConfiguration {NAME} with a webhook {WEBHOOK}: install it with the chart (webhook.enabled), or switch \
         the webhook off"
    )]
    Missing,
    /// The API server did not do it.
    #[error("cannot {action}")]
    Api {
        /// What was asked for.
        action: &'static str,
        /// Cause.
        #[source]
        source: Box<kube::Error>,
    },
}

fn api(action: &'static str) -> impl FnOnce(kube::Error) -> Error {
    move |source| Error::Api { action, source: Box::new(source) }
}

/// Makes the Service lead to `address`, and the API server believe the certificates in `bundle` (PEM). Writes only what differs.
///
/// # Errors
/// The configuration is not there, or the API server refuses.
pub async fn ensure(
    client: &Client,
    namespace: &str,
    address: SocketAddr,
    bundle: &str,
) -> Result<(), Error> {
    ensure_slice(client, namespace, address).await?;
    ensure_bundle(client, bundle).await
}

async fn ensure_slice(client: &Client, namespace: &str, address: SocketAddr) -> Result<(), Error> {
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), namespace);
    let (name, wanted) = slice(address);
    let existing = slices.get_opt(name).await.map_err(api("read the EndpointSlice of the webhook"))?;
    if existing.is_some_and(|existing| leads_to(&existing, address)) {
        return Ok(());
    }
    let params = PatchParams::apply(MANAGER).force();
    let written = slices.patch(name, &params, &Patch::Apply(&wanted)).await;
    written.map(drop).map_err(api("write the EndpointSlice of the webhook"))
}

fn slice(address: SocketAddr) -> (&'static str, Value) {
    let (name, family) = if address.is_ipv4() { (SLICES[0], "IPv4") } else { (SLICES[1], "IPv6") };
    let wanted = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name,
            "labels": {
                "kubernetes.io/service-name": NAME,
                "endpointslice.kubernetes.io/managed-by": MANAGER,
            },
        },
        "addressType": family,
        "endpoints": [{"addresses": [address.ip().to_string()], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": address.port(), "protocol": "TCP"}],
    });
    (name, wanted)
}

fn leads_to(slice: &EndpointSlice, address: SocketAddr) -> bool {
    let ip = address.ip().to_string();
    let ports = slice.ports.as_deref().unwrap_or_default();
    let endpoints = slice.endpoints.as_deref().unwrap_or_default();
    matches!(endpoints, [one] if one.addresses == [ip])
        && matches!(ports, [one] if one.port == Some(address.port().into()))
}

async fn ensure_bundle(client: &Client, bundle: &str) -> Result<(), Error> {
    let configurations: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    let found = configurations.get_opt(NAME).await.map_err(api("read the configuration of the webhook"))?;
    let webhooks = found.and_then(|found| found.webhooks).unwrap_or_default();
    let Some(place) = webhooks.iter().position(|webhook| webhook.name == WEBHOOK) else {
        return Err(Error::Missing);
    };
    let bundle = ByteString(bundle.as_bytes().to_vec());
    if webhooks[place].client_config.ca_bundle.as_ref() == Some(&bundle) {
        return Ok(());
    }
    // The test refuses the patch if the list was changed meanwhile; the next round looks again.
    let patch = json!([
        {"op": "test", "path": format!("/webhooks/{place}/name"), "value": WEBHOOK},
        {"op": "add", "path": format!("/webhooks/{place}/clientConfig/caBundle"), "value": bundle},
    ]);
    let patch: Patch<Value> = Patch::Json(serde_json::from_value(patch).map_err(|error| Error::Api {
        action: "describe the change of the configuration of the webhook",
        source: Box::new(kube::Error::SerdeError(error)),
    })?);
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    let written = configurations.patch(NAME, &params, &patch).await;
    written.map(drop).map_err(api("write the certificate into the configuration of the webhook"))
}
