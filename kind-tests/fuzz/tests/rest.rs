//! What agent, CNI plugin and `cilium-dbg` say to each other through the socket.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use cilium_rest::{Client, Error, model};
use fuzz::Input;
use serde_json::{Value, json};

static SAMPLES: LazyLock<Vec<Value>> = LazyLock::new(|| {
    vec![
        json!({"message": "there is no endpoint 7"}),
        json!({"address": {"ipv4": "10.1.0.5", "ipv6": "fd00:1::5"}, "host-addressing": {"ipv4": {"enabled": true, "ip": "10.1.0.1"}}}),
        json!({"container-id": "abc", "container-interface-name": "eth0", "k8s-namespace": "default", "k8s-pod-name": "p"}),
    ]
});

/// A server that gives one answer, whatever is asked.
struct Server {
    client: Client,
    listener: UnixListener,
    _dir: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = dir.path().join("cilium.sock");
        let listener = UnixListener::bind(&socket).expect("a socket");
        Self { client: Client::new(&socket, Some(Duration::from_secs(10))), listener, _dir: dir }
    }

    fn ask(&self, answer: &[u8]) -> Result<Value, Error> {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut stream, _) = self.listener.accept().expect("a client");
                // The client may have given up already.
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(answer);
            });
            self.client.get::<Value>("/v1/healthz")
        })
    }
}

/// Bodies of requests and answers.
fn check_bodies(text: &[u8]) {
    let _ = serde_json::from_slice::<model::EndpointChange>(text);
    let _ = serde_json::from_slice::<model::IpamAnswer>(text);
    let _ = serde_json::from_slice::<Vec<model::Endpoint>>(text);
    let _ = serde_json::from_slice::<model::Status>(text);
    let _ = serde_json::from_slice::<model::Config>(text);
    let _ = serde_json::from_slice::<model::Event>(text);
}

#[test]
fn any_answer() {
    static SERVER: LazyLock<Mutex<Server>> = LazyLock::new(|| Mutex::new(Server::start()));
    let server = SERVER.lock().expect("nobody failed before");
    assert_eq!(server.ask(b"HTTP/1.0 200 OK\r\nx: y\r\n\r\n{}").expect("an answer"), json!({}));
    drop(server);
    bolero::check!().with_iterations(500).for_each(|bytes: &[u8]| {
        let ask = |answer: &[u8]| SERVER.lock().expect("nobody failed before").ask(answer);
        let Some(body) = Input(bytes).damaged(&SAMPLES) else { return };
        check_bodies(&body);
        let _ = ask(bytes);
        let answer = [b"HTTP/1.0 404 Not Found\r\n\r\n", &*body].concat();
        assert_eq!(ask(&answer).expect_err("a refusal").status(), Some(404));
        let answer = [b"HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n", &*body].concat();
        assert_eq!(ask(&answer).ok(), serde_json::from_slice(&body).ok());
    });
}
