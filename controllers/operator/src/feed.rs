//! What watches bring, in the planner's terms.

use std::fmt::Debug;

use cilium_api::cluster_network_policy::ClusterNetworkPolicy;
use cilium_api::kubernetes_network_policy::NetworkPolicy;
use cilium_api::node_slice::CiliumNodeStateSlice;
use cilium_api::node_state::CiliumNodeState;
use cilium_api::slim::{EndpointSlice, Namespace, Node, Pod, Secret, Service};
use cilium_api::{
    CiliumBGPAdvertisement, CiliumBGPClusterConfig, CiliumBGPNodeConfig, CiliumBGPNodeConfigOverride,
    CiliumBGPPeerConfig, CiliumCIDRGroup, CiliumClusterwideNetworkPolicy, CiliumEndpoint, CiliumIdentity,
    CiliumL2AnnouncementPolicy, CiliumLoadBalancerIPPool, CiliumLocalRedirectPolicy, CiliumNetworkPolicy,
    CiliumNode, CiliumPodIPPool,
};
use cilium_plan::{Kind, Object, ObjectKey, UnreadablePolicy};
use cilium_runtime::metrics::Metrics;
use cilium_runtime::object::Key;
use cilium_runtime::watch::{self, Event, Parsed, Unreadable};
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::kinds::Watched;

/// Events that may wait for the planner before watches have to pause.
const CAPACITY: usize = 1024;

/// News for the planner.
#[derive(Debug)]
pub enum News {
    /// An object is there, new or changed.
    Applied(Object),
    /// An object is there, and does not parse. What was known of it stays.
    Unreadable(ObjectKey, String),
    /// An object is gone.
    Gone(ObjectKey),
    /// All objects of a kind were listed, and these are not among them.
    Listed(Kind, Vec<ObjectKey>),
}

/// Kinds that settings can leave out.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// ClusterNetworkPolicies, whose definition others install.
    pub cluster_network_policies: bool,
    /// CiliumLoadBalancerIPPools.
    pub load_balancer_pools: bool,
    /// CiliumPodIPPools.
    pub pod_pools: bool,
    /// CiliumL2AnnouncementPolicies.
    pub l2_announcement_policies: bool,
    /// Kinds of BGP, and Secrets of this namespace, if any.
    pub bgp: Option<String>,
}

/// Kinds of BGP.
const OF_BGP: [Kind; 6] = [
    Kind::BgpClusterConfig,
    Kind::BgpPeerConfig,
    Kind::BgpAdvertisement,
    Kind::BgpNodeConfig,
    Kind::BgpNodeConfigOverride,
    Kind::Secret,
];

/// Starts a watch for every kind that is wanted. They end when the receiver is dropped.
pub fn start(client: &Client, metrics: &Metrics, wanted: &Wanted) -> mpsc::Receiver<News> {
    let (sender, receiver) = mpsc::channel(CAPACITY);
    let feed = Feed { client, metrics, sender };
    feed.watch::<Pod>();
    feed.watch::<Namespace>();
    feed.watch::<Node>();
    feed.watch::<Service>();
    feed.watch::<EndpointSlice>();
    feed.watch_lenient::<CiliumNetworkPolicy>();
    feed.watch_lenient::<CiliumClusterwideNetworkPolicy>();
    feed.watch_lenient::<CiliumCIDRGroup>();
    feed.watch::<NetworkPolicy>();
    feed.watch_lenient::<CiliumLocalRedirectPolicy>();
    feed.watch_lenient::<CiliumIdentity>();
    feed.watch_lenient::<CiliumEndpoint>();
    feed.watch_lenient::<CiliumNode>();
    feed.watch_lenient::<CiliumNodeState>();
    feed.watch_lenient::<CiliumNodeStateSlice>();
    if wanted.load_balancer_pools {
        feed.watch_lenient::<CiliumLoadBalancerIPPool>();
    } else {
        feed.leave_out(Kind::LoadBalancerPool);
    }
    if wanted.pod_pools {
        feed.watch_lenient::<CiliumPodIPPool>();
    } else {
        feed.leave_out(Kind::PodPool);
    }
    if wanted.l2_announcement_policies {
        feed.watch_lenient::<CiliumL2AnnouncementPolicy>();
    } else {
        feed.leave_out(Kind::L2AnnouncementPolicy);
    }
    match &wanted.bgp {
        Some(namespace) => feed.watch_bgp(namespace),
        None => OF_BGP.into_iter().for_each(|kind| feed.leave_out(kind)),
    }
    if wanted.cluster_network_policies {
        feed.watch_optional::<ClusterNetworkPolicy>();
    } else {
        feed.leave_out(Kind::ClusterNetworkPolicy);
    }
    receiver
}

struct Feed<'a> {
    client: &'a Client,
    metrics: &'a Metrics,
    sender: mpsc::Sender<News>,
}

impl Feed<'_> {
    /// Without a namespace for Secrets, there are none.
    fn watch_bgp(&self, namespace: &str) {
        self.watch_lenient::<CiliumBGPClusterConfig>();
        self.watch_lenient::<CiliumBGPPeerConfig>();
        self.watch_lenient::<CiliumBGPAdvertisement>();
        self.watch_lenient::<CiliumBGPNodeConfig>();
        self.watch_lenient::<CiliumBGPNodeConfigOverride>();
        if namespace.is_empty() {
            return self.leave_out(Kind::Secret);
        }
        let api = Api::<Secret>::namespaced(self.client.clone(), namespace);
        let wrap = |event| news(Kind::Secret, event, |secret: Secret| News::Applied(secret.into()));
        tokio::spawn(watch::run(api, self.metrics.clone(), self.sender.clone(), wrap));
    }

    /// A kind of Kubernetes itself: the reduced type parses whatever the API server stores.
    fn watch<K>(&self)
    where
        K: Watched + Clone + Debug + DeserializeOwned + Send + Into<Object> + 'static,
    {
        self.spawn::<K>(|event| news(K::KIND, event, |object| News::Applied(object.into())));
    }

    /// A custom kind: an object stored under another schema may not parse.
    fn watch_lenient<K>(&self)
    where
        K: Watched + Clone + Debug + DeserializeOwned + Send + Into<Object> + 'static,
    {
        self.spawn::<Parsed<K>>(|event| news(K::KIND, event, |parsed| applied(K::KIND, parsed)));
    }

    /// A custom kind that others install.
    fn watch_optional<K>(&self)
    where
        K: Watched + Clone + Debug + DeserializeOwned + Send + Into<Object> + 'static,
    {
        let api = Api::<Parsed<K>>::all(self.client.clone());
        let wrap = |event| news(K::KIND, event, |parsed| applied(K::KIND, parsed));
        tokio::spawn(watch::run_optional(api, self.metrics.clone(), self.sender.clone(), wrap));
    }

    /// Nothing of the kind is wanted.
    fn leave_out(&self, kind: Kind) {
        let sender = self.sender.clone();
        // The receiver may be gone already: then nobody waits for it.
        tokio::spawn(async move { drop(sender.send(News::Listed(kind, Vec::new())).await) });
    }

    fn spawn<K>(&self, wrap: fn(Event<K>) -> News)
    where
        K: kube::Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let api = Api::all(self.client.clone());
        tokio::spawn(watch::run(api, self.metrics.clone(), self.sender.clone(), wrap));
    }
}

fn news<K>(kind: Kind, event: Event<K>, applied: impl FnOnce(K) -> News) -> News {
    match event {
        Event::Applied(object) => applied(object),
        Event::Deleted(key) => News::Gone(to_key(kind, &key)),
        Event::Relisted(gone) => News::Listed(kind, gone.iter().map(|key| to_key(kind, key)).collect()),
    }
}

fn to_key(kind: Kind, key: &Key) -> ObjectKey {
    ObjectKey::namespaced(kind, &key.namespace, &key.name)
}

/// A policy that does not parse is for the planner to tell its author; other kinds have no author to tell.
fn applied<K: Into<Object>>(kind: Kind, parsed: Parsed<K>) -> News {
    match parsed {
        Parsed::Good(object) => News::Applied((*object).into()),
        Parsed::Bad(bad) => {
            let Unreadable { metadata, reason } = *bad;
            let namespace = metadata.namespace.unwrap_or_default();
            let key = ObjectKey::namespaced(kind, &namespace, &metadata.name.unwrap_or_default());
            if !matches!(kind, Kind::NetworkPolicy | Kind::ClusterwideNetworkPolicy) {
                return News::Unreadable(key, reason);
            }
            let generation = metadata.generation.unwrap_or_default();
            let resource_version = metadata.resource_version;
            News::Applied(UnreadablePolicy { key, generation, resource_version, reason }.into())
        }
    }
}

/// An object in the form in which the API server answered, for example after a conflict.
///
/// # Errors
/// It does not parse as its kind.
pub fn parse(kind: Kind, value: serde_json::Value) -> Result<News, serde_json::Error> {
    fn strict<K: DeserializeOwned + Into<Object>>(
        value: serde_json::Value,
    ) -> Result<News, serde_json::Error> {
        serde_json::from_value::<K>(value).map(|object| News::Applied(object.into()))
    }
    fn lenient<K: Watched + DeserializeOwned + Into<Object>>(
        value: serde_json::Value,
    ) -> Result<News, serde_json::Error> {
        serde_json::from_value(value).map(|parsed: Parsed<K>| applied(K::KIND, parsed))
    }
    match kind {
        Kind::Pod => strict::<Pod>(value),
        Kind::Namespace => strict::<Namespace>(value),
        Kind::Node => strict::<Node>(value),
        Kind::Service => strict::<Service>(value),
        Kind::EndpointSlice => strict::<EndpointSlice>(value),
        Kind::NetworkPolicy => lenient::<CiliumNetworkPolicy>(value),
        Kind::ClusterwideNetworkPolicy => lenient::<CiliumClusterwideNetworkPolicy>(value),
        Kind::CidrGroup => lenient::<CiliumCIDRGroup>(value),
        Kind::KubernetesNetworkPolicy => strict::<NetworkPolicy>(value),
        Kind::ClusterNetworkPolicy => lenient::<ClusterNetworkPolicy>(value),
        Kind::LocalRedirectPolicy => lenient::<CiliumLocalRedirectPolicy>(value),
        Kind::LoadBalancerPool => lenient::<CiliumLoadBalancerIPPool>(value),
        Kind::PodPool => lenient::<CiliumPodIPPool>(value),
        Kind::L2AnnouncementPolicy => lenient::<CiliumL2AnnouncementPolicy>(value),
        Kind::BgpClusterConfig => lenient::<CiliumBGPClusterConfig>(value),
        Kind::BgpPeerConfig => lenient::<CiliumBGPPeerConfig>(value),
        Kind::BgpAdvertisement => lenient::<CiliumBGPAdvertisement>(value),
        Kind::BgpNodeConfig => lenient::<CiliumBGPNodeConfig>(value),
        Kind::BgpNodeConfigOverride => lenient::<CiliumBGPNodeConfigOverride>(value),
        Kind::Secret => strict::<Secret>(value),
        Kind::Identity => lenient::<CiliumIdentity>(value),
        Kind::Endpoint => lenient::<CiliumEndpoint>(value),
        Kind::CiliumNode => lenient::<CiliumNode>(value),
        Kind::NodeState => lenient::<CiliumNodeState>(value),
        Kind::Slice => lenient::<CiliumNodeStateSlice>(value),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::http;
    use kube::client::Body;
    use prometheus_client::registry::Registry;
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn of_secrets_of_bgp_metadata_is_asked_for_and_annotations_are_not_kept() {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let path = request.uri().path().to_owned();
            let is_list = path.ends_with("/secrets") && !request.uri().to_string().contains("watch=true");
            if is_list {
                let accepted = request.headers().get(http::header::ACCEPT);
                log.lock().unwrap().push((path, accepted.map(|it| it.to_str().unwrap().to_owned())));
            }
            async move {
                if !is_list {
                    return std::future::pending().await;
                }
                let annotations = json!({"kubectl.kubernetes.io/last-applied-configuration": "s3cret"});
                let metadata = json!({"name": "rack", "namespace": "keys", "resourceVersion": "7", "annotations": annotations});
                let list = json!({
                    "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                    "metadata": {"resourceVersion": "9"}, "items": [{"metadata": metadata}],
                });
                http::Response::builder().body(Body::from(list.to_string().into_bytes()))
            }
        });
        let client = Client::new(service, "default");
        let (sender, mut receiver) = mpsc::channel(CAPACITY);
        let metrics = Metrics::register(&mut Registry::default());
        Feed { client: &client, metrics: &metrics, sender }.watch_bgp("keys");
        let Some(News::Applied(Object::Secret(secret))) = receiver.recv().await else { panic!("no Secret") };
        assert_eq!(secret.metadata.resource_version.as_deref(), Some("7"));
        assert_eq!(secret.metadata.annotations, None);
        let accepted = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
        let expected = [("/api/v1/namespaces/keys/secrets".to_owned(), Some(accepted.to_owned()))];
        assert_eq!(*asked.lock().unwrap(), expected);
    }

    #[test]
    fn a_policy_that_does_not_parse_reaches_the_planner_with_its_generation() {
        let value = json!({
            "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy",
            "metadata": {"name": "bad", "namespace": "default", "generation": 2, "resourceVersion": "5"},
            "spec": {"endpointSelector": {}, "ingress": "everything"},
        });
        let News::Applied(Object::UnreadablePolicy(bad)) = parse(Kind::NetworkPolicy, value).unwrap() else {
            panic!("not reported as unreadable")
        };
        assert_eq!(bad.key, ObjectKey::namespaced(Kind::NetworkPolicy, "default", "bad"));
        assert_eq!((bad.generation, bad.resource_version.as_deref()), (2, Some("5")));
        assert!(bad.reason.contains("everything"), "{}", bad.reason);
    }

    #[test]
    fn another_kind_that_does_not_parse_is_named() {
        let value = json!({"metadata": {"name": "300"}, "security-labels": 1});
        let News::Unreadable(key, _) = parse(Kind::Identity, value).unwrap() else { panic!("it parsed") };
        assert_eq!(key, ObjectKey::cluster(Kind::Identity, "300"));
    }
}
