//! Reads a cluster through its API server, and plans it as the operator does.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use cilium_api::cluster_network_policy::ClusterNetworkPolicy;
use cilium_api::kubernetes_network_policy::NetworkPolicy;
use cilium_api::node_slice::{CiliumNodeStateSlice, OWNER_LABEL};
use cilium_api::slim::{EndpointSlice, Namespace, Node, Pod, Service};
use cilium_api::{CiliumCIDRGroup, CiliumClusterwideNetworkPolicy, CiliumIdentity, CiliumNetworkPolicy};
use cilium_core::LabelFilter;
use cilium_plan::{Config, Kind, Object, ObjectKey, POLICY_OWNER, Planner, UnreadablePolicy};
use cilium_policy::Mode;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, ResourceExt as _};
use serde::de::DeserializeOwned;

use crate::args::Cli;

/// Objects in one answer.
const PAGE: u32 = 500;

/// How long reading may take before it says how far it is.
const SILENCE: Duration = Duration::from_secs(1);

/// A cluster, planned.
pub(crate) struct Cluster {
    /// What is planned.
    pub(crate) planner: Planner,
    /// Namespace of names that are given without one.
    pub(crate) namespace: String,
}

/// Settings of the product, as far as they matter here.
#[derive(Default)]
struct Settings {
    plan: Config,
    /// ClusterNetworkPolicies are enforced.
    cluster_network_policies: bool,
}

/// Reads one cluster.
struct Reader {
    client: Client,
    planner: Planner,
    progress: Progress,
}

/// Reads and plans the cluster that the options name.
///
/// # Errors
/// No cluster is configured, it does not answer, or it does not let the user read what a plan needs.
pub(crate) async fn read(cli: &Cli) -> anyhow::Result<Cluster> {
    let config = kubeconfig(cli).await?;
    let namespace = cli.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
    let url = config.cluster_url.to_string();
    let client = Client::try_from(config).context("the kubeconfig cannot be used")?;
    let settings = settings(&client, &cli.system_namespace).await;
    let settings = settings.with_context(|| format!("cannot read from the cluster at {url}"))?;
    let Settings { plan, cluster_network_policies } = settings;
    let planner = Planner::new(plan);
    let mut reader = Reader { client, planner, progress: Progress::new() };
    reader.read_all(cluster_network_policies).await?;
    let Reader { mut planner, .. } = reader;
    planner.synced();
    planner.plan(now());
    Ok(Cluster { planner, namespace })
}

/// The time for the planner, in seconds since the epoch.
pub(crate) fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

pub(crate) async fn kubeconfig(cli: &Cli) -> anyhow::Result<kube::Config> {
    let options = KubeConfigOptions { context: cli.context.clone(), ..KubeConfigOptions::default() };
    let config = match (&cli.kubeconfig, &cli.context) {
        (Some(path), _) => {
            let file = Kubeconfig::read_from(path);
            let file = file.with_context(|| format!("cannot read the kubeconfig {}", path.display()))?;
            kube::Config::from_custom_kubeconfig(file, &options).await?
        }
        (None, Some(_)) => kube::Config::from_kubeconfig(&options).await?,
        (None, None) => kube::Config::infer()
            .await
            .context("no cluster is configured: give --kubeconfig, or set KUBECONFIG")?,
    };
    Ok(config)
}

/// Settings of the product, from the ConfigMap that the operator has them from.
async fn settings(client: &Client, namespace: &str) -> anyhow::Result<Settings> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    match api.get("cilium-config").await {
        Ok(map) => parse_settings(&map.data.unwrap_or_default()),
        Err(kube::Error::Api(status)) if [403, 404].contains(&status.code) => {
            eprintln!(
                "Warning: the settings of the installation ({namespace}/cilium-config) cannot be read, defaults are taken: {}",
                status.message
            );
            Ok(Settings::default())
        }
        Err(error) => Err(error.into()),
    }
}

fn parse_settings(data: &BTreeMap<String, String>) -> anyhow::Result<Settings> {
    let is_on = |key: &str| data.get(key).is_none_or(|value| value != "false");
    let is_set = |key: &str| data.get(key).is_some_and(|value| value == "true");
    let labels = data.get("labels").map(String::as_str).unwrap_or_default();
    let items = labels.split([' ', ',', '\n']).filter(|item| !item.is_empty());
    let mode = match data.get("enable-policy").map(String::as_str) {
        None | Some("default" | "") => Mode::Default,
        Some("always") => Mode::Always,
        Some("never") => Mode::Never,
        Some(other) => bail!(
            "enable-policy is {other:?} in the settings of the installation, which this version does not know"
        ),
    };
    let default = Config::default();
    let plan = Config {
        cluster: data.get("cluster-name").cloned().unwrap_or(default.cluster),
        ipv4: is_on("enable-ipv4"),
        ipv6: is_on("enable-ipv6"),
        mode,
        node_selector_labels: is_set("enable-node-selector-labels"),
        host_firewall: is_set("enable-host-firewall"),
        labels: LabelFilter::with(items).context("the setting labels does not fit")?,
        ..Config::default()
    };
    Ok(Settings { plan, cluster_network_policies: is_set("enable-k8s-cluster-network-policy") })
}

impl Reader {
    async fn read_all(&mut self, cluster_network_policies: bool) -> anyhow::Result<()> {
        let all = ListParams::default();
        self.read::<Node>(&all, None).await?;
        self.read::<Namespace>(&all, None).await?;
        self.read::<Pod>(&all, None).await?;
        self.read::<Service>(&all, None).await?;
        self.read::<EndpointSlice>(&all, None).await?;
        self.read::<CiliumIdentity>(&all, None).await?;
        self.read::<CiliumCIDRGroup>(&all, None).await?;
        self.read::<NetworkPolicy>(&all, None).await?;
        self.read::<CiliumNetworkPolicy>(&all, Some(Kind::NetworkPolicy)).await?;
        self.read::<CiliumClusterwideNetworkPolicy>(&all, Some(Kind::ClusterwideNetworkPolicy)).await?;
        if cluster_network_policies && self.is_installed::<ClusterNetworkPolicy>().await? {
            self.read::<ClusterNetworkPolicy>(&all, None).await?;
        }
        // Versions of policies that stay in force although a newer one was refused.
        let kept = ListParams::default().labels(&format!("{OWNER_LABEL}={POLICY_OWNER}"));
        self.read::<CiliumNodeStateSlice>(&kept, None).await?;
        self.progress.clear();
        Ok(())
    }

    /// Whether the cluster has a kind that others install.
    async fn is_installed<K: kube::Resource<DynamicType = ()>>(&self) -> anyhow::Result<bool> {
        let resource = ApiResource::erase::<K>(&());
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        match api.list(&ListParams::default().limit(1)).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
            Err(error) => {
                Err(error).with_context(|| format!("cannot list {}.{}", resource.plural, resource.group))
            }
        }
    }

    /// Reads all objects of a kind. Those of a kind of policy may not parse.
    async fn read<K>(&mut self, params: &ListParams, policy: Option<Kind>) -> anyhow::Result<()>
    where
        K: kube::Resource<DynamicType = ()> + DeserializeOwned + Into<Object>,
    {
        let resource = ApiResource::erase::<K>(&());
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        let mut params = params.clone().limit(PAGE);
        let mut count = 0;
        loop {
            self.progress.say(&resource.plural, count);
            let page = api.list(&params).await;
            let page = page.with_context(|| format!("cannot list {}.{}", resource.plural, resource.group))?;
            for object in page.items {
                count += 1;
                let name = object.name_any();
                let object = parse::<K>(policy, object);
                self.planner
                    .observe(object.with_context(|| format!("cannot read {} {name}", resource.kind))?);
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(()),
            }
        }
    }
}

/// An object as the planner takes it.
fn parse<K: DeserializeOwned + Into<Object>>(
    policy: Option<Kind>,
    object: DynamicObject,
) -> anyhow::Result<Object> {
    let metadata = object.metadata.clone();
    match (serde_json::from_value::<K>(serde_json::to_value(object)?), policy) {
        (Ok(parsed), _) => Ok(parsed.into()),
        (Err(error), None) => Err(error.into()),
        (Err(error), Some(kind)) => {
            let namespace = metadata.namespace.unwrap_or_default();
            Ok(Object::from(UnreadablePolicy {
                key: ObjectKey::namespaced(kind, &namespace, &metadata.name.unwrap_or_default()),
                generation: metadata.generation.unwrap_or_default(),
                resource_version: metadata.resource_version,
                reason: error.to_string(),
            }))
        }
    }
}

/// Says on a terminal how far reading is, once it takes long.
struct Progress {
    started: Instant,
    shown: bool,
}

impl Progress {
    fn new() -> Self {
        Self { started: Instant::now(), shown: false }
    }

    fn say(&mut self, kind: &str, count: usize) {
        let mut terminal = std::io::stderr();
        if self.started.elapsed() < SILENCE || !terminal.is_terminal() {
            return;
        }
        self.shown = true;
        // Nothing is lost with a line that cannot be shown.
        let _ = write!(terminal, "\r\x1b[KReading {kind}: {count}").and_then(|()| terminal.flush());
    }

    fn clear(&self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn settings_are_those_of_the_operator() {
        let given = data(&[("cluster-name", "west"), ("enable-ipv6", "false"), ("enable-policy", "always")]);
        let settings = parse_settings(&given).unwrap().plan;
        assert_eq!((settings.cluster.as_str(), settings.ipv4, settings.ipv6), ("west", true, false));
        assert_eq!(settings.mode, Mode::Always);
        assert_eq!(parse_settings(&data(&[])).unwrap().plan.cluster, Config::default().cluster);
        let refused = parse_settings(&data(&[("enable-policy", "sometimes")])).err().unwrap();
        assert!(refused.to_string().contains("sometimes"), "{refused}");
        let ordered = |value| data(&[("enable-k8s-cluster-network-policy", value)]);
        let is_on = |value| parse_settings(&ordered(value)).unwrap().cluster_network_policies;
        assert!(is_on("true") && !is_on("false"));
    }

    #[test]
    fn a_policy_that_does_not_parse_is_known_as_such() {
        let object = serde_json::json!({
            "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy",
            "metadata": {"name": "bad", "namespace": "a", "generation": 2}, "spec": {"ingress": 1},
        });
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        let parsed = parse::<CiliumNetworkPolicy>(Some(Kind::NetworkPolicy), object.clone()).unwrap();
        let Object::UnreadablePolicy(bad) = parsed else { panic!("it parsed") };
        assert_eq!((bad.key.name.as_str(), bad.generation), ("bad", 2));
        assert!(parse::<CiliumNetworkPolicy>(None, object).is_err());
    }
}
