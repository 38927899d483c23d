//! How clients from outside come to backends: what the settings say of it, and what the status tells.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use cilium_api::parts::Algorithm;
use cilium_dataplane::maglev::{Maglev, SIZES};
use cilium_dataplane::{Balancing, Mode};

/// The seed when nobody gives one (upstream's).
const SEED: &str = "JLfvgnHc2kaSUFaI";

/// What seeds make differ from one cluster to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seeds {
    /// Which entries of a table are a backend's.
    pub(crate) tables: u32,
    /// Which entry is a connection's.
    pub(crate) connections: u64,
}

/// From 12 bytes in base64: four for tables, eight for connections, each a number in network order.
pub(crate) fn parse_seed(text: Option<&str>) -> Option<Seeds> {
    let bytes: [u8; 12] = BASE64_STANDARD.decode(text.unwrap_or(SEED)).ok()?.try_into().ok()?;
    let (tables, connections) = bytes.split_first_chunk()?;
    Some(Seeds {
        tables: u32::from_be_bytes(*tables),
        connections: u64::from_be_bytes(connections.try_into().ok()?),
    })
}

/// Size of the tables; `None` for one that is no such prime.
pub(crate) fn parse_size(text: Option<&str>) -> Option<u32> {
    let Some(text) = text else { return Some(Maglev::default().size) };
    text.parse().ok().filter(|size| SIZES.contains(size))
}

/// How backends on other nodes see clients, in the words of the status.
pub(crate) fn describe_mode(balancing: Balancing) -> &'static str {
    match (balancing.mode, balancing.mode_by_annotation) {
        (Mode::Snat, false) => "SNAT",
        (Mode::Snat, true) => "SNAT, or DSR by annotation",
        (Mode::Dsr, false) => "DSR",
        (Mode::Dsr, true) => "DSR, or SNAT by annotation",
        (Mode::Hybrid, false) => "Hybrid",
        (Mode::Hybrid, true) => "Hybrid, or SNAT or DSR by annotation",
    }
}

/// How a backend is chosen, in the words of the status.
pub(crate) fn describe(balancing: Balancing) -> String {
    let size = balancing.maglev.size;
    match (balancing.algorithm, balancing.by_annotation) {
        (Algorithm::Random, false) => "Random".to_owned(),
        (Algorithm::Random, true) => format!("Random, or Maglev by annotation (Table Size: {size})"),
        (Algorithm::Maglev, false) => format!("Maglev (Table Size: {size})"),
        (Algorithm::Maglev, true) => format!("Maglev, or Random by annotation (Table Size: {size})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_twelve_bytes() {
        let seeds = parse_seed(None).expect("the default can be read");
        // echo JLfvgnHc2kaSUFaI | base64 -d | xxd
        assert_eq!(seeds, Seeds { tables: 0x24b7_ef82, connections: 0x71dc_da46_9250_5688 });
        assert_eq!(parse_seed(Some("AAAAAAAAAAAAAAAB")).map(|it| (it.tables, it.connections)), Some((0, 1)));
        for text in ["", "AAAA", "AAAAAAAAAAAAAAA=", "AAAAAAAAAAAAAAAAAAAA"] {
            assert_eq!(parse_seed(Some(text)), None, "{text}");
        }
    }

    #[test]
    fn a_size_is_one_of_the_primes() {
        assert_eq!(parse_size(None), Some(16_381));
        assert_eq!(parse_size(Some("251")), Some(251));
        assert_eq!(parse_size(Some("131071")), Some(131_071));
        for text in ["0", "250", "257", "many"] {
            assert_eq!(parse_size(Some(text)), None, "{text}");
        }
    }
}
