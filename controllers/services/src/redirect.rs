//! A CiliumLocalRedirectPolicy, reduced to what can change where it leads. What is malformed is refused here, so that later steps
//! cannot fail.

use std::collections::BTreeSet;
use std::net::IpAddr;

use cilium_api::local_redirect_policy::{
    AddressMatcher, CiliumLocalRedirectPolicy, LocalRedirectSpec, PortInfo, RedirectProtocol, ServiceMatcher,
};
use cilium_api::parts::RedirectMatcher;
use cilium_core::Selector;

use crate::index::ServiceName;

/// IP protocol numbers.
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Field and reason, as a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct Invalid {
    /// Path of the field.
    pub field: String,
    /// What is wrong with it, and what to write instead.
    pub reason: String,
}

impl Invalid {
    fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into() }
    }
}

/// What a policy asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What is redirected.
    pub target: RedirectTarget,
    /// Ports that it names; none are all of a Service's.
    pub ports: Vec<RedirectPort>,
    /// Selects pods by labels of [`cilium_core::Source::K8S`].
    pub selector: Selector,
    /// Ports of the pods.
    pub backend_ports: Vec<RedirectPort>,
    /// What the pods themselves send is not redirected.
    pub exempts_backends: bool,
}

/// What is redirected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedirectTarget {
    /// An address.
    Address(IpAddr),
    /// Cluster addresses of a Service.
    Service(ServiceName),
}

/// A port of a frontend or of pods.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RedirectPort {
    /// Lower case; empty when it has none.
    pub name: String,
    /// IP protocol number.
    pub protocol: u8,
    /// Its number.
    pub port: u16,
}

impl Rule {
    /// Reads a policy.
    ///
    /// # Errors
    /// No version could ever put it in force.
    pub fn reduce(policy: &CiliumLocalRedirectPolicy) -> Result<Self, Invalid> {
        let namespace = policy.metadata.namespace.as_deref().unwrap_or_default();
        let spec = policy.spec.as_ref().ok_or_else(|| Invalid::new("spec", "is missing"))?;
        let (target, ports) = read_frontend(spec, namespace)?;
        let backend = &spec.redirect_backend;
        let backend_ports = read_ports("spec.redirectBackend.toPorts", &backend.to_ports)?;
        if backend_ports.is_empty() {
            return Err(Invalid::new("spec.redirectBackend.toPorts", "names no port of the pods"));
        }
        let selector = Selector::parse(&backend.local_endpoint_selector)
            .map_err(|error| Invalid::new("spec.redirectBackend.localEndpointSelector", error.to_string()))?;
        check_pairs(&ports, &backend_ports)?;
        let exempts_backends = spec.skip_redirect_from_backend;
        Ok(Self { target, ports, selector, backend_ports, exempts_backends })
    }

    /// Port of the pods for one of `all` ports that are redirected: with one port on each side that one, otherwise the one of its name;
    /// always of its protocol.
    pub fn backend_port(&self, port: &RedirectPort, all: usize) -> Option<u16> {
        pair(port, all, &self.backend_ports).map(|found| found.port)
    }

    /// How the policy says what it redirects.
    pub fn matcher(&self) -> RedirectMatcher {
        match (&self.target, self.ports.len()) {
            (RedirectTarget::Address(_), 1) => RedirectMatcher::AddressPort,
            (RedirectTarget::Address(_), _) => RedirectMatcher::AddressPorts,
            (RedirectTarget::Service(_), 0) => RedirectMatcher::Service,
            (RedirectTarget::Service(_), 1) => RedirectMatcher::ServicePort,
            (RedirectTarget::Service(_), _) => RedirectMatcher::ServicePorts,
        }
    }
}

impl RedirectPort {
    /// As a port of a Service; `None` for a protocol that is not redirected.
    pub(crate) fn of_service(name: &str, protocol: u8, port: u16) -> Option<Self> {
        let is_redirected = [TCP, UDP].contains(&protocol);
        is_redirected.then(|| Self { name: name.to_lowercase(), protocol, port })
    }
}

fn pair<'a>(port: &RedirectPort, all: usize, backends: &'a [RedirectPort]) -> Option<&'a RedirectPort> {
    let mut of_protocol = backends.iter().filter(|it| it.protocol == port.protocol);
    if all == 1 && backends.len() == 1 {
        return of_protocol.next();
    }
    of_protocol.find(|it| it.name == port.name && !it.name.is_empty())
}

fn read_frontend(
    spec: &LocalRedirectSpec,
    namespace: &str,
) -> Result<(RedirectTarget, Vec<RedirectPort>), Invalid> {
    let frontend = &spec.redirect_frontend;
    match (&frontend.address_matcher, &frontend.service_matcher) {
        (Some(matcher), None) => read_address(matcher),
        (None, Some(matcher)) => read_service(matcher, namespace),
        _ => Err(Invalid::new(
            "spec.redirectFrontend",
            "one of addressMatcher and serviceMatcher is to be given, and only one",
        )),
    }
}

fn read_address(matcher: &AddressMatcher) -> Result<(RedirectTarget, Vec<RedirectPort>), Invalid> {
    let field = "spec.redirectFrontend.addressMatcher";
    let ports = read_ports(&format!("{field}.toPorts"), &matcher.to_ports)?;
    if ports.is_empty() {
        return Err(Invalid::new(format!("{field}.toPorts"), "names no port"));
    }
    let refused = |reason: &str| Invalid::new(format!("{field}.ip"), format!("{:?} {reason}", matcher.ip));
    let address: IpAddr = matcher.ip.trim().parse().map_err(|_| refused("is no address"))?;
    if address.is_unspecified() || address.is_loopback() || address.is_multicast() {
        return Err(refused("is an address that no packet of a pod can reach another one by"));
    }
    if matches!(address, IpAddr::V6(it) if it.to_ipv4_mapped().is_some()) {
        return Err(refused("is an IPv4 address in IPv6 form: write it as IPv4"));
    }
    Ok((RedirectTarget::Address(address), ports))
}

fn read_service(
    matcher: &ServiceMatcher,
    namespace: &str,
) -> Result<(RedirectTarget, Vec<RedirectPort>), Invalid> {
    let field = "spec.redirectFrontend.serviceMatcher";
    let ServiceMatcher { namespace: named, service_name, to_ports } = matcher;
    if named != namespace {
        let reason =
            format!("{named:?} is not the namespace of the policy, {namespace:?}, and has to be that one");
        return Err(Invalid::new(format!("{field}.namespace"), reason));
    }
    if service_name.is_empty() {
        return Err(Invalid::new(format!("{field}.serviceName"), "is empty"));
    }
    let ports = read_ports(&format!("{field}.toPorts"), to_ports.as_deref().unwrap_or_default())?;
    Ok((RedirectTarget::Service(ServiceName::new(named, service_name)), ports))
}

fn read_ports(field: &str, infos: &[PortInfo]) -> Result<Vec<RedirectPort>, Invalid> {
    let mut ports: Vec<RedirectPort> = Vec::with_capacity(infos.len());
    let (mut numbers, mut names) = (BTreeSet::new(), BTreeSet::new());
    for (at, info) in infos.iter().enumerate() {
        let port = read_port(&format!("{field}[{at}]"), info)?;
        let field = || format!("{field}[{at}]");
        if !numbers.insert((port.protocol, port.port)) {
            return Err(Invalid::new(field(), format!("{} {} is there twice", info.protocol, port.port)));
        }
        if !port.name.is_empty() && !names.insert(port.name.clone()) {
            return Err(Invalid::new(field(), format!("the name {:?} is there twice", port.name)));
        }
        ports.push(port);
    }
    if let Some(at) = ports.iter().position(|port| port.name.is_empty()).filter(|_| ports.len() > 1) {
        return Err(Invalid::new(format!("{field}[{at}].name"), "is missing: several ports need names"));
    }
    ports.sort_unstable();
    Ok(ports)
}

fn read_port(field: &str, info: &PortInfo) -> Result<RedirectPort, Invalid> {
    let number = info.port.parse::<u16>().ok().filter(|port| *port != 0);
    let port = number.ok_or_else(|| {
        Invalid::new(format!("{field}.port"), format!("{:?} is no number from 1 to 65535", info.port))
    })?;
    let protocol = match &info.protocol {
        RedirectProtocol::Tcp => TCP,
        RedirectProtocol::Udp => UDP,
        RedirectProtocol::Other(text) => {
            let reason = format!("{text:?} is neither TCP nor UDP");
            return Err(Invalid::new(format!("{field}.protocol"), reason));
        }
    };
    let name = info.name.as_deref().unwrap_or_default().to_lowercase();
    Ok(RedirectPort { name, protocol, port })
}

/// Every port that the policy names has a port of the pods. Which ports a Service has that it does not name, only the Service says.
fn check_pairs(ports: &[RedirectPort], backends: &[RedirectPort]) -> Result<(), Invalid> {
    let Some(alone) = ports.iter().find(|port| pair(port, ports.len(), backends).is_none()) else {
        return Ok(());
    };
    let protocol = if alone.protocol == TCP { "TCP" } else { "UDP" };
    let wanted = if ports.len() == 1 && backends.len() == 1 {
        format!("it has to be of protocol {protocol}, which the port {} of the frontend has", alone.port)
    } else if alone.name.is_empty() {
        format!("several ports need names, and so does the port {} of the frontend", alone.port)
    } else {
        format!("none is called {:?} and of protocol {protocol}, as a port of the frontend is", alone.name)
    };
    Err(Invalid::new("spec.redirectBackend.toPorts", wanted))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn port(name: &str, protocol: &str, port: &str) -> Value {
        json!({"name": name, "protocol": protocol, "port": port})
    }

    fn mk_policy(frontend: &Value, backends: &Value) -> CiliumLocalRedirectPolicy {
        let backend = json!({"localEndpointSelector": {"matchLabels": {"app": "dns"}}, "toPorts": backends});
        let object = json!({
            "apiVersion": "cilium.io/v2", "kind": "CiliumLocalRedirectPolicy",
            "metadata": {"namespace": "kube-system", "name": "dns"},
            "spec": {"redirectFrontend": frontend, "redirectBackend": backend},
        });
        serde_json::from_value(object).expect("well-formed")
    }

    fn address(ip: &str, ports: &Value) -> Value {
        json!({"addressMatcher": {"ip": ip, "toPorts": ports}})
    }

    fn service(namespace: &str, ports: &Value) -> Value {
        json!({"serviceMatcher": {"namespace": namespace, "serviceName": "kube-dns", "toPorts": ports}})
    }

    fn refusal(frontend: &Value, backends: &Value) -> String {
        Rule::reduce(&mk_policy(frontend, backends)).expect_err("is refused").to_string()
    }

    #[test]
    fn one_port_on_each_side_needs_no_name() {
        let frontend = address(" 169.254.169.254 ", &json!([{"protocol": "TCP", "port": "80"}]));
        let rule = Rule::reduce(&mk_policy(&frontend, &json!([port("web", "TCP", "8080")]))).expect("fits");
        assert_eq!(rule.target, RedirectTarget::Address("169.254.169.254".parse().expect("an address")));
        assert_eq!(rule.backend_port(&rule.ports[0], 1), Some(8080));
        assert_eq!(rule.matcher(), RedirectMatcher::AddressPort);
    }

    #[test]
    fn several_ports_find_each_other_by_name_and_protocol() {
        let backends = json!([port("dns", "UDP", "1053"), port("DNS-tcp", "TCP", "1054")]);
        let frontend =
            service("kube-system", &json!([port("dns-tcp", "TCP", "53"), port("dns", "UDP", "53")]));
        let rule = Rule::reduce(&mk_policy(&frontend, &backends)).expect("fits");
        let found = |port: &RedirectPort| (port.protocol, rule.backend_port(port, rule.ports.len()));
        let pairs: Vec<_> = rule.ports.iter().map(found).collect();
        assert_eq!(pairs, [(17, Some(1053)), (6, Some(1054))]);
        assert_eq!(rule.matcher(), RedirectMatcher::ServicePorts);
        let metrics = RedirectPort { name: "metrics".to_owned(), protocol: 6, port: 9153 };
        assert_eq!(rule.backend_port(&metrics, 3), None, "the Service has it, the pods do not");
    }

    #[test]
    fn a_service_need_not_name_ports() {
        let frontend = json!({"serviceMatcher": {"namespace": "kube-system", "serviceName": "kube-dns"}});
        let rule = Rule::reduce(&mk_policy(&frontend, &json!([port("dns", "UDP", "53")]))).expect("fits");
        assert_eq!((rule.ports.len(), rule.matcher()), (0, RedirectMatcher::Service));
    }

    #[test]
    fn what_cannot_work_is_refused_by_its_path() {
        let udp = json!([{"protocol": "UDP", "port": "53"}]);
        let two = json!([port("a", "TCP", "1"), port("b", "TCP", "2")]);
        let unnamed = json!([port("a", "TCP", "1"), {"protocol": "TCP", "port": "2"}]);
        let twice = json!([port("a", "TCP", "1"), port("a", "UDP", "1")]);
        let zero = json!([port("a", "TCP", "0")]);
        let both = json!({"addressMatcher": address("10.0.0.1", &udp)["addressMatcher"],
            "serviceMatcher": service("kube-system", &udp)["serviceMatcher"]});
        let backends = "spec.redirectBackend.toPorts";
        let ip = "spec.redirectFrontend.addressMatcher.ip";
        let cases = [
            (both, &udp, "spec.redirectFrontend: one of"),
            (json!({}), &udp, "spec.redirectFrontend: one of"),
            (service("default", &udp), &udp, "spec.redirectFrontend.serviceMatcher.namespace: \"default\""),
            (address("127.0.0.1", &udp), &udp, ip),
            (address("0.0.0.0", &udp), &udp, ip),
            (address("224.0.0.1", &udp), &udp, ip),
            (address("::ffff:10.0.0.1", &udp), &udp, ip),
            (address("fe80::1%eth0", &udp), &udp, ip),
            (
                address("10.0.0.1", &json!([])),
                &udp,
                "spec.redirectFrontend.addressMatcher.toPorts: names no port",
            ),
            (address("10.0.0.1", &udp), &two, backends),
            (address("10.0.0.1", &two), &udp, backends),
            (address("10.0.0.1", &udp), &json!([port("", "TCP", "53")]), backends),
            (address("10.0.0.1", &udp), &json!([]), "spec.redirectBackend.toPorts: names no port"),
            (
                address("10.0.0.1", &unnamed),
                &two,
                "spec.redirectFrontend.addressMatcher.toPorts[1].name: is missing",
            ),
            (
                address("10.0.0.1", &two),
                &twice,
                "spec.redirectBackend.toPorts[1]: the name \"a\" is there twice",
            ),
            (address("10.0.0.1", &two), &zero, "spec.redirectBackend.toPorts[0].port: \"0\" is no number"),
        ];
        for (frontend, backends, expected) in cases {
            let refusal = refusal(&frontend, backends);
            assert!(refusal.starts_with(expected), "{refusal} for {frontend}");
        }
    }
}
