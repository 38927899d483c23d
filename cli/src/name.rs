//! `cilium policy explain` for a name outside of the cluster.

use cilium_core::{NamePattern, reserved};
use cilium_plan::{End, Planner};
use cilium_policy::{Decision, Missed, ToName};

use crate::args::Port;
use crate::explain::{self, ALLOWED, Answer, DENIED, Party, Said, refused, rule, told};

/// Of questions that no rule is about.
const UNHEARD: &str = "unheard";

/// What is said about a name: once, or for each family where they differ.
pub(crate) fn answers(planner: &Planner, from: &End, name: &str, port: Port) -> Vec<Answer> {
    let all = planner.explain_name(from, name, port.protocol, port.number);
    all.iter().map(|(world, said)| answer(planner, from, (name, *world), said.as_ref(), port)).collect()
}

fn answer(planner: &Planner, from: &End, to: (&str, u32), said: Option<&ToName>, port: Port) -> Answer {
    let name = to.0;
    let to = party(planner, to);
    let question = said.and_then(|said| question(planner, from, &to, said));
    let egress = said.map(|said| told(planner, &said.traffic, from, &to));
    let denied = question.iter().chain(&egress).any(|said| said.verdict == DENIED);
    Answer {
        from: explain::party(planner, from, from),
        to,
        port: port.to_string(),
        verdict: if denied { DENIED } else { ALLOWED },
        question,
        egress,
        ingress: None,
        by_address: said.iter().flat_map(|said| &said.by_prefix).map(rule).collect(),
        assumed: assumed(from, name, said),
        refused: refused(planner, &[from]),
    }
}

fn party(planner: &Planner, (name, world): (&str, u32)) -> Party {
    let family = match world {
        reserved::WORLD_IPV4 => " (IPv4)",
        reserved::WORLD_IPV6 => " (IPv6)",
        _ => "",
    };
    let labels = planner.labels(world).cloned().or_else(|| reserved::labels(world));
    let labels = labels.map(|labels| labels.to_strings()).unwrap_or_default();
    Party { name: format!("{name}{family}"), identity: world, labels }
}

/// What is said of questions; nothing where they make no difference.
fn question(planner: &Planner, from: &End, to: &Party, said: &ToName) -> Option<Said> {
    let Some(decision) = &said.question else { return is_unheard(said).then(unheard) };
    let said = told(planner, decision, from, to);
    let reason = match decision {
        Decision::Granted(_) => "it may ask for the name",
        Decision::Denied(_) => "it may ask for the name, but a rule denies the name server",
        _ => "no rule lets it ask for the name",
    };
    Some(Said { reason: reason.to_owned(), ..said })
}

fn unheard() -> Said {
    Said {
        verdict: UNHEARD,
        reason: "no rule with rules.dns is about a name server that there is, so no address is learned from what it asks".to_owned(),
        rules: Vec::new(),
        closed_by: Vec::new(),
        nearest: None,
    }
}

/// Whether a rule would allow it, were the name heard of.
fn is_unheard(said: &ToName) -> bool {
    let Decision::DefaultDeny(reason) = &said.traffic else { return false };
    reason.nearest.as_ref().is_some_and(|nearest| nearest.missed == Missed::Unheard)
}

fn assumed(from: &End, name: &str, said: Option<&ToName>) -> Vec<String> {
    let Some(said) = said else { return Vec::new() };
    let mut assumed = vec![format!("all addresses of {name} are outside of the cluster")];
    if let (true, End::Pod { node, .. }) = (is_unheard(said), from) {
        assumed.push(format!(
            "no other pod of node {node} has asked for {name} (cilium-dbg fqdn cache list says what is known there)"
        ));
    }
    assumed
}

/// A name as policies write it.
pub(crate) fn shown(name: &NamePattern) -> &str {
    name.as_str().trim_end_matches('.')
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::args::Target;
    use crate::explain::{settled, text};
    use crate::testing::{mk_galaxy, mk_policy};

    /// What the x-wing's policy lets it send.
    fn mk_world(egress: &Value) -> Planner {
        let mut planner = mk_galaxy();
        let spec = json!({"endpointSelector": {"matchLabels": {"class": "xwing"}}, "egress": egress});
        planner.observe(mk_policy("names", spec));
        planner.plan(crate::cluster::now());
        planner
    }

    fn dns(name: &str) -> Value {
        json!({
            "toEndpoints": [{"matchLabels": {"class": "deathstar"}}],
            "toPorts": [{"ports": [{"port": "53", "protocol": "ANY"}], "rules": {"dns": [{"matchPattern": name}]}}],
        })
    }

    fn fqdn(name: &str) -> Value {
        json!({"toFQDNs": [{"matchName": name}], "toPorts": [{"ports": [{"port": "443", "protocol": "TCP"}]}]})
    }

    fn ask(planner: &Planner, name: &str) -> Vec<Answer> {
        let from = planner.pod("default", "xwing").unwrap();
        answers(planner, &from, name, Port { protocol: 6, number: 443 })
    }

    fn ask_text(egress: &Value, name: &str) -> String {
        let texts: Vec<String> = ask(&mk_world(egress), name).iter().map(text).collect();
        let texts = texts.join("\n");
        texts
            .lines()
            .filter(|line| !line.starts_with("Not in force"))
            .map(|line| format!("{line}\n"))
            .collect()
    }

    #[test]
    fn a_name_that_is_allowed_is_shown_with_both_rules() {
        let told = ask_text(&json!([dns("*.example.com"), fqdn("api.example.com")]), "api.example.com");
        let expected = "\
default/xwing -> api.example.com, port 443/TCP: allowed
DIRECTION   POD             VERDICT   BECAUSE
question    default/xwing   allowed   it may ask for the name
                                      by cnp/default/names spec.egress[0].toPorts[0].rules.dns[0]
egress      default/xwing   allowed   a rule allows it
                                      by cnp/default/names spec.egress[1].toFQDNs[0]
Assumed: all addresses of api.example.com are outside of the cluster
";
        assert_eq!(told, expected);
    }

    #[test]
    fn the_name_that_came_nearest_is_shown() {
        let told = ask_text(&json!([dns("*.example.org"), fqdn("api.example.org")]), "www.example.org");
        let expected = "\
default/xwing -> www.example.org, port 443/TCP: denied
DIRECTION   POD             VERDICT   BECAUSE
question    default/xwing   allowed   it may ask for the name
                                      by cnp/default/names spec.egress[0].toPorts[0].rules.dns[0]
egress      default/xwing   denied    policies close this direction, and no rule allows it
                                      closed by cnp/default/names
                                      nearest rule: cnp/default/names spec.egress[1].toFQDNs[0]
                                      the name does not match: the rule is for api.example.org
Assumed: all addresses of www.example.org are outside of the cluster
";
        assert_eq!(told, expected);
    }

    #[test]
    fn a_name_that_may_not_be_asked_for_is_denied_although_it_is_named() {
        let told = ask_text(&json!([dns("*.example.org"), fqdn("api.example.com")]), "api.example.com");
        let expected = "\
default/xwing -> api.example.com, port 443/TCP: denied
DIRECTION   POD             VERDICT   BECAUSE
question    default/xwing   denied    no rule lets it ask for the name
                                      closed by cnp/default/names
                                      nearest rule: cnp/default/names spec.egress[0].toPorts[0].rules.dns[0]
                                      the name does not match: the rule is for *.example.org
egress      default/xwing   denied    policies close this direction, and no rule allows it
                                      closed by cnp/default/names
                                      nearest rule: cnp/default/names spec.egress[1].toFQDNs[0]
                                      name and port match, but its node learns no address of the name: see the question
Assumed: all addresses of api.example.com are outside of the cluster
Assumed: no other pod of node n1 has asked for api.example.com (cilium-dbg fqdn cache list says what is known there)
";
        assert_eq!(told, expected);
    }

    #[test]
    fn without_rules_for_questions_nothing_is_heard() {
        let told = ask_text(&json!([{"toEntities": ["cluster"]}, fqdn("a.io")]), "a.io");
        assert!(told.contains("question    default/xwing   unheard   no rule with rules.dns"), "{told}");
        let told = ask_text(&json!([{"toEntities": ["cluster"]}, fqdn("a.io")]), "b.io");
        assert!(!told.contains("question"), "{told}");
        assert!(told.contains("the name does not match: the rule is for a.io"), "{told}");
    }

    #[test]
    fn prefixes_are_told_apart_from_the_whole_world() {
        let told = ask_text(&json!([{"toCIDR": ["192.0.2.0/24"]}]), "a.io");
        let hint = "Depends on the address (ask with --to IP): cnp/default/names spec.egress[0]\n";
        assert!(told.contains("443/TCP: denied") && told.contains(hint), "{told}");
        let told = ask_text(&json!([{"toCIDR": ["0.0.0.0/0"]}]), "a.io");
        assert!(told.contains("-> a.io (IPv4), port 443/TCP: allowed"), "{told}");
        assert!(told.contains("-> a.io (IPv6), port 443/TCP: denied"), "{told}");
    }

    #[test]
    fn data_has_the_question_and_what_is_assumed() {
        let planner = mk_world(&json!([dns("*"), fqdn("a.io")]));
        let value = serde_json::to_value(ask(&planner, "a.io")).unwrap();
        assert_eq!(value.as_array().map(Vec::len), Some(1));
        assert_eq!(
            (&value[0]["verdict"], &value[0]["question"]["verdict"]),
            (&json!("allowed"), &json!("allowed"))
        );
        assert_eq!(value[0]["egress"]["rules"], json!(["cnp/default/names spec.egress[1].toFQDNs[0]"]));
        assert_eq!(value[0]["to"], json!({"name": "a.io", "identity": 2, "labels": ["reserved:world"]}));
        assert_eq!(value[0]["assumed"], json!(["all addresses of a.io are outside of the cluster"]));
    }

    #[test]
    fn services_stay_what_they_are() {
        let planner = mk_galaxy();
        let settle = |text: &str| settled(&planner, Target::parse(text, "default"));
        for outside in ["api.example.com", "example.com"] {
            assert_eq!(settle(outside).unwrap(), Target::Name(outside.to_owned()));
        }
        let service = Target::Service("default".to_owned(), "deathstar".to_owned());
        for inside in ["deathstar.default", "deathstar.default.svc", "deathstar.default.svc.cluster.local"] {
            assert_eq!(settle(inside).unwrap(), service, "{inside}");
        }
        for wrong in ["*.example.com", "a..b", "one.deathstar.default.svc.cluster.local"] {
            assert!(settle(wrong).is_err(), "{wrong}");
        }
    }
}
