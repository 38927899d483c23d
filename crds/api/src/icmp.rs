//! ICMP messages of a rule.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::string_enum::string_enum;

/// ICMP messages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IcmpRule {
    /// Messages as alternatives. Absent or empty means none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    pub fields: Option<Vec<IcmpField>>,
}

/// A kind of ICMP message.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IcmpField {
    /// Address family. Absent means IPv4.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "IPv4"))]
    pub family: Option<IcmpFamily>,
    /// Number or name of the message type.
    #[serde(rename = "type")]
    pub type_: IcmpType,
}

string_enum! {
    /// Address family of ICMP.
    IcmpFamily {
        /// ICMP, RFC 792.
        Ipv4 = "IPv4",
        /// ICMPv6, RFC 4443.
        Ipv6 = "IPv6",
    }
}

/// Type of an ICMP message.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum IcmpType {
    /// Given as a number. The schema does not bound it: valid are 0 to 255.
    Number(i64),
    /// Given as a name of the family, or as a number in quotes.
    Name(String),
}

/// Names and numbers as strings. One name has a blank inside, as in upstream's schema: it is refused without, and 43 or 161 must be used.
const TYPE_PATTERN: &str = concat!(
    "^([0-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5]|EchoReply|DestinationUnreachable|Redirect|Echo|",
    "RouterAdvertisement|RouterSelection|TimeExceeded|ParameterProblem|Timestamp|TimestampReply|Photuris|",
    "ExtendedEchoRequest|ExtendedEcho Reply|PacketTooBig|ParameterProblem|EchoRequest|MulticastListenerQuery|",
    "MulticastListenerReport|MulticastListenerDone|RouterSolicitation|RouterAdvertisement|NeighborSolicitation|",
    "NeighborAdvertisement|RedirectMessage|RouterRenumbering|ICMPNodeInformationQuery|ICMPNodeInformationResponse|",
    "InverseNeighborDiscoverySolicitation|InverseNeighborDiscoveryAdvertisement|HomeAgentAddressDiscoveryRequest|",
    "HomeAgentAddressDiscoveryReply|MobilePrefixSolicitation|MobilePrefixAdvertisement|",
    "DuplicateAddressRequestCodeSuffix|DuplicateAddressConfirmationCodeSuffix)$"
);

impl JsonSchema for IcmpType {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "IcmpType".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": TYPE_PATTERN,
            "x-kubernetes-int-or-string": true
        })
    }
}
