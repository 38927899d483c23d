//! DNS messages (RFC 1035), looked at and never rewritten: what is passed on are the bytes that came.

use std::collections::BTreeSet;
use std::net::IpAddr;

use cilium_core::name::absolute;
use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::{Name, RData, Record};

/// Bytes of a header.
const HEADER: usize = 12;
/// Shortest question: the root, type and class.
const SHORTEST_QUESTION: usize = 5;
/// What we can take in one datagram, told where a refused question has EDNS.
const PAYLOAD: u16 = 1232;
/// The OPT record (RFC 6891).
const OPT: u16 = 41;

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Number that the client gave it.
    pub id: u16,
    /// The name, lower case, with a dot at the end.
    pub name: String,
    /// Type of record, as a number.
    pub kind: u16,
    /// Bytes of header and question in the message.
    length: usize,
    /// Whether it has EDNS, and then whether it asks for DNSSEC records.
    edns: Option<bool>,
}

/// What an answer says about addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Addresses of the name that was asked for, behind aliases as well; sorted, each once.
    pub addresses: Vec<IpAddr>,
    /// Seconds for which all of that holds: the least of the records that lead to the addresses. 0 without addresses.
    pub ttl: u32,
}

/// Why a client gets nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rcode {
    /// The server could not do it.
    ServerFailure,
    /// There is no such name.
    NameError,
    /// It is not allowed.
    Refused,
}

/// Bytes that are no message, or not the one that is expected.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    /// It cannot be read.
    #[error("it is no DNS message: {0}")]
    Unreadable(String),
    /// It is an answer, or something else than a question about one name.
    #[error("it is not a query for one name")]
    NotAQuery,
    /// It is about something else.
    #[error("it does not answer the question")]
    OtherQuestion,
}

impl Question {
    /// Reads a query.
    ///
    /// # Errors
    /// The bytes are no message, or not a query for exactly one name.
    pub fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let message = read(bytes)?;
        let is_query =
            message.metadata.message_type == MessageType::Query && message.metadata.op_code == OpCode::Query;
        let [query] = message.queries.as_slice() else { return Err(Malformed::NotAQuery) };
        if !is_query {
            return Err(Malformed::NotAQuery);
        }
        Ok(Self {
            id: message.metadata.id,
            name: text(&query.name),
            kind: query.query_type.into(),
            length: question_end(bytes).ok_or(Malformed::NotAQuery)?,
            edns: message.edns.as_ref().map(|edns| edns.flags().dnssec_ok),
        })
    }

    /// A refusal of this question, which was read from `query`: the same id and the question letter by letter.
    ///
    /// With EDNS in the query, the refusal has it too (RFC 6891 section 6.1.1).
    pub fn refuse(&self, query: &[u8], rcode: Rcode) -> Vec<u8> {
        let mut bytes: Vec<u8> = query.iter().copied().take(self.length).collect();
        bytes.resize(self.length, 0);
        // A response, the same opcode (0) and "recursion desired"; recursion is available.
        bytes[2] = 0x80 | (bytes[2] & 0x01);
        bytes[3] = 0x80 | rcode.number();
        bytes[4..HEADER].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, u8::from(self.edns.is_some())]);
        if let Some(dnssec) = self.edns {
            bytes.push(0);
            bytes.extend(OPT.to_be_bytes());
            bytes.extend(PAYLOAD.to_be_bytes());
            bytes.extend([0, 0, if dnssec { 0x80 } else { 0 }, 0, 0, 0]);
        }
        bytes
    }

    /// Reads what a server says about this question.
    ///
    /// # Errors
    /// The bytes are no message, or answer something else.
    pub fn read_answer(&self, bytes: &[u8]) -> Result<Answer, Malformed> {
        let message = read(bytes)?;
        let is_mine = message.metadata.message_type == MessageType::Response
            && message.metadata.id == self.id
            && self.is_asked_in(&message);
        if !is_mine {
            return Err(Malformed::OtherQuestion);
        }
        if message.metadata.response_code != ResponseCode::NoError {
            return Ok(Answer::default());
        }
        Ok(addresses(&self.name, &message.answers))
    }

    /// Servers may leave the question out of an error.
    fn is_asked_in(&self, message: &Message) -> bool {
        match message.queries.as_slice() {
            [] => message.metadata.response_code != ResponseCode::NoError,
            [query] => text(&query.name) == self.name && u16::from(query.query_type) == self.kind,
            _ => false,
        }
    }
}

impl Rcode {
    /// As it is on the wire.
    const fn number(self) -> u8 {
        match self {
            Self::ServerFailure => 2,
            Self::NameError => 3,
            Self::Refused => 5,
        }
    }
}

fn read(bytes: &[u8]) -> Result<Message, Malformed> {
    Message::from_vec(bytes).map_err(|error| Malformed::Unreadable(error.to_string()))
}

/// As policies write it. What is no letter, digit, `-` or `_` is escaped, so no pattern catches it by mistake.
fn text(name: &Name) -> String {
    absolute(&name.to_ascii())
}

/// Where the first question ends. A question that the reader took has no pointers: there is nothing before it.
fn question_end(bytes: &[u8]) -> Option<usize> {
    let mut at = HEADER;
    loop {
        let length = usize::from(*bytes.get(at)?);
        at += 1 + length;
        match length {
            0 => break,
            64.. => return None,
            _ => {}
        }
    }
    let end = at - 1 + SHORTEST_QUESTION;
    (end <= bytes.len()).then_some(end)
}

/// Addresses of a name, and of what it is an alias of. Other records in the answer are nobody's business.
fn addresses(name: &str, records: &[Record]) -> Answer {
    let mut names = BTreeSet::from([name.to_owned()]);
    let mut ttl = u32::MAX;
    // One pass for each alias at most: each adds a name.
    loop {
        let before = names.len();
        for record in records {
            if let RData::CNAME(target) = &record.data
                && names.contains(&text(&record.name))
            {
                ttl = ttl.min(record.ttl);
                names.insert(text(&target.0));
            }
        }
        if names.len() == before {
            break;
        }
    }
    let mut found = BTreeSet::new();
    for record in records.iter().filter(|record| names.contains(&text(&record.name))) {
        let address = match &record.data {
            RData::A(address) => IpAddr::V4(address.0),
            RData::AAAA(address) => IpAddr::V6(address.0),
            _ => continue,
        };
        ttl = ttl.min(record.ttl);
        found.insert(address);
    }
    let ttl = if found.is_empty() { 0 } else { ttl };
    Answer { addresses: found.into_iter().collect(), ttl }
}
