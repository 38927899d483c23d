//! What is asked of every router.

use std::net::IpAddr;

use anyhow::{Context as _, Result, anyhow};
use ipnet::IpNet;
use serde_json::Value;

use crate::lab::Lab;
use crate::session::Session;

/// A route of the node, as the router has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) next_hops: Vec<IpAddr>,
    pub(crate) as_path: Vec<u32>,
    /// Sorted.
    pub(crate) communities: Vec<u32>,
    pub(crate) large_communities: Vec<(u32, u32, u32)>,
    /// `None` also where the router does not say it.
    pub(crate) local_preference: Option<u32>,
}

/// A router of another make.
pub(crate) trait Router: Sized {
    /// Starts it with its end of the session, and with a prefix of each family.
    fn start(lab: &Lab, session: &Session) -> Result<Self>;

    /// What it has of the node.
    fn route(&mut self, prefix: IpNet) -> Result<Option<Seen>>;

    /// Asks the node for its routes again, without ending the session.
    fn ask_again(&mut self) -> Result<()>;

    /// Ends it as a crash would.
    fn crash(&mut self) -> Result<()>;

    /// Starts it after a crash. It says that it restarts.
    fn come_back(&mut self) -> Result<()>;

    /// UPDATEs that came.
    fn updates(&mut self) -> Result<u64>;
}

/// A number of a document.
pub(crate) fn number(value: &Value) -> Result<u32> {
    let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
    number.with_context(|| format!("no number: {value}"))
}

/// A list of a document; empty where there is none.
pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// `65001:7`, or a name that all know.
pub(crate) fn community(text: &str) -> Result<u32> {
    match text {
        "no-export" | "noExport" => return Ok(0xffff_ff01),
        "no-advertise" | "noAdvertise" => return Ok(0xffff_ff02),
        _ => {}
    }
    match numbers(text, ':')?[..] {
        [high, low] => Ok(high << 16 | low),
        _ => Err(anyhow!("no community: {text}")),
    }
}

/// `65001:1:2`.
pub(crate) fn large_community(text: &str) -> Result<(u32, u32, u32)> {
    match numbers(text, ':')?[..] {
        [one, two, three] => Ok((one, two, three)),
        _ => Err(anyhow!("no large community: {text}")),
    }
}

/// Numbers with something between them.
pub(crate) fn numbers(text: &str, between: char) -> Result<Vec<u32>> {
    let parts = text.split(between).map(str::trim).filter(|part| !part.is_empty());
    parts.map(|part| part.parse().with_context(|| format!("no number: {part:?} in {text:?}"))).collect()
}
