use std::collections::BTreeSet;

/// Lowest endpoint number.
pub const FIRST_ID: u16 = 1;
/// Highest endpoint number: the kernel keeps the policy of a node's endpoints in a table of 4096 slots.
pub const LAST_ID: u16 = 4095;

/// Endpoint numbers of one node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Numbers {
    held: BTreeSet<u16>,
    /// The number that was given last; 0 before the first.
    last: u16,
}

impl Numbers {
    /// The next free number after the one given last.
    pub(crate) fn take_next(&mut self) -> Option<u16> {
        let free = |id: &u16| !self.held.contains(id);
        let next = (self.last + 1..=LAST_ID).find(free).or_else(|| (FIRST_ID..=self.last).find(free))?;
        self.take(next);
        Some(next)
    }

    /// Takes just this number.
    pub(crate) fn take(&mut self, id: u16) -> bool {
        let taken = (FIRST_ID..=LAST_ID).contains(&id) && self.held.insert(id);
        if taken {
            self.last = id;
        }
        taken
    }

    pub(crate) fn release(&mut self, id: u16) {
        self.held.remove(&id);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}
