//! `icmps`.

use cilium_api::icmp::{IcmpFamily, IcmpField, IcmpRule, IcmpType};

use crate::invalid::{Invalid, Path};
use crate::rules::{ICMP, ICMPV6, Ports};

/// Most messages in one item.
const MAX_FIELDS: usize = 40;

/// Names of types (IANA, ICMP parameters).
const NAMES: [(&str, u8); 14] = [
    ("EchoReply", 0),
    ("DestinationUnreachable", 3),
    ("Redirect", 5),
    ("Echo", 8),
    ("EchoRequest", 8),
    ("RouterAdvertisement", 9),
    ("RouterSelection", 10),
    ("TimeExceeded", 11),
    ("ParameterProblem", 12),
    ("Timestamp", 13),
    ("TimestampReply", 14),
    ("Photuris", 40),
    ("ExtendedEchoRequest", 42),
    ("ExtendedEchoReply", 43),
];

/// Names of types (IANA, ICMPv6 parameters).
const NAMES_V6: [(&str, u8); 27] = [
    ("DestinationUnreachable", 1),
    ("PacketTooBig", 2),
    ("TimeExceeded", 3),
    ("ParameterProblem", 4),
    ("EchoRequest", 128),
    ("EchoReply", 129),
    ("MulticastListenerQuery", 130),
    ("MulticastListenerReport", 131),
    ("MulticastListenerDone", 132),
    ("RouterSolicitation", 133),
    ("RouterAdvertisement", 134),
    ("NeighborSolicitation", 135),
    ("NeighborAdvertisement", 136),
    ("RedirectMessage", 137),
    ("RouterRenumbering", 138),
    ("ICMPNodeInformationQuery", 139),
    ("ICMPNodeInformationResponse", 140),
    ("InverseNeighborDiscoverySolicitation", 141),
    ("InverseNeighborDiscoveryAdvertisement", 142),
    ("HomeAgentAddressDiscoveryRequest", 144),
    ("HomeAgentAddressDiscoveryReply", 145),
    ("MobilePrefixSolicitation", 146),
    ("MobilePrefixAdvertisement", 147),
    ("DuplicateAddressRequestCodeSuffix", 157),
    ("DuplicateAddressConfirmationCodeSuffix", 158),
    ("ExtendedEchoRequest", 160),
    ("ExtendedEchoReply", 161),
];

/// All messages of an item, sorted and without duplicates. An item without messages stands for none.
pub(super) fn reduce(path: &Path, item: &IcmpRule) -> Result<Vec<Ports>, Invalid> {
    let path = path.field("fields");
    let fields = item.fields.as_deref().unwrap_or_default();
    if fields.len() > MAX_FIELDS {
        let reason = format!("{} messages are too many, {MAX_FIELDS} are allowed", fields.len());
        return Err(path.malformed(reason));
    }
    let messages = fields.iter().enumerate().map(|(index, field)| message(&path.index(index), field));
    let mut all = messages.collect::<Result<Vec<_>, _>>()?;
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

/// The type stands where ports have their number. So type 0 (IPv4's echo reply) means what port 0 means: every type of the
/// family. Upstream does the same.
fn message(path: &Path, field: &IcmpField) -> Result<Ports, Invalid> {
    let (protocol, names): (u8, &[(&str, u8)]) = match &field.family {
        None | Some(IcmpFamily::Ipv4) => (ICMP, &NAMES),
        Some(IcmpFamily::Ipv6) => (ICMPV6, &NAMES_V6),
        Some(IcmpFamily::Other(other)) => {
            return Err(path.field("family").malformed(format!("{other:?} is neither IPv4 nor IPv6")));
        }
    };
    let path = path.field("type");
    let number = match &field.type_ {
        IcmpType::Number(number) => u8::try_from(*number)
            .map_err(|_| path.malformed(format!("{number} is not a type, they go from 0 to 255"))),
        IcmpType::Name(name) => {
            let named = names.iter().find(|(known, _)| known == name).map(|(_, number)| *number);
            named.or_else(|| plain_number(name)).ok_or_else(|| {
                path.malformed(format!("{name:?} is no ICMP type of the family, by name or number"))
            })
        }
    }?;
    Ok(Ports { protocol, first: number.into(), last: number.into() })
}

/// Without sign and leading zeros, as the schema has it.
fn plain_number(text: &str) -> Option<u8> {
    text.parse().ok().filter(|number: &u8| number.to_string() == text)
}
