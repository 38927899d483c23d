//! Policies: from objects to what each identity may receive and send, and the verdict on a flow.
//!
//! | step | where | in → out |
//! |---|---|---|
//! | reduce | [`reduce`] | a policy object → [`PolicyRules`], or [`Invalid`] with the path of the field |
//! | resolve | [`PolicyRules::resolved`] | references to other objects ([`Catalog`]) → selectors |
//! | index | [`PolicyIndex`] | rules and identities, one change at a time → which identities are affected |
//! | compile | [`PolicyIndex::compile`] | an identity → [`cilium_api::parts::Policy`] |
//! | judge | [`verdict()`] | compiled policies and a flow → allowed or not, and by which policies |
//! | compare | [`changes`] | two compiled policies → traffic that passes under one of them |
//! | explain | [`PolicyIndex::explain`], [`PolicyIndex::explain_name`] | a flow → the fields of the rules that decide, or the rule that came nearest |
//!
//! `docs/design/policy.md` says how they fit. Pure: no client, no clock; same inputs in any order give the same bytes.

mod by_name;
mod compile;
mod diff;
mod effect;
mod explain;
mod index;
mod invalid;
mod key;
mod labels;
mod named;
pub mod reduce;
mod reference;
mod room;
mod rules;
mod selectors;
pub mod verdict;

pub use by_name::ToName;
pub use compile::{Host, entries_of};
pub use diff::{Change, Span, changes};
pub use effect::{Idle, Ineffective};
pub use explain::{Decision, Miss, Missed, Place, Reason};
pub use index::{Config, Mode, PolicyIndex};
pub use invalid::{Invalid, InvalidKind};
pub use key::PolicyKey;
pub use named::{QuestionChange, name_changes, question_changes};
pub use reference::{Backends, Catalog, Reference, Services, Which};
pub use room::{MAP_ENTRIES, room};
pub use rules::{
    Block, ByAddress, Name, Ordered, OrderedRule, PolicyRules, PortName, Ports, Rule, Section, Tier, Traffic,
};
pub use verdict::{Flow, Judgement, Side, Verdict, verdict};
