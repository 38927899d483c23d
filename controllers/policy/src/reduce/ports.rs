//! `toPorts`.

use cilium_api::l7::L7Rules;
use cilium_api::port::{PortDenyRule, PortProtocol, PortRule, Protocol};

use super::names;
use crate::invalid::{Invalid, Path};
use crate::rules::{Name, PortName, Ports, SCTP, TCP, UDP};

/// Most ports in one item.
const MAX_PORTS: usize = 40;
/// Longest name of a port (RFC 6335 section 5.1).
const MAX_NAME: usize = 15;

/// An item of `toPorts`.
pub(super) trait Item {
    /// Its ports.
    fn ports(&self) -> Option<&[PortProtocol]>;
    /// What is asked for above ports: names that DNS questions may be about. Everything else is refused.
    fn questions(&self, path: &Path) -> Result<Questions, Invalid>;
}

/// Names that DNS questions may be about; `None`: the traffic is not looked into.
type Questions = Option<Vec<Name>>;

/// Ports, with what is asked for above them.
pub(super) struct Asked {
    pub(super) questions: Questions,
    pub(super) found: Found,
}

impl Item for PortRule {
    fn ports(&self) -> Option<&[PortProtocol]> {
        self.ports.as_deref()
    }
    fn questions(&self, path: &Path) -> Result<Questions, Invalid> {
        refuse_beyond_dns(path, self)?;
        let rules = self.rules.as_ref().and_then(|rules| rules.dns.as_deref());
        // As for HTTP, an empty list is no rule at all.
        let Some(rules) = rules.filter(|rules| !rules.is_empty()) else { return Ok(None) };
        names::patterns(&path.field("rules.dns"), rules).map(Some)
    }
}

impl Item for PortDenyRule {
    fn ports(&self) -> Option<&[PortProtocol]> {
        self.ports.as_deref()
    }
    fn questions(&self, _: &Path) -> Result<Questions, Invalid> {
        Ok(None)
    }
}

/// Ports by number and by name, sorted and without duplicates.
#[derive(Default)]
pub(super) struct Found {
    pub(super) ports: Vec<Ports>,
    pub(super) named: Vec<PortName>,
}

impl Found {
    /// All protocols and ports.
    pub(super) fn everything() -> Self {
        Self { ports: vec![Ports::ANY], named: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ports.is_empty() && self.named.is_empty()
    }

    /// The same, in order.
    pub(super) fn sorted(mut self) -> Self {
        self.ports.sort_unstable();
        self.ports.dedup();
        self.named.sort_unstable();
        self.named.dedup();
        self
    }
}

/// All ports of an item, and what is asked for above them. An item without ports stands for no port.
pub(super) fn reduce(path: &Path, item: &impl Item) -> Result<Asked, Invalid> {
    let questions = item.questions(path)?;
    let mut found = all_ports(path, item)?;
    if questions.is_some() {
        check_dns_ports(path, &found)?;
        // Questions come by these two; ANY is SCTP, too.
        found.ports.retain(|ports| [TCP, UDP].contains(&ports.protocol));
    }
    Ok(Asked { questions, found })
}

fn all_ports(path: &Path, item: &impl Item) -> Result<Found, Invalid> {
    let ports = item.ports().unwrap_or_default();
    let path = path.field("ports");
    if ports.len() > MAX_PORTS {
        return Err(path.malformed(format!("{} ports are too many, {MAX_PORTS} are allowed", ports.len())));
    }
    let mut found = Found::default();
    for (index, port) in ports.iter().enumerate() {
        add_port(&mut found, &path.index(index), port)?;
    }
    Ok(found.sorted())
}

fn check_dns_ports(path: &Path, found: &Found) -> Result<(), Invalid> {
    let Found { ports, named } = found;
    if !named.is_empty() {
        return Err(path.field("ports").unsupported("a rule for DNS questions on a port by name"));
    }
    if ports.is_empty() {
        return Err(path.field("ports").malformed("a rule for DNS questions needs a port"));
    }
    match ports.iter().find(|ports| ports.first == 0 || ports.first != ports.last) {
        Some(_) => {
            Err(path.field("ports").malformed("a rule for DNS questions needs single ports, and not port 0"))
        }
        None => Ok(()),
    }
}

/// What is decided above ports. Leaving it out would allow more than the policy does.
fn refuse_beyond_dns(path: &Path, item: &PortRule) -> Result<(), Invalid> {
    let given = [
        ("terminatingTLS", "the ending of TLS", item.terminating_tls.is_some()),
        ("originatingTLS", "the beginning of TLS", item.originating_tls.is_some()),
        ("serverNames", "a rule for TLS server names", item.server_names.is_some()),
        ("listener", "a redirect to a listener", item.listener.is_some()),
    ];
    if let Some((field, what, _)) = given.into_iter().find(|(_, _, given)| *given) {
        return Err(path.field(field).unsupported(what));
    }
    item.rules.as_ref().map_or(Ok(()), |rules| refuse_l7(&path.field("rules"), rules))
}

/// An empty `http` is no rule at all.
fn refuse_l7(path: &Path, rules: &L7Rules) -> Result<(), Invalid> {
    let given = [
        ("http", "a rule for HTTP requests", rules.http.as_ref().is_some_and(|list| !list.is_empty())),
        ("kafka", "a rule for Kafka requests", rules.kafka.is_some()),
    ];
    match given.into_iter().find(|(_, _, given)| *given) {
        Some((field, what, _)) => Err(path.field(field).unsupported(what)),
        None => Ok(()),
    }
}

fn add_port(found: &mut Found, path: &Path, port: &PortProtocol) -> Result<(), Invalid> {
    let protocols = protocols(&path.field("protocol"), port.protocol.as_ref())?.iter().copied();
    let text = port.port.as_deref().unwrap_or_default();
    if !is_service_name(text) {
        let (first, last) = range(path, port)?;
        found.ports.extend(protocols.map(|protocol| Ports { protocol, first, last }));
    } else if port.end_port.unwrap_or_default() != 0 {
        return Err(path
            .field("endPort")
            .malformed(format!("a range cannot begin at a port by name ({text:?})")));
    } else {
        let name = |protocol| PortName { protocol, name: text.to_ascii_lowercase().into() };
        found.named.extend(protocols.map(name));
    }
    Ok(())
}

/// ANY is every protocol with ports; it is not ICMP, for example.
fn protocols(path: &Path, protocol: Option<&Protocol>) -> Result<&'static [u8], Invalid> {
    match protocol {
        None | Some(Protocol::Any) => Ok(&[TCP, UDP, SCTP]),
        Some(Protocol::Tcp) => Ok(&[TCP]),
        Some(Protocol::Udp) => Ok(&[UDP]),
        Some(Protocol::Sctp) => Ok(&[SCTP]),
        Some(Protocol::Other(other)) => {
            Err(path.malformed(format!("{other:?} is not a protocol with ports")))
        }
        Some(other) => Err(path.unsupported(format!("a rule for protocol {other}"))),
    }
}

/// First and last port; zeros for any port.
fn range(path: &Path, port: &PortProtocol) -> Result<(u16, u16), Invalid> {
    let first = number(&path.field("port"), port.port.as_deref().unwrap_or_default())?;
    let end = port.end_port.unwrap_or_default();
    let end = u16::try_from(end).map_err(|_| {
        path.field("endPort").malformed(format!("{end} is not a port, they go from 0 to 65535"))
    })?;
    // Port 0 is any port, an end that is not behind it is none.
    Ok((first, if first == 0 { 0 } else { end.max(first) }))
}

fn number(path: &Path, text: &str) -> Result<u16, Invalid> {
    if text.is_empty() {
        return Err(path.malformed("port must be specified"));
    }
    // Written with a leading zero, a number could be read as octal: it is refused rather than guessed.
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    let number = if plain { text.parse().ok() } else { None };
    number.ok_or_else(|| {
        path.malformed(format!("{text:?} is neither a port number from 0 to 65535 nor a port name"))
    })
}

/// Syntax of service names (RFC 6335 section 5.1). Upper case is accepted, as names of ports are compared without case.
fn is_service_name(text: &str) -> bool {
    let characters = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let hyphens = !text.starts_with('-') && !text.ends_with('-') && !text.contains("--");
    text.len() <= MAX_NAME && characters && hyphens && text.bytes().any(|b| b.is_ascii_alphabetic())
}
