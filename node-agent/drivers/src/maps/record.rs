use cilium_bpf::layout::{
    Addr, AnnouncementEntry, AnnouncementKey, BackendEntry, BackendKey, BlockEntry, BlockKey, CtEntry, CtKey,
    Endpoint, EventBudget, ExemptEntry, ExemptKey, FragmentKey, FragmentPorts, IpcacheEntry, IpcacheKey,
    Layout, LinkEntry, LinkSigns, MaglevChunk, MaglevKey, Metric, NatEntry, NatKey, PeerEntry, PeerKey,
    PolicyAggregates, PolicyEntry, PolicyKey, PolicyPeer, PolicyRules, ServiceEntry, ServiceKey, Slot,
    SockRevnatEntry, SockRevnatKey, SourceRangeEntry, SourceRangeKey,
};

/// A key or value as the bytes of a map.
pub trait Record: Sized {
    /// Size in bytes, padding included.
    const SIZE: usize;

    /// Fills a zeroed buffer of [`Record::SIZE`] bytes.
    fn write(&self, out: &mut [u8]);

    /// Reads a buffer of [`Record::SIZE`] bytes.
    fn read(bytes: &[u8]) -> Self;

    /// The bytes, padding zero.
    fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; Self::SIZE];
        self.write(&mut bytes);
        bytes
    }
}

macro_rules! records {
    ($($name:ident),* $(,)?) => {$(
        impl Record for $name {
            const SIZE: usize = <Self as Layout>::SIZE;

            fn write(&self, out: &mut [u8]) {
                Layout::write(self, out);
            }

            fn read(bytes: &[u8]) -> Self {
                Layout::read(bytes)
            }
        }
    )*};
}

records!(
    AnnouncementEntry,
    AnnouncementKey,
    BackendEntry,
    BackendKey,
    BlockEntry,
    BlockKey,
    CtEntry,
    CtKey,
    Endpoint,
    EventBudget,
    ExemptEntry,
    ExemptKey,
    FragmentKey,
    FragmentPorts,
    IpcacheEntry,
    IpcacheKey,
    LinkEntry,
    LinkSigns,
    MaglevChunk,
    MaglevKey,
    Metric,
    NatEntry,
    NatKey,
    PeerEntry,
    PeerKey,
    PolicyAggregates,
    PolicyEntry,
    PolicyKey,
    PolicyPeer,
    PolicyRules,
    ServiceEntry,
    ServiceKey,
    SockRevnatEntry,
    SockRevnatKey,
    SourceRangeEntry,
    SourceRangeKey,
);

macro_rules! integer_records {
    ($($name:ident),*) => {$(
        impl Record for $name {
            const SIZE: usize = size_of::<$name>();

            fn write(&self, out: &mut [u8]) {
                out.copy_from_slice(&self.to_ne_bytes());
            }

            fn read(bytes: &[u8]) -> Self {
                let mut raw = [0; size_of::<$name>()];
                raw.copy_from_slice(bytes);
                Self::from_ne_bytes(raw)
            }
        }
    )*};
}

integer_records!(u32, u64);

impl Record for Addr {
    const SIZE: usize = 16;

    fn write(&self, out: &mut [u8]) {
        out.copy_from_slice(&self.0);
    }

    fn read(bytes: &[u8]) -> Self {
        let mut raw = [0; 16];
        raw.copy_from_slice(bytes);
        Self(raw)
    }
}

impl Record for Slot {
    const SIZE: usize = 8;

    fn write(&self, out: &mut [u8]) {
        self.to_u64().write(out);
    }

    fn read(bytes: &[u8]) -> Self {
        Self::from_u64(u64::read(bytes))
    }
}
