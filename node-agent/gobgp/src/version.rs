//! The versions of the API, and all in which they differ.

use prost::Message;
use prost_types::Any;

use crate::proto::attribute::Attr;
use crate::proto::capability::Cap;
use crate::proto::{Attribute, Capability, IpAddressPrefix, Nlri, nlri};

/// A version of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// `apipb.GobgpApi`.
    V3,
    /// `api.GoBgpService`.
    V4,
}

impl Version {
    /// What stands for the value at place `ordinal` of an enumeration.
    pub(crate) fn number(self, ordinal: i32) -> i32 {
        match self {
            Self::V3 => ordinal,
            Self::V4 => ordinal.saturating_add(1),
        }
    }

    /// The place of the value that `number` stands for; what is unspecified is the first.
    pub(crate) fn ordinal(self, number: i32) -> i32 {
        match self {
            Self::V3 => number,
            Self::V4 => number.saturating_sub(1).max(0),
        }
    }

    /// A path attribute as it goes into a message.
    pub(crate) fn attribute(self, attribute: Attr) -> Vec<u8> {
        if self == Self::V4 {
            return Attribute { attr: Some(attribute) }.encode_to_vec();
        }
        match attribute {
            Attr::Origin(m) => any("OriginAttribute", &m),
            Attr::AsPath(m) => any("AsPathAttribute", &m),
            Attr::NextHop(m) => any("NextHopAttribute", &m),
            Attr::MultiExitDisc(m) => any("MultiExitDiscAttribute", &m),
            Attr::LocalPref(m) => any("LocalPrefAttribute", &m),
            Attr::Communities(m) => any("CommunitiesAttribute", &m),
            Attr::MpReach(m) => any("MpReachNLRIAttribute", &m),
            Attr::LargeCommunities(m) => any("LargeCommunitiesAttribute", &m),
        }
    }

    /// A capability as it goes into a message.
    pub(crate) fn capability(self, capability: Cap) -> Vec<u8> {
        if self == Self::V4 {
            return Capability { cap: Some(capability) }.encode_to_vec();
        }
        match capability {
            Cap::MultiProtocol(m) => any("MultiProtocolCapability", &m),
            Cap::RouteRefresh(m) => any("RouteRefreshCapability", &m),
            Cap::ExtendedNexthop(m) => any("ExtendedNexthopCapability", &m),
            Cap::GracefulRestart(m) => any("GracefulRestartCapability", &m),
            Cap::FourOctetAsn(m) => any("FourOctetASNCapability", &m),
            Cap::LongLivedGracefulRestart(m) => any("LongLivedGracefulRestartCapability", &m),
        }
    }

    /// A prefix as it goes into a message.
    pub(crate) fn prefix(self, prefix: IpAddressPrefix) -> Vec<u8> {
        match self {
            Self::V3 => any("IPAddressPrefix", &prefix),
            Self::V4 => Nlri { nlri: Some(nlri::Nlri::Prefix(prefix)) }.encode_to_vec(),
        }
    }
}

/// `message` with its name in version 3 beside it.
fn any(name: &str, message: &impl Message) -> Vec<u8> {
    let type_url = format!("type.googleapis.com/apipb.{name}");
    Any { type_url, value: message.encode_to_vec() }.encode_to_vec()
}
