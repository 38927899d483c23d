//! The key by which agents know each other's heartbeats.
//!
//! Owners of announced addresses tell each other on their links that they live. A key that only agents know keeps others on the same link
//! from speaking in their names. It is made where there is none, and never replaced: agents with different keys do not hear each other.

use std::time::Duration;

use anyhow::{Context as _, bail};
use cilium_api::l2_announcement_policy::{
    HEARTBEAT_ENTRY as ENTRY, HEARTBEAT_KEY as LENGTH, HEARTBEAT_SECRET as SECRET,
};
use futures::TryStreamExt as _;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams, WatchEvent, WatchParams};
use kube::{Api, Client};
use tokio_rustls::rustls::crypto::aws_lc_rs;

/// Time between two attempts.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// Makes the Secret if there is none, now and whenever it is deleted; never ends.
pub async fn ensure(client: Client, namespace: String) {
    let secrets: Api<Secret> = Api::namespaced(client, &namespace);
    loop {
        let followed = match try_ensure(&secrets).await {
            Ok(version) => until_changed(&secrets, &version).await.context("cannot watch the Secret"),
            Err(error) => Err(error),
        };
        let Err(error) = followed else { continue };
        tracing::error!(
            secret = SECRET,
            namespace,
            error = format!("{error:#}"),
            "agents that have no key for their heartbeats announce no addresses; trying again"
        );
        tokio::time::sleep(TRY_AGAIN).await;
    }
}

/// Makes sure that there is one, and gives its resource version.
async fn try_ensure(secrets: &Api<Secret>) -> anyhow::Result<String> {
    if let Some(found) = secrets.get_opt(SECRET).await.context("cannot read the Secret")? {
        return check(&found);
    }
    match secrets.create(&PostParams::default(), &mk_secret()?).await {
        Ok(made) => {
            tracing::info!(secret = SECRET, "made a key for heartbeats of agents");
            Ok(version(&made))
        }
        // Somebody was faster.
        Err(kube::Error::Api(status)) if status.code == 409 => {
            check(&secrets.get(SECRET).await.context("cannot read the Secret")?)
        }
        Err(error) => Err(error).context("cannot create the Secret"),
    }
}

/// Waits until something happens to the Secret of this version, or this cannot be followed any more. A watch costs the API server nothing
/// while nothing happens.
///
/// It begins with what there is now (version 0): an API server that has started since does not know what came after an old version.
async fn until_changed(secrets: &Api<Secret>, known: &str) -> kube::Result<()> {
    let mut from = "0".to_owned();
    let only = WatchParams::default().fields(&format!("metadata.name={SECRET}"));
    loop {
        let mut events = std::pin::pin!(secrets.watch(&only, &from).await?);
        while let Some(event) = events.try_next().await? {
            match event {
                WatchEvent::Bookmark(mark) => from = mark.metadata.resource_version,
                WatchEvent::Added(secret) if version(&secret) == known => {}
                WatchEvent::Added(_) | WatchEvent::Modified(_) | WatchEvent::Deleted(_) => return Ok(()),
                WatchEvent::Error(_) => {
                    tokio::time::sleep(TRY_AGAIN).await;
                    return Ok(());
                }
            }
        }
        // The API server ends it now and then.
        tokio::time::sleep(TRY_AGAIN).await;
    }
}

fn version(secret: &Secret) -> String {
    secret.metadata.resource_version.clone().unwrap_or_default()
}

/// A Secret that somebody else wrote is left alone, whatever is in it.
fn check(found: &Secret) -> anyhow::Result<String> {
    let key = found.data.as_ref().and_then(|data| data.get(ENTRY));
    match key {
        Some(key) if key.0.len() == LENGTH => Ok(version(found)),
        Some(key) => bail!("data.{ENTRY} has {} bytes in place of {LENGTH}: delete the Secret", key.0.len()),
        None => bail!("it has no data.{ENTRY}: delete the Secret, or add {LENGTH} random bytes"),
    }
}

fn mk_secret() -> anyhow::Result<Secret> {
    let mut key = vec![0; LENGTH];
    let random = aws_lc_rs::default_provider().secure_random;
    random.fill(&mut key).ok().context("the system gives no random numbers")?;
    Ok(Secret {
        metadata: ObjectMeta { name: Some(SECRET.to_owned()), ..ObjectMeta::default() },
        data: Some([(ENTRY.to_owned(), ByteString(key))].into()),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::http;
    use kube::client::Body;
    use serde_json::{Value, json};
    use tower::Service;

    use super::*;

    type Log = Arc<Mutex<Vec<String>>>;
    type Asked = http::Request<Body>;
    type Answer = http::Response<Body>;

    /// An API server that gives these answers, one after the other, and none after that. It writes down what it was asked.
    fn mk_server(
        answers: Vec<(u16, Value)>,
    ) -> (impl Service<Asked, Response = Answer, Error = http::Error, Future: Send> + Send + 'static, Log)
    {
        let (mut answers, asked) = (answers.into_iter(), Log::default());
        let log = asked.clone();
        let service = tower::service_fn(move |request: Asked| {
            let (method, uri) = (request.method(), request.uri());
            log.lock().unwrap().push(format!("{method} {}", uri.path_and_query().unwrap()));
            let answer = answers.next();
            async move {
                let Some((code, body)) = answer else { return std::future::pending().await };
                let body = Body::from(body.to_string().into_bytes());
                http::Response::builder().status(code).body(body)
            }
        });
        (service, asked)
    }

    /// Makes the Secret on an API server that gives these answers, one after the other. Says what it was asked.
    async fn ask(answers: Vec<(u16, Value)>) -> (anyhow::Result<String>, Vec<String>) {
        let (service, asked) = mk_server(answers);
        let result = try_ensure(&Api::namespaced(Client::new(service, "default"), "kube-system")).await;
        let asked = asked.lock().unwrap().clone();
        (result, asked)
    }

    fn event(type_: &str, object: &Value) -> (u16, Value) {
        (200, json!({"type": type_, "object": object}))
    }

    #[tokio::test(start_paused = true)]
    async fn a_secret_that_is_deleted_is_made_again_and_one_that_stays_is_only_watched() {
        let mk = |version: &str| {
            let mut secret = mk_secret().unwrap();
            secret.metadata.resource_version = Some(version.to_owned());
            json!(secret)
        };
        let mark = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"resourceVersion": "4"}});
        let answers = vec![
            (200, mk("3")),
            event("ADDED", &mk("3")),
            event("BOOKMARK", &mark),
            event("DELETED", &mk("5")),
            failure(404, "NotFound"),
            (201, mk("6")),
            event("ERROR", &failure(410, "Expired").1),
            (200, mk("7")),
            failure(403, "Forbidden"),
            (200, mk("8")),
        ];
        let (service, asked) = mk_server(answers);
        let ensured = ensure(Client::new(service, "default"), "kube-system".to_owned());
        tokio::time::timeout(Duration::from_secs(3600), ensured).await.unwrap_err();
        let watch = |version| format!("{WATCH}&resourceVersion={version}");
        let get = || GET.to_owned();
        let expected = [
            get(),
            watch(0),
            watch(0),
            watch(4),
            get(),
            CREATE.to_owned(),
            watch(0),
            get(),
            watch(0),
            get(),
            watch(0),
        ];
        assert_eq!(*asked.lock().unwrap(), expected);
    }

    fn failure(code: u16, reason: &str) -> (u16, Value) {
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": reason, "code": code,
        });
        (code, status)
    }

    const GET: &str = "GET /api/v1/namespaces/kube-system/secrets/cilium-l2-heartbeat";
    const CREATE: &str = "POST /api/v1/namespaces/kube-system/secrets?";
    const WATCH: &str = "GET /api/v1/namespaces/kube-system/secrets?&watch=true&timeoutSeconds=290\
        &fieldSelector=metadata.name%3Dcilium-l2-heartbeat&allowWatchBookmarks=true";

    #[tokio::test]
    async fn a_secret_is_made_once_and_never_written_over() {
        let there = || (200, json!(mk_secret().unwrap()));
        let (result, asked) = ask(vec![failure(404, "NotFound"), there()]).await;
        assert!(result.is_ok(), "{result:?}");
        assert_eq!(asked, [GET, CREATE]);
        let (result, asked) = ask(vec![there()]).await;
        assert!(result.is_ok(), "{result:?}");
        assert_eq!(asked, [GET]);
        let (result, asked) =
            ask(vec![failure(404, "NotFound"), failure(409, "AlreadyExists"), there()]).await;
        assert!(result.is_ok(), "{result:?}");
        assert_eq!(asked, [GET, CREATE, GET]);
        let (result, asked) = ask(vec![(200, json!({"metadata": {"name": SECRET}}))]).await;
        assert!(result.is_err());
        assert_eq!(asked, [GET], "what somebody else wrote is left alone");
        let (result, _) = ask(vec![failure(403, "Forbidden")]).await;
        assert_eq!(result.unwrap_err().to_string(), "cannot read the Secret");
    }

    fn key(secret: &Secret) -> &[u8] {
        &secret.data.as_ref().unwrap()[ENTRY].0
    }

    #[test]
    fn a_new_key_is_good_and_no_two_are_the_same() {
        let (one, other) = (mk_secret().unwrap(), mk_secret().unwrap());
        assert!(check(&one).is_ok());
        assert_eq!(key(&one).len(), 16);
        assert_ne!(key(&one), key(&other));
        assert_eq!(one.metadata.name.as_deref(), Some("cilium-l2-heartbeat"));
    }

    #[test]
    fn a_secret_without_a_key_is_complained_of() {
        let mut secret = mk_secret().unwrap();
        secret.data.as_mut().unwrap().insert(ENTRY.to_owned(), ByteString(vec![1; 15]));
        let error = check(&secret).unwrap_err().to_string();
        assert_eq!(error, "data.key has 15 bytes in place of 16: delete the Secret");
        secret.data = None;
        assert!(check(&secret).unwrap_err().to_string().starts_with("it has no data.key: "));
    }
}
