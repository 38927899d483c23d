//! A socket that answers like an agent, with fixed data.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::thread;

use cilium_rest::model::Refusal;
use serde::Serialize;

/// Answers by path.
#[derive(Default)]
pub(crate) struct Answers(BTreeMap<String, String>);

impl Answers {
    pub(crate) fn set<T: Serialize>(mut self, path: &str, body: &T) -> Self {
        self.0.insert(path.into(), serde_json::to_string(body).expect("models are JSON"));
        self
    }

    pub(crate) fn set_text(mut self, path: &str, body: &str) -> Self {
        self.0.insert(path.into(), body.into());
        self
    }
}

/// Serves until the test ends.
pub(crate) struct Agent {
    dir: tempfile::TempDir,
}

impl Agent {
    pub(crate) fn start(answers: Answers) -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let listener = UnixListener::bind(dir.path().join("sock")).expect("binds");
        let answers = Arc::new(answers);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let answers = answers.clone();
                thread::spawn(move || answer(&stream.expect("accepts"), &answers));
            }
        });
        Self { dir }
    }

    /// Nobody listens.
    pub(crate) fn absent() -> Self {
        Self { dir: tempfile::tempdir().expect("temporary directory") }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("sock")
    }

    /// The program, to be run against this agent.
    pub(crate) fn command(&self, args: &str) -> Command {
        let mut command = program(args);
        command.args(["--host", &format!("unix://{}", self.socket().display())]);
        command.env("CILIUM_BGP_SOCK", self.socket());
        command
    }

    /// Runs the program against this agent.
    pub(crate) fn run(&self, args: &str) -> Output {
        self.command(args).output().expect("the program starts")
    }
}

/// The program with arguments, without the environment of the caller.
pub(crate) fn program(args: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cilium-dbg"));
    command.env_clear().args(args.split_whitespace()).stdin(Stdio::null());
    command
}

fn answer(stream: &UnixStream, answers: &Answers) {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).expect("reads the request");
    let path = line.split(' ').nth(1).expect("a request has a path").to_owned();
    while line != "\r\n" {
        line.clear();
        reader.read_line(&mut line).expect("reads the headers");
    }
    let refusal = Refusal { message: format!("{path} is not known here") };
    let (status, body) = match answers.0.get(&path) {
        Some(body) => ("200 OK", body.clone()),
        None => ("404 Not Found", serde_json::to_string(&refusal).expect("is JSON")),
    };
    // A client that has gone away is the client's affair.
    let mut stream = stream;
    let _ = write!(stream, "HTTP/1.0 {status}\r\n\r\n{body}");
}
