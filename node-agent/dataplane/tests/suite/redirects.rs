//! What leads to pods of the node in place of where it would lead.

use std::collections::BTreeSet;

use cilium_api::parts::{Part, PartKey, Parts};
use cilium_bpf::layout::{Addr, ExemptKey, NetPort, SCOPE_EXEMPT, SCOPE_INTERNAL, ServiceKey};
use cilium_dataplane::{Behind, Dataplane, GRACE};

use crate::build::*;
use crate::kernel::Fake;

fn key(address: &str, scope: u8) -> ServiceKey {
    ServiceKey { address: ip(address).into(), port: NetPort(80), protocol: 6, scope }
}

/// Backends of a frontend, as addresses and ports; `None` if there is no such frontend.
fn leads(kernel: &Fake, address: &str, scope: u8) -> Option<Vec<String>> {
    let service = kernel.services.get(&key(address, scope))?;
    let backend = |index| match kernel.backend(service, index) {
        Behind::Backend(entry) => format!("{} {}", entry.address, entry.port.0),
        other => panic!("{other:?} in place of a backend"),
    };
    Some((0..service.count).map(backend).collect())
}

fn internal(kernel: &Fake, address: &str) -> Option<Vec<String>> {
    leads(kernel, address, SCOPE_INTERNAL)
}

fn exempted(kernel: &Fake, address: &str) -> Option<Vec<String>> {
    leads(kernel, address, SCOPE_EXEMPT)
}

fn update(dataplane: &mut Dataplane, kernel: &mut Fake, parts: &Parts, key: &PartKey) {
    dataplane.update([key], parts);
    dataplane.apply(kernel, 0);
}

const OWN: &str = "10.244.1.5";
const OTHER: &str = "10.244.2.7";

fn mk_parts(redirect: (PartKey, Part)) -> Parts {
    Parts::from([mk_node("n1", 1), mk_endpoint(5, 300), mk_service("web", 9, &[(OTHER, 80)]), redirect])
}

fn lines(lines: &[&str]) -> Option<Vec<String>> {
    Some(lines.iter().map(|line| (*line).to_owned()).collect())
}

#[test]
fn a_service_is_redirected_for_as_long_as_there_is_a_redirect() {
    let (mut dataplane, mut kernel) = (Dataplane::new(mk_config(false)), Fake::default());
    let (part, redirect) = mk_redirect("web", "10.96.0.9", &[OWN], &[]);
    let mut parts = mk_parts((part.clone(), redirect));
    feed(&mut dataplane, &mut kernel, &parts);
    assert_eq!(internal(&kernel, "10.96.0.9"), lines(&["10.244.1.5 8080"]));
    assert_eq!((exempted(&kernel, "10.96.0.9"), dataplane.failures()), (None, vec![]));
    let service = mk_service("web", 9, &[(OTHER, 81)]);
    parts.extend([service.clone()]);
    update(&mut dataplane, &mut kernel, &parts, &service.0);
    assert_eq!(internal(&kernel, "10.96.0.9"), lines(&["10.244.1.5 8080"]), "the Service changed");
    parts.remove(&part);
    update(&mut dataplane, &mut kernel, &parts, &part);
    assert_eq!(internal(&kernel, "10.96.0.9"), lines(&["10.244.2.7 81"]));
}

#[test]
fn an_address_is_there_only_with_a_redirect() {
    let (mut dataplane, mut kernel) = (Dataplane::new(mk_config(false)), Fake::default());
    let (part, redirect) = mk_redirect("meta", "169.254.169.254", &[OWN], &[]);
    let mut parts = mk_parts((part.clone(), redirect));
    feed(&mut dataplane, &mut kernel, &parts);
    assert_eq!(internal(&kernel, "169.254.169.254"), lines(&["10.244.1.5 8080"]));
    parts.remove(&part);
    update(&mut dataplane, &mut kernel, &parts, &part);
    assert_eq!(internal(&kernel, "169.254.169.254"), None);
}

#[test]
fn pods_that_are_exempt_meet_what_is_there_otherwise() {
    let (mut dataplane, mut kernel) = (Dataplane::new(mk_config(false)), Fake::default());
    let (part, redirect) = mk_redirect("web", "10.96.0.9", &[OWN], &[5, 6]);
    let mut parts = mk_parts((part.clone(), redirect));
    parts.extend([mk_redirect("meta", "169.254.169.254", &[OWN], &[5])]);
    feed(&mut dataplane, &mut kernel, &parts);
    assert_eq!(exempted(&kernel, "10.96.0.9"), lines(&["10.244.2.7 80"]));
    assert_eq!(exempted(&kernel, "169.254.169.254"), None, "it is as without a redirect");
    assert!(kernel.exempt.is_empty(), "no pod is linked");
    dataplane.link(5, Some(mk_link(5)));
    dataplane.apply(&mut kernel, 0);
    let exempt = |client: Addr, address| ExemptKey { client, service: key(address, SCOPE_INTERNAL) };
    let found: BTreeSet<ExemptKey> = kernel.exempt.keys().copied().collect();
    let clients = [Addr::of_netns(1005), ip(OWN).into(), ip("fd00:10:244::5").into()];
    let expected = clients.map(|client| ["10.96.0.9", "169.254.169.254"].map(|to| exempt(client, to)));
    assert_eq!(found, expected.into_iter().flatten().collect());
    // The Service goes, then the policy, then the pod.
    let service = PartKey::service("default", "web");
    parts.remove(&service);
    update(&mut dataplane, &mut kernel, &parts, &service);
    assert_eq!((internal(&kernel, "10.96.0.9").is_some(), exempted(&kernel, "10.96.0.9")), (true, None));
    parts.remove(&part);
    update(&mut dataplane, &mut kernel, &parts, &part);
    assert_eq!(kernel.exempt.len(), 3);
    dataplane.link(5, None);
    dataplane.apply(&mut kernel, 0);
    assert!(kernel.exempt.is_empty());
}

#[test]
fn a_pod_of_which_the_namespace_is_not_known_is_named() {
    let (mut dataplane, mut kernel) = (Dataplane::new(mk_config(false)), Fake::default());
    let parts = mk_parts(mk_redirect("meta", "169.254.169.254", &[OWN], &[5]));
    feed(&mut dataplane, &mut kernel, &parts);
    dataplane.link(5, Some(cilium_dataplane::Link { netns_cookie: 0, ..mk_link(5) }));
    dataplane.apply(&mut kernel, 0);
    let failures = dataplane.failures();
    assert_eq!(failures.len(), 1);
    assert_eq!(failures[0].object, "redirect/default/meta");
    assert!(
        failures[0].message.starts_with("what pod default/pod-5 sends is redirected, too"),
        "{failures:?}"
    );
}

#[test]
fn of_two_redirects_one_is_named() {
    let (mut dataplane, mut kernel) = (Dataplane::new(mk_config(false)), Fake::default());
    let mut parts = mk_parts(mk_redirect("a", "10.96.0.9", &[OWN], &[]));
    parts.extend([mk_redirect("b", "10.96.0.9", &[OWN], &[])]);
    feed(&mut dataplane, &mut kernel, &parts);
    let failures = dataplane.failures();
    assert_eq!((failures.len(), failures[0].object.as_str()), (1, "redirect/default/b"));
    assert_eq!(failures[0].message, "10.96.0.9 port 80 belongs to CiliumLocalRedirectPolicy default/a");
}

#[test]
fn entries_that_somebody_took_away_come_back() {
    let (mut dataplane, mut kernel) = (Dataplane::new(mk_config(false)), Fake::default());
    let parts = mk_parts(mk_redirect("meta", "169.254.169.254", &[OWN], &[5]));
    dataplane.link(5, Some(mk_link(5)));
    feed(&mut dataplane, &mut kernel, &parts);
    let (exempt, services) = (kernel.exempt.clone(), kernel.services.len());
    kernel.exempt.clear();
    kernel.services.remove(&key("169.254.169.254", SCOPE_INTERNAL));
    assert_eq!(dataplane.check(&mut kernel, GRACE), Ok(4));
    assert_eq!((&kernel.exempt, kernel.services.len()), (&exempt, services));
}
