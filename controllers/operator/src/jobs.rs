//! The planner's writes as requests.
//!
//! Objects are replaced field by field with JSON patches that test what they replace: the revision of a node state, and
//! of other objects the resource version, as far as the planner gives one. A late write of a deposed operator so fails.

use cilium_api::node_state::{CiliumNodeState, CiliumNodeStateSpec, CiliumNodeStateStatus, DesiredState};
use cilium_api::slim::LoadBalancerIngress;
use cilium_lbipam::FIELD_MANAGER;
use cilium_plan::{Action, Event, NodeDesired, NodeRest, Output, Report, ServiceStatus, Write};
use cilium_runtime::object::ObjectRef;
use cilium_runtime::writer::{Job, Lane, Request};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde::Serialize;
use serde_json::{Value, json};

use crate::kinds;

type Result<T> = std::result::Result<T, serde_json::Error>;

/// Jobs for what nodes wait for.
///
/// # Errors
/// Never for objects of the planner: all have a JSON form.
pub fn of_plan(output: Output, now: Timestamp) -> Result<Vec<Job>> {
    let mut jobs = Vec::new();
    for write in output.node_states {
        jobs.push(node_state(write)?);
    }
    for write in output.slices {
        jobs.push(object(write, Lane::Urgent)?);
    }
    for write in output.identities {
        jobs.push(object(write, Lane::Normal)?);
    }
    for write in output.load_balancers {
        jobs.push(service_status(write)?);
    }
    for (index, told) in output.events.iter().enumerate() {
        jobs.push(event(told, index, now)?);
    }
    Ok(jobs)
}

/// Jobs for what people and other programs look at.
///
/// # Errors
/// Never for objects of the planner: all have a JSON form.
pub fn of_report(report: Report) -> Result<Vec<Job>> {
    let mut jobs = Vec::new();
    for write in report.endpoints {
        // Creating and deleting is the record of who has which address; the rest is for people.
        let lane = if matches!(write.action, Action::Update(_)) { Lane::Lazy } else { Lane::Normal };
        jobs.push(object(write, lane)?);
    }
    for write in report.nodes {
        jobs.push(object(write, Lane::Normal)?);
    }
    for write in report.policies {
        jobs.push(policy_status(write)?);
    }
    for write in report.redirects {
        jobs.push(policy_status(write)?);
    }
    for write in report.pools {
        let Job { object, lane, requests } = policy_status(write)?;
        let requests = requests.into_iter().map(|request| request.managed_by(FIELD_MANAGER)).collect();
        jobs.push(Job { object, lane, requests });
    }
    for write in report.announcements {
        jobs.push(policy_status(write)?);
    }
    for write in report.bgp_nodes {
        jobs.push(object(write, Lane::Normal)?);
    }
    for write in report.bgp {
        jobs.push(policy_status(write)?);
    }
    for write in report.slices {
        jobs.push(object(write, Lane::Lazy)?);
    }
    Ok(jobs)
}

fn node_state(Write { key, action }: Write<NodeDesired>) -> Result<Job> {
    let requests = match action {
        Action::Create(desired) => {
            vec![
                Request::create(&mk_node_state(&key.name, &desired.owner_uid))?,
                untracked()?,
                first_desired(&desired.desired)?,
            ]
        }
        Action::Update(NodeDesired { replaces: None, desired, .. }) => vec![first_desired(&desired)?],
        Action::Update(NodeDesired { replaces: Some(revision), desired, rest, .. }) => {
            let patch = next_desired(revision, &desired)?;
            vec![match rest {
                Some(rest) => whole_status(&key.name, rest, &desired)?.or_else(patch),
                None => patch,
            }]
        }
        Action::Delete(must) => vec![delete(&must)?],
    };
    Ok(Job { object: kinds::to_ref(&key), lane: Lane::Urgent, requests })
}

/// The object without status, which the API server ignores in a create.
fn mk_node_state(name: &str, owner_uid: &str) -> CiliumNodeState {
    let mut state = CiliumNodeState::new(name, CiliumNodeStateSpec {});
    state.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: name.into(),
        uid: owner_uid.into(),
        ..Default::default()
    }]);
    state
}

/// Lets the API server forget who wrote which field. It then does not begin to keep account again (that takes a create or an
/// apply), which would cost every later write of the node's state a comparison of the whole object with its schema. Who may
/// write which half is not a matter of this account, but of the admission policy.
fn untracked() -> Result<Request> {
    Request::json_patch(None, &json!([{"op": "add", "path": "/metadata/managedFields", "value": [{}]}]))
}

/// The agent may have written its half of the status, or nobody anything.
fn first_desired(desired: &DesiredState) -> Result<Request> {
    let beside = json!([
        {"op": "test", "path": "/status/desired", "value": null},
        {"op": "add", "path": "/status/desired", "value": desired},
    ]);
    let alone = json!([
        {"op": "test", "path": "/status", "value": null},
        {"op": "add", "path": "/status", "value": {"desired": desired}},
    ]);
    Ok(Request::json_patch(Some("status"), &alone)?.or_else(Request::json_patch(Some("status"), &beside)?))
}

fn next_desired(revision: i64, desired: &DesiredState) -> Result<Request> {
    let operations = json!([
        {"op": "test", "path": "/status/desired/revision", "value": revision},
        {"op": "replace", "path": "/status/desired", "value": desired},
    ]);
    Request::json_patch(Some("status"), &operations)
}

/// The server takes a whole object with less work than it patches one. An acknowledgement that is newer makes this one fail.
fn whole_status(name: &str, rest: NodeRest, desired: &DesiredState) -> Result<Request> {
    let mut state = CiliumNodeState::new(name, CiliumNodeStateSpec {});
    state.metadata.resource_version = Some(rest.resource_version);
    let NodeRest { applied, conditions, .. } = rest;
    state.status = Some(CiliumNodeStateStatus { applied, conditions, desired: Some(desired.clone()) });
    Request::replace(Some("status"), &state)
}

fn delete(must: &cilium_plan::Precondition) -> Result<Request> {
    Request::delete(must.uid.as_deref(), must.resource_version.as_deref())
}

fn object<T: Serialize + kube::Resource>(Write { key, action }: Write<T>, lane: Lane) -> Result<Job> {
    let request = match action {
        Action::Create(object) => Request::create(&object)?,
        Action::Update(object) => Request::json_patch(None, &replacements(&object)?)?,
        Action::Delete(must) => delete(&must)?,
    };
    Ok(Job { object: kinds::to_ref(&key), lane, requests: vec![request] })
}

/// Operations that give every field beside the metadata its value in `object`, and the annotations, if any are given (none
/// left is given, too).
fn replacements<T: Serialize + kube::Resource>(object: &T) -> Result<Vec<Value>> {
    let meta = object.meta();
    let tests = [("uid", &meta.uid), ("resourceVersion", &meta.resource_version)];
    let mut operations: Vec<Value> = tests
        .into_iter()
        .filter_map(|(field, value)| {
            Some(json!({"op": "test", "path": format!("/metadata/{field}"), "value": value.as_ref()?}))
        })
        .collect();
    if let Some(annotations) = &meta.annotations {
        operations.push(json!({"op": "add", "path": "/metadata/annotations", "value": annotations}));
    }
    if let Value::Object(fields) = serde_json::to_value(object)? {
        let content = fields.into_iter().filter(|(field, _)| !HEAD.contains(&field.as_str()));
        operations.extend(
            content.map(|(field, value)| json!({"op": "add", "path": format!("/{field}"), "value": value})),
        );
    }
    Ok(operations)
}

/// Fields of every object.
const HEAD: [&str; 3] = ["apiVersion", "kind", "metadata"];

fn policy_status<S: Serialize>(Write { key, action }: Write<S>) -> Result<Job> {
    let requests = match action {
        Action::Create(status) | Action::Update(status) => {
            let operations = json!([{"op": "add", "path": "/status", "value": status}]);
            vec![Request::json_patch(Some("status"), &operations)?]
        }
        // Policies belong to users.
        Action::Delete(_) => Vec::new(),
    };
    Ok(Job { object: kinds::to_ref(&key), lane: Lane::Lazy, requests })
}

/// Addresses of a load balancer. What else is in the status stays.
fn service_status(Write { key, action }: Write<ServiceStatus>) -> Result<Job> {
    let requests = match action {
        Action::Create(status) | Action::Update(status) => {
            let patch = Request::json_patch(Some("status"), &service_operations(&status))?;
            vec![patch.managed_by(FIELD_MANAGER)]
        }
        // Services belong to users.
        Action::Delete(_) => Vec::new(),
    };
    Ok(Job { object: kinds::to_ref(&key), lane: Lane::Normal, requests })
}

/// `status.loadBalancer` is always there (Kubernetes API, `ServiceStatus`), if only as an empty object.
fn service_operations(status: &ServiceStatus) -> Vec<Value> {
    let add = |path: &str, value: Value| json!({"op": "add", "path": path, "value": value});
    let version = status.resource_version.as_ref();
    let mut operations: Vec<Value> = version
        .map(|version| json!({"op": "test", "path": "/metadata/resourceVersion", "value": version}))
        .into_iter()
        .collect();
    if let Some(ingress) = &status.ingress {
        let entries: Vec<Value> = ingress.iter().map(ingress_entry).collect();
        let value = if entries.is_empty() { json!({}) } else { json!({"ingress": entries}) };
        operations.push(add("/status/loadBalancer", value));
    }
    if let Some(conditions) = &status.conditions {
        operations.push(add("/status/conditions", json!(conditions)));
    }
    operations
}

fn ingress_entry(ingress: &LoadBalancerIngress) -> Value {
    match &ingress.ip_mode {
        Some(mode) => json!({"ip": ingress.ip, "ipMode": mode}),
        None => json!({"ip": ingress.ip}),
    }
}

/// An Event in the words of `events.k8s.io/v1`.
fn event(event: &Event, index: usize, now: Timestamp) -> Result<Job> {
    let Event { regarding, uid, type_, reason, note } = event;
    let (resource, _) = kinds::describe(regarding.kind);
    let namespace = if regarding.namespace.is_empty() { "default" } else { &regarding.namespace };
    let name = format!("{}.{:x}.{index}", regarding.name, now.as_nanosecond());
    let api_version = match resource.group {
        "" => resource.version.to_owned(),
        group => format!("{group}/{}", resource.version),
    };
    let body = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event",
        "metadata": {"name": name, "namespace": namespace},
        "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string(),
        "reportingController": "cilium.io/operator", "reportingInstance": "cilium-operator",
        "action": "Plan", "reason": reason, "type": type_, "note": note,
        "regarding": {
            "apiVersion": api_version, "kind": resource.kind, "uid": uid,
            "name": regarding.name, "namespace": regarding.namespace,
        },
    });
    let object = ObjectRef::namespaced(kinds::EVENTS, namespace, name);
    Ok(Job { object, lane: Lane::Lazy, requests: vec![Request::create(&body)?] })
}

#[cfg(test)]
mod tests {
    use cilium_api::condition::Condition;
    use cilium_api::node_slice::{CiliumNodeStateSlice, CiliumNodeStateSliceSpec};
    use cilium_api::node_state::AppliedState;
    use cilium_api::policy_status::PolicyStatus;
    use cilium_plan::{Kind, ObjectKey, Precondition};
    use cilium_runtime::writer::Verb;

    use super::*;

    fn mk_desired(revision: i64) -> DesiredState {
        DesiredState { format: 1, revision, digest: "d".into(), inline: Some("{}".into()), slices: vec![] }
    }

    fn mk_write<T>(kind: Kind, name: &str, action: Action<T>) -> Write<T> {
        Write { key: ObjectKey::cluster(kind, name), action }
    }

    fn body(request: &Request) -> Value {
        serde_json::from_slice(&request.body).unwrap()
    }

    fn node_write(replaces: Option<i64>, revision: i64) -> NodeDesired {
        NodeDesired { owner_uid: "u1".into(), replaces, desired: mk_desired(revision), rest: None }
    }

    #[test]
    fn a_node_state_is_replaced_only_over_the_revision_it_was_planned_on() {
        let job =
            node_state(mk_write(Kind::NodeState, "n1", Action::Update(node_write(Some(4), 5)))).unwrap();
        assert_eq!(job.lane, Lane::Urgent);
        assert_eq!((job.requests[0].verb, job.requests[0].subresource), (Verb::JsonPatch, Some("status")));
        let operations = body(&job.requests[0]);
        assert_eq!(operations[0], json!({"op": "test", "path": "/status/desired/revision", "value": 4}));
        assert_eq!(operations[1]["path"], "/status/desired");
        assert_eq!(operations[1]["value"]["revision"], 5);
    }

    #[test]
    fn what_is_known_whole_is_replaced_whole_and_patched_if_that_is_out_of_date() {
        let applied = AppliedState { revision: 4, endpoints: 7, ..AppliedState::default() };
        let rest = NodeRest {
            resource_version: "31".into(),
            applied: Some(applied),
            conditions: Some(vec![Condition { type_: "MapPressure".into(), ..Condition::default() }]),
        };
        let write = NodeDesired { rest: Some(rest), ..node_write(Some(4), 5) };
        let job = node_state(mk_write(Kind::NodeState, "n1", Action::Update(write))).unwrap();
        let whole = &job.requests[0];
        assert_eq!((whole.verb, whole.subresource), (Verb::Replace, Some("status")));
        let object = body(whole);
        assert_eq!(object["metadata"], json!({"name": "n1", "resourceVersion": "31"}));
        assert_eq!(object["status"]["applied"]["endpoints"], 7);
        assert_eq!(object["status"]["conditions"][0]["type"], "MapPressure");
        assert_eq!(object["status"]["desired"]["revision"], 5);
        let patch = whole.otherwise.as_deref().unwrap();
        assert_eq!(body(patch)[0], json!({"op": "test", "path": "/status/desired/revision", "value": 4}));
    }

    #[test]
    fn a_new_node_state_is_owned_by_its_node_and_filled_at_once() {
        let job = node_state(mk_write(Kind::NodeState, "n1", Action::Create(node_write(None, 1)))).unwrap();
        let created = body(&job.requests[0]);
        assert_eq!(created["metadata"]["ownerReferences"][0]["uid"], "u1");
        assert_eq!((&created["kind"], &created["spec"]), (&json!("CiliumNodeState"), &json!({})));
        assert_eq!(body(&job.requests[1])[0]["path"], "/metadata/managedFields");
        assert_eq!(body(&job.requests[2])[1]["path"], "/status");
        let beside = job.requests[2].otherwise.as_deref().unwrap();
        assert_eq!(body(beside)[1]["path"], "/status/desired");
    }

    #[test]
    fn an_update_tests_the_version_and_replaces_all_but_the_metadata() {
        let spec = CiliumNodeStateSliceSpec { format: 1, count: 1, digest: "d".into(), data: "{}".into() };
        let mut slice = CiliumNodeStateSlice::new("cluster.r", spec);
        slice.metadata.resource_version = Some("17".into());
        let job = object(mk_write(Kind::Slice, "cluster.r", Action::Update(slice)), Lane::Urgent).unwrap();
        let operations = body(&job.requests[0]);
        assert_eq!(operations.as_array().unwrap().len(), 2);
        assert_eq!(operations[0], json!({"op": "test", "path": "/metadata/resourceVersion", "value": "17"}));
        assert_eq!((&operations[1]["op"], &operations[1]["path"]), (&json!("add"), &json!("/spec")));
    }

    #[test]
    fn the_last_annotation_can_go() {
        let mut identity = cilium_api::CiliumIdentity::default();
        identity.metadata.annotations = Some(std::collections::BTreeMap::new());
        let job = object(mk_write(Kind::Identity, "300", Action::Update(identity)), Lane::Normal).unwrap();
        let expected = json!({"op": "add", "path": "/metadata/annotations", "value": {}});
        assert_eq!(body(&job.requests[0])[0], expected);
    }

    #[test]
    fn a_delete_carries_what_must_hold() {
        let must = Precondition { uid: Some("u".into()), resource_version: Some("3".into()) };
        let write: Write<CiliumNodeStateSlice> = mk_write(Kind::Slice, "x", Action::Delete(must));
        let job = object(write, Lane::Urgent).unwrap();
        assert_eq!(job.requests[0].verb, Verb::Delete);
        assert_eq!(body(&job.requests[0])["preconditions"], json!({"uid": "u", "resourceVersion": "3"}));
    }

    #[test]
    fn a_policy_gets_its_status_and_nothing_else() {
        let status = PolicyStatus { enforced: Some("1/2".into()), ..Default::default() };
        let key = ObjectKey::namespaced(Kind::NetworkPolicy, "default", "rule1");
        let job = policy_status(Write { key, action: Action::Update(status) }).unwrap();
        assert_eq!((job.lane, job.requests[0].subresource), (Lane::Lazy, Some("status")));
        assert_eq!(body(&job.requests[0])[0]["value"]["enforced"], "1/2");
    }

    #[test]
    fn a_service_gets_addresses_over_the_version_that_they_were_planned_on() {
        let entry = |ip: &str, mode: Option<&str>| LoadBalancerIngress {
            ip: Some(ip.into()),
            ip_mode: mode.map(Into::into),
        };
        let ingress = vec![entry("192.0.2.1", Some("VIP")), entry("2001:db8::1", None)];
        let status =
            ServiceStatus { resource_version: Some("7".into()), ingress: Some(ingress), conditions: None };
        let key = ObjectKey::namespaced(Kind::Service, "shop", "web");
        let job = service_status(Write { key, action: Action::Update(status) }).unwrap();
        let request = &job.requests[0];
        assert_eq!((request.subresource, request.manager), (Some("status"), "cilium-operator-lb-ipam"));
        let ingress = json!([{"ip": "192.0.2.1", "ipMode": "VIP"}, {"ip": "2001:db8::1"}]);
        let expected = json!([
            {"op": "test", "path": "/metadata/resourceVersion", "value": "7"},
            {"op": "add", "path": "/status/loadBalancer", "value": {"ingress": ingress}},
        ]);
        assert_eq!(body(request), expected);
    }

    #[test]
    fn an_event_names_the_object_and_lies_in_its_namespace() {
        let told = Event {
            regarding: ObjectKey::namespaced(Kind::Pod, "shop", "web"),
            uid: "u".into(),
            type_: "Warning",
            reason: "NoAddress",
            note: "no address is free on n1".into(),
        };
        let job = event(&told, 0, Timestamp::UNIX_EPOCH).unwrap();
        let body = body(&job.requests[0]);
        assert_eq!(job.object.collection_path(), "/apis/events.k8s.io/v1/namespaces/shop/events");
        assert_eq!(body["regarding"]["kind"], "Pod");
        assert_eq!(body["eventTime"], "1970-01-01T00:00:00.000000Z");
    }
}
