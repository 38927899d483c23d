//! Policies by identity, slots, and what stands behind them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use cilium_api::parts::{DnsRule, PartKey, Policy};
use cilium_bpf::layout::{AGGREGATE_PLACES, HOST_SLOT, Slot};

use crate::block::InvalidRange;
use crate::compile::{Compiled, compile};
use crate::displaced::{self, Displaced};
use crate::kernel::{Piece, PieceKey, SlotIndex};
use crate::switched::{Scheme, Switched};

/// Identity of the node itself.
const HOST: u32 = 1;
/// Holds the next generation.
const MARK: SlotIndex = SlotIndex(0);

pub(crate) struct PolicyScheme;

impl Scheme for PolicyScheme {
    type Owner = SlotIndex;
    type Pointer = Slot;
    type Content = Compiled;
    type Key = PieceKey;
    type Value = Piece;

    /// 0 is how the connection table says that a side is not on this node.
    const FIRST: u32 = 1;
    const PLACES: u32 = AGGREGATE_PLACES;

    fn items(generation: u32, content: &Compiled) -> Vec<(PieceKey, Piece)> {
        content.pieces(generation)
    }
    fn item(content: &Compiled, key: &PieceKey) -> Option<Piece> {
        content.piece(key)
    }
    fn count(content: &Compiled) -> usize {
        content.piece_count()
    }
    fn pointer(generation: u32, content: &Compiled) -> Slot {
        content.slot(generation)
    }
    fn mark(next: u32) -> Option<(SlotIndex, Slot)> {
        Some((MARK, Slot { generation: next, ..Slot::default() }))
    }
    fn generation(pointer: &Slot) -> Option<u32> {
        (*pointer != Slot::default()).then_some(pointer.generation)
    }
    fn item_generation(key: &PieceKey) -> u32 {
        match key {
            PieceKey::Peer(peer) => peer.generation,
            PieceKey::Port(key) => key.generation,
            PieceKey::Block(key) => key.generation,
        }
    }
    fn content(pointer: &Slot, items: Vec<(PieceKey, Piece)>) -> Option<Compiled> {
        let content = Compiled::of_pieces(pointer, &items)?;
        let is_empty = items.is_empty();
        (pointer.open && (content.is_enforced() || is_empty)).then_some(content)
    }
}

/// Which identities need a slot, and what their slots shall hold.
pub(crate) struct Policies {
    pub(crate) switched: Switched<PolicyScheme>,
    /// Compiled policy parts; an identity without one is open.
    compiled: HashMap<u32, Arc<Compiled>>,
    /// Slots of identities with endpoints, and how many endpoints they have.
    users: HashMap<u32, (SlotIndex, usize)>,
    /// Slots that identities had in the kernel when the agent started.
    adopted: HashMap<u32, SlotIndex>,
    invalid: HashMap<u32, InvalidRange>,
    /// Rules about DNS questions, of policies that have some.
    dns: BTreeMap<u32, Vec<DnsRule>>,
    /// Identities that stand for others, as the ipcache has no room.
    displaced: BTreeSet<Displaced>,
    open: Arc<Compiled>,
}

impl Policies {
    /// `host`: the node has a policy of its own.
    pub(crate) fn new(host: bool) -> Self {
        let mut policies = Self {
            switched: Switched::new(),
            compiled: HashMap::new(),
            users: HashMap::new(),
            adopted: HashMap::new(),
            invalid: HashMap::new(),
            dns: BTreeMap::new(),
            displaced: BTreeSet::new(),
            open: Arc::new(Compiled::default()),
        };
        if host {
            let slot = SlotIndex(HOST_SLOT);
            policies.users.insert(HOST, (slot, 1));
            policies.switched.set(slot, policies.open.clone());
        }
        policies
    }

    /// Remembers where identities had their slots.
    pub(crate) fn adopt_slots(&mut self, slots: impl IntoIterator<Item = (u32, SlotIndex)>) {
        for (identity, slot) in slots {
            if !self.adopted.values().any(|taken| *taken == slot) {
                self.adopted.entry(identity).or_insert(slot);
            }
        }
    }

    /// Takes a policy without names of peers, or that there is none. One that is invalid leaves the policy before it in force.
    pub(crate) fn set(&mut self, identity: u32, policy: Option<&Policy>) {
        self.invalid.remove(&identity);
        match policy.map(Policy::all_dns).filter(|rules| !rules.is_empty()) {
            Some(rules) => self.dns.insert(identity, rules),
            None => self.dns.remove(&identity),
        };
        match policy.map(compile) {
            Some(Ok(compiled)) => {
                self.compiled.insert(identity, Arc::new(compiled));
            }
            Some(Err(error)) => {
                self.invalid.insert(identity, error);
                return;
            }
            None => {
                self.compiled.remove(&identity);
            }
        }
        if let Some((slot, _)) = self.users.get(&identity) {
            self.switched.set(*slot, self.content(identity));
        }
    }

    /// Identities that have a policy, a refused one as well.
    pub(crate) fn restricted(&self) -> BTreeSet<u32> {
        self.compiled.keys().chain(self.invalid.keys()).copied().collect()
    }

    /// Rules about DNS questions, by identity.
    pub(crate) fn dns_rules(&self) -> &BTreeMap<u32, Vec<DnsRule>> {
        &self.dns
    }

    /// Takes which identities stand for others: policies that would be too open for that are closed to them.
    pub(crate) fn set_displaced(&mut self, displaced: BTreeSet<Displaced>) {
        if self.displaced == displaced {
            return;
        }
        self.displaced = displaced;
        let contents: Vec<_> =
            self.users.iter().map(|(identity, (slot, _))| (*slot, self.content(*identity))).collect();
        // A slot whose first policy is invalid stays closed.
        let is_set = |slot: &SlotIndex| !self.switched.is_unset(*slot);
        let contents: Vec<_> = contents.into_iter().filter(|(slot, _)| is_set(slot)).collect();
        for (slot, content) in contents {
            self.switched.set(slot, content);
        }
    }

    fn content(&self, identity: u32) -> Arc<Compiled> {
        let compiled = self.compiled.get(&identity).unwrap_or(&self.open);
        compiled.closed_to(&self.displaced).map_or_else(|| compiled.clone(), Arc::new)
    }

    /// Identities with endpoints whose policies are closed to others for want of room in the ipcache.
    fn narrowed(&self) -> impl Iterator<Item = u32> {
        let compiled =
            self.users.keys().filter_map(|identity| Some((*identity, self.compiled.get(identity)?)));
        let closed = compiled.filter(|(_, compiled)| compiled.closed_to(&self.displaced).is_some());
        closed.map(|(identity, _)| identity)
    }

    /// One more endpoint has this identity. `None` when all slots are taken.
    pub(crate) fn acquire(&mut self, identity: u32) -> Option<SlotIndex> {
        if let Some((slot, users)) = self.users.get_mut(&identity) {
            *users += 1;
            return Some(*slot);
        }
        let slot = self.choose(identity)?;
        self.users.insert(identity, (slot, 1));
        // An identity whose first policy is invalid gets no content: its slot stays closed.
        if self.compiled.contains_key(&identity) || !self.invalid.contains_key(&identity) {
            self.switched.set(slot, self.content(identity));
        }
        Some(slot)
    }

    fn choose(&mut self, identity: u32) -> Option<SlotIndex> {
        let used = |slot: &SlotIndex| self.users.values().any(|(used, _)| used == slot);
        if let Some(slot) = self.adopted.remove(&identity).filter(|slot| !used(slot)) {
            return Some(slot);
        }
        let reserved = |slot: &SlotIndex| self.adopted.values().any(|adopted| adopted == slot);
        let free = |slot: &SlotIndex| self.switched.is_free(*slot) && !used(slot) && !reserved(slot);
        (1..HOST_SLOT).map(SlotIndex).find(free)
    }

    /// An endpoint came to this identity from another one. Its connections may be of generations that both share, and have to be
    /// judged again all the same: other endpoints' policies tell the two apart.
    pub(crate) fn joined(&mut self, identity: u32) {
        if let Some((slot, _)) = self.users.get(&identity) {
            self.switched.renew(*slot);
        }
    }

    /// One endpoint fewer has this identity.
    pub(crate) fn release(&mut self, identity: u32) {
        let Some((slot, users)) = self.users.get_mut(&identity) else { return };
        *users -= 1;
        if *users == 0 {
            let slot = *slot;
            self.users.remove(&identity);
            self.switched.remove(slot);
        }
    }

    /// Puts every policy that restricts anything in force again, under another generation.
    pub(crate) fn renew(&mut self) {
        for (slot, _) in self.users.values() {
            if self.switched.in_force(*slot).is_some_and(|(_, content)| content.is_enforced()) {
                self.switched.renew(*slot);
            }
        }
    }

    /// The slot of an identity with endpoints.
    pub(crate) fn slot(&self, identity: u32) -> Option<SlotIndex> {
        self.users.get(&identity).map(|(slot, _)| *slot)
    }

    /// The identity of a slot.
    pub(crate) fn identity(&self, slot: SlotIndex) -> Option<u32> {
        self.users.iter().find(|(_, (used, _))| *used == slot).map(|(identity, _)| *identity)
    }

    /// Identities whose slots name a generation.
    pub(crate) fn identities_of(&self, generation: u32) -> Vec<u32> {
        let named =
            |slot: SlotIndex| self.switched.in_force(slot).is_some_and(|(found, _)| found == generation);
        let mut found: Vec<u32> =
            self.users.iter().filter(|(_, (slot, _))| named(*slot)).map(|(identity, _)| *identity).collect();
        found.sort_unstable();
        found
    }

    /// Policies that are not in force, and why; a slot that cannot be closed has no policy and goes by its number.
    pub(crate) fn failures(&self) -> Vec<(PartKey, String)> {
        let name = |slot: SlotIndex| match self.identity(slot) {
            Some(identity) => PartKey::policy(identity),
            None => PartKey(format!("slot/{}", slot.0).into()),
        };
        let refused =
            self.invalid.iter().map(|(identity, error)| (PartKey::policy(*identity), error.to_string()));
        let failed = self.switched.failures().map(|(slot, message)| (name(slot), message.to_owned()));
        let narrowed =
            self.narrowed().map(|identity| (PartKey::policy(identity), displaced::message(&self.displaced)));
        refused.chain(failed).chain(narrowed).collect()
    }
}
