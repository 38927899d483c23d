//! What is said of Services and pools, in the words of their status.

use cilium_api::condition::{Condition, VALID};

use crate::failure::Failure;
use crate::pools::{Known, Overlap};

/// Type of the condition of a Service.
pub const SATISFIED: &str = "cilium.io/IPAMRequestSatisfied";

/// Types of conditions of a pool.
const CONFLICT: &str = "cilium.io/PoolConflict";
const TOTAL: &str = "cilium.io/IPsTotal";
const AVAILABLE: &str = "cilium.io/IPsAvailable";
const USED: &str = "cilium.io/IPsUsed";
/// Numbers of addresses that another range has, too.
const CONFLICTING: &str = "cilium.io/IPsConflicting";
/// On the older of two pools.
const OVERLAPPED: &str = "cilium.io/PoolOverlapped";

/// Types of conditions that a pool has only while there is something to say.
pub const POOL_OPTIONAL: [&str; 2] = [OVERLAPPED, VALID];

/// Of a Service.
pub(crate) fn satisfied(failure: Option<&Failure>) -> Condition {
    match failure {
        None => Condition::new(SATISFIED, "True", "satisfied", String::new()),
        Some(failure) => Condition::new(SATISFIED, "False", failure.reason(), failure.message()),
    }
}

/// Why a pool gives no addresses.
pub(crate) fn conflict(Overlap { own, other, pool }: &Overlap) -> String {
    format!("Pool conflicts since range '{own}' overlaps range '{other}' from IP Pool '{pool}'")
}

/// What a pool does to a newer one.
pub(crate) fn overlapped(Overlap { own, other, pool }: &Overlap) -> String {
    format!(
        "range '{other}' of the newer IP Pool '{pool}' overlaps range '{own}'; this pool goes on, the newer one gives no addresses"
    )
}

/// Of a pool, in a fixed order.
pub(crate) fn of_pool(known: &Known) -> Vec<Condition> {
    let number = |type_, number: u128| Condition::new(type_, "Unknown", "noreason", number.to_string());
    let conflict = match &known.conflict {
        None => Condition::new(CONFLICT, "False", "resolved", String::new()),
        Some(overlap) => Condition::new(CONFLICT, "True", "cidr_overlap", self::conflict(overlap)),
    };
    let mut conditions = vec![
        conflict,
        number(TOTAL, known.total()),
        number(AVAILABLE, known.available()),
        number(USED, known.used),
        number(CONFLICTING, known.shared),
    ];
    if let Some(overlap) = &known.overlapped {
        conditions.push(Condition::new(OVERLAPPED, "True", "newer_pool", overlapped(overlap)));
    }
    if let Some(invalid) = &known.pool.invalid {
        let rest =
            if known.pool.is_readable() { "the rest of the pool is in use" } else { "it gives no addresses" };
        let message = format!("{invalid}; {rest}");
        conditions.push(Condition::new(VALID, "False", "Malformed", message));
    }
    conditions
}
