//! What the ports of [`crate::health`] tell: how many backends of its own the node has for a Service.

use std::collections::{BTreeMap, BTreeSet};

use cilium_api::node_state::Failure;
use cilium_api::parts::{Backend, Part, PartKey, Service};
use cilium_dataplane::Parts;
use tokio::sync::watch;

use crate::health::{Check, Checks, Failures};

/// Services with a port for their health, and the ends of what goes to the server and comes from it.
pub(crate) struct Health {
    checks: BTreeMap<PartKey, (u16, Check)>,
    told: watch::Sender<Checks>,
    failures: watch::Receiver<Failures>,
}

impl Health {
    /// Nothing is told yet.
    pub(crate) fn new(told: watch::Sender<Checks>, failures: watch::Receiver<Failures>) -> Self {
        Self { checks: BTreeMap::new(), told, failures }
    }

    /// Takes parts that changed, and tells the server if that is news to it.
    pub(super) fn update(&mut self, changed: &BTreeSet<PartKey>, parts: &dyn Parts, node: &str) {
        let mut is_touched = false;
        for key in changed.iter().filter(|key| key.kind() == "service") {
            let check = match parts.get(key) {
                Some(Part::Service(service)) => check(key, service, node),
                _ => None,
            };
            is_touched |= self.checks.get(key) != check.as_ref();
            match check {
                Some(check) => drop(self.checks.insert(key.clone(), check)),
                None => drop(self.checks.remove(key)),
            }
        }
        if is_touched {
            self.told.send_if_modified(|told| {
                let now = by_port(&self.checks);
                let is_news = *told != now;
                *told = now;
                is_news
            });
        }
    }

    /// Services whose health nobody can ask for, and why.
    pub(super) fn failures(&self) -> Vec<Failure> {
        let (told, failures) = (self.told.borrow(), self.failures.borrow());
        let why = |port: u16, check: &Check| match told.get(&port) {
            Some(other) if (&other.namespace, &other.name) != (&check.namespace, &check.name) => {
                Some(format!("it is that of the Service {}/{}", other.namespace, other.name))
            }
            _ => {
                let (address, error) = failures.iter().find(|(address, _)| address.port() == port)?;
                Some(format!("cannot listen on {address}: {error}"))
            }
        };
        let failure = |(key, (port, check)): (&PartKey, &(u16, Check))| {
            let message = format!("healthCheckNodePort {port}: {}", why(*port, check)?);
            Some(Failure { object: key.0.to_string(), message })
        };
        self.checks.iter().filter_map(failure).collect()
    }
}

/// Kubernetes gives no two Services the same port. If it stands in two all the same, the first by name has it.
fn by_port(checks: &BTreeMap<PartKey, (u16, Check)>) -> Checks {
    let mut all = Checks::new();
    for (port, check) in checks.values() {
        all.entry(*port).or_insert_with(|| check.clone());
    }
    all
}

fn check(key: &PartKey, service: &Service, node: &str) -> Option<(u16, Check)> {
    let (namespace, name) = key.0.trim_start_matches("service/").split_once('/')?;
    let (namespace, name) = (namespace.to_owned(), name.to_owned());
    (service.health_port != 0)
        .then(|| (service.health_port, Check { namespace, name, local: local(service, node) }))
}

/// Ready backends of the node, on any port. One that has addresses of both families counts once: of the families, the one with more
/// is told.
fn local(service: &Service, node: &str) -> usize {
    let is_own =
        |backend: &&Backend| backend.place.as_ref().is_some_and(|place| place.node == node && !place.leaving);
    let backends = service.ports.iter().flat_map(|port| &port.backends);
    let own: BTreeSet<_> = backends.filter(is_own).map(|backend| backend.address).collect();
    let ipv4 = own.iter().filter(|address| address.is_ipv4()).count();
    ipv4.max(own.len() - ipv4)
}

#[cfg(test)]
mod tests {
    use cilium_api::parts::{BackendPlace, Parts as PartMap, ServicePort};

    use super::*;

    /// Backends as address, node, and whether they are leaving.
    fn mk_service(health_port: u16, backends: &[(&str, &str, bool)]) -> Part {
        let backend = |(address, node, leaving): &(&str, &str, bool)| {
            let place =
                BackendPlace { node: (*node).to_owned(), leaving: *leaving, ..BackendPlace::default() };
            Backend { address: address.parse().unwrap(), port: 80, place: Some(Box::new(place)) }
        };
        let backends: Vec<_> = backends.iter().map(backend).collect();
        let port = |port| {
            let backends = backends.clone();
            ServicePort { name: String::new(), protocol: 6, port, node_port: 0, backends }
        };
        let ports = vec![port(80), port(443)];
        Part::Service(Service { external_local: true, health_port, ports, ..Service::default() })
    }

    struct World {
        health: Health,
        parts: PartMap,
        told: watch::Receiver<Checks>,
        failures: watch::Sender<Failures>,
    }

    impl World {
        fn new() -> Self {
            let (told_sender, told) = watch::channel(Checks::new());
            let (failures, heard) = watch::channel(Failures::new());
            Self { health: Health::new(told_sender, heard), parts: PartMap::new(), told, failures }
        }

        /// Sets a Service of that name, or takes it away. Returns what is told, if that is news.
        fn set(&mut self, name: &str, part: Option<Part>) -> Option<Vec<(u16, String, usize)>> {
            let key = PartKey::service("shop", name);
            match part {
                Some(part) => drop(self.parts.insert(key.clone(), part)),
                None => drop(self.parts.remove(&key)),
            }
            self.health.update(&[key].into(), &self.parts, "n1");
            if !self.told.has_changed().unwrap() {
                return None;
            }
            let told = self.told.borrow_and_update();
            let line = |(port, check): (&u16, &Check)| (*port, check.name.clone(), check.local);
            Some(told.iter().map(line).collect())
        }

        fn failures(&self) -> Vec<(String, String)> {
            self.health.failures().into_iter().map(|failure| (failure.object, failure.message)).collect()
        }
    }

    #[test]
    fn ready_backends_of_the_node_count_once() {
        let mut world = World::new();
        let backends = [
            ("10.0.0.1", "n1", false),
            ("10.0.0.2", "n1", false),
            ("10.0.0.3", "n1", true),
            ("10.0.0.4", "n2", false),
            ("fd00::1", "n1", false),
        ];
        assert_eq!(
            world.set("web", Some(mk_service(31000, &backends))),
            Some(vec![(31000, "web".to_owned(), 2)])
        );
        assert_eq!(
            world.set("web", Some(mk_service(31000, &backends[2..]))),
            Some(vec![(31000, "web".to_owned(), 1)])
        );
        assert_eq!(
            world.set("web", Some(mk_service(31000, &backends[2..4]))),
            Some(vec![(31000, "web".to_owned(), 0)])
        );
        // Elsewhere, it is as it likes.
        assert_eq!(world.set("web", Some(mk_service(31000, &backends[3..4]))), None);
        assert_eq!(world.set("web", Some(mk_service(31001, &[]))), Some(vec![(31001, "web".to_owned(), 0)]));
        assert_eq!(world.set("web", Some(mk_service(0, &backends))), Some(vec![]));
        assert_eq!(world.set("web", None), None);
    }

    #[test]
    fn a_port_of_two_services_is_the_first_ones_until_it_goes() {
        let mut world = World::new();
        world.set("b", Some(mk_service(31000, &[])));
        assert_eq!(world.set("a", Some(mk_service(31000, &[]))), Some(vec![(31000, "a".to_owned(), 0)]));
        let message = "healthCheckNodePort 31000: it is that of the Service shop/a";
        assert_eq!(world.failures(), [("service/shop/b".to_owned(), message.to_owned())]);
        assert_eq!(world.set("a", None), Some(vec![(31000, "b".to_owned(), 0)]));
        assert_eq!(world.failures(), []);
    }

    #[test]
    fn a_port_that_cannot_be_had_is_a_failure_of_its_service() {
        let mut world = World::new();
        world.set("a", Some(mk_service(31000, &[])));
        world.set("b", Some(mk_service(31001, &[])));
        let failed = |port| (format!("[::]:{port}").parse().unwrap(), "in use".to_owned());
        world.failures.send_replace([failed(31001), failed(31002)].into());
        let message = "healthCheckNodePort 31001: cannot listen on [::]:31001: in use";
        assert_eq!(world.failures(), [("service/shop/b".to_owned(), message.to_owned())]);
    }
}
