//! DNS messages of pods and of name servers, and what agent and proxy say to each other.

use std::net::IpAddr;
use std::sync::LazyLock;

use cilium_names::{Limits, Question, Rcode, Table};
use cilium_rest::dns::{FromAgent, FromProxy};
use fuzz::Input;
use serde_json::{Value, json};

/// Bytes of a header (RFC 1035).
const HEADER: usize = 12;

/// `www.example.org A`, id 0x1234, with and without EDNS; an answer with an alias, an address, and another one of IPv6; an error.
static SAMPLES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let question = b"\x03www\x07example\x03org\x00\x00\x01\x00\x01";
    let message = |flags: [u8; 2], counts: [u8; 4], parts: &[&[u8]]| {
        let counts = counts.iter().flat_map(|count| [0, *count]);
        let header = [0x12, 0x34].into_iter().chain(flags).chain(counts);
        header.chain(parts.concat()).collect::<Vec<u8>>()
    };
    let opt = [0, 0, 41, 0x10, 0, 0, 0, 0x80, 0, 0, 0];
    let alias = b"\xc0\x0c\x00\x05\x00\x01\x00\x00\x00\x3c\x00\x06\x03cdn\xc0\x10";
    let address = b"\xc0\x2d\x00\x01\x00\x01\x00\x00\x00\x1e\x00\x04\xc0\x00\x02\x01";
    let address6 =
        b"\xc0\x2d\x00\x1c\x00\x01\x00\x00\x00\x1e\x00\x10\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01";
    vec![
        message([1, 0], [1, 0, 0, 0], &[question]),
        message([1, 0], [1, 0, 0, 1], &[question, &opt]),
        message([0x81, 0x80], [1, 3, 0, 0], &[question, alias, address, address6]),
        message([0x81, 0x83], [1, 0, 0, 0], &[question]),
    ]
});

static LINES: LazyLock<Vec<Value>> = LazyLock::new(|| {
    vec![
        json!({"id": 1, "name": "www.example.org.", "addresses": ["192.0.2.1", "2001:db8::1"], "ttl": 30}),
        json!({"inForce": {"id": 1, "forgotten": false}}),
        json!({"rules": {"world4": 9, "world6": 10, "byIdentity": {"300": [
            {"peer": 0, "protocol": 17, "port": 53, "patterns": ["*.example.org."]}]}}}),
        json!({"received": 3, "forwarded": 2, "denied": 1, "malformed": 0, "timeouts": 0, "replies": [1, 1], "replyMicros": 900}),
    ]
});

/// What a pod sends: it is no question, or one that can be refused.
fn check_question(bytes: &[u8]) -> Option<Question> {
    let question = Question::read(bytes).ok()?;
    assert!(question.name.ends_with('.'), "{question:?}");
    for rcode in [Rcode::Refused, Rcode::NameError, Rcode::ServerFailure] {
        let refusal = question.refuse(bytes, rcode);
        assert!(refusal.len() <= bytes.len() + 11, "a refusal is longer than its question");
        assert_eq!(refusal[..2], bytes[..2], "another id");
        assert!(Question::read(&refusal).is_err(), "a refusal is read as a question");
        let read = question.read_answer(&refusal).expect("a refusal answers its question");
        assert!(read.addresses.is_empty() && read.ttl == 0);
    }
    Some(question)
}

/// What a server says to a question: it is not understood, or its addresses are learned within bounds.
fn check_answer(question: &Question, bytes: &[u8]) {
    let Ok(answer) = question.read_answer(bytes) else { return };
    assert_eq!(question.id.to_be_bytes(), bytes[..2], "the answer to another question");
    // An address takes at least four bytes of a record of sixteen.
    assert!(answer.addresses.len() <= (bytes.len() - HEADER) / 15, "more addresses than the message has");
    let limits = Limits { per_name: 2, pairs: 3, ..Limits::default() };
    let mut table = Table::new(limits);
    for now in 0..3 {
        table.learn(&question.name, &answer.addresses, answer.ttl, now);
        assert!(table.len() <= limits.per_name, "a bound is exceeded");
    }
    let known: Vec<IpAddr> = table.addresses().collect();
    assert!(known.iter().all(|address| answer.addresses.contains(address)));
    assert_eq!(known.is_empty(), answer.addresses.is_empty());
}

fn check(bytes: &[u8]) {
    static ASKED: LazyLock<Question> = LazyLock::new(|| Question::read(&SAMPLES[0]).expect("a question"));
    let own = check_question(bytes);
    own.iter().chain([&*ASKED]).for_each(|question| check_answer(question, bytes));
}

#[test]
fn samples_are_read() {
    let question = check_question(&SAMPLES[0]).expect("a question");
    assert_eq!(check_question(&SAMPLES[1]).expect("a question").name, question.name);
    let answer = question.read_answer(&SAMPLES[2]).expect("an answer");
    let addresses: Vec<String> = answer.addresses.iter().map(IpAddr::to_string).collect();
    assert_eq!((addresses, answer.ttl), (vec!["192.0.2.1".to_owned(), "2001:db8::1".to_owned()], 30));
    assert!(question.read_answer(&SAMPLES[3]).expect("an answer").addresses.is_empty());
    serde_json::from_value::<FromProxy>(LINES[0].clone()).expect("is understood");
    serde_json::from_value::<FromProxy>(LINES[3].clone()).expect("is understood");
    serde_json::from_value::<FromAgent>(LINES[1].clone()).expect("is understood");
    serde_json::from_value::<FromAgent>(LINES[2].clone()).expect("is understood");
}

#[test]
fn any_message() {
    bolero::check!().for_each(|bytes: &[u8]| {
        check(bytes);
        if let Some(message) = Input(bytes).altered(&SAMPLES) {
            check(&message);
        }
        if let Some(line) = Input(bytes).damaged(&LINES) {
            let _ = serde_json::from_slice::<FromProxy>(&line);
            let _ = serde_json::from_slice::<FromAgent>(&line);
        }
    });
}
