//! Objects with versions, and the events of a watch.

use std::collections::BTreeMap;

use cilium_api::bgp_cluster_config::BgpStatus;
use cilium_api::l2_announcement_policy::L2AnnouncementStatus;
use cilium_api::load_balancer_pool::LoadBalancerPoolStatus;
use cilium_api::local_redirect_policy::LocalRedirectStatus;
use cilium_api::node_slice::CiliumNodeStateSlice;
use cilium_api::node_state::{CiliumNodeState, CiliumNodeStateSpec};
use cilium_api::policy_status::PolicyStatus;
use cilium_api::{CiliumBGPNodeConfig, CiliumEndpoint, CiliumIdentity, CiliumNode};
use cilium_plan::{
    Action, Kind, NodeDesired, Object, ObjectKey, Outcome, Output, Planner, Precondition, Report,
    ServiceStatus, Write,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta, OwnerReference};

/// What becomes of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Succeeds,
    /// It does not reach the API server.
    Fails,
    /// It reaches the API server, but the answer is lost.
    Vanishes,
}

/// Something that a watch brings.
pub enum Event {
    Applied(Box<Object>),
    Gone(ObjectKey),
}

impl Event {
    pub fn tell(self, planner: &mut Planner) {
        match self {
            Self::Applied(object) => planner.observe(*object),
            Self::Gone(key) => planner.forget(&key),
        }
    }
}

/// All objects.
#[derive(Default)]
pub struct Store {
    objects: BTreeMap<ObjectKey, Object>,
    events: Vec<Event>,
    version: u64,
}

impl Store {
    pub fn get(&self, key: &ObjectKey) -> Option<&Object> {
        self.objects.get(key)
    }

    pub fn objects(&self) -> impl Iterator<Item = &Object> {
        self.objects.values()
    }

    pub fn keys(&self, kind: Kind) -> Vec<ObjectKey> {
        self.objects.keys().filter(|key| key.kind == kind).cloned().collect()
    }

    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// The first few events only: watches of different kinds do not wait for each other.
    pub fn take_some_events(&mut self, pick: impl Fn(&ObjectKey) -> bool) -> Vec<Event> {
        let is_picked = |event: &Event| match event {
            Event::Applied(object) => pick(&key_of(object)),
            Event::Gone(key) => pick(key),
        };
        let (now, later) = std::mem::take(&mut self.events).into_iter().partition(is_picked);
        self.events = later;
        now
    }

    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Creates or replaces. Nothing happens if the object is so already.
    pub fn apply(&mut self, mut object: Object) -> Option<String> {
        let key = key_of(&object);
        let before = self.objects.get(&key);
        let old = before.map(|before| meta_of(before).clone());
        let meta = meta_mut(&mut object);
        let uid = meta.uid.take().or_else(|| old.as_ref().and_then(|old| old.uid.clone()));
        meta.uid = Some(uid.unwrap_or_else(|| format!("uid-{}", self.version)));
        meta.resource_version = old.as_ref().and_then(|old| old.resource_version.clone());
        if before.is_some_and(|before| json_of(before) == json_of(&object)) {
            return meta_of(&object).resource_version.clone();
        }
        self.version += 1;
        let version = Some(self.version.to_string());
        meta_mut(&mut object).resource_version.clone_from(&version);
        self.events.push(Event::Applied(Box::new(object.clone())));
        self.objects.insert(key, object);
        version
    }

    pub fn delete(&mut self, key: &ObjectKey) {
        let Some(object) = self.objects.remove(key) else { return };
        self.events.push(Event::Gone(key.clone()));
        let uid = meta_of(&object).uid.clone().unwrap_or_default();
        // The garbage collector of Kubernetes.
        let is_owned = |meta: &ObjectMeta| {
            meta.owner_references.iter().flatten().any(|owner: &OwnerReference| owner.uid == uid)
        };
        let owned: Vec<ObjectKey> = self
            .objects
            .iter()
            .filter(|(_, object)| is_owned(meta_of(object)))
            .map(|(key, _)| key.clone())
            .collect();
        owned.iter().for_each(|key| self.delete(key));
    }

    pub fn write_output(
        &mut self,
        output: &Output,
        fate: &mut dyn FnMut(&ObjectKey) -> Fate,
    ) -> Vec<(ObjectKey, Outcome)> {
        let mut answers = Vec::new();
        for Write { key, action } in &output.node_states {
            answers.push(self.suffer(key, fate, |store| store.write_node_state(key, action)));
        }
        for Write { key, action } in &output.slices {
            answers.push(self.suffer(key, fate, |store| store.write_object(key, action, merge_slice)));
        }
        for Write { key, action } in &output.identities {
            answers.push(self.suffer(key, fate, |store| store.write_object(key, action, merge_identity)));
        }
        for Write { key, action } in &output.load_balancers {
            answers.push(self.suffer(key, fate, |store| store.write_service(key, action)));
        }
        answers
    }

    pub fn write_report(
        &mut self,
        report: &Report,
        fate: &mut dyn FnMut(&ObjectKey) -> Fate,
    ) -> Vec<(ObjectKey, Outcome)> {
        let mut answers = Vec::new();
        for Write { key, action } in &report.endpoints {
            answers.push(self.suffer(key, fate, |store| store.write_object(key, action, merge_endpoint)));
        }
        for Write { key, action } in &report.nodes {
            answers.push(self.suffer(key, fate, |store| store.write_object(key, action, merge_node)));
        }
        for Write { key, action } in &report.slices {
            answers.push(self.suffer(key, fate, |store| store.write_object(key, action, merge_slice)));
        }
        for Write { key, action } in &report.policies {
            answers.push(self.suffer(key, fate, |store| store.write_status(key, action)));
        }
        for Write { key, action } in &report.redirects {
            answers.push(self.suffer(key, fate, |store| store.write_redirect(key, action)));
        }
        for Write { key, action } in &report.pools {
            answers.push(self.suffer(key, fate, |store| store.write_pool(key, action)));
        }
        for Write { key, action } in &report.announcements {
            answers.push(self.suffer(key, fate, |store| store.write_announcement(key, action)));
        }
        for Write { key, action } in &report.bgp_nodes {
            answers.push(self.suffer(key, fate, |store| store.write_object(key, action, merge_bgp_node)));
        }
        for Write { key, action } in &report.bgp {
            answers.push(self.suffer(key, fate, |store| store.write_bgp(key, action)));
        }
        answers
    }

    fn suffer(
        &mut self,
        key: &ObjectKey,
        fate: &mut dyn FnMut(&ObjectKey) -> Fate,
        write: impl FnOnce(&mut Self) -> Outcome,
    ) -> (ObjectKey, Outcome) {
        let outcome = match fate(key) {
            Fate::Succeeds => write(self),
            Fate::Fails => Outcome::Failed,
            Fate::Vanishes => {
                write(self);
                Outcome::Failed
            }
        };
        (key.clone(), outcome)
    }

    fn write_node_state(&mut self, key: &ObjectKey, action: &Action<NodeDesired>) -> Outcome {
        let (content, creates) = match action {
            Action::Delete(precondition) => return self.write_delete(key, precondition),
            Action::Create(content) => (content, true),
            Action::Update(content) => (content, false),
        };
        let mut object = match (self.objects.get(key), creates) {
            (None, true) => {
                let mut object = CiliumNodeState::new(&key.name, CiliumNodeStateSpec {});
                object.metadata.owner_references = Some(vec![owner(&content.owner_uid)]);
                object
            }
            (Some(Object::NodeState(object)), false) => (**object).clone(),
            _ => return Outcome::Conflict,
        };
        let version = object.metadata.resource_version.clone();
        let status = object.status.get_or_insert_default();
        // Whoever replaces the whole must know what else is in it.
        if let Some(rest) =
            content.rest.as_ref().filter(|rest| version.as_ref() == Some(&rest.resource_version))
        {
            assert_eq!(rest.applied, status.applied, "the acknowledgement of {}", key.name);
        }
        if status.desired.as_ref().map(|desired| desired.revision) != content.replaces {
            return Outcome::Conflict;
        }
        status.desired = Some(content.desired.clone());
        Outcome::Done(self.apply(object.into()))
    }

    fn write_object<T: Clone + Into<Object>>(
        &mut self,
        key: &ObjectKey,
        action: &Action<T>,
        merge: fn(&mut Object, &T),
    ) -> Outcome {
        match (action, self.objects.get(key)) {
            (Action::Delete(precondition), _) => self.write_delete(key, precondition),
            (Action::Create(object), None) => Outcome::Done(self.apply(object.clone().into())),
            (Action::Update(object), Some(stored)) => {
                let new: Object = object.clone().into();
                let (must, is) = (meta_of(&new), meta_of(stored));
                let uid = must.uid.is_none() || must.uid == is.uid;
                let version = must.resource_version.is_none() || must.resource_version == is.resource_version;
                if !uid || !version {
                    return Outcome::Conflict;
                }
                let mut merged = stored.clone();
                merge(&mut merged, object);
                Outcome::Done(self.apply(merged))
            }
            _ => Outcome::Conflict,
        }
    }

    fn write_delete(&mut self, key: &ObjectKey, precondition: &Precondition) -> Outcome {
        if let Some(stored) = self.objects.get(key) {
            let meta = meta_of(stored);
            let uid = precondition.uid.is_none() || precondition.uid == meta.uid;
            let version = precondition.resource_version.is_none()
                || precondition.resource_version == meta.resource_version;
            if !uid || !version {
                return Outcome::Conflict;
            }
        }
        self.delete(key);
        Outcome::Done(None)
    }

    fn write_status(&mut self, key: &ObjectKey, action: &Action<PolicyStatus>) -> Outcome {
        let Action::Update(status) = action else { panic!("{key}: only the status of a policy is written") };
        let Some(mut object) = self.objects.get(key).cloned() else { return Outcome::Conflict };
        match &mut object {
            Object::NetworkPolicy(policy) => policy.status = Some(status.clone()),
            Object::ClusterwideNetworkPolicy(policy) => policy.status = Some(status.clone()),
            _ => panic!("{key} has no status"),
        }
        Outcome::Done(self.apply(object))
    }
}

impl Store {
    fn write_redirect(&mut self, key: &ObjectKey, action: &Action<LocalRedirectStatus>) -> Outcome {
        let Action::Update(status) = action else { panic!("{key}: only the status of a policy is written") };
        let Some(Object::LocalRedirectPolicy(policy)) = self.objects.get(key) else {
            return Outcome::Conflict;
        };
        let mut policy = policy.clone();
        policy.status = Some(status.clone());
        Outcome::Done(self.apply(Object::LocalRedirectPolicy(policy)))
    }
}

/// Of load balancers.
impl Store {
    fn write_service(&mut self, key: &ObjectKey, action: &Action<ServiceStatus>) -> Outcome {
        let Action::Update(new) = action else { panic!("{key}: only the status of a Service is written") };
        let Some(Object::Service(service)) = self.objects.get(key) else { return Outcome::Conflict };
        let mut service = service.clone();
        if new.resource_version.is_some() && new.resource_version != service.metadata.resource_version {
            return Outcome::Conflict;
        }
        if let Some(ingress) = &new.ingress {
            service.status.load_balancer.ingress.clone_from(ingress);
            // As the API server does.
            service
                .status
                .load_balancer
                .ingress
                .iter_mut()
                .for_each(|it| it.ip_mode = Some("VIP".to_owned()));
            service.metadata.managed_fields = Some(vec![mk_writer(cilium_lbipam::FIELD_MANAGER)]);
        }
        if let Some(conditions) = &new.conditions {
            service.status.conditions.clone_from(conditions);
        }
        Outcome::Done(self.apply(Object::Service(service)))
    }

    fn write_pool(&mut self, key: &ObjectKey, action: &Action<LoadBalancerPoolStatus>) -> Outcome {
        let Action::Update(status) = action else { panic!("{key}: only the status of a pool is written") };
        let Some(Object::LoadBalancerPool(pool)) = self.objects.get(key) else { return Outcome::Conflict };
        let mut pool = pool.clone();
        pool.status = Some(status.clone());
        Outcome::Done(self.apply(Object::LoadBalancerPool(pool)))
    }
}

impl Store {
    fn write_announcement(&mut self, key: &ObjectKey, action: &Action<L2AnnouncementStatus>) -> Outcome {
        let Action::Update(status) = action else { panic!("{key}: only the status of a policy is written") };
        let Some(Object::L2AnnouncementPolicy(policy)) = self.objects.get(key) else {
            return Outcome::Conflict;
        };
        let mut policy = policy.clone();
        policy.status = Some(status.clone());
        Outcome::Done(self.apply(Object::L2AnnouncementPolicy(policy)))
    }
}

impl Store {
    fn write_bgp(&mut self, key: &ObjectKey, action: &Action<BgpStatus>) -> Outcome {
        let Action::Update(status) = action else { panic!("{key}: only the status is written") };
        let Some(mut object) = self.objects.get(key).cloned() else { return Outcome::Conflict };
        match &mut object {
            Object::BgpClusterConfig(config) => config.status = Some(status.clone()),
            Object::BgpPeerConfig(config) => config.status = Some(status.clone()),
            _ => panic!("{key} has no such status"),
        }
        Outcome::Done(self.apply(object))
    }
}

/// The owner of an object stays as it is.
fn merge_bgp_node(stored: &mut Object, new: &CiliumBGPNodeConfig) {
    if let Object::BgpNodeConfig(stored) = stored {
        stored.spec = new.spec.clone();
    }
}

/// Who wrote addresses of a load balancer.
pub fn mk_writer(manager: &str) -> ManagedFieldsEntry {
    let fields = serde_json::json!({"f:status": {"f:loadBalancer": {"f:ingress": {}}}});
    let entry = serde_json::json!({"manager": manager, "operation": "Update", "fieldsV1": fields});
    serde_json::from_value(entry).expect("an entry")
}

fn owner(uid: &str) -> OwnerReference {
    OwnerReference { kind: "Node".into(), uid: uid.into(), ..OwnerReference::default() }
}

fn merge_slice(stored: &mut Object, new: &CiliumNodeStateSlice) {
    if let Object::Slice(stored) = stored {
        stored.spec = new.spec.clone();
    }
}

fn merge_identity(stored: &mut Object, new: &CiliumIdentity) {
    if let Object::Identity(stored) = stored {
        stored.security_labels.clone_from(&new.security_labels);
        if new.metadata.annotations.is_some() {
            stored.metadata.annotations.clone_from(&new.metadata.annotations);
        }
    }
}

fn merge_endpoint(stored: &mut Object, new: &CiliumEndpoint) {
    if let Object::Endpoint(stored) = stored {
        stored.status.clone_from(&new.status);
    }
}

fn merge_node(stored: &mut Object, new: &CiliumNode) {
    if let Object::CiliumNode(stored) = stored {
        stored.spec = new.spec.clone();
    }
}

macro_rules! each_kind {
    ($object:expr, $it:ident => $value:expr) => {
        match $object {
            Object::Pod($it) => $value,
            Object::Namespace($it) => $value,
            Object::Node($it) => $value,
            Object::Service($it) => $value,
            Object::EndpointSlice($it) => $value,
            Object::NetworkPolicy($it) => $value,
            Object::ClusterwideNetworkPolicy($it) => $value,
            Object::CidrGroup($it) => $value,
            Object::KubernetesNetworkPolicy($it) => $value,
            Object::ClusterNetworkPolicy($it) => $value,
            Object::LocalRedirectPolicy($it) => $value,
            Object::LoadBalancerPool($it) => $value,
            Object::PodPool($it) => $value,
            Object::L2AnnouncementPolicy($it) => $value,
            Object::BgpClusterConfig($it) => $value,
            Object::BgpPeerConfig($it) => $value,
            Object::BgpAdvertisement($it) => $value,
            Object::BgpNodeConfig($it) => $value,
            Object::BgpNodeConfigOverride($it) => $value,
            Object::Secret($it) => $value,
            Object::Identity($it) => $value,
            Object::Endpoint($it) => $value,
            Object::CiliumNode($it) => $value,
            Object::NodeState($it) => $value,
            Object::Slice($it) => $value,
            Object::UnreadablePolicy(_) => panic!("the store holds what parses"),
        }
    };
}

pub fn meta_of(object: &Object) -> &ObjectMeta {
    each_kind!(object, it => &it.metadata)
}

fn meta_mut(object: &mut Object) -> &mut ObjectMeta {
    each_kind!(object, it => &mut it.metadata)
}

pub fn json_of(object: &Object) -> serde_json::Value {
    each_kind!(object, it => serde_json::to_value(it).expect("objects have a JSON form"))
}

pub fn key_of(object: &Object) -> ObjectKey {
    let kind = match object {
        Object::Pod(_) => Kind::Pod,
        Object::Namespace(_) => Kind::Namespace,
        Object::Node(_) => Kind::Node,
        Object::Service(_) => Kind::Service,
        Object::EndpointSlice(_) => Kind::EndpointSlice,
        Object::NetworkPolicy(_) => Kind::NetworkPolicy,
        Object::ClusterwideNetworkPolicy(_) => Kind::ClusterwideNetworkPolicy,
        Object::CidrGroup(_) => Kind::CidrGroup,
        Object::KubernetesNetworkPolicy(_) => Kind::KubernetesNetworkPolicy,
        Object::ClusterNetworkPolicy(_) => Kind::ClusterNetworkPolicy,
        Object::LocalRedirectPolicy(_) => Kind::LocalRedirectPolicy,
        Object::LoadBalancerPool(_) => Kind::LoadBalancerPool,
        Object::PodPool(_) => Kind::PodPool,
        Object::L2AnnouncementPolicy(_) => Kind::L2AnnouncementPolicy,
        Object::BgpClusterConfig(_) => Kind::BgpClusterConfig,
        Object::BgpPeerConfig(_) => Kind::BgpPeerConfig,
        Object::BgpAdvertisement(_) => Kind::BgpAdvertisement,
        Object::BgpNodeConfig(_) => Kind::BgpNodeConfig,
        Object::BgpNodeConfigOverride(_) => Kind::BgpNodeConfigOverride,
        Object::Secret(_) => Kind::Secret,
        Object::Identity(_) => Kind::Identity,
        Object::Endpoint(_) => Kind::Endpoint,
        Object::CiliumNode(_) => Kind::CiliumNode,
        Object::NodeState(_) => Kind::NodeState,
        Object::Slice(_) => Kind::Slice,
        Object::UnreadablePolicy(policy) => return policy.key.clone(),
    };
    let meta = meta_of(object);
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    ObjectKey::namespaced(kind, namespace, meta.name.as_deref().unwrap_or_default())
}
