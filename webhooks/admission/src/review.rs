//! The answer to a review.
//!
//! # Guarantees
//! An object is refused only if no version could ever take it. What this version does not support, and what has no effect now, is let
//! in with a warning. An update that leaves the content as it is passes, so that an object of old can lose its finalizers.

use cilium_api::node_slice::CiliumNodeStateSlice;
use cilium_api::node_state::CiliumNodeState;
use cilium_api::{
    CiliumBGPAdvertisement, CiliumBGPClusterConfig, CiliumBGPNodeConfig, CiliumBGPNodeConfigOverride,
    CiliumBGPPeerConfig, CiliumCIDRGroup, CiliumClusterwideNetworkPolicy, CiliumEndpoint, CiliumIdentity,
    CiliumL2AnnouncementPolicy, CiliumLoadBalancerIPPool, CiliumLocalRedirectPolicy, CiliumNetworkPolicy,
    CiliumNode, CiliumPodIPPool,
};
use cilium_bgp_plan::{Advertisement, ClusterConfig, Fault, Override, PeerConfig};
use cilium_lbipam::Pool;
use cilium_plan::Object;
use cilium_policy::reduce::{self, Settings};
use cilium_policy::{Invalid, InvalidKind, PolicyRules};
use cilium_services::redirect::Rule;
use kube::core::DynamicObject;
use kube::core::admission::AdmissionRequest;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// What is said about an object.
#[derive(Debug)]
pub enum Ruling {
    /// It can never be valid: field and reason.
    Refused(String),
    /// It is let in.
    Accepted {
        /// What the user should know.
        warnings: Vec<String>,
        /// The object as the planner takes it, if the planner may have something to add.
        ask: Option<Object>,
    },
}

impl Ruling {
    fn accepted() -> Self {
        Self::Accepted { warnings: Vec::new(), ask: None }
    }

    fn warned(warning: String) -> Self {
        Self::Accepted { warnings: vec![warning], ask: None }
    }
}

/// Decides about a request.
pub fn decide<'a>(request: &AdmissionRequest<DynamicObject>, settings: impl Into<Settings<'a>>) -> Ruling {
    let Some(object) = &request.object else { return Ruling::accepted() };
    let ruling = match serde_json::to_value(object) {
        Ok(value) => of_kind(&request.kind.kind, value, settings.into()),
        Err(error) => Ruling::Refused(error.to_string()),
    };
    let is_old = request.old_object.as_ref().is_some_and(|old| content(old) == content(object));
    match ruling {
        Ruling::Refused(reason) if is_old => Ruling::warned(format!("it is not valid: {reason}")),
        ruling => ruling,
    }
}

/// What an author writes of an object: all but metadata and status.
fn content(object: &DynamicObject) -> Value {
    let mut content = object.data.clone();
    if let Some(fields) = content.as_object_mut() {
        fields.remove("status");
    }
    content
}

fn of_kind(kind: &str, value: Value, settings: Settings<'_>) -> Ruling {
    match kind {
        "CiliumNetworkPolicy" => policy::<CiliumNetworkPolicy>(value, |it| reduce::cnp(it, settings)),
        "CiliumClusterwideNetworkPolicy" => {
            policy::<CiliumClusterwideNetworkPolicy>(value, |it| reduce::ccnp(it, settings))
        }
        "CiliumBGPClusterConfig" => bgp::<CiliumBGPClusterConfig>(value, |it| {
            let config = ClusterConfig::reduce(it);
            (config.faults().to_vec(), config.advice())
        }),
        "CiliumBGPPeerConfig" => bgp::<CiliumBGPPeerConfig>(value, |it| {
            let config = PeerConfig::reduce(it);
            (config.faults().to_vec(), config.advice())
        }),
        "CiliumBGPAdvertisement" => bgp::<CiliumBGPAdvertisement>(value, |it| {
            let advertisement = Advertisement::reduce(it);
            (advertisement.faults().to_vec(), advertisement.advice())
        }),
        "CiliumBGPNodeConfigOverride" => bgp::<CiliumBGPNodeConfigOverride>(value, |it| {
            (Override::reduce(it).faults().to_vec(), Vec::new())
        }),
        "CiliumBGPNodeConfig" => plain::<CiliumBGPNodeConfig>(value),
        "CiliumCIDRGroup" => plain::<CiliumCIDRGroup>(value),
        "CiliumL2AnnouncementPolicy" => announcement(value),
        "CiliumLoadBalancerIPPool" => pool(value),
        "CiliumPodIPPool" => pod_pool(value),
        "CiliumLocalRedirectPolicy" => redirect(value),
        "CiliumIdentity" => match parse::<CiliumIdentity>(value) {
            Ok(identity) => match cilium_identity::object::read(&identity) {
                Ok(_) => Ruling::accepted(),
                Err(error) => Ruling::Refused(error.to_string()),
            },
            Err(refused) => refused,
        },
        "CiliumEndpoint" => plain::<CiliumEndpoint>(value),
        "CiliumNode" => plain::<CiliumNode>(value),
        "CiliumNodeState" => plain::<CiliumNodeState>(value),
        "CiliumNodeStateSlice" => plain::<CiliumNodeStateSlice>(value),
        // A kind of a later version: its own webhook knows better.
        _ => Ruling::accepted(),
    }
}

/// A kind of which every object that parses is good.
fn plain<K: DeserializeOwned>(value: Value) -> Ruling {
    parse::<K>(value).map_or_else(|refused| refused, |_| Ruling::accepted())
}

fn parse<K: DeserializeOwned>(value: Value) -> Result<K, Ruling> {
    serde_json::from_value(value).map_err(|error| Ruling::Refused(format!("it does not parse: {error}")))
}

fn redirect(value: Value) -> Ruling {
    let policy: CiliumLocalRedirectPolicy = match parse(value) {
        Ok(policy) => policy,
        Err(refused) => return refused,
    };
    match Rule::reduce(&policy) {
        Ok(_) => Ruling::Accepted { warnings: Vec::new(), ask: Some(policy.into()) },
        Err(invalid) => Ruling::Refused(invalid.to_string()),
    }
}

fn pool(value: Value) -> Ruling {
    let pool: CiliumLoadBalancerIPPool = match parse(value) {
        Ok(pool) => pool,
        Err(refused) => return refused,
    };
    match Pool::check(&pool) {
        Ok(()) => Ruling::Accepted { warnings: Vec::new(), ask: Some(pool.into()) },
        Err(invalid) => Ruling::Refused(invalid.to_string()),
    }
}

fn pod_pool(value: Value) -> Ruling {
    let pool: CiliumPodIPPool = match parse(value) {
        Ok(pool) => pool,
        Err(refused) => return refused,
    };
    match cilium_ipam::Pool::check(&pool) {
        Ok(()) => Ruling::accepted(),
        Err(invalid) => Ruling::Refused(invalid.to_string()),
    }
}

fn announcement(value: Value) -> Ruling {
    let policy: CiliumL2AnnouncementPolicy = match parse(value) {
        Ok(policy) => policy,
        Err(refused) => return refused,
    };
    let reduced = cilium_l2::Policy::reduce(&policy);
    if let Some(fault) = reduced.faults().first() {
        return Ruling::Refused(fault.to_string());
    }
    let warning = "it announces nothing: neither spec.loadBalancerIPs nor spec.externalIPs is true";
    let warnings = (!reduced.has_kind()).then(|| warning.to_owned()).into_iter().collect();
    Ruling::Accepted { warnings, ask: Some(policy.into()) }
}

/// What is wrong with an object of BGP, and what its author will hardly have meant.
fn bgp<K: DeserializeOwned>(value: Value, check: impl FnOnce(&K) -> (Vec<Fault>, Vec<String>)) -> Ruling {
    let object: K = match parse(value) {
        Ok(object) => object,
        Err(refused) => return refused,
    };
    let (faults, mut warnings) = check(&object);
    if let Some(fault) = faults.iter().find(|fault| fault.is_malformed) {
        return Ruling::Refused(fault.to_string());
    }
    warnings.extend(faults.iter().map(|fault| format!("it is not put in force: {fault}")));
    Ruling::Accepted { warnings, ask: None }
}

fn policy<K: DeserializeOwned + Into<Object>>(
    value: Value,
    reduce: impl FnOnce(&K) -> Result<PolicyRules, Invalid>,
) -> Ruling {
    let policy: K = match parse(value) {
        Ok(policy) => policy,
        Err(refused) => return refused,
    };
    match reduce(&policy) {
        Ok(_) => Ruling::Accepted { warnings: Vec::new(), ask: Some(policy.into()) },
        Err(invalid) if invalid.kind == InvalidKind::Malformed => Ruling::Refused(invalid.to_string()),
        Err(invalid) => Ruling::warned(format!("it is not put in force: {invalid}")),
    }
}

#[cfg(test)]
#[expect(clippy::needless_pass_by_value, reason = "json!(..) as an argument reads better without &")]
mod tests {
    use kube::core::admission::AdmissionReview;
    use serde_json::json;

    use super::*;

    fn mk_request(kind: &str, object: Value, old: Option<Value>) -> AdmissionRequest<DynamicObject> {
        let is_alpha =
            ["CiliumNodeState", "CiliumL2", "CiliumPodIP"].iter().any(|start| kind.starts_with(start));
        let version = if is_alpha { "v2alpha1" } else { "v2" };
        let review = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {
                "uid": "u", "kind": {"group": "cilium.io", "version": version, "kind": kind},
                "resource": {"group": "cilium.io", "version": version, "resource": "x"}, "name": "x", "userInfo": {},
                "operation": if old.is_some() { "UPDATE" } else { "CREATE" }, "object": object, "oldObject": old, "dryRun": true,
            },
        });
        let review: AdmissionReview<DynamicObject> = serde_json::from_value(review).unwrap();
        review.try_into().unwrap()
    }

    fn mk_policy(spec: Value) -> Value {
        json!({"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": {"name": "x", "namespace": "default"}, "spec": spec})
    }

    fn refused(kind: &str, object: Value, old: Option<Value>) -> Option<String> {
        match decide(&mk_request(kind, object, old), "default") {
            Ruling::Refused(reason) => Some(reason),
            Ruling::Accepted { .. } => None,
        }
    }

    fn warnings(kind: &str, object: Value, old: Option<Value>) -> Vec<String> {
        match decide(&mk_request(kind, object, old), "default") {
            Ruling::Refused(reason) => panic!("refused: {reason}"),
            Ruling::Accepted { warnings, .. } => warnings,
        }
    }

    fn malformed() -> Value {
        mk_policy(json!({"endpointSelector": {}, "ingress": [{"toPorts": [{"ports": [{"port": "70000"}]}]}]}))
    }

    #[test]
    fn what_can_never_be_valid_is_refused_by_its_path() {
        let reason = refused("CiliumNetworkPolicy", malformed(), None).unwrap();
        assert!(reason.starts_with("spec.ingress[0].toPorts[0].ports[0].port: "), "{reason}");
        let mut clusterwide = malformed();
        clusterwide["kind"] = json!("CiliumClusterwideNetworkPolicy");
        assert!(refused("CiliumClusterwideNetworkPolicy", clusterwide, None).is_some());
        let reason = refused("CiliumNetworkPolicy", mk_policy(json!("everything")), None).unwrap();
        assert!(reason.starts_with("it does not parse: "), "{reason}");
    }

    #[test]
    fn what_this_version_lacks_is_warned_of_only() {
        let spec = json!({"endpointSelector": {}, "ingress": [{"fromEndpoints": [{}], "authentication": {"mode": "required"}}]});
        let warnings = warnings("CiliumNetworkPolicy", mk_policy(spec), None);
        assert_eq!(warnings.len(), 1);
        assert!(
            warnings[0].starts_with("it is not put in force: spec.ingress[0].authentication.mode: "),
            "{warnings:?}"
        );
    }

    #[test]
    fn an_old_object_may_lose_its_finalizers_but_not_be_edited_into_nonsense() {
        let mut with_finalizer = malformed();
        with_finalizer["metadata"]["finalizers"] = json!(["a/b"]);
        let warnings = warnings("CiliumNetworkPolicy", malformed(), Some(with_finalizer));
        assert!(warnings[0].starts_with("it is not valid: spec.ingress[0]"), "{warnings:?}");
        let good = mk_policy(json!({"endpointSelector": {}, "ingress": [{}]}));
        assert!(refused("CiliumNetworkPolicy", malformed(), Some(good)).is_some());
    }

    #[test]
    fn a_good_policy_is_shown_to_the_planner() {
        let good = mk_policy(json!({"endpointSelector": {}, "ingress": [{}]}));
        let ruling = decide(&mk_request("CiliumNetworkPolicy", good, None), "default");
        assert!(
            matches!(ruling, Ruling::Accepted { warnings, ask: Some(Object::NetworkPolicy(_)) } if warnings.is_empty())
        );
    }

    #[test]
    fn a_redirect_that_cannot_work_is_refused() {
        let mk = |backend: &str| {
            let port = |protocol: &str| json!([{"port": "53", "protocol": protocol}]);
            let backend =
                json!({"localEndpointSelector": {"matchLabels": {"app": "dns"}}, "toPorts": port(backend)});
            let frontend = json!({"addressMatcher": {"ip": "169.254.20.10", "toPorts": port("UDP")}});
            json!({
                "apiVersion": "cilium.io/v2", "kind": "CiliumLocalRedirectPolicy",
                "metadata": {"name": "x", "namespace": "default"},
                "spec": {"redirectFrontend": frontend, "redirectBackend": backend},
            })
        };
        let reason = refused("CiliumLocalRedirectPolicy", mk("TCP"), None).unwrap();
        assert!(reason.starts_with("spec.redirectBackend.toPorts: "), "{reason}");
        let ruling = decide(&mk_request("CiliumLocalRedirectPolicy", mk("UDP"), None), "default");
        let Ruling::Accepted { warnings, ask: Some(Object::LocalRedirectPolicy(_)) } = ruling else {
            panic!("{ruling:?}")
        };
        assert!(warnings.is_empty());
    }

    #[test]
    fn a_pool_with_a_block_that_is_none_is_refused() {
        let mk = |block: Value| {
            let spec = json!({"blocks": [{"cidr": "192.0.2.0/28"}, block]});
            json!({"apiVersion": "cilium.io/v2", "kind": "CiliumLoadBalancerIPPool", "metadata": {"name": "x"}, "spec": spec})
        };
        let reason =
            refused("CiliumLoadBalancerIPPool", mk(json!({"start": "192.0.2.9", "stop": "192.0.2.1"})), None);
        let expected = "spec.blocks[1].stop: 192.0.2.1 is before 192.0.2.9, where the block starts";
        assert_eq!(reason.as_deref(), Some(expected));
        let good = mk(json!({"start": "198.51.100.1"}));
        let ruling = decide(&mk_request("CiliumLoadBalancerIPPool", good, None), "default");
        assert!(
            matches!(ruling, Ruling::Accepted { ask: Some(Object::LoadBalancerPool(_)), .. }),
            "{ruling:?}"
        );
    }

    #[test]
    fn a_pod_pool_without_room_for_a_block_is_refused() {
        let mk = |cidr: &str, mask: u8| {
            let spec = json!({"ipv4": {"cidrs": ["192.0.2.0/24", cidr], "maskSize": mask}});
            let kind = "CiliumPodIPPool";
            json!({"apiVersion": "cilium.io/v2alpha1", "kind": kind, "metadata": {"name": "x"}, "spec": spec})
        };
        let reason = refused("CiliumPodIPPool", mk("198.51.100.0/28", 26), None);
        let expected =
            "spec.ipv4.cidrs[1]: 198.51.100.0/28 has no block of the length 26, which is its maskSize";
        assert_eq!(reason.as_deref(), Some(expected));
        let reason = refused("CiliumPodIPPool", mk("fd00::/64", 26), None);
        assert_eq!(reason.as_deref(), Some("spec.ipv4.cidrs[1]: fd00::/64 is no prefix of IPv4"));
        assert_eq!(refused("CiliumPodIPPool", mk("198.51.100.0/28", 28), None), None);
    }

    #[test]
    fn an_announcement_policy_that_cannot_be_read_is_refused_by_its_path() {
        let kind = "CiliumL2AnnouncementPolicy";
        let mk = |spec: Value| json!({"apiVersion": "cilium.io/v2alpha1", "kind": kind, "metadata": {"name": "x"}, "spec": spec});
        let reason = refused(kind, mk(json!({"interfaces": ["^eth0$", "eth["]})), None).unwrap();
        assert!(reason.starts_with(r#"spec.interfaces[1]: "eth[" is no regular expression: "#), "{reason}");
        let bad = json!({"matchLabels": {"not a key": "x"}});
        for field in ["nodeSelector", "serviceSelector"] {
            let reason = refused(kind, mk(json!({field: bad})), None).unwrap();
            assert!(reason.starts_with(&format!("spec.{field}.matchLabels[not a key]: ")), "{reason}");
        }
        let warned = warnings(kind, mk(json!({"interfaces": ["^eth0$"]})), None);
        assert_eq!(
            warned,
            ["it announces nothing: neither spec.loadBalancerIPs nor spec.externalIPs is true"]
        );
        let good = mk(json!({"externalIPs": true}));
        let ruling = decide(&mk_request(kind, good, None), "default");
        let Ruling::Accepted { warnings, ask: Some(Object::L2AnnouncementPolicy(_)) } = ruling else {
            panic!("{ruling:?}")
        };
        assert!(warnings.is_empty());
    }

    #[test]
    fn objects_of_bgp_are_refused_by_field_and_warned_of_what_they_do_not_do() {
        let mk = |kind: &str, spec: Value| json!({"apiVersion": "cilium.io/v2", "kind": kind, "metadata": {"name": "x"}, "spec": spec});
        let kind = "CiliumBGPClusterConfig";
        let peer = json!({"name": "tor", "peerAddress": "192.0.2", "peerASN": 64500});
        let cluster = |peer: Value| {
            mk(kind, json!({"bgpInstances": [{"name": "rack", "localASN": 64512, "peers": [peer]}]}))
        };
        assert_eq!(
            refused(kind, cluster(peer), None).unwrap(),
            "spec.bgpInstances[0].peers[0].peerAddress: \"192.0.2\" is no address of IPv4 or IPv6"
        );
        let peer = json!({"name": "tor", "peerAddress": "192.0.2.1", "peerASN": 64500});
        assert_eq!(
            warnings(kind, cluster(peer), None),
            ["nothing is advertised to peer tor of rack: it has no peerConfigRef"]
        );
        let kind = "CiliumBGPAdvertisement";
        let communities = json!({"communities": {"standard": ["1:2:3"]}});
        let bad = json!([{"advertisementType": "PodCIDR", "attributes": communities}]);
        let reason = refused(kind, mk(kind, json!({"advertisements": bad})), None).unwrap();
        assert!(
            reason.starts_with("spec.advertisements[0].attributes.communities.standard[0]: "),
            "{reason}"
        );
        let later = json!([{"advertisementType": "Later"}]);
        let warned = warnings(kind, mk(kind, json!({"advertisements": later})), None);
        assert!(warned[0].starts_with("it is not put in force: spec.advertisements[0]: "), "{warned:?}");
        let pools = json!([{"advertisementType": "CiliumPodIPPool"}]);
        let warned = warnings(kind, mk(kind, json!({"advertisements": pools})), None);
        let expected = "spec.advertisements[0] advertises nothing: without selector it selects no pool";
        assert_eq!(warned, [expected]);
        let kind = "CiliumBGPPeerConfig";
        let warned = warnings(kind, mk(kind, json!({})), None);
        assert!(warned[0].starts_with("nothing is advertised: "), "{warned:?}");
        let kind = "CiliumBGPNodeConfigOverride";
        let bad = json!({"bgpInstances": [{"name": "rack", "routerID": "0.0.0.0"}]});
        assert!(refused(kind, mk(kind, bad), None).unwrap().starts_with("spec.bgpInstances[0].routerID: "));
    }

    #[test]
    fn selectors_of_bgp_that_cannot_be_read_are_refused_by_their_paths() {
        let bad = json!({"matchExpressions": [{"key": "rack", "operator": "Near", "values": ["1"]}]});
        let family = json!({"afi": "ipv4", "safi": "unicast", "advertisements": bad});
        let service =
            json!({"advertisementType": "Service", "service": {"addresses": ["ClusterIP"]}, "selector": bad});
        let router = json!({"name": "rack", "localASN": 64512});
        for (kind, spec, path) in [
            (
                "CiliumBGPClusterConfig",
                json!({"nodeSelector": bad, "bgpInstances": [router]}),
                "spec.nodeSelector",
            ),
            ("CiliumBGPPeerConfig", json!({"families": [family]}), "spec.families[0].advertisements"),
            (
                "CiliumBGPAdvertisement",
                json!({"advertisements": [{"advertisementType": "PodCIDR"}, service]}),
                "spec.advertisements[1].selector",
            ),
        ] {
            let object =
                json!({"apiVersion": "cilium.io/v2", "kind": kind, "metadata": {"name": "x"}, "spec": spec});
            let reason = refused(kind, object, None).unwrap();
            assert!(reason.starts_with(&format!("{path}.matchExpressions[0]")), "{reason}");
        }
    }

    #[test]
    fn every_kind_of_ours_is_looked_at() {
        for crd in cilium_api::all() {
            let kind = crd.spec.names.kind;
            let nonsense = json!({"apiVersion": "cilium.io/v2", "kind": kind, "metadata": {"name": "x"}, "spec": 1, "status": 1, "security-labels": 1});
            assert!(refused(&kind, nonsense, None).is_some(), "{kind}");
        }
        let other = json!({"apiVersion": "cilium.io/v2", "kind": "CiliumLater", "metadata": {"name": "x"}, "spec": 1});
        assert!(refused("CiliumLater", other, None).is_none());
    }

    #[test]
    fn a_deletion_has_no_object_and_passes() {
        let mut request = mk_request("CiliumNetworkPolicy", malformed(), None);
        request.object = None;
        assert!(matches!(decide(&request, "default"), Ruling::Accepted { ask: None, .. }));
    }
}
