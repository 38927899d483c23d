//! Words that all planners share: labels, selectors, reserved identities, entities, conditions.
//!
//! Pure: no client, no clock. Text from outside (label keys, selectors, filter items) is parsed once, here, into types
//! on which later steps cannot fail.
//!
//! | module | holds |
//! |---|---|
//! | [`label`] | [`Label`], [`Labels`]: one label with its source; the set that makes an identity |
//! | [`filter`] | [`LabelFilter`]: which labels count for identities |
//! | [`named_port`] | named ports of pods, as labels |
//! | [`pod`] | the labels of a pod's identity |
//! | [`hash`] | hashes on which versions agree |
//! | [`name`] | [`NamePattern`]: DNS names and patterns for them |
//! | [`prefix`] | prefixes outside the cluster, as labels |
//! | [`selector`] | [`Selector`]: requirements on labels |
//! | [`reserved`] | numbers and labels of reserved identities |
//! | [`entity`] | what entities of policies select |
//! | [`port_blocks()`] | ranges of ports as a trie has them |
//! | [`condition`] | how conditions of a status change |

pub mod condition;
pub mod entity;
pub mod filter;
pub mod hash;
pub mod label;
pub mod name;
pub mod named_port;
mod pattern;
pub mod pod;
mod port_blocks;
pub mod prefix;
pub mod reserved;
pub mod selector;

pub use entity::Peers;
pub use filter::LabelFilter;
pub use label::{Label, Labels, Source};
pub use name::NamePattern;
pub use port_blocks::port_blocks;
pub use reserved::Families;
pub use selector::{Operator, Requirement, Selector};
