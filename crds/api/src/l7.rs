//! Rules for requests of application protocols.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::peer::FqdnSelector;
use crate::port::SecretRef;
use crate::string_enum::string_enum;

/// Requests that are allowed, of one protocol. Entries of a list are alternatives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("oneOf" = [{"required": ["http"]}, {"required": ["dns"]}, {"required": ["kafka"]}]))]
pub struct L7Rules {
    /// HTTP requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<Vec<HttpRule>>,
    /// DNS questions, by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<Vec<FqdnSelector>>,
    /// Kafka requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kafka: Option<Vec<KafkaRule>>,
}

/// An HTTP request. All parts that are given must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpRule {
    /// Regular expression for the whole path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Regular expression for the whole method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Regular expression for the whole host name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "idn-hostname"))]
    pub host: Option<String>,
    /// Headers that must be there, as a name, or as a name and a value with a colon between.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers: Option<Vec<String>>,
    /// Headers that must have a value, and what is done if they do not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header_matches: Option<Vec<HeaderMatch>>,
}

/// A header that must have a value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeaderMatch {
    /// What is done when the header does not match. Absent means that the request is denied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mismatch: Option<HeaderMismatch>,
    /// Name of the header.
    #[schemars(length(min = 1))]
    pub name: String,
    /// Secret that holds the value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretRef>,
    /// The value itself. Any value will do when there is neither this nor a secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

string_enum! {
    /// What is done with a header that does not match.
    HeaderMismatch {
        /// The request passes, and the mismatch is logged.
        Log = "LOG",
        /// The wanted value is added.
        Add = "ADD",
        /// The header is removed.
        Delete = "DELETE",
        /// The header gets the wanted value.
        Replace = "REPLACE",
    }
}

/// A Kafka request. All parts that are given must match.
///
/// Upstream's schema had these rules up to 1.19; here they go on being enforced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KafkaRule {
    /// Everything that a producer or a consumer asks for. Not together with apiKey.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<KafkaRole>,
    /// Name of the kind of request, for example produce or fetch. Absent means all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_key: Option<String>,
    /// Version of the kind of request, a decimal number. Absent means all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    /// Name that the client gives itself. Absent means all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(rename = "clientID")]
    pub client_id: Option<String>,
    /// Topic that the request is about. Absent means all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub topic: Option<String>,
}

string_enum! {
    /// What a Kafka client does.
    KafkaRole {
        /// Writes to topics.
        Produce = "produce",
        /// Reads from topics.
        Consume = "consume",
    }
}
