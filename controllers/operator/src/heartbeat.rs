//! The key by which agents know each other's heartbeats.
//!
//! Owners of announced addresses tell each other on their links that they live. A key that only agents know keeps others on the same link
//! from speaking in their names. It is made once and never replaced here: agents with different keys would not hear each other.

use std::time::Duration;

use anyhow::{Context as _, bail};
use cilium_api::l2_announcement_policy::{
    HEARTBEAT_ENTRY as ENTRY, HEARTBEAT_KEY as LENGTH, HEARTBEAT_SECRET as SECRET,
};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio_rustls::rustls::crypto::aws_lc_rs;

/// Time between two attempts.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// Makes the Secret if there is none; goes on until one is there.
pub async fn ensure(client: Client, namespace: String) {
    let secrets: Api<Secret> = Api::namespaced(client, &namespace);
    while let Err(error) = try_ensure(&secrets).await {
        tracing::error!(
            secret = SECRET,
            namespace,
            error = format!("{error:#}"),
            "agents have no key for their heartbeats and announce no addresses; trying again"
        );
        tokio::time::sleep(TRY_AGAIN).await;
    }
}

async fn try_ensure(secrets: &Api<Secret>) -> anyhow::Result<()> {
    if let Some(found) = secrets.get_opt(SECRET).await.context("cannot read the Secret")? {
        return check(&found);
    }
    match secrets.create(&PostParams::default(), &mk_secret()?).await {
        Ok(_) => {
            tracing::info!(secret = SECRET, "made a key for heartbeats of agents");
            Ok(())
        }
        // Somebody was faster.
        Err(kube::Error::Api(status)) if status.code == 409 => {
            check(&secrets.get(SECRET).await.context("cannot read the Secret")?)
        }
        Err(error) => Err(error).context("cannot create the Secret"),
    }
}

/// A Secret that somebody else wrote is left alone, whatever is in it.
fn check(found: &Secret) -> anyhow::Result<()> {
    let key = found.data.as_ref().and_then(|data| data.get(ENTRY));
    match key {
        Some(key) if key.0.len() == LENGTH => Ok(()),
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

    use super::*;

    /// Makes the Secret on an API server that gives these answers, one after the other. Says what it was asked.
    async fn ask(answers: Vec<(u16, Value)>) -> (anyhow::Result<()>, Vec<String>) {
        let (answers, asked) = (Arc::new(Mutex::new(answers)), Arc::new(Mutex::new(Vec::new())));
        let log = asked.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            log.lock().unwrap().push(format!("{} {}", request.method(), request.uri().path()));
            let (code, body) = answers.lock().unwrap().remove(0);
            let body = Body::from(body.to_string().into_bytes());
            async move { http::Response::builder().status(code).body(body) }
        });
        let result = try_ensure(&Api::namespaced(Client::new(service, "default"), "kube-system")).await;
        let asked = asked.lock().unwrap().clone();
        (result, asked)
    }

    fn failure(code: u16, reason: &str) -> (u16, Value) {
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": reason, "code": code,
        });
        (code, status)
    }

    const GET: &str = "GET /api/v1/namespaces/kube-system/secrets/cilium-l2-heartbeat";
    const CREATE: &str = "POST /api/v1/namespaces/kube-system/secrets";

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
