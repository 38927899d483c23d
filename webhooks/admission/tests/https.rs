//! The webhook as an API server sees it: HTTPS on loopback, with the certificate that it was given.
#![allow(clippy::unwrap_used, reason = "a test that lacks what it looks at has failed")]

use std::sync::Arc;
use std::time::Duration;

use cilium_admission::certificate::{self, Certificate};
use cilium_admission::serve::{self, Judge, Question};
use cilium_plan::Config;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

const NAME: &str = "cilium-webhook.kube-system.svc";

fn mk_certificate(day: &str) -> Certificate {
    certificate::make(NAME, day.parse().unwrap()).unwrap()
}

fn today() -> String {
    jiff::Zoned::now().date().to_string()
}

/// What believes the certificates in a bundle.
fn mk_client(bundle: &str) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

async fn post(address: std::net::SocketAddr, client: &TlsConnector, body: &Value) -> std::io::Result<Value> {
    let stream = TcpStream::connect(address).await?;
    let mut stream = client.connect(ServerName::try_from(NAME).unwrap(), stream).await?;
    let body = body.to_string();
    let head = format!(
        "POST /validate HTTP/1.1\r\nHost: {NAME}\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await?;
    let mut answer = String::new();
    // The other side may close without a farewell.
    let _ = stream.read_to_string(&mut answer).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
    Ok(serde_json::from_str(body)?)
}

fn mk_review(port: &str) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "7", "kind": {"group": "cilium.io", "version": "v2", "kind": "CiliumNetworkPolicy"},
            "resource": {"group": "cilium.io", "version": "v2", "resource": "ciliumnetworkpolicies"},
            "name": "x", "namespace": "default", "operation": "CREATE", "userInfo": {}, "dryRun": true,
            "object": {
                "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": {"name": "x", "namespace": "default"},
                "spec": {"endpointSelector": {}, "ingress": [{"toPorts": [{"ports": [{"port": port}]}]}]},
            },
        },
    })
}

#[tokio::test]
async fn reviews_are_answered_over_tls() {
    let certificate = mk_certificate(&today());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, config) = watch::channel(certificate.config.clone());
    let (asker, mut questions) = mpsc::channel::<Question>(1);
    let server =
        tokio::spawn(serve::run(listener, config, serve::router(Judge::new(Config::default(), asker))));
    let planner = tokio::spawn(async move {
        let Question { answer, .. } = questions.recv().await.unwrap();
        answer.send(vec!["spec selects no endpoint".to_owned()]).unwrap();
        // The next question stays without an answer.
        questions.recv().await
    });

    let client = mk_client(&certificate.pem);
    let refused = post(address, &client, &mk_review("70000")).await.unwrap();
    assert_eq!((&refused["response"]["allowed"], &refused["response"]["uid"]), (&json!(false), &json!("7")));
    let message = refused["response"]["status"]["message"].as_str().unwrap();
    assert!(message.starts_with("spec.ingress[0].toPorts[0].ports[0].port: "), "{message}");
    let warned = post(address, &client, &mk_review("80")).await.unwrap();
    assert_eq!(warned["response"]["warnings"], json!(["spec selects no endpoint"]));
    assert_eq!(warned["response"]["allowed"], json!(true));
    let late = tokio::time::timeout(Duration::from_secs(5), post(address, &client, &mk_review("80"))).await;
    let late = late.unwrap().unwrap();
    assert_eq!((&late["response"]["allowed"], &late["response"]["warnings"]), (&json!(true), &Value::Null));

    // Before the next certificate is served, it is believed in beside this one.
    let next = mk_certificate(&today());
    let both = mk_client(&format!("{}{}", next.pem, certificate.pem));
    assert_eq!(post(address, &both, &mk_review("x/y")).await.unwrap()["response"]["allowed"], json!(false));
    sender.send_replace(next.config.clone());
    assert_eq!(post(address, &both, &mk_review("x/y")).await.unwrap()["response"]["allowed"], json!(false));
    assert!(post(address, &client, &mk_review("80")).await.is_err(), "the old one is not served any more");
    server.abort();
    planner.abort();
}

#[tokio::test]
async fn a_certificate_is_good_for_its_year_only() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let old = mk_certificate("2020-02-29");
    let (asker, _questions) = mpsc::channel(1);
    let (_sender, config) = watch::channel(old.config.clone());
    let server =
        tokio::spawn(serve::run(listener, config, serve::router(Judge::new(Config::default(), asker))));
    let error = post(address, &mk_client(&old.pem), &mk_review("80")).await.unwrap_err();
    assert!(error.to_string().contains("xpired"), "{error}");
    server.abort();
}
