//! The API server: objects with versions, and the verbs that the operator uses.

use std::collections::BTreeMap;

use cilium_operator::kinds;
use cilium_plan::{Kind, ObjectKey};
use cilium_runtime::writer::{Job, Outcome, Request, Verb};
use serde_json::{Value, json};

/// All objects, and all that ever happened to them.
#[derive(Clone, Default)]
pub(crate) struct Store {
    objects: BTreeMap<ObjectKey, Value>,
    version: u64,
    /// Each change with what the object was afterwards.
    pub(crate) changes: Vec<(ObjectKey, Option<Value>)>,
}

/// Why a request did not work.
enum Refused {
    Conflict,
    TestFailed,
}

impl Store {
    /// Creates an object as a user does.
    pub(crate) fn put(&mut self, kind: Kind, mut object: Value) {
        let meta = &mut object["metadata"];
        let name = meta["name"].as_str().unwrap().to_owned();
        let namespace = meta["namespace"].as_str().unwrap_or_default().to_owned();
        self.version += 1;
        meta["uid"] = json!(format!("uid-{}", self.version));
        meta["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
        self.store(ObjectKey::namespaced(kind, &namespace, &name), object);
    }

    /// Changes an object as a user, a kubelet or an agent does.
    pub(crate) fn edit(&mut self, key: &ObjectKey, edit: impl FnOnce(&mut Value)) {
        let mut object = self.objects[key].clone();
        edit(&mut object);
        self.store(key.clone(), object);
    }

    /// Removes an object.
    pub(crate) fn remove(&mut self, key: &ObjectKey) {
        self.objects.remove(key).unwrap();
        self.changes.push((key.clone(), None));
    }

    /// The object, if it exists.
    pub(crate) fn get(&self, key: &ObjectKey) -> Option<&Value> {
        self.objects.get(key)
    }

    /// All objects.
    pub(crate) fn all(&self) -> Vec<(Kind, Value)> {
        self.objects.iter().map(|(key, object)| (key.kind, object.clone())).collect()
    }

    /// Names of all objects of a kind.
    pub(crate) fn names(&self, kind: Kind) -> Vec<String> {
        self.objects.keys().filter(|key| key.kind == kind).map(|key| key.name.clone()).collect()
    }

    /// All objects of a kind.
    pub(crate) fn list(&self, kind: Kind) -> Vec<&Value> {
        self.objects.iter().filter(|(key, _)| key.kind == kind).map(|(_, object)| object).collect()
    }

    fn store(&mut self, key: ObjectKey, mut object: Value) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.changes.push((key.clone(), Some(object.clone())));
        self.objects.insert(key, object);
    }

    /// Does what the writer does with a job.
    pub(crate) fn carry_out(&mut self, job: &Job) -> Outcome {
        // Events are of no interest here.
        let Some(key) = kinds::to_key(&job.object) else { return Outcome::Done(None) };
        for request in &job.requests {
            let result = match (self.request(&key, request), request.otherwise.as_deref()) {
                (Err(_), Some(otherwise)) => self.request(&key, otherwise),
                (result, _) => result,
            };
            if result.is_err() {
                return Outcome::Conflict(self.get(&key).cloned().map(Box::new));
            }
        }
        let version = self.get(&key).and_then(|object| object["metadata"]["resourceVersion"].as_str());
        Outcome::Done(version.map(str::to_owned))
    }

    fn request(&mut self, key: &ObjectKey, request: &Request) -> Result<(), Refused> {
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        match request.verb {
            Verb::Create => self.create(key, body),
            Verb::Delete => self.delete(key, &body["preconditions"]),
            Verb::JsonPatch => self.patch(key, &body),
            Verb::Replace => self.replace_status(key, &body),
            // Only the node's condition is written this way.
            Verb::StrategicPatch => {
                let condition = body["status"]["conditions"][0].clone();
                self.edit(key, |node| node["status"]["conditions"] = json!([condition]));
                Ok(())
            }
        }
    }

    fn create(&mut self, key: &ObjectKey, mut object: Value) -> Result<(), Refused> {
        if self.objects.contains_key(key) {
            return Err(Refused::Conflict);
        }
        if key.kind == Kind::NodeState {
            object.as_object_mut().unwrap().remove("status");
        }
        self.put(key.kind, object);
        Ok(())
    }

    fn delete(&mut self, key: &ObjectKey, must: &Value) -> Result<(), Refused> {
        let Some(object) = self.objects.get(key) else { return Ok(()) };
        let meta = &object["metadata"];
        let holds = |field: &str| must[field].is_null() || must[field] == meta[field];
        if !holds("uid") || !holds("resourceVersion") {
            return Err(Refused::Conflict);
        }
        self.remove(key);
        Ok(())
    }

    /// Of a status only that changes.
    fn replace_status(&mut self, key: &ObjectKey, whole: &Value) -> Result<(), Refused> {
        let mut object = self.objects.get(key).cloned().ok_or(Refused::Conflict)?;
        if object["metadata"]["resourceVersion"] != whole["metadata"]["resourceVersion"] {
            return Err(Refused::Conflict);
        }
        object["status"] = whole["status"].clone();
        if self.objects[key] != object {
            self.store(key.clone(), object);
        }
        Ok(())
    }

    fn patch(&mut self, key: &ObjectKey, operations: &Value) -> Result<(), Refused> {
        let mut object = self.objects.get(key).cloned().ok_or(Refused::Conflict)?;
        for operation in operations.as_array().unwrap() {
            apply(&mut object, operation).ok_or(Refused::TestFailed)?;
        }
        if self.objects[key] != object {
            self.store(key.clone(), object);
        }
        Ok(())
    }
}

/// One operation of RFC 6902; `None` when it cannot be applied.
fn apply(object: &mut Value, operation: &Value) -> Option<()> {
    let (parent, last) = operation["path"].as_str()?.rsplit_once('/')?;
    let parent = object.pointer_mut(parent)?;
    let found = match &*parent {
        Value::Array(items) => items.get(last.parse::<usize>().ok()?).cloned(),
        parent => parent.get(last).cloned(),
    };
    match operation["op"].as_str()? {
        "test" => return (found.unwrap_or(Value::Null) == operation["value"]).then_some(()),
        "remove" => match parent {
            Value::Array(items) => drop(items.remove(last.parse().ok()?)),
            parent => drop(parent.as_object_mut()?.remove(last)?),
        },
        "replace" if found.is_none() => return None,
        "add" | "replace" => {
            parent.as_object_mut()?.insert(last.to_owned(), operation["value"].clone());
        }
        other => panic!("operation {other}"),
    }
    Some(())
}
