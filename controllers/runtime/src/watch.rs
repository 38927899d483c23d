//! List and watch of one kind, without a copy of the objects.
//!
//! # Guarantees
//! Every object that exists is reported at least once, in the newest version that was seen; every object that was
//! reported and is gone is reported as gone, also when it went while the watch was broken: after each list the names
//! are compared with the names known. Only names are kept.

use std::collections::HashSet;
use std::fmt::Debug;
use std::time::Duration;

use futures::{StreamExt, pin_mut};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::runtime::watcher::{self, watcher};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use tokio::sync::mpsc;

use crate::backoff::Backoff;
use crate::metrics::{Kind, Metrics};
use crate::object::Key;
use crate::root_cause;

/// Pauses between attempts while the server is away: short, because a planner that is late is worse than a few requests.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));

/// Pause before the next look for a kind that is not installed.
const ABSENT: Duration = Duration::from_secs(3);

/// Objects asked for in one request of a list; bounds the memory that a list needs at once.
const PAGE: u32 = 250;

/// What happened to objects of one kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Event<K> {
    /// The object is there, new or changed.
    Applied(K),
    /// The object is gone.
    Deleted(Key),
    /// All objects have been listed, each with an `Applied`; these, known from before, were not among them.
    Relisted(Vec<Key>),
}

/// Watches a kind until `receiver` of the channel is closed.
///
/// `wrap` makes the message that the consumer's channel carries.
pub async fn run<K, M>(api: Api<K>, metrics: Metrics, sender: mpsc::Sender<M>, wrap: fn(Event<K>) -> M)
where
    K: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
    M: Send,
{
    follow(api, metrics, sender, wrap, |_| false).await;
}

/// The same of a kind that somebody else may have installed, or not yet. While it is not there, it has no objects.
pub async fn run_optional<K, M>(
    api: Api<K>,
    metrics: Metrics,
    sender: mpsc::Sender<M>,
    wrap: fn(Event<K>) -> M,
) where
    K: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
    M: Send,
{
    follow(api, metrics, sender, wrap, is_not_installed).await;
}

/// The API server does not know the path. While it does not know yet which kinds there are, it says so (503).
fn is_not_installed(error: &watcher::Error) -> bool {
    let watcher::Error::InitialListFailed(kube::Error::Api(status)) = error else { return false };
    status.code == 404
}

async fn follow<K, M>(
    api: Api<K>,
    metrics: Metrics,
    sender: mpsc::Sender<M>,
    wrap: fn(Event<K>) -> M,
    is_absence: fn(&watcher::Error) -> bool,
) where
    K: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
    M: Send,
{
    let kind = kind_of::<K>();
    let mut is_absent = false;
    let stream = watcher(api, watcher::Config::default().page_size(PAGE));
    pin_mut!(stream);
    let mut names = Names::default();
    let mut backoff = BACKOFF;
    while let Some(next) = stream.next().await {
        let event = match next {
            Ok(event) => {
                backoff.reset();
                if std::mem::take(&mut is_absent) {
                    tracing::info!(kind, "the kind is installed now");
                }
                names.track(event)
            }
            Err(error) if is_absence(&error) => {
                tokio::time::sleep(if is_absent { ABSENT } else { Duration::ZERO }).await;
                if is_absent {
                    continue;
                }
                is_absent = true;
                tracing::warn!(
                    kind,
                    "the kind is not installed: without its CustomResourceDefinition there are no such objects; it is looked for again and again"
                );
                Some(Event::Relisted(names.vanish()))
            }
            Err(error) => {
                tokio::time::sleep(pause_after(kind, &error, &metrics, &mut backoff)).await;
                continue;
            }
        };
        let Some(event) = event else { continue };
        metrics.watch_events.get_or_create(&Kind { kind }).inc();
        if sender.send(wrap(event)).await.is_err() {
            return;
        }
    }
}

/// Kind of `K` as a label. Kinds are constants of the program; one that is not is leaked, once for each watch.
fn kind_of<K: kube::Resource<DynamicType = ()>>() -> &'static str {
    match K::kind(&()) {
        std::borrow::Cow::Borrowed(kind) => kind,
        std::borrow::Cow::Owned(kind) => kind.leak(),
    }
}

fn pause_after(
    kind: &'static str,
    error: &watcher::Error,
    metrics: &Metrics,
    backoff: &mut Backoff,
) -> Duration {
    metrics.watch_failures.get_or_create(&Kind { kind }).inc();
    let error = root_cause(error).to_string();
    // The end of a broken connection is daily business; only what stays is worth a line at the default level.
    if backoff.failures() == 5 {
        tracing::warn!(kind, error, "the watch keeps failing; it is tried again until it works");
    } else {
        tracing::debug!(kind, error, "the watch failed and is started again");
    }
    backoff.fail()
}

/// Names of the objects that were reported.
#[derive(Debug, Default)]
struct Names {
    known: HashSet<Key>,
    listed: Option<HashSet<Key>>,
}

impl Names {
    fn track<K: kube::Resource>(&mut self, event: watcher::Event<K>) -> Option<Event<K>> {
        match event {
            watcher::Event::Init => {
                self.listed = Some(HashSet::new());
                None
            }
            watcher::Event::InitApply(object) | watcher::Event::Apply(object) => {
                self.add(Key::of(&object));
                Some(Event::Applied(object))
            }
            watcher::Event::Delete(object) => {
                let key = Key::of(&object);
                self.known.remove(&key);
                Some(Event::Deleted(key))
            }
            watcher::Event::InitDone => Some(Event::Relisted(self.finish_list())),
        }
    }

    /// Nothing is there any more.
    fn vanish(&mut self) -> Vec<Key> {
        self.listed = Some(HashSet::new());
        self.finish_list()
    }

    /// A list that breaks off half-way leaves its names in `known`, so the next one can find them gone.
    fn add(&mut self, key: Key) {
        if let Some(listed) = &mut self.listed {
            listed.insert(key.clone());
        }
        self.known.insert(key);
    }

    fn finish_list(&mut self) -> Vec<Key> {
        let listed = self.listed.take().unwrap_or_default();
        let mut gone: Vec<Key> = self.known.difference(&listed).cloned().collect();
        gone.sort();
        self.known = listed;
        gone
    }
}

/// An object that may fail to parse without failing the watch that brings it.
#[derive(Clone, Debug)]
pub enum Parsed<K> {
    /// It parsed.
    Good(Box<K>),
    /// It did not.
    Bad(Box<Unreadable>),
}

/// An object that does not have the shape of its kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Unreadable {
    /// Its metadata, so that its status can say what is wrong.
    pub metadata: ObjectMeta,
    /// What is wrong, in the words of the parser.
    pub reason: String,
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for Parsed<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        match K::deserialize(&value) {
            Ok(object) => Ok(Self::Good(Box::new(object))),
            Err(error) => {
                let metadata = value.get("metadata").map(ObjectMeta::deserialize);
                let metadata = metadata.transpose().map_err(serde::de::Error::custom)?.unwrap_or_default();
                Ok(Self::Bad(Box::new(Unreadable { metadata, reason: error.to_string() })))
            }
        }
    }
}

impl<K: kube::Resource<DynamicType = ()>> kube::Resource for Parsed<K> {
    type DynamicType = ();
    type Scope = K::Scope;

    fn kind((): &()) -> std::borrow::Cow<'_, str> {
        K::kind(&())
    }
    fn group((): &()) -> std::borrow::Cow<'_, str> {
        K::group(&())
    }
    fn version((): &()) -> std::borrow::Cow<'_, str> {
        K::version(&())
    }
    fn plural((): &()) -> std::borrow::Cow<'_, str> {
        K::plural(&())
    }
    fn meta(&self) -> &ObjectMeta {
        match self {
            Self::Good(object) => object.meta(),
            Self::Bad(unreadable) => &unreadable.metadata,
        }
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Self::Good(object) => object.meta_mut(),
            Self::Bad(unreadable) => &mut unreadable.metadata,
        }
    }
}

#[cfg(test)]
mod tests {
    use cilium_api::slim::Pod;
    use kube::runtime::watcher::Event as Raw;

    use super::*;

    fn mk_pod(name: &str) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.namespace = Some("default".into());
        pod.metadata.name = Some(name.into());
        pod
    }

    fn mk_key(name: &str) -> Key {
        Key { namespace: "default".into(), name: name.into() }
    }

    fn track(names: &mut Names, events: Vec<Raw<Pod>>) -> Vec<Event<Pod>> {
        events.into_iter().filter_map(|event| names.track(event)).collect()
    }

    #[test]
    fn a_list_reports_what_went_while_nobody_watched() {
        let mut names = Names::default();
        let first = vec![Raw::Init, Raw::InitApply(mk_pod("a")), Raw::InitApply(mk_pod("b")), Raw::InitDone];
        assert_eq!(track(&mut names, first).last(), Some(&Event::Relisted(vec![])));
        let second = vec![Raw::Apply(mk_pod("c")), Raw::Init, Raw::InitApply(mk_pod("b")), Raw::InitDone];
        let gone = Event::Relisted(vec![mk_key("a"), mk_key("c")]);
        assert_eq!(track(&mut names, second).last(), Some(&gone));
    }

    #[test]
    fn what_a_broken_list_reported_is_not_forgotten() {
        let mut names = Names::default();
        let broken = vec![Raw::Init, Raw::InitApply(mk_pod("a")), Raw::Init, Raw::InitDone];
        assert_eq!(track(&mut names, broken).last(), Some(&Event::Relisted(vec![mk_key("a")])));
    }

    #[test]
    fn what_was_known_of_a_kind_goes_with_it() {
        let mut names = Names::default();
        track(
            &mut names,
            vec![Raw::Init, Raw::InitApply(mk_pod("a")), Raw::InitDone, Raw::Apply(mk_pod("b"))],
        );
        assert_eq!(names.vanish(), [mk_key("a"), mk_key("b")]);
        assert_eq!(names.vanish(), []);
        let status = |code| kube::core::Status::failure("gone", "NotFound").with_code(code).boxed();
        let failed = |code| watcher::Error::InitialListFailed(kube::Error::Api(status(code)));
        assert!(is_not_installed(&failed(404)) && !is_not_installed(&failed(503)));
    }

    #[test]
    fn a_deleted_object_is_reported_once() {
        let mut names = Names::default();
        let events = vec![
            Raw::Init,
            Raw::InitApply(mk_pod("a")),
            Raw::InitDone,
            Raw::Delete(mk_pod("a")),
            Raw::Init,
            Raw::InitDone,
        ];
        let seen = track(&mut names, events);
        assert_eq!(seen[2..], [Event::Deleted(mk_key("a")), Event::Relisted(vec![])]);
    }

    #[test]
    fn an_object_of_the_wrong_shape_keeps_its_metadata_and_the_reason() {
        let text =
            r#"{"metadata":{"name":"bad","namespace":"default","generation":3},"spec":{"containers":7}}"#;
        let Parsed::<Pod>::Bad(bad) = serde_json::from_str(text).unwrap() else { panic!("it parsed") };
        assert_eq!(bad.metadata.generation, Some(3));
        assert!(bad.reason.contains("sequence"), "{}", bad.reason);
        let good: Parsed<Pod> = serde_json::from_str(r#"{"metadata":{"name":"good"}}"#).unwrap();
        assert!(matches!(good, Parsed::Good(_)));
    }
}
