//! Pods of the node to whom what is redirected stays what it is (CiliumLocalRedirectPolicy, `skipRedirectFromBackend`).

use std::collections::HashMap;

use cilium_api::parts::{PartKey, Redirect};
use cilium_bpf::layout::{Addr, ExemptEntry, ExemptKey, ServiceKey};
use cilium_delta::Tracker;

use crate::endpoints::Endpoints;
use crate::services::redirect_keys;

/// Entries for pods that are linked.
#[derive(Default)]
pub(crate) struct Exemptions {
    pub(crate) tracker: Tracker<ExemptKey, ExemptEntry>,
    redirects: HashMap<PartKey, Exempt>,
}

/// What a policy exempts from what.
struct Exempt {
    pods: Vec<PartKey>,
    services: Vec<ServiceKey>,
}

impl Exemptions {
    /// Takes a part, or that there is none.
    pub(crate) fn set(&mut self, part: &PartKey, redirect: Option<&Redirect>) {
        let Some(redirect) = redirect.filter(|redirect| !redirect.exempt.is_empty()) else {
            self.redirects.remove(part);
            return;
        };
        let namespace = part.0.split('/').nth(1).unwrap_or_default();
        let pods = redirect.exempt.iter().map(|pod| PartKey::endpoint(namespace, pod)).collect();
        let services = redirect_keys(redirect).map(|(key, _)| key).collect();
        self.redirects.insert(part.clone(), Exempt { pods, services });
    }

    /// Makes the entries follow policies and links. There are few of these policies, and few pods for each on one node.
    pub(crate) fn follow(&mut self, endpoints: &Endpoints) {
        let entries = self.redirects.values().flat_map(|exempt| {
            exempt.pods.iter().flat_map(|pod| clients(pod, endpoints)).flat_map(|client| {
                let key = move |service: &ServiceKey| ExemptKey { client, service: *service };
                exempt.services.iter().map(move |service| (key(service), ExemptEntry { exempt: 1 }))
            })
        });
        let entries: Vec<_> = entries.collect();
        self.tracker.replace_desired(entries);
    }

    /// Whether links matter.
    pub(crate) fn is_empty(&self) -> bool {
        self.redirects.is_empty()
    }

    /// The policy that has an entry.
    pub(crate) fn owner(&self, key: &ExemptKey) -> Option<&PartKey> {
        let mut all = self.redirects.iter();
        all.find(|(_, exempt)| exempt.services.contains(&key.service)).map(|(part, _)| part)
    }

    /// Policies that cannot exempt a pod as they should, and why.
    pub(crate) fn failures(&self, endpoints: &Endpoints) -> Vec<(PartKey, String)> {
        let failure = |part: &PartKey, pod: &PartKey| {
            let name = pod.0.trim_start_matches("endpoint/");
            let message = format!(
                "what pod {name} sends is redirected, too, as its network namespace is not known: the agent needs \
                 enable-local-redirect-policy, and a pod that was there before it a restart"
            );
            (cookie(pod, endpoints) == Some(0)).then(|| (part.clone(), message))
        };
        let all = self.redirects.iter();
        all.flat_map(|(part, exempt)| exempt.pods.iter().filter_map(move |pod| failure(part, pod))).collect()
    }
}

/// As whom a pod that is linked meets a Service: with its sockets, and with packets that no socket program saw.
fn clients(pod: &PartKey, endpoints: &Endpoints) -> Vec<Addr> {
    let Some(cookie) = cookie(pod, endpoints) else { return Vec::new() };
    let sockets = (cookie != 0).then(|| Addr::of_netns(cookie));
    let addresses = endpoints.planned(pod).into_iter().flat_map(|planned| &planned.addresses);
    sockets.into_iter().chain(addresses.map(|address| Addr::from(*address))).collect()
}

/// Of the network namespace of a pod that is linked; 0 when it is not known.
fn cookie(pod: &PartKey, endpoints: &Endpoints) -> Option<u64> {
    Some(endpoints.link_of(endpoints.planned(pod)?)?.netns_cookie)
}
