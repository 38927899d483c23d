//! Installs and upgrades CustomResourceDefinitions.
//!
//! # Guarantees
//! A definition is written only if it does not exist, has no version label, one that is no version, or a lower one than ours:
//! nothing is ever downgraded. [`ensure`] returns when the API server serves all kinds.

use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};

use cilium_api::SCHEMA_VERSION_LABEL;

use crate::backoff::Backoff;
use crate::root_cause;

const BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));

/// What may be done to definitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Create and upgrade.
    Install,
    /// Only wait until somebody else has installed them.
    WaitOnly,
}

/// Brings all definitions into the API server and waits until they are served. Errors are logged and tried again.
pub async fn ensure(client: &Client, wanted: &[CustomResourceDefinition], mode: Mode) {
    let api = Api::all(client.clone());
    join_all(wanted.iter().map(|crd| ensure_one(&api, crd, mode))).await;
}

async fn ensure_one(api: &Api<CustomResourceDefinition>, wanted: &CustomResourceDefinition, mode: Mode) {
    let name = wanted.name_any();
    let mut backoff = BACKOFF;
    loop {
        match attempt(api, wanted, mode).await {
            Ok(Progress::Served) => return,
            Ok(Progress::Written) => {
                tracing::info!(name, "installed the CustomResourceDefinition");
                backoff.reset();
            }
            Ok(Progress::Missing) if backoff.failures() == 6 => {
                tracing::warn!(
                    name,
                    "waiting: the CustomResourceDefinition is not installed, and skip-crd-creation is set"
                );
            }
            Ok(Progress::Missing | Progress::NotYetServed) => {}
            Err(error) => {
                let error = root_cause(&error).to_string();
                tracing::warn!(name, error, "could not install the CustomResourceDefinition; trying again");
            }
        }
        tokio::time::sleep(backoff.fail()).await;
    }
}

enum Progress {
    Served,
    Written,
    Missing,
    NotYetServed,
}

async fn attempt(
    api: &Api<CustomResourceDefinition>,
    wanted: &CustomResourceDefinition,
    mode: Mode,
) -> Result<Progress, kube::Error> {
    let existing = api.get_opt(&wanted.name_any()).await?;
    Ok(match (existing, mode) {
        (None, Mode::WaitOnly) => Progress::Missing,
        (None, Mode::Install) => {
            api.create(&PostParams::default(), wanted).await?;
            Progress::Written
        }
        (Some(existing), Mode::Install) if is_older(&existing, wanted) => {
            api.replace(&wanted.name_any(), &PostParams::default(), &upgraded(existing, wanted)).await?;
            Progress::Written
        }
        (Some(existing), _) if is_served(&existing) => Progress::Served,
        (Some(_), _) => Progress::NotYetServed,
    })
}

/// Whether `existing` has to give way to `wanted`.
fn is_older(existing: &CustomResourceDefinition, wanted: &CustomResourceDefinition) -> bool {
    let first_has_schema = existing.spec.versions.first().is_some_and(|version| version.schema.is_some());
    !first_has_schema || version(existing) < version(wanted)
}

/// Version of the schema; `None`, which is lower than all, if there is none that can be read.
fn version(crd: &CustomResourceDefinition) -> Option<[u64; 3]> {
    let label = crd.labels().get(SCHEMA_VERSION_LABEL)?;
    let mut numbers = label.split('.').map(|number| number.parse().ok());
    let version = [numbers.next()??, numbers.next()??, numbers.next()??];
    numbers.next().is_none().then_some(version)
}

/// The existing object with our content; labels and annotations of others stay.
fn upgraded(
    mut existing: CustomResourceDefinition,
    wanted: &CustomResourceDefinition,
) -> CustomResourceDefinition {
    existing.labels_mut().extend(wanted.labels().clone());
    // How versions are converted is the business of whoever set it up.
    let conversion = existing.spec.conversion.take();
    existing.spec = wanted.spec.clone();
    existing.spec.conversion = existing.spec.conversion.or(conversion);
    existing
}

fn is_served(crd: &CustomResourceDefinition) -> bool {
    let conditions = crd.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Established" && condition.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_crd(version: Option<&str>) -> CustomResourceDefinition {
        let mut crd = cilium_api::all().swap_remove(0);
        crd.labels_mut().remove(SCHEMA_VERSION_LABEL);
        if let Some(version) = version {
            crd.labels_mut().insert(SCHEMA_VERSION_LABEL.into(), version.into());
        }
        crd
    }

    #[test]
    fn only_a_lower_or_unreadable_version_gives_way() {
        let ours = mk_crd(Some("1.33.1201"));
        for (theirs, gives_way) in [
            (None, true),
            (Some("latest"), true),
            (Some("1.33"), true),
            (Some("1.33.12"), true),
            (Some("1.9.9999"), true),
            (Some("1.33.1201"), false),
            (Some("1.33.1202"), false),
            (Some("1.34.0"), false),
            (Some("2.0.0"), false),
        ] {
            assert_eq!(is_older(&mk_crd(theirs), &ours), gives_way, "{theirs:?}");
        }
    }

    #[test]
    fn a_definition_without_a_schema_gives_way() {
        let mut bare = mk_crd(Some("9.0.0"));
        bare.spec.versions[0].schema = None;
        assert!(is_older(&bare, &mk_crd(Some("1.33.1201"))));
    }

    #[test]
    fn an_upgrade_keeps_the_identity_and_foreign_labels() {
        let mut existing = mk_crd(Some("1.0.0"));
        existing.metadata.resource_version = Some("7".into());
        existing.labels_mut().insert("team".into(), "net".into());
        existing.spec.versions.clear();
        let ours = mk_crd(Some("1.33.1201"));
        let result = upgraded(existing, &ours);
        assert_eq!(result.metadata.resource_version.as_deref(), Some("7"));
        assert_eq!(result.labels()["team"], "net");
        assert_eq!(result.labels()[SCHEMA_VERSION_LABEL], "1.33.1201");
        assert_eq!(result.spec.versions, ours.spec.versions);
    }

    #[test]
    fn a_definition_is_served_once_established() {
        let mut crd = mk_crd(None);
        assert!(!is_served(&crd));
        crd.status = serde_json::from_value(serde_json::json!({
            "conditions": [{"type": "NamesAccepted", "status": "True"}, {"type": "Established", "status": "True"}]
        }))
        .unwrap();
        assert!(is_served(&crd));
    }
}
