//! DNS messages: written byte by byte where the bytes matter, and random ones.

use std::net::IpAddr;

use cilium_names::{Answer, Malformed, Question, Rcode};
use hickory_proto::op::{Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use proptest::prelude::*;

/// `wWw.ExAmple.org A`, id 0x1234, recursion desired.
fn query(edns: bool) -> Vec<u8> {
    let mut bytes = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(edns)];
    bytes.extend(b"\x03wWw\x07ExAmple\x03org\x00\x00\x01\x00\x01");
    if edns {
        // Root, OPT, 4096 bytes, version 0, DO, no options.
        bytes.extend([0, 0, 41, 0x10, 0, 0, 0, 0x80, 0, 0, 0]);
    }
    bytes
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn answer(records: &[(&str, u32, RData)]) -> Vec<u8> {
    let mut message = Message::response(0x1234, OpCode::Query);
    message.add_query(Query::query(name("WWW.example.org."), RecordType::A));
    for (owner, ttl, data) in records {
        message.add_answer(Record::from_rdata(name(owner), *ttl, data.clone()));
    }
    message.to_vec().unwrap()
}

fn a(text: &str) -> RData {
    RData::A(A(text.parse().unwrap()))
}

fn alias(text: &str) -> RData {
    RData::CNAME(CNAME(name(text)))
}

#[test]
fn a_question_is_read_in_any_case() {
    for edns in [false, true] {
        let question = Question::read(&query(edns)).unwrap();
        assert_eq!((question.id, question.name.as_str(), question.kind), (0x1234, "www.example.org.", 1));
    }
}

#[test]
fn a_refusal_repeats_the_question_letter_by_letter() {
    for (rcode, number, expected) in [
        (Rcode::Refused, 5, ResponseCode::Refused),
        (Rcode::NameError, 3, ResponseCode::NXDomain),
        (Rcode::ServerFailure, 2, ResponseCode::ServFail),
    ] {
        for edns in [false, true] {
            let query = query(edns);
            let refusal = Question::read(&query).unwrap().refuse(&query, rcode);
            assert_eq!(refusal[..4], [0x12, 0x34, 0x81, 0x80 | number]);
            assert_eq!(refusal[12..33], query[12..33]);
            let message = Message::from_vec(&refusal).unwrap();
            assert_eq!(message.metadata.response_code, expected);
            assert_eq!(message.edns.map(|edns| edns.flags().dnssec_ok), edns.then_some(true));
        }
    }
}

#[test]
fn addresses_are_those_of_the_name_and_its_aliases() {
    let question = Question::read(&query(false)).unwrap();
    let bytes = answer(&[
        ("cdn.example.net.", 30, a("192.0.2.2")),
        ("www.EXAMPLE.org.", 300, alias("edge.example.net.")),
        ("edge.example.net.", 20, alias("CDN.example.net.")),
        ("cdn.example.net.", 60, a("192.0.2.1")),
        ("cdn.example.net.", 60, RData::AAAA(AAAA("2001:db8::1".parse().unwrap()))),
        ("cdn.example.net.", 1, RData::TXT(TXT::new(vec!["x".into()]))),
        ("other.example.net.", 1, a("192.0.2.3")),
    ]);
    let addresses: Vec<IpAddr> =
        ["192.0.2.1", "192.0.2.2", "2001:db8::1"].iter().map(|text| text.parse().unwrap()).collect();
    assert_eq!(question.read_answer(&bytes).unwrap(), Answer { addresses, ttl: 20 });
}

#[test]
fn aliases_in_a_circle_end() {
    let question = Question::read(&query(false)).unwrap();
    let bytes = answer(&[("www.example.org.", 9, alias("b.org.")), ("b.org.", 9, alias("www.example.org."))]);
    assert_eq!(question.read_answer(&bytes).unwrap(), Answer::default());
}

#[test]
fn an_answer_must_be_to_the_question() {
    let question = Question::read(&query(false)).unwrap();
    let good = answer(&[("www.example.org.", 9, a("192.0.2.1"))]);
    assert_eq!(question.read_answer(&good).unwrap().addresses.len(), 1);
    let mut other_id = good.clone();
    other_id[0] ^= 1;
    let mut other_name = good.clone();
    other_name[13] = b'x';
    let mut other_kind = good.clone();
    other_kind[30] = 28;
    for bytes in [other_id, other_name, other_kind, query(false)] {
        assert!(matches!(question.read_answer(&bytes), Err(Malformed::OtherQuestion)));
    }
    let mut failed = good;
    failed[3] = failed[3] & 0xf0 | 3;
    assert_eq!(question.read_answer(&failed).unwrap(), Answer::default());
    // A server that does not even repeat the question.
    let bare = [0x12, 0x34, 0x81, 0x82, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(question.read_answer(&bare).unwrap(), Answer::default());
}

#[test]
fn what_is_not_a_query_for_one_name_is_refused() {
    let with = |at: usize, value: u8| {
        let mut bytes = query(false);
        bytes[at] = value;
        bytes
    };
    for bytes in [with(2, 0x81), with(2, 0x29), with(5, 0)] {
        assert!(matches!(Question::read(&bytes), Err(Malformed::NotAQuery)), "{bytes:x?}");
    }
    for length in 0..query(false).len() {
        assert!(Question::read(&query(false)[..length]).is_err(), "{length}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let known = Question::read(&query(true)).unwrap();
        drop(known.read_answer(&bytes));
        if let Ok(question) = Question::read(&bytes) {
            let refusal = question.refuse(&bytes, Rcode::Refused);
            prop_assert_eq!(&refusal[..2], &bytes[..2]);
            prop_assert!(Message::from_vec(&refusal).is_ok());
        }
    }

    #[test]
    fn a_message_with_a_few_wrong_bytes_is_read_without_harm(
        wrong in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        edns: bool,
    ) {
        let mut question = query(edns);
        let mut reply = answer(&[
            ("www.example.org.", 9, alias("b.org.")),
            ("b.org.", 9, a("192.0.2.1")),
        ]);
        for (at, value) in &wrong {
            let place = at.index(question.len());
            question[place] = *value;
            let place = at.index(reply.len());
            reply[place] = *value;
        }
        if let Ok(read) = Question::read(&question) {
            drop(read.read_answer(&reply));
            let refusal = read.refuse(&question, Rcode::Refused);
            prop_assert!(Message::from_vec(&refusal).is_ok(), "{:x?}", refusal);
            let again = Message::from_vec(&refusal).unwrap();
            prop_assert_eq!(again.queries.len(), 1);
            prop_assert!(again.queries[0].name.to_ascii().eq_ignore_ascii_case(&read.name));
        }
    }
}
