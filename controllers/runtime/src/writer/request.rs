//! Requests of a job as HTTP.

use axum::http;
use serde::Serialize;
use serde_json::{Value, json};

use crate::object::ObjectRef;

/// Name under which the API server records who owns a field.
const FIELD_MANAGER: &str = "cilium-operator";

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// POST to the collection.
    Create,
    /// PUT of the whole, over the resource version that it has in it.
    Replace,
    /// PATCH with RFC 6902 operations.
    JsonPatch,
    /// PATCH with lists merged by their keys (core kinds only).
    StrategicPatch,
    /// DELETE; an object that is gone already counts as done.
    Delete,
}

impl Verb {
    fn method(self) -> http::Method {
        match self {
            Self::Create => http::Method::POST,
            Self::Replace => http::Method::PUT,
            Self::JsonPatch | Self::StrategicPatch => http::Method::PATCH,
            Self::Delete => http::Method::DELETE,
        }
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::Create | Self::Replace | Self::Delete => "application/json",
            Self::JsonPatch => "application/json-patch+json",
            Self::StrategicPatch => "application/strategic-merge-patch+json",
        }
    }
}

/// One request about the object of a job.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// What it does.
    pub verb: Verb,
    /// `status`, or `None` for the object itself.
    pub subresource: Option<&'static str>,
    /// Body, as JSON.
    pub body: Vec<u8>,
    /// Name under which the API server records who owns the fields.
    pub manager: &'static str,
    /// Sent instead when the object is not as this one expects: a test of a patch failed (422), or what is replaced has another
    /// resource version (409).
    pub otherwise: Option<Box<Request>>,
}

impl Request {
    fn new(
        verb: Verb,
        subresource: Option<&'static str>,
        body: &impl Serialize,
    ) -> Result<Self, serde_json::Error> {
        Ok(Self {
            verb,
            subresource,
            body: serde_json::to_vec(body)?,
            manager: FIELD_MANAGER,
            otherwise: None,
        })
    }

    /// Creates `object`.
    ///
    /// # Errors
    /// `object` has no JSON form.
    pub fn create(object: &impl Serialize) -> Result<Self, serde_json::Error> {
        Self::new(Verb::Create, None, object)
    }

    /// Puts `object` in place of what has its resource version.
    ///
    /// # Errors
    /// `object` has no JSON form.
    pub fn replace(
        subresource: Option<&'static str>,
        object: &impl Serialize,
    ) -> Result<Self, serde_json::Error> {
        Self::new(Verb::Replace, subresource, object)
    }

    /// Applies RFC 6902 operations.
    ///
    /// # Errors
    /// `operations` have no JSON form.
    pub fn json_patch(
        subresource: Option<&'static str>,
        operations: &impl Serialize,
    ) -> Result<Self, serde_json::Error> {
        Self::new(Verb::JsonPatch, subresource, operations)
    }

    /// Merges `document` into the object, lists by their keys.
    ///
    /// # Errors
    /// `document` has no JSON form.
    pub fn strategic_patch(
        subresource: Option<&'static str>,
        document: &impl Serialize,
    ) -> Result<Self, serde_json::Error> {
        Self::new(Verb::StrategicPatch, subresource, document)
    }

    /// Deletes the object if its UID and resource version are these, as far as given.
    ///
    /// # Errors
    /// Never in practice: strings have a JSON form.
    pub fn delete(uid: Option<&str>, resource_version: Option<&str>) -> Result<Self, serde_json::Error> {
        let mut preconditions = serde_json::Map::new();
        let given = [("uid", uid), ("resourceVersion", resource_version)];
        preconditions
            .extend(given.into_iter().filter_map(|(key, value)| Some((key.to_owned(), json!(value?)))));
        let options =
            json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": Value::from(preconditions)});
        Self::new(Verb::Delete, None, &options)
    }

    /// The same under another name for who owns the fields.
    #[must_use]
    pub fn managed_by(self, manager: &'static str) -> Self {
        Self { manager, ..self }
    }

    /// Adds what to send if the object is not as this request expects.
    #[must_use]
    pub fn or_else(mut self, other: Self) -> Self {
        self.otherwise = Some(Box::new(other));
        self
    }

    /// The HTTP request for `object`.
    ///
    /// # Errors
    /// The name of the object makes no valid path.
    pub(super) fn to_http(&self, object: &ObjectRef) -> Result<http::Request<Vec<u8>>, http::Error> {
        let path = match self.verb {
            Verb::Create => format!("{}?fieldManager={}", object.collection_path(), self.manager),
            Verb::Delete => object.path(self.subresource),
            _ => format!("{}?fieldManager={}", object.path(self.subresource), self.manager),
        };
        http::Request::builder()
            .method(self.verb.method())
            .uri(path)
            .header(http::header::CONTENT_TYPE, self.verb.content_type())
            .header(http::header::ACCEPT, "application/json")
            .body(self.body.clone())
    }
}
