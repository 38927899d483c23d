//! What tests look at.

use cilium_api::endpoint::EndpointStatus;
use cilium_api::parts::{Endpoint, Part, PartKey};
use cilium_api::policy_status::PolicyStatus;
use cilium_plan::{Kind, Object, ObjectKey};

use super::{Agent, World};

impl World {
    /// The endpoint as its node was told.
    pub fn planned(&self, node: &str, namespace: &str, name: &str) -> Option<Endpoint> {
        let parts = Agent(&self.store).node_parts(node)?;
        match parts.get(&PartKey::endpoint(namespace, name))? {
            Part::Endpoint(endpoint) => Some(endpoint.clone()),
            other => panic!("{other:?} under the key of an endpoint"),
        }
    }

    /// Addresses of an endpoint as its node was told.
    pub fn addresses(&self, node: &str, namespace: &str, name: &str) -> Vec<String> {
        let Some(Endpoint { ipv4, ipv6, .. }) = self.planned(node, namespace, name) else {
            return Vec::new();
        };
        ipv4.map(|ip| ip.to_string()).into_iter().chain(ipv6.map(|ip| ip.to_string())).collect()
    }

    /// Status of a CiliumEndpoint.
    pub fn endpoint(&self, namespace: &str, name: &str) -> Option<EndpointStatus> {
        match self.store.get(&ObjectKey::namespaced(Kind::Endpoint, namespace, name))? {
            Object::Endpoint(endpoint) => endpoint.status.clone(),
            other => panic!("{other:?} under the key of a CiliumEndpoint"),
        }
    }

    /// Status of a CiliumNetworkPolicy.
    pub fn status(&self, namespace: &str, name: &str) -> PolicyStatus {
        match self.store.get(&ObjectKey::namespaced(Kind::NetworkPolicy, namespace, name)) {
            Some(Object::NetworkPolicy(policy)) => policy.status.clone().unwrap_or_default(),
            other => panic!("{other:?} under the key of a policy"),
        }
    }

    /// Status, reason and message of a condition of a CiliumNetworkPolicy.
    pub fn condition(&self, namespace: &str, name: &str, type_: &str) -> String {
        let status = self.status(namespace, name);
        let all = status.conditions.unwrap_or_default();
        let Some(it) = all.into_iter().find(|it| it.type_ == type_) else { return "none".to_owned() };
        format!("{} {}: {}", it.status, it.reason.unwrap_or_default(), it.message.unwrap_or_default())
    }
}
