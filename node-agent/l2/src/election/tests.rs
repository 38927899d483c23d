use k8s_openapi::jiff::Timestamp;

use super::*;

const SECOND: u64 = 1_000_000_000;
const NAME: &str = "cilium-l2announce-default-web";

fn mk_timings() -> Timings {
    Timings::clamped(Duration::from_secs(15), Duration::from_secs(5), Duration::from_secs(2))
}

fn mk_election() -> Election {
    Election::new(NAME, "n1", mk_timings())
}

fn wall(second: i64) -> MicroTime {
    MicroTime(Timestamp::from_second(second).expect("is a time"))
}

fn mk_spec(holder: &str, seconds: i32, acquired: i64, renewed: i64, transitions: i32) -> LeaseSpec {
    LeaseSpec {
        holder_identity: Some(holder.to_owned()),
        lease_duration_seconds: Some(seconds),
        acquire_time: Some(wall(acquired)),
        renew_time: Some(wall(renewed)),
        lease_transitions: Some(transitions),
        ..LeaseSpec::default()
    }
}

fn mk_lease(version: &str, spec: LeaseSpec) -> Lease {
    let metadata = ObjectMeta {
        name: Some(NAME.to_owned()),
        resource_version: Some(version.to_owned()),
        ..ObjectMeta::default()
    };
    Lease { metadata, spec: Some(spec) }
}

fn version(lease: &Lease) -> Option<&str> {
    lease.metadata.resource_version.as_deref()
}

/// This node holds the Lease by a write that began at `began`.
fn mk_held(began: u64) -> Election {
    let mut it = mk_election();
    it.observe(None, began);
    it.written(mk_lease("1", mk_spec("n1", 15, 100, 100, 0)), began, began);
    it
}

#[test]
fn timings_give_way_one_after_the_other() {
    let clamped = |duration, renew, retry| {
        let of = Duration::from_millis;
        let it = Timings::clamped(of(duration), of(renew), of(retry));
        [it.lease_duration, it.renew_deadline, it.retry_period].map(|it| it.as_millis())
    };
    assert_eq!(clamped(15_000, 5000, 2000), [15_000, 5000, 2000]);
    assert_eq!(clamped(999, 500, 100), [1000, 500, 100]);
    assert_eq!(clamped(15_000, 0, 0), [15_000, 1000, 200]);
    assert_eq!(clamped(5000, 5000, 2000), [5000, 2500, 2000], "2000 * 1.2 is less than 2500");
    assert_eq!(clamped(15_000, 2400, 2000), [15_000, 2400, 1200]);
    assert_eq!(clamped(15_000, 2401, 2000), [15_000, 2401, 2000]);
    assert_eq!(clamped(0, 0, 0), [1000, 500, 200], "one after the other");
}

#[test]
fn names_are_upstreams() {
    assert_eq!(lease_name("default/web"), "cilium-l2announce-default-web");
}

#[test]
fn a_lease_that_is_absent_is_created() {
    let mut it = mk_election();
    assert_eq!((it.reads_at(), it.claim(SECOND, &wall(100))), (0, None), "it has to be read first");
    it.observe(None, SECOND);
    assert!(it.writes_at() < SECOND + SECOND / 2, "within a quarter of the retry period");
    let claim = it.claim(2 * SECOND, &wall(100)).expect("is wanted");
    assert_eq!(claim.metadata, ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() });
    assert_eq!(claim.spec, Some(mk_spec("n1", 15, 100, 100, 0)));
    assert_eq!(it.held_until(), None, "not before the API server has it");
    it.written(mk_lease("1", mk_spec("n1", 15, 100, 100, 0)), 2 * SECOND, 3 * SECOND);
    assert_eq!(
        (it.held_until(), it.holder()),
        (Some(7 * SECOND), Some("n1")),
        "from the start of the write on"
    );
    assert_eq!((it.writes_at(), it.reads_at()), (4 * SECOND, NEVER));
}

#[test]
fn it_is_renewed_in_the_version_that_is_known() {
    let mut it = mk_held(10 * SECOND);
    assert_eq!(it.claim(11 * SECOND, &wall(101)), None);
    let claim = it.claim(12 * SECOND, &wall(102)).expect("is due");
    assert_eq!((version(&claim), claim.spec.clone()), (Some("1"), Some(mk_spec("n1", 15, 100, 102, 0))));
    it.written(mk_lease("2", mk_spec("n1", 15, 100, 102, 0)), 12 * SECOND, 12 * SECOND);
    assert_eq!(version(&it.claim(14 * SECOND, &wall(104)).expect("is due")), Some("2"));
}

#[test]
fn a_holder_that_cannot_renew_has_it_until_the_deadline_and_goes_on_trying() {
    let mut it = mk_held(10 * SECOND);
    it.failed(12 * SECOND);
    it.failed(14 * SECOND);
    assert_eq!((it.held_until(), it.writes_at()), (Some(15 * SECOND), 16 * SECOND));
    it.written(mk_lease("2", mk_spec("n1", 15, 100, 116, 0)), 26 * SECOND, 26 * SECOND);
    assert_eq!(it.held_until(), Some(31 * SECOND), "nobody has taken it meanwhile");
}

#[test]
fn a_holder_whose_write_is_refused_looks_who_has_it() {
    let mut it = mk_held(10 * SECOND);
    it.refused();
    assert_eq!((it.reads_at(), it.writes_at(), it.held_until()), (0, NEVER, Some(15 * SECOND)));
    let mut still_mine = it.clone();
    still_mine.observe(Some(&mk_lease("5", mk_spec("n1", 15, 100, 112, 0))), 13 * SECOND);
    assert_eq!(still_mine.held_until(), Some(15 * SECOND));
    assert_eq!(version(&still_mine.claim(13 * SECOND, &wall(113)).expect("is due")), Some("5"));
    it.observe(Some(&mk_lease("5", mk_spec("n2", 15, 112, 112, 1))), 13 * SECOND);
    assert_eq!((it.held_until(), it.holder()), (None, Some("n2")));
}

#[test]
fn another_holder_has_it_until_it_was_seen_unchanged_for_its_duration() {
    let mut it = mk_election();
    // Its clock is far behind; that says nothing.
    let theirs = |version: &str, renewed| mk_lease(version, mk_spec("n2", 3, 5, renewed, 4));
    it.observe(Some(&theirs("1", 5)), 10 * SECOND);
    assert_eq!(it.reads_at(), 12 * SECOND);
    it.observe(Some(&theirs("2", 6)), 12 * SECOND);
    it.observe(Some(&theirs("2", 6)), 14 * SECOND);
    assert_eq!(it.claim(14 * SECOND, &wall(100)), None, "it has changed two seconds ago");
    let expired = it.writes_at();
    assert!((15 * SECOND..15 * SECOND + SECOND / 2).contains(&expired), "{expired}");
    let claim = it.claim(expired, &wall(100)).expect("it has expired");
    assert_eq!((version(&claim), claim.spec.clone()), (Some("2"), Some(mk_spec("n1", 15, 100, 100, 5))));
}

#[test]
fn what_was_given_back_is_taken_at_once_and_counts_as_a_transition() {
    let mut it = mk_election();
    it.observe(Some(&mk_lease("9", mk_spec("", 1, 50, 50, 7))), 10 * SECOND);
    let claim = it.claim(10 * SECOND + SECOND / 2, &wall(100)).expect("it is nobody's");
    assert_eq!(claim.spec, Some(mk_spec("n1", 15, 100, 100, 8)));
}

#[test]
fn a_node_that_comes_back_has_its_own_lease_without_a_pause() {
    let mut it = mk_election();
    it.observe(Some(&mk_lease("9", mk_spec("n1", 15, 50, 60, 7))), 10 * SECOND);
    assert_eq!((it.held_until(), it.tenure()), (None, None), "not before it has renewed it");
    let claim = it.claim(10 * SECOND, &wall(100)).expect("at once");
    assert_eq!(claim.spec, Some(mk_spec("n1", 15, 50, 100, 7)));
}

#[test]
fn what_the_plan_does_not_name_any_more_is_given_back() {
    let mut it = mk_held(10 * SECOND);
    it.want(false);
    assert_eq!((it.held_until(), it.is_over(11 * SECOND)), (None, false));
    let claim = it.claim(11 * SECOND, &wall(101)).expect("at once");
    assert_eq!((version(&claim), claim.spec.clone()), (Some("1"), Some(mk_spec("", 1, 101, 101, 0))));
    let mut unreachable = it.clone();
    unreachable.failed(11 * SECOND);
    assert!(!unreachable.is_over(24 * SECOND) && unreachable.writes_at() == 13 * SECOND);
    assert!(unreachable.is_over(25 * SECOND), "it has expired for everybody");
    it.written(mk_lease("2", mk_spec("", 1, 101, 101, 0)), 11 * SECOND, 11 * SECOND);
    assert!(it.is_over(11 * SECOND) && it.claim(20 * SECOND, &wall(110)).is_none());
    it.want(true);
    assert!(it.claim(20 * SECOND, &wall(110)).is_some());
}

#[test]
fn what_is_wanted_again_is_not_held_before_it_is_renewed() {
    let mut it = mk_held(10 * SECOND);
    it.want(false);
    assert_eq!(it.tenure(), Some(Tenure { holder: Some("n1".to_owned()), until: None }));
    // The API server may have taken what was given back, and another node has it by now.
    it.failed(11 * SECOND);
    it.want(true);
    assert_eq!((it.held_until(), it.tenure()), (None, None));
    let claim = it.claim(11 * SECOND, &wall(101)).expect("at once");
    assert_eq!(version(&claim), Some("1"), "which is refused then");
}

#[test]
fn another_nodes_lease_is_not_given_back() {
    let mut it = mk_election();
    it.observe(Some(&mk_lease("9", mk_spec("n2", 15, 50, 60, 7))), 10 * SECOND);
    it.want(false);
    assert!(it.is_over(10 * SECOND) && it.claim(99 * SECOND, &wall(200)).is_none());
}

#[test]
fn of_two_who_want_it_one_is_refused() {
    let (mut one, mut other) = (mk_election(), Election::new(NAME, "n2", mk_timings()));
    for it in [&mut one, &mut other] {
        it.observe(Some(&mk_lease("9", mk_spec("", 1, 50, 50, 7))), 10 * SECOND);
    }
    let claims = [&one, &other].map(|it| it.claim(11 * SECOND, &wall(100)).expect("both want it"));
    assert_eq!(claims.each_ref().map(version), [Some("9"), Some("9")], "the API server takes the first");
}

#[test]
fn a_part_of_a_second_is_a_whole_one_for_others() {
    let timings = Timings::clamped(Duration::from_millis(1500), Duration::from_secs(1), Duration::ZERO);
    let mut it = Election::new(NAME, "n1", timings);
    it.observe(None, 0);
    let spec = it.claim(SECOND, &wall(100)).and_then(|lease| lease.spec).expect("is wanted");
    assert_eq!(spec.lease_duration_seconds, Some(2));
}

#[test]
fn garbage_is_what_nobody_has_and_what_this_node_does_not_want() {
    let of = |name: &str, holder: &str| {
        let mut lease = mk_lease("1", mk_spec(holder, 15, 1, 1, 0));
        lease.metadata.name = Some(name.to_owned());
        lease
    };
    assert!(is_garbage(&of(NAME, ""), "n1", false));
    assert!(is_garbage(&of(NAME, "n1"), "n1", false));
    assert!(!is_garbage(&of(NAME, "n2"), "n1", false));
    assert!(!is_garbage(&of(NAME, ""), "n1", true));
    assert!(!is_garbage(&of("cilium-operator-resource-lock", ""), "n1", false));
}
