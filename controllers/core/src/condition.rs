//! How conditions of a status change (Kubernetes API conventions, "typical status properties").

use cilium_api::condition::Condition;

/// Puts a condition into a list, in the place of the one with its type, or at the end.
///
/// `lastTransitionTime` becomes `now` (seconds since 1970) when the condition is new or its `status` changes, and stays
/// otherwise; the one given in `new` does not count. Returns whether anything changed.
pub fn set(conditions: &mut Vec<Condition>, new: Condition, now: i64) -> bool {
    let Some(old) = conditions.iter_mut().find(|old| old.type_ == new.type_) else {
        conditions.push(Condition { last_transition_time: Some(rfc3339(now)), ..new });
        return true;
    };
    let kept = old.last_transition_time.clone().filter(|_| old.status == new.status);
    let new = Condition { last_transition_time: kept.or_else(|| Some(rfc3339(now))), ..new };
    let changed = *old != new;
    *old = new;
    changed
}

/// RFC 3339 text, in UTC, of seconds since 1970. Times that no calendar holds become the nearest one that it does.
pub fn rfc3339(seconds: i64) -> String {
    let nearest = if seconds < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
    jiff::Timestamp::from_second(seconds).unwrap_or(nearest).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn valid(status: &str, message: &str) -> Condition {
        Condition {
            type_: "Valid".into(),
            status: status.into(),
            message: Some(message.into()),
            ..Condition::default()
        }
    }

    #[test]
    fn time_moves_only_with_the_status() {
        let mut list = vec![Condition { type_: "Other".into(), ..Condition::default() }];
        assert!(set(&mut list, valid("True", "a"), 0));
        assert_eq!(list[1].last_transition_time.as_deref(), Some("1970-01-01T00:00:00Z"));
        assert!(!set(&mut list, valid("True", "a"), 60), "nothing changed");
        assert!(set(&mut list, valid("True", "b"), 60));
        assert_eq!(list[1].last_transition_time.as_deref(), Some("1970-01-01T00:00:00Z"));
        assert!(set(&mut list, valid("False", "b"), 120));
        assert_eq!(list[1].last_transition_time.as_deref(), Some("1970-01-01T00:02:00Z"));
        assert_eq!(list.len(), 2);
    }

    #[test]
    fn a_missing_time_is_filled() {
        let mut list = vec![valid("True", "a")];
        assert!(set(&mut list, valid("True", "a"), 1_700_000_000));
        assert_eq!(list[0].last_transition_time.as_deref(), Some("2023-11-14T22:13:20Z"));
    }

    #[test]
    fn impossible_times_are_bounded() {
        assert!(rfc3339(i64::MAX).starts_with("9999-12-"));
    }
}
