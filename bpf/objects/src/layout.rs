//! The structs that eBPF programs and user space share, one for one with `bpf/include/types.h`.
//!
//! Every type here has the size, alignment and field offsets of its C twin; a test compares them through the object's
//! BTF. Conversion to and from the bytes of a map is safe code: [`Layout::write`] fills a zeroed buffer, so padding, which
//! hash maps compare, is always zero. `T::to_bytes` and `T::from_bytes` do the same with arrays.
//!
//! Byte order: ports ([`NetPort`]) and addresses ([`Addr`]) are in network order in memory, all else in the machine's.

mod address;
mod announce;
mod config;
mod conntrack;
mod event;
mod policy;
mod service;

pub use address::{Addr, Endpoint, IpcacheEntry, IpcacheKey, NetPort};
pub use announce::{
    ANNOUNCEMENT_ANSWERED, ANNOUNCEMENT_SILENT, ANNOUNCER_AGENT, ANNOUNCER_KEY, ANNOUNCER_NODE,
    AnnouncementEntry, AnnouncementKey, HEARTBEAT_ANSWER, HEARTBEAT_ETHERTYPE, HEARTBEAT_HEARS_YOU,
    HEARTBEAT_MAGIC, HEARTBEAT_REQUEST, Heartbeat, LINK_ALONE, LINK_ANSWERING, LINK_LEASED, LINK_SOLO,
    LINK_WILLING, LinkEntry, LinkSigns, PeerEntry, PeerKey,
};
pub use config::{
    CONFIG_ANNOUNCE, CONFIG_HOST_FIREWALL, CONFIG_KEPT_PREFIXES, CONFIG_MASQUERADE4, CONFIG_MASQUERADE6,
    CONFIG_NODEPORT_PREFIX_COUNT, CONFIG_NODEPORT_PREFIXES, CONFIG_REDIRECTS, CONFIG_SET_RETVAL,
    CONFIG_SOCKETS_OF_HOST, Config, MARK_MASK, MARK_TO_PROXY, Prefix,
};
pub use conntrack::{
    CT_CONFIRMED, CT_DIRECT, CT_DSR, CT_FIN_ANSWERER, CT_FIN_STARTER, CT_PROXY, CT_REFUSED, CT_REPLIED,
    CT_RESET, CT_SERVICE, CT_STACK, CT_STARTED_BY_HIGH, CT_TUNNEL, CtEntry, CtKey, CtSide, FragmentKey,
    FragmentPorts, NAT_IN, NAT_OUT, NAT_SERVICE, NatEntry, NatKey,
};
pub use event::{
    EVENT_DROP, EVENT_MASK_DROP, EVENT_MASK_VERDICT, EVENT_VERDICT, Event, EventBudget, METRIC_COLUMNS,
    METRIC_EGRESS, METRIC_EVENT_LOST, METRIC_EVENT_SUPPRESSED, METRIC_INGRESS, Metric, metric_index,
};
pub use policy::{
    AGGREGATE_PLACES, AGGREGATES, BlockEntry, BlockKey, BothDirections, DIRECTION_EGRESS, DIRECTION_INGRESS,
    HOST_SLOT, POLICY_ALLOW, POLICY_DENY, POLICY_NONE, POLICY_PROXY, POLICY_RULES, PackedRules,
    PolicyAggregate, PolicyAggregates, PolicyEntry, PolicyKey, PolicyPeer, PolicyRules, SLOT_COUNT, Slot,
    aggregate_of,
};
pub use service::{
    BackendEntry, BackendKey, ExemptEntry, ExemptKey, Indexes, MAGLEV_CHUNK, MAGLEV_NONE, MaglevChunk,
    MaglevKey, SCOPE_EXEMPT, SCOPE_EXTERNAL, SCOPE_INTERNAL, SERVICE_AT_OWN_NODE, SERVICE_DSR,
    SERVICE_MAGLEV, SERVICE_ONLY_OWN, SERVICE_RANGES, SERVICE_RANGES_DENY, ServiceEntry, ServiceKey,
    SockRevnatEntry, SockRevnatKey, SourceRangeEntry, SourceRangeKey,
};

/// Where a field stands in its C struct.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Name of the member in C.
    pub name: &'static str,
    /// Offset in bytes.
    pub offset: usize,
    /// Size in bytes.
    pub size: usize,
}

/// A type whose bytes can be written to and read from a map.
pub trait Layout: Sized {
    /// Name of the struct in C.
    const NAME: &'static str;
    /// Size in bytes, padding included.
    const SIZE: usize;
    /// Every member but the padding.
    const FIELDS: &'static [Field];

    /// Writes the fields into `out`, whose other bytes stay as they are.
    ///
    /// # Panics
    /// When `out` is shorter than [`Layout::SIZE`].
    fn write(&self, out: &mut [u8]);

    /// Reads the fields from `bytes`.
    ///
    /// # Panics
    /// When `bytes` is shorter than [`Layout::SIZE`].
    fn read(bytes: &[u8]) -> Self;
}

/// A value that can be a field: knows how it is stored.
trait Plain: Sized {
    fn put(&self, out: &mut [u8]);
    fn get(bytes: &[u8]) -> Self;
}

macro_rules! plain_integer {
    ($($kind:ty),*) => {$(
        impl Plain for $kind {
            fn put(&self, out: &mut [u8]) {
                out.copy_from_slice(&self.to_ne_bytes());
            }
            fn get(bytes: &[u8]) -> Self {
                let mut raw = [0; size_of::<$kind>()];
                raw.copy_from_slice(bytes);
                Self::from_ne_bytes(raw)
            }
        }
    )*};
}
plain_integer!(u8, u16, u32, u64);

impl<const N: usize> Plain for [u8; N] {
    fn put(&self, out: &mut [u8]) {
        out.copy_from_slice(self);
    }
    fn get(bytes: &[u8]) -> Self {
        let mut raw = [0; N];
        raw.copy_from_slice(bytes);
        raw
    }
}

/// Declares a struct of [`Layout`]; `as "name"` is the struct's name in C.
macro_rules! layout {
    (
        $(#[$outer:meta])*
        pub struct $name:ident as $c_name:literal {
            $( $(#[$inner:meta])* pub $field:ident: $kind:ty, )+
        }
    ) => {
        $(#[$outer])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name {
            $( $(#[$inner])* pub $field: $kind, )+
        }

        impl $crate::layout::Layout for $name {
            const NAME: &'static str = $c_name;
            const SIZE: usize = size_of::<Self>();
            const FIELDS: &'static [$crate::layout::Field] = &[
                $( $crate::layout::Field {
                    name: stringify!($field),
                    offset: core::mem::offset_of!($name, $field),
                    size: size_of::<$kind>(),
                }, )+
            ];
            fn write(&self, out: &mut [u8]) {
                $( $crate::layout::Plain::put(
                    &self.$field,
                    &mut out[core::mem::offset_of!($name, $field)..][..size_of::<$kind>()],
                ); )+
            }
            fn read(bytes: &[u8]) -> Self {
                Self { $( $field: $crate::layout::Plain::get(
                    &bytes[core::mem::offset_of!($name, $field)..][..size_of::<$kind>()],
                ), )+ }
            }
        }

        impl $crate::layout::Plain for $name {
            fn put(&self, out: &mut [u8]) {
                $crate::layout::Layout::write(self, out);
            }
            fn get(bytes: &[u8]) -> Self {
                $crate::layout::Layout::read(bytes)
            }
        }

        impl $name {
            /// The bytes as a map holds them; padding is zero.
            pub fn to_bytes(&self) -> [u8; size_of::<$name>()] {
                let mut bytes = [0; size_of::<$name>()];
                $crate::layout::Layout::write(self, &mut bytes);
                bytes
            }
            /// The value behind the bytes of a map.
            pub fn from_bytes(bytes: &[u8; size_of::<$name>()]) -> Self {
                $crate::layout::Layout::read(bytes)
            }
        }
    };
}
use layout;

#[cfg(test)]
mod tests;
