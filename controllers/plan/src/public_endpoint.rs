//! CiliumEndpoints: pods as the network sees them, for people and programs. Also a record of what pods hold.

use cilium_api::CiliumEndpoint;
use cilium_api::digest::digest;
use cilium_api::endpoint::{
    AddressPair, EndpointIdentity, EndpointNetworking, EndpointPolicy, EndpointPolicyDirection,
    EndpointState, EndpointStatus,
};
use cilium_api::parts::PartKey;

use crate::compiled::{host, place};
use crate::endpoints::{Endpoint, endpoint_key};
use crate::names::PodName;
use crate::node::Token;
use crate::object::ObjectKey;
use crate::output::Write;
use crate::planner::Planner;
use crate::pod::Pod;
use crate::slices::owned_by;

/// What of a CiliumEndpoint is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Print {
    /// UID of the pod that owns it.
    owner: String,
    is_ready: bool,
    /// Digest of the status.
    status: String,
}

impl Print {
    pub(crate) fn of(object: &CiliumEndpoint) -> Self {
        let owner = object.metadata.owner_references.iter().flatten().find(|owner| owner.kind == "Pod");
        Self::new(owner.map(|owner| owner.uid.clone()).unwrap_or_default(), object.status.as_ref())
    }

    fn new(owner: String, status: Option<&EndpointStatus>) -> Self {
        let is_ready = status.is_some_and(|status| status.state == Some(EndpointState::Ready));
        let text = serde_json::to_string(&status).expect("a status holds nothing that JSON cannot");
        Self { owner, is_ready, status: digest(text.as_bytes()) }
    }
}

impl Planner {
    pub(crate) fn report_endpoint(&mut self, key: &ObjectKey) -> Option<Write<CiliumEndpoint>> {
        let name = PodName::new(&key.namespace, &key.name);
        if self.endpoints.dirty.contains(&name) {
            // What is known of the pod and what was planned for it do not belong together until the next plan.
            self.reports.endpoints.touch(key.clone());
            return None;
        }
        let stored = self.reports.endpoints.stored(key);
        let mut object = self.public_endpoint(&name);
        let mut desired = object.as_ref().map(Print::of);
        // Its owner cannot be replaced by an update: the object of an earlier pod of this name goes first.
        if stored.zip(desired.as_ref()).is_some_and(|(stored, desired)| stored.owner != desired.owner) {
            (object, desired) = (None, None);
        }
        if let Some(object) = object.as_mut().filter(|_| stored.is_some()) {
            object.metadata.uid = self.reports.endpoints.precondition(key).uid;
        }
        let action = self.reports.endpoints.decide(key, desired, || object)?;
        Some(Write { key: key.clone(), action })
    }

    fn public_endpoint(&self, name: &PodName) -> Option<CiliumEndpoint> {
        let pod = self.pods.get(name)?;
        let endpoint = self.endpoints.all.get(name)?;
        let mut object = CiliumEndpoint::default();
        object.metadata.name = Some(name.name.clone());
        object.metadata.namespace = Some(name.namespace.clone());
        object.metadata.labels = (!pod.labels.is_empty()).then(|| pod.labels.clone());
        object.metadata.owner_references = Some(vec![owned_by("Pod", &name.name, &pod.uid)]);
        object.status = Some(self.endpoint_status(name, pod, endpoint));
        Some(object)
    }

    fn endpoint_status(&self, name: &PodName, pod: &Pod, endpoint: &Endpoint) -> EndpointStatus {
        let (ingress, egress) = self.enforcement(endpoint);
        EndpointStatus {
            id: endpoint.lease.map(|lease| i64::from(lease.id)),
            identity: endpoint.identity.map(|number| EndpointIdentity {
                id: Some(i64::from(number)),
                labels: Some(self.identity_labels(number)),
            }),
            networking: endpoint.lease.map(|_| self.networking(endpoint)),
            policy: endpoint.published.map(|_| EndpointPolicy {
                ingress: Some(direction(ingress)),
                egress: Some(direction(egress)),
            }),
            state: Some(self.endpoint_state(name, pod, endpoint)),
            named_ports: (!pod.named_ports.is_empty()).then(|| pod.named_ports.clone()),
            service_account: Some(pod.service_account.clone()),
            ..EndpointStatus::default()
        }
    }

    fn networking(&self, endpoint: &Endpoint) -> EndpointNetworking {
        let node = self.nodes.get(&endpoint.node).and_then(|entry| entry.object.as_ref());
        let lease = endpoint.lease.as_ref();
        EndpointNetworking {
            addressing: vec![AddressPair {
                ipv4: lease.and_then(|lease| lease.ipv4).map(|address| address.to_string()),
                ipv6: lease.and_then(|lease| lease.ipv6).map(|address| address.to_string()),
            }],
            node: node.and_then(|node| node.addresses().next()).map(|address| address.to_string()),
        }
    }

    /// Whether default deny is in force for what comes in, and for what goes out.
    fn enforcement(&self, endpoint: &Endpoint) -> (bool, bool) {
        let kind = host(self.nodes.get(&endpoint.node).is_some_and(|entry| entry.api_server));
        let known = endpoint.published.and_then(|number| self.identities.get(number));
        let compiled = known.and_then(|known| known.compiled[place(kind)].as_ref());
        compiled.map_or((false, false), |compiled| (compiled.ingress, compiled.egress))
    }

    fn endpoint_state(&self, name: &PodName, pod: &Pod, endpoint: &Endpoint) -> EndpointState {
        let stored = self.reports.endpoints.stored(&endpoint_key(name));
        let was_ready = stored.is_some_and(|stored| stored.is_ready && stored.owner == pod.uid);
        if endpoint.identity.is_none() {
            EndpointState::WaitingForIdentity
        } else if endpoint.published.is_some() && (was_ready || self.is_connected(name, pod, endpoint)) {
            // Once it is in service, changes on the way do not take it out.
            EndpointState::Ready
        } else {
            EndpointState::Creating
        }
    }

    /// The kubelet says that the pod has its addresses, and the node that it has the endpoint.
    fn is_connected(&self, name: &PodName, pod: &Pod, endpoint: &Endpoint) -> bool {
        let state = self.nodes.get(&endpoint.node).map(|entry| &entry.state);
        let is_failing = |key: &PartKey| state.is_none_or(|state| state.is_failing(key));
        let is_confirmed = state.is_some_and(|state| state.is_confirmed(&Token::Pod(name.clone())));
        !pod.addresses.is_empty()
            && is_confirmed
            && !is_failing(&PartKey::endpoint(&name.namespace, &name.name))
    }
}

fn direction(enforcing: bool) -> EndpointPolicyDirection {
    let state = if enforcing { "enforcing" } else { "disabled" };
    EndpointPolicyDirection { enforcing, state: Some(state.to_owned()), ..EndpointPolicyDirection::default() }
}
