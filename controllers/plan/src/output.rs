//! What the planner wants written.

use cilium_api::bgp_cluster_config::BgpStatus;
use cilium_api::condition::Condition;
use cilium_api::l2_announcement_policy::L2AnnouncementStatus;
use cilium_api::load_balancer_pool::LoadBalancerPoolStatus;
use cilium_api::local_redirect_policy::LocalRedirectStatus;
use cilium_api::node_slice::CiliumNodeStateSlice;
use cilium_api::node_state::{AppliedState, DesiredState};
use cilium_api::policy_status::PolicyStatus;
use cilium_api::slim::LoadBalancerIngress;
use cilium_api::{CiliumBGPNodeConfig, CiliumEndpoint, CiliumIdentity, CiliumNode};

use crate::object::ObjectKey;

/// What nodes wait for: result of one [`crate::Planner::plan`].
///
/// # Guarantees
/// At most one write of an object is out at any time: until [`crate::Planner::written`] has told how it went, the same
/// object does not come again. All writes of one output may run at the same time.
#[derive(Debug, Default)]
pub struct Output {
    /// Headers of node states. First in line, together with `slices`.
    pub node_states: Vec<Write<NodeDesired>>,
    /// Slices of nodes and of the cluster.
    pub slices: Vec<Write<CiliumNodeStateSlice>>,
    /// Identities. They may be used before they are written: this planner alone gives numbers.
    pub identities: Vec<Write<CiliumIdentity>>,
    /// Status of Services of load balancers; always [`Action::Update`] of the status subresource.
    pub load_balancers: Vec<Write<ServiceStatus>>,
    /// Events for users, each given once.
    pub events: Vec<Event>,
    /// [`crate::Planner::report`] has something to say.
    pub report_due: bool,
    /// When to plan again though nothing has changed, in seconds since the epoch.
    pub wake: Option<i64>,
}

/// What people and other programs look at: result of one [`crate::Planner::report`].
///
/// Always up to date when asked for, so a caller that asks rarely writes rarely. Same guarantees as [`Output`].
#[derive(Debug, Default)]
pub struct Report {
    /// Endpoints.
    pub endpoints: Vec<Write<CiliumEndpoint>>,
    /// Public views of nodes.
    pub nodes: Vec<Write<CiliumNode>>,
    /// Status of policies of both kinds; always [`Action::Update`] of the status subresource.
    pub policies: Vec<Write<PolicyStatus>>,
    /// Status of policies that redirect, as `policies`.
    pub redirects: Vec<Write<LocalRedirectStatus>>,
    /// Status of pools of addresses, as `policies`.
    pub pools: Vec<Write<LoadBalancerPoolStatus>>,
    /// Status of policies that announce addresses, as `policies`.
    pub announcements: Vec<Write<L2AnnouncementStatus>>,
    /// BGP of nodes.
    pub bgp_nodes: Vec<Write<CiliumBGPNodeConfig>>,
    /// Status of CiliumBGPClusterConfigs and CiliumBGPPeerConfigs, as `policies`.
    pub bgp: Vec<Write<BgpStatus>>,
    /// Slices that no node reads: records for the next start.
    pub slices: Vec<Write<CiliumNodeStateSlice>>,
}

/// One write of one object.
#[derive(Debug)]
pub struct Write<T> {
    /// Object to write; give it back to [`crate::Planner::written`].
    pub key: ObjectKey,
    /// What to do.
    pub action: Action<T>,
}

/// What to do with an object.
#[derive(Debug, PartialEq)]
pub enum Action<T> {
    /// The object does not exist, as far as known. If it does after all, report [`Outcome::Conflict`].
    Create(T),
    /// The object exists, and these of its fields are to have these values.
    Update(T),
    /// The object is to go. Gone already counts as done.
    Delete(Precondition),
}

/// What must hold for a delete; otherwise report [`Outcome::Conflict`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Precondition {
    /// UID of the object, if it matters.
    pub uid: Option<String>,
    /// Resource version of the object, if it matters.
    pub resource_version: Option<String>,
}

/// Header of a node state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeDesired {
    /// UID of the Node, which owns the object.
    pub owner_uid: String,
    /// Revision that must stand in `status.desired.revision` for the write to be made; `None`: there is no `status.desired`.
    pub replaces: Option<i64>,
    /// Value for `status.desired`.
    pub desired: DesiredState,
    /// The rest of the object, when it is known as it is now: a write of the whole is cheaper for the API server.
    pub rest: Option<NodeRest>,
}

/// A node state but for `status.desired`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRest {
    /// `metadata.resourceVersion` at which it was so.
    pub resource_version: String,
    /// `status.applied`.
    pub applied: Option<AppliedState>,
    /// `status.conditions`.
    pub conditions: Option<Vec<Condition>>,
}

/// What of a Service's status is to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceStatus {
    /// `metadata.resourceVersion` that the Service must have for the write to be made; `None`: any.
    pub resource_version: Option<String>,
    /// Value for `status.loadBalancer.ingress`; `None` leaves it as it is.
    pub ingress: Option<Vec<LoadBalancerIngress>>,
    /// Value for `status.conditions`, those of others included; `None` leaves them as they are.
    pub conditions: Option<Vec<Condition>>,
}

/// How a write went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It stands, with this `metadata.resourceVersion` (`None` after a delete, or when not known).
    Done(Option<String>),
    /// It was refused since the object is not as the planner believes (409, 404, failed test). Observe the object as it is,
    /// or forget it, *before* this is reported.
    Conflict,
    /// It failed. The next plan repeats it, so report this only after the pause that should lie between attempts.
    Failed,
}

/// Something to tell users with a Kubernetes Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What it is about.
    pub regarding: ObjectKey,
    /// UID of that object.
    pub uid: String,
    /// `Normal` or `Warning`.
    pub type_: &'static str,
    /// One word, CamelCase.
    pub reason: &'static str,
    /// A sentence: what happened, and what to do.
    pub note: String,
}
