//! The client against a socket that answers as written here.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::thread;

use cilium_rest::model::{Config, Refusal};
use cilium_rest::{Client, Error};

/// Answers one request with `answer`; returns the client and, when joined, what was asked.
fn serve(answer: &'static str) -> (tempfile::TempDir, Client, thread::JoinHandle<String>) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("sock");
    let listener = UnixListener::bind(&path).expect("binds");
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accepts");
        let mut request = vec![0; 4096];
        let length = stream.read(&mut request).expect("reads");
        stream.write_all(answer.as_bytes()).expect("answers");
        String::from_utf8_lossy(&request[..length]).into_owned()
    });
    let client = Client::new(&path, None);
    (dir, client, server)
}

#[test]
fn a_request_carries_method_path_and_body() {
    let (_dir, client, server) = serve("HTTP/1.0 200 OK\r\n\r\n{\"message\":\"fine\"}");
    let refusal = Refusal { message: "x".into() };
    let answer: Refusal = client.put("/v1/endpoint/7", &refusal).expect("answers");
    assert_eq!(answer.message, "fine");
    let request = server.join().expect("server ends");
    assert!(request.starts_with("PUT /v1/endpoint/7 HTTP/1.0\r\n"), "{request}");
    assert!(request.ends_with("content-length: 15\r\n\r\n{\"message\":\"x\"}"), "{request}");
}

#[test]
fn a_refusal_carries_status_and_message() {
    let (_dir, client, _server) =
        serve("HTTP/1.0 503 Nope\r\na: b\r\n\r\n{\"message\":\"waits for a plan\"}");
    let error = client.post::<Config>("/v1/ipam").expect_err("is refused");
    assert_eq!(error.status(), Some(503));
    assert_eq!(error.to_string(), "POST /v1/ipam: waits for a plan");
}

#[test]
fn nonsense_is_told_from_silence() {
    let (_dir, client, _server) = serve("HTTP/1.0 200 OK\r\n\r\nnot json");
    assert!(matches!(client.get::<Config>("/v1/config"), Err(Error::Decode { .. })));
    let (_dir, client, _server) = serve("");
    let error = client.get::<Config>("/v1/config").expect_err("there is no answer");
    assert!(error.is_unreachable(), "{error}");
    let (dir, client, _server) = serve("HTTP/1.0 200 OK\r\n\r\n");
    drop(dir);
    let error = client.delete("/v1/endpoint/x").expect_err("the socket is gone");
    assert!(matches!(error, Error::Connect { .. }));
    assert!(error.chain().contains("is the agent running?: No such file"), "{}", error.chain());
}

#[test]
fn lines_come_one_by_one() {
    let (_dir, client, _server) = serve("HTTP/1.0 200 OK\r\n\r\none\ntwo\n");
    let lines: Vec<String> =
        client.lines("/v1/monitor").expect("answers").collect::<Result<_, _>>().expect("reads");
    assert_eq!(lines, ["one", "two"]);
}
