//! The writer against an API server made of a closure.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::{self, StatusCode};
use kube::client::Body;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::*;
use crate::object::Resource;

const THING: Resource = Resource { group: "example.org", version: "v1", kind: "Thing", plural: "things" };

/// An answer: code and body.
type Answer = (u16, Value);

/// A server that records `METHOD name` of what it is asked, and answers what it was told to, else 200.
#[derive(Clone, Default)]
struct Server {
    asked: Arc<Mutex<Vec<String>>>,
    answers: Arc<Mutex<HashMap<String, Vec<Answer>>>>,
    /// While set, answers wait.
    hold: Arc<Mutex<Option<Arc<Notify>>>>,
    concurrent: Arc<Mutex<(usize, usize)>>,
}

impl Server {
    fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let server = server.clone();
            async move { Ok::<_, std::convert::Infallible>(server.serve(request).await) }
        });
        Client::new(service, "default")
    }

    async fn serve(self, request: http::Request<Body>) -> http::Response<Body> {
        let name = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        let what = format!("{} {name}", request.method());
        self.asked.lock().unwrap().push(what.clone());
        self.enter(1);
        let hold = self.hold.lock().unwrap().clone();
        if let Some(hold) = hold {
            hold.notified().await;
        }
        self.enter(-1);
        let queued = self
            .answers
            .lock()
            .unwrap()
            .get_mut(&what)
            .and_then(|answers| if answers.is_empty() { None } else { Some(answers.remove(0)) });
        let (code, body) = queued.unwrap_or_else(|| (200, json!({"metadata": {"resourceVersion": "8"}})));
        let body = Body::from(serde_json::to_vec(&body).unwrap());
        http::Response::builder().status(StatusCode::from_u16(code).unwrap()).body(body).unwrap()
    }

    fn enter(&self, by: isize) {
        let mut concurrent = self.concurrent.lock().unwrap();
        concurrent.0 = concurrent.0.checked_add_signed(by).unwrap();
        concurrent.1 = concurrent.1.max(concurrent.0);
    }

    fn answer(&self, what: &str, code: u16, body: Value) {
        self.answers.lock().unwrap().entry(what.into()).or_default().push((code, body));
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

struct Setup {
    server: Server,
    writer: Writer,
    reports: mpsc::UnboundedReceiver<Report>,
    standing: watch::Sender<Standing>,
}

fn mk_setup(limits: Limits) -> Setup {
    let server = Server::default();
    let (standing, receiver) = watch::channel(Standing::Leading);
    let metrics = Metrics::register(&mut Registry::default());
    let (writer, reports, task) = start(server.client(), receiver, limits, metrics);
    tokio::spawn(task);
    Setup { server, writer, reports, standing }
}

fn mk_job(name: &str, request: Request) -> Job {
    Job { object: ObjectRef::cluster(THING, name), lane: Lane::Urgent, requests: vec![request] }
}

fn mk_patch() -> Request {
    Request::json_patch(None, &json!([{"op": "add", "path": "/spec", "value": {}}])).unwrap()
}

fn mk_failure(code: u16, causes: &Value) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "message": "no",
        "reason": "Invalid", "details": {"causes": causes}})
}

async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_write_reports_the_version_that_stands() {
    let mut setup = mk_setup(Limits::default());
    setup.writer.submit(mk_job("a", mk_patch()));
    let report = setup.reports.recv().await.unwrap();
    assert_eq!(report.outcome, Outcome::Done(Some("8".into())));
    assert_eq!(setup.server.asked(), ["PATCH a"]);
}

#[tokio::test(start_paused = true)]
async fn different_objects_are_written_at_once_and_one_object_in_order() {
    let mut setup = mk_setup(Limits::default());
    let hold = Arc::new(Notify::new());
    *setup.server.hold.lock().unwrap() = Some(Arc::clone(&hold));
    for name in ["a", "b", "c"] {
        setup.writer.submit(mk_job(name, mk_patch()));
    }
    settle().await;
    setup.writer.submit(mk_job("a", mk_patch()));
    settle().await;
    assert_eq!(setup.server.asked(), ["PATCH a", "PATCH b", "PATCH c"]);
    *setup.server.hold.lock().unwrap() = None;
    hold.notify_waiters();
    for _ in 0..4 {
        assert!(matches!(setup.reports.recv().await.unwrap().outcome, Outcome::Done(_)));
    }
    assert_eq!(setup.server.asked()[3..], ["PATCH a"]);
    assert_eq!(setup.server.concurrent.lock().unwrap().1, 3);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_without_leadership() {
    let mut setup = mk_setup(Limits::default());
    setup.standing.send_replace(Standing::Suspended);
    setup.writer.submit(mk_job("a", mk_patch()));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(setup.server.asked().is_empty());
    setup.standing.send_replace(Standing::Leading);
    assert!(matches!(setup.reports.recv().await.unwrap().outcome, Outcome::Done(_)));
}

#[tokio::test(start_paused = true)]
async fn a_conflict_brings_the_object_as_it_is() {
    let mut setup = mk_setup(Limits::default());
    let current = json!({"metadata": {"name": "a", "resourceVersion": "9"}});
    for (code, causes) in [(409, json!([])), (422, json!([{"message": "testing path /x failed"}]))] {
        setup.server.answer("PATCH a", code, mk_failure(code, &causes));
        setup.server.answer("GET a", 200, current.clone());
        setup.writer.submit(mk_job("a", mk_patch()));
        let report = setup.reports.recv().await.unwrap();
        assert_eq!(report.outcome, Outcome::Conflict(Some(Box::new(current.clone()))));
    }
}

#[tokio::test(start_paused = true)]
async fn an_object_that_is_gone_is_a_conflict_for_a_patch_and_done_for_a_delete() {
    let mut setup = mk_setup(Limits::default());
    setup.server.answer("PATCH a", 404, mk_failure(404, &json!([])));
    setup.server.answer("GET a", 404, mk_failure(404, &json!([])));
    setup.writer.submit(mk_job("a", mk_patch()));
    assert_eq!(setup.reports.recv().await.unwrap().outcome, Outcome::Conflict(None));
    setup.server.answer("DELETE a", 404, mk_failure(404, &json!([])));
    setup.writer.submit(mk_job("a", Request::delete(Some("u"), None).unwrap()));
    assert_eq!(setup.reports.recv().await.unwrap().outcome, Outcome::Done(None));
}

#[tokio::test(start_paused = true)]
async fn failures_are_reported_after_pauses_that_grow() {
    let mut setup = mk_setup(Limits::default());
    let mut pauses = Vec::new();
    for _ in 0..9 {
        setup.server.answer("PATCH a", 503, mk_failure(503, &json!([])));
        let before = Instant::now();
        setup.writer.submit(mk_job("a", mk_patch()));
        assert_eq!(setup.reports.recv().await.unwrap().outcome, Outcome::Failed);
        pauses.push(before.elapsed().as_millis());
    }
    // The paused clock rounds up to whole milliseconds.
    let expected = [50, 100, 200, 400, 800, 1600, 3000, 3000, 3000];
    assert!(pauses.iter().zip(expected).all(|(pause, expected)| pause.abs_diff(expected) <= 1), "{pauses:?}");
    setup.writer.submit(mk_job("a", mk_patch()));
    assert!(matches!(setup.reports.recv().await.unwrap().outcome, Outcome::Done(_)));
}

#[tokio::test(start_paused = true)]
async fn what_the_schema_refuses_is_not_a_conflict_and_waits_longer() {
    let mut setup = mk_setup(Limits::default());
    setup.server.answer(
        "PATCH a",
        422,
        mk_failure(422, &json!([{"field": "spec.x", "message": "Required"}])),
    );
    let before = Instant::now();
    setup.writer.submit(mk_job("a", mk_patch()));
    assert_eq!(setup.reports.recv().await.unwrap().outcome, Outcome::Failed);
    assert!(before.elapsed() >= Duration::from_millis(250));
    assert_eq!(setup.server.asked(), ["PATCH a"]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_never_comes_is_a_failure() {
    let mut setup = mk_setup(Limits::default());
    *setup.server.hold.lock().unwrap() = Some(Arc::new(Notify::new()));
    setup.writer.submit(mk_job("a", mk_patch()));
    assert_eq!(setup.reports.recv().await.unwrap().outcome, Outcome::Failed);
}

#[tokio::test(start_paused = true)]
async fn a_failed_test_sends_the_alternative() {
    let mut setup = mk_setup(Limits::default());
    setup.server.answer("PATCH status", 422, mk_failure(422, &json!([])));
    let first = Request::json_patch(Some("status"), &json!([])).unwrap();
    setup.writer.submit(mk_job("a", first.or_else(mk_patch())));
    assert!(matches!(setup.reports.recv().await.unwrap().outcome, Outcome::Done(_)));
    assert_eq!(setup.server.asked(), ["PATCH status", "PATCH a"]);
}

#[tokio::test(start_paused = true)]
async fn what_has_another_version_is_not_replaced_but_the_alternative_is_sent() {
    let mut setup = mk_setup(Limits::default());
    setup.server.answer("PUT status", 409, mk_failure(409, &json!([])));
    let whole = Request::replace(Some("status"), &json!({})).unwrap();
    setup.writer.submit(mk_job("a", whole.or_else(mk_patch())));
    assert!(matches!(setup.reports.recv().await.unwrap().outcome, Outcome::Done(_)));
    assert_eq!(setup.server.asked(), ["PUT status", "PATCH a"]);
}

#[tokio::test(start_paused = true)]
async fn requests_of_a_job_stop_at_the_first_that_fails() {
    let mut setup = mk_setup(Limits::default());
    setup.server.answer("POST things", 503, mk_failure(503, &json!([])));
    let mut job = mk_job("a", Request::create(&json!({})).unwrap());
    job.requests.push(mk_patch());
    setup.writer.submit(job.clone());
    assert_eq!(setup.reports.recv().await.unwrap().outcome, Outcome::Failed);
    setup.writer.submit(job);
    assert!(matches!(setup.reports.recv().await.unwrap().outcome, Outcome::Done(_)));
    assert_eq!(setup.server.asked(), ["POST things", "POST things", "PATCH a"]);
}

#[tokio::test(start_paused = true)]
async fn a_limit_spreads_writes_over_time() {
    let mut setup = mk_setup(Limits { per_second: Some(2.0) });
    let before = Instant::now();
    for index in 0..9 {
        setup.writer.submit(mk_job(&index.to_string(), mk_patch()));
    }
    for _ in 0..9 {
        assert!(matches!(setup.reports.recv().await.unwrap().outcome, Outcome::Done(_)));
    }
    let seconds = before.elapsed().as_secs_f64();
    assert!((2.9..3.2).contains(&seconds), "{seconds}");
}
