//! DNS names, in `toFQDNs` and in rules for questions.

use cilium_api::peer::FqdnSelector;
use cilium_core::NamePattern;

use crate::invalid::{Invalid, Path};
use crate::rules::Name;

/// The names of a list, sorted and without duplicates: of equal ones, the first.
pub(super) fn patterns(path: &Path, list: &[FqdnSelector]) -> Result<Vec<Name>, Invalid> {
    let each = list.iter().enumerate().map(|(index, selector)| {
        let path = path.index(index);
        Ok(Name { pattern: pattern(&path, selector)?, path: path.into() })
    });
    let mut all = each.collect::<Result<Vec<_>, _>>()?;
    all.sort_by(|a, b| a.pattern.cmp(&b.pattern));
    all.dedup_by(|a, b| a.pattern == b.pattern);
    Ok(all)
}

fn pattern(path: &Path, selector: &FqdnSelector) -> Result<NamePattern, Invalid> {
    match (&selector.match_name, &selector.match_pattern) {
        (Some(name), None) => {
            NamePattern::name(name).map_err(|error| path.field("matchName").malformed(error.to_string()))
        }
        (None, Some(pattern)) => NamePattern::pattern(pattern)
            .map_err(|error| path.field("matchPattern").malformed(error.to_string())),
        _ => Err(path.malformed("exactly one of matchName and matchPattern must be given")),
    }
}
