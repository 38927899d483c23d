//! What authors are told.

use cilium_api::condition::{Condition, VALID};

use crate::bgp::Bgp;
use crate::fault::Fault;
use crate::members::{Lack, Standing};

/// No node is selected.
const NO_MATCHING_NODE: &str = "cilium.io/NoMatchingNode";
/// A CiliumBGPPeerConfig is not there.
const MISSING_PEER_CONFIGS: &str = "cilium.io/MissingPeerConfigs";
/// Nodes go by another object.
const CONFLICTING: &str = "cilium.io/ConflictingClusterConfig";
/// A Secret is not there.
const MISSING_AUTH_SECRET: &str = "cilium.io/MissingAuthSecret";

/// Types of all conditions that are ours to write.
pub const CONDITIONS: [&str; 5] =
    [NO_MATCHING_NODE, MISSING_PEER_CONFIGS, CONFLICTING, MISSING_AUTH_SECRET, VALID];

/// Most that a message names.
const MAX_NAMED: usize = 5;

impl Bgp {
    /// Conditions of a CiliumBGPClusterConfig that is there.
    pub fn cluster_conditions(&self, name: &str) -> Option<Vec<Condition>> {
        let (config, standing) = (self.inputs.clusters.get(name)?, self.standings.get(name)?);
        let mut reasons: Vec<String> = config.faults().iter().map(ToString::to_string).collect();
        reasons.extend(lacking(standing));
        Some(vec![
            yes_or_no(
                NO_MATCHING_NODE,
                (standing.selected == 0).then(|| "No node matches spec.nodeSelector".to_owned()),
                ("MatchingNodeUnavailable", "MatchingNodeSelected"),
            ),
            yes_or_no(
                MISSING_PEER_CONFIGS,
                of_names("Referenced CiliumBGPPeerConfig(s) are missing: ", &standing.missing),
                ("PeerConfigsMissing", "PeerConfigsResolved"),
            ),
            yes_or_no(
                CONFLICTING,
                of_names("Selecting the same node(s) with ClusterConfig(s): ", &standing.conflicts),
                ("ClusterConfigConflict", "ClusterConfigValidated"),
            ),
            valid(&reasons),
        ])
    }

    /// Conditions of a CiliumBGPPeerConfig that is there.
    pub fn peer_conditions(&self, name: &str) -> Option<Vec<Condition>> {
        let config = self.inputs.peers.get(name)?;
        let mut reasons: Vec<String> = config.faults().iter().map(ToString::to_string).collect();
        for (name, advertisement) in &self.inputs.advertisements {
            let selectors = config.families.iter().filter_map(|(_, selector)| selector.as_ref());
            if selectors.clone().any(|it| it.matches(&advertisement.labels)) {
                let of = |fault: &Fault| format!("CiliumBGPAdvertisement {name}: {fault}");
                reasons.extend(advertisement.faults().iter().map(of));
            }
        }
        let secret = self.inputs.config.secrets.then(|| self.auth_secret(config.secret.as_deref()));
        if !self.inputs.config.secrets && config.secret.is_some() {
            reasons.push(
                "spec.authSecretRef: there is no namespace for Secrets (bgp-secrets-namespace)".to_owned(),
            );
        }
        Some(secret.into_iter().chain([valid(&reasons)]).collect())
    }

    fn auth_secret(&self, secret: Option<&str>) -> Condition {
        let (status, reason, message) = match secret {
            None => ("False", "AuthSecretNotConfigured", "Auth Secret is not configured".to_owned()),
            Some(name) if self.inputs.secrets.contains_key(name) => {
                ("False", "AuthSecretValidated", String::new())
            }
            Some(name) => {
                ("True", "AuthSecretMissing", format!("Referenced Auth Secret {name:?} is missing"))
            }
        };
        Condition::new(MISSING_AUTH_SECRET, status, reason, message)
    }
}

fn lacking(standing: &Standing) -> impl Iterator<Item = String> {
    standing.lacking.iter().map(|((router, lack), (count, first))| {
        let lack = match lack {
            Lack::Asn => "it has no localASN",
            Lack::RouterId => "the pool of router ids (bgp-router-id-allocation-ip-pool) is exhausted",
        };
        let others = if *count > 1 { format!(" and {} others", count - 1) } else { String::new() };
        format!("instance {router} does not run on {first}{others}: {lack}")
    })
}

fn yes_or_no(type_: &str, message: Option<String>, (yes, no): (&str, &str)) -> Condition {
    match message {
        Some(message) => Condition::new(type_, "True", yes, message),
        None => Condition::new(type_, "False", no, String::new()),
    }
}

/// The names as upstream lists them; `None` if there is none.
fn of_names<T: AsRef<str>>(start: &str, names: impl IntoIterator<Item = T>) -> Option<String> {
    let names: Vec<T> = names.into_iter().collect();
    let texts: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    (!texts.is_empty()).then(|| format!("{start}[{}]", texts.join(" ")))
}

fn valid(reasons: &[String]) -> Condition {
    if reasons.is_empty() {
        return Condition::new(VALID, "True", "Valid", String::new());
    }
    let mut message = reasons.iter().take(MAX_NAMED).cloned().collect::<Vec<_>>().join("; ");
    if reasons.len() > MAX_NAMED {
        message.push_str(&format!("; and {} more", reasons.len() - MAX_NAMED));
    }
    Condition::new(VALID, "False", "NotInForce", message)
}
