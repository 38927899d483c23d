use std::path::PathBuf;

use serde::Deserialize;

use crate::arguments::Command;
use crate::failure::Failure;

/// A version of the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    V0_3_0,
    V0_3_1,
    V0_4_0,
    V1_0_0,
    V1_1_0,
}

impl Version {
    pub(crate) const ALL: [Self; 5] = [Self::V0_3_0, Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];
    pub(crate) const NEWEST: Self = Self::V1_1_0;

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.as_str() == text)
    }
}

/// The network configuration, as far as it is used. What else the runtime puts there is ignored.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) version: Version,
    /// The result of ADD, for CHECK.
    pub(crate) previous: Option<Previous>,
    /// Attachments that still exist, for GC.
    pub(crate) attachments: Option<Vec<Attachment>>,
    /// Where calls are logged, if anywhere.
    pub(crate) log_file: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Raw {
    #[serde(rename = "cniVersion", default)]
    version: String,
    #[serde(default)]
    name: String,
    #[serde(rename = "prevResult")]
    previous: Option<serde_json::Value>,
    #[serde(rename = "cni.dev/valid-attachments")]
    attachments: Option<Vec<Attachment>>,
    #[serde(rename = "log-file")]
    log_file: Option<PathBuf>,
}

/// What CHECK needs of a result.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Previous {
    #[serde(default)]
    pub(crate) interfaces: Vec<PreviousInterface>,
    #[serde(default)]
    pub(crate) ips: Vec<PreviousAddress>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct PreviousInterface {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) mac: String,
    #[serde(default)]
    pub(crate) sandbox: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct PreviousAddress {
    pub(crate) address: ipnet::IpNet,
}

/// An attachment that still exists.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Attachment {
    #[serde(rename = "containerID")]
    pub(crate) container: String,
    #[serde(rename = "ifname")]
    pub(crate) device: String,
}

impl Config {
    pub(crate) fn parse(input: &[u8]) -> Result<Self, Failure> {
        let unreadable = |error: serde_json::Error| {
            Failure::new(Failure::DECODE, "the network configuration cannot be read", error.to_string())
        };
        // As an object first: a struct would be read from a list, too.
        let fields: serde_json::Map<_, _> = serde_json::from_slice(input).map_err(unreadable)?;
        let raw: Raw = serde_json::from_value(fields.into()).map_err(unreadable)?;
        let version = Version::parse(&raw.version).ok_or_else(|| {
            let known = Version::ALL.map(Version::as_str).join(", ");
            let details = format!("cniVersion is {:?}, supported are {known}", raw.version);
            Failure::new(Failure::VERSION, "the version of the configuration is not supported", details)
        })?;
        let refused = |details: String| {
            Failure::new(Failure::CONFIG, "the network configuration is not valid", details)
        };
        if raw.name.is_empty() {
            return Err(refused("name is missing".into()));
        }
        let previous = raw.previous.map(serde_json::from_value).transpose();
        let previous = previous.map_err(|error| refused(format!("prevResult: {error}")))?;
        let log_file = raw.log_file.filter(|path| !path.as_os_str().is_empty());
        Ok(Self { version, previous, attachments: raw.attachments, log_file })
    }

    /// Some commands came with later versions of the specification.
    pub(crate) fn check_command(&self, command: Command) -> Result<(), Failure> {
        let since = match command {
            Command::Check => Version::V0_4_0,
            Command::Gc | Command::Status => Version::V1_1_0,
            Command::Add | Command::Del | Command::Version => Version::V0_3_0,
        };
        if self.version >= since {
            return Ok(());
        }
        let details =
            format!("cniVersion is {}, the command needs {}", self.version.as_str(), since.as_str());
        Err(Failure::new(Failure::VERSION, "the version of the configuration has no such command", details))
    }
}

/// The version that a configuration names, if it can be read that far.
pub(crate) fn version_of(input: &[u8]) -> Option<Version> {
    let value: serde_json::Value = serde_json::from_slice(input).ok()?;
    Version::parse(value.get("cniVersion")?.as_str()?)
}
