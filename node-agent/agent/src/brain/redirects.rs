//! Redirects as `cilium-dbg` lists them.

use std::net::IpAddr;

use cilium_api::parts::{Part, Redirect, RedirectFrontend, RedirectMatcher};
use cilium_rest::model;

use super::Brain;
use super::services::mk_address;
use crate::describe;

impl Brain {
    /// Policies that redirect something on this node, as they are in force.
    pub(crate) fn redirects(&self) -> Vec<model::Redirect> {
        self.redirect_parts().map(|(namespace, name, part)| self.redirect(namespace, name, part)).collect()
    }

    /// The same as upstream lists it among Services: one entry for each address and port, without number.
    pub(super) fn redirected_services(&self) -> Vec<model::ServiceSpec> {
        let specs = self.redirect_parts().flat_map(|(namespace, name, part)| {
            part.frontends.iter().map(move |frontend| service_spec(frontend, namespace, name))
        });
        specs.collect()
    }

    fn redirect_parts(&self) -> impl Iterator<Item = (&str, &str, &Redirect)> {
        let parts = self.state.iter().filter(|_| self.running.is_some());
        parts.filter_map(|(key, part)| {
            let (namespace, name) = key.0.strip_prefix("redirect/")?.split_once('/')?;
            if let Part::Redirect(part) = part { Some((namespace, name, part)) } else { None }
        })
    }

    fn redirect(&self, namespace: &str, name: &str, part: &Redirect) -> model::Redirect {
        let service = &part.service;
        model::Redirect {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            frontend_type: frontend_type(part.matcher).to_owned(),
            service_id: if service.is_empty() { String::new() } else { format!("{namespace}/{service}") },
            frontend_mappings: part.frontends.iter().map(|frontend| self.mapping(frontend)).collect(),
        }
    }

    fn mapping(&self, frontend: &RedirectFrontend) -> model::RedirectMapping {
        let protocol = describe::protocol(frontend.protocol);
        let backend = |(address, port): &(IpAddr, u16)| model::RedirectBackend {
            backend_address: mk_address(*address, *port, ""),
            pod_id: self.pod_at(*address).unwrap_or_default().to_owned(),
        };
        model::RedirectMapping {
            frontend_address: mk_address(frontend.address, frontend.port, &protocol),
            backends: frontend.backends.iter().map(backend).collect(),
        }
    }

    /// The pod of this node that has an address.
    fn pod_at(&self, address: IpAddr) -> Option<&str> {
        let has = |part: &Part| match part {
            Part::Endpoint(it) => [it.ipv4.map(IpAddr::V4), it.ipv6.map(IpAddr::V6)].contains(&Some(address)),
            _ => false,
        };
        let (key, _) = self.state.iter().find(|(_, part)| has(part))?;
        key.0.strip_prefix("endpoint/")
    }
}

/// As upstream writes it.
fn frontend_type(matcher: RedirectMatcher) -> &'static str {
    match matcher {
        RedirectMatcher::AddressPort => "IP + port",
        RedirectMatcher::AddressPorts => "IP + named ports",
        RedirectMatcher::Service => "clusterIP + all svc ports",
        RedirectMatcher::ServicePort => "clusterIP + port",
        RedirectMatcher::ServicePorts => "clusterIP + named ports",
    }
}

/// With the name that upstream gives to what stands in for a Service.
fn service_spec(frontend: &RedirectFrontend, namespace: &str, policy: &str) -> model::ServiceSpec {
    let protocol = describe::protocol(frontend.protocol);
    let backends = frontend.backends.iter().map(|(address, port)| mk_address(*address, *port, &protocol));
    model::ServiceSpec {
        id: 0,
        frontend_address: mk_address(frontend.address, frontend.port, &protocol),
        backend_addresses: backends.collect(),
        namespace: namespace.to_owned(),
        name: format!("{policy}:local-redirect"),
        r#type: "LocalRedirect".to_owned(),
    }
}
