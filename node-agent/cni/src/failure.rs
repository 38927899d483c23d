use serde::Serialize;

use crate::config::Version;

/// An error as the specification wants it on standard output.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: u32,
    pub(crate) message: String,
    pub(crate) details: String,
}

/// Codes 1–99 are the specification's, from 100 on ours.
impl Failure {
    pub(crate) const VERSION: u32 = 1;
    pub(crate) const VARIABLE: u32 = 4;
    pub(crate) const IO: u32 = 5;
    pub(crate) const DECODE: u32 = 6;
    pub(crate) const CONFIG: u32 = 7;
    pub(crate) const TRY_LATER: u32 = 11;
    pub(crate) const NOT_AVAILABLE: u32 = 50;
    /// The pod's device could not be made.
    pub(crate) const LINK: u32 = 100;
    /// The agent refused the endpoint.
    pub(crate) const ENDPOINT: u32 = 101;
    /// What CHECK found is not what ADD made.
    pub(crate) const CHANGED: u32 = 102;

    pub(crate) fn new(code: u32, message: impl Into<String>, details: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: details.into() }
    }

    pub(crate) fn variable(name: &str, details: impl Into<String>) -> Self {
        Self::new(Self::VARIABLE, format!("environment variable {name} is not valid"), details)
    }

    pub(crate) fn io(what: &str, error: &dyn std::error::Error) -> Self {
        Self::new(Self::IO, what, chain(error))
    }

    pub(crate) fn link(what: &str, error: &dyn std::error::Error) -> Self {
        Self::new(Self::LINK, what, chain(error))
    }

    /// An answer of the agent that is not a success: to be tried again when it was not there or waits for something.
    pub(crate) fn agent(what: &str, error: &cilium_rest::Error) -> Self {
        let later = error.is_unreachable() || error.status() == Some(503);
        Self::new(if later { Self::TRY_LATER } else { Self::ENDPOINT }, what, error.chain())
    }

    pub(crate) fn to_json(&self, version: Option<Version>) -> String {
        let body = Body {
            cni_version: version.unwrap_or(Version::NEWEST).as_str(),
            code: self.code,
            msg: &self.message,
            details: &self.details,
        };
        serde_json::to_string(&body).unwrap_or_else(|_| String::from(r#"{"code":999,"msg":"cannot print"}"#))
    }
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(rename = "cniVersion")]
    cni_version: &'static str,
    code: u32,
    msg: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    details: &'a str,
}

pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
