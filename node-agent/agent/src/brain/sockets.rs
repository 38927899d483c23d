//! When programs are told that the backend which they are connected to is gone.

use cilium_bpf::layout::Addr;

use super::{Brain, FORGET_AFTER};

impl Brain {
    /// Takes what [`cilium_dataplane::Dataplane::take_reassigned`] named.
    pub(super) fn note_reassigned(&mut self, addresses: &[Addr]) {
        self.reassigned.extend(addresses);
        self.teller.add(addresses);
    }

    pub(super) fn tell_soon(&mut self) {
        if self.teller.has_work() && self.due.tell.is_none() {
            self.due.tell = Some(self.clock.now() + FORGET_AFTER);
        }
    }

    /// Starts to tell sockets, unless the task before is still at it. A node that does not work yet does not know who has which
    /// address, and waits until it does.
    pub(super) fn tell_sockets(&mut self) {
        let Some(running) = &self.running else { return };
        if self.teller.is_busy() {
            return self.tell_soon();
        }
        let paths = self.links.iter().map(|(_, link)| link.netns_path.clone());
        // A pod that was found again by its device has none.
        let namespaces = paths.filter(|path| !path.is_empty()).collect();
        let dataplane = &running.dataplane;
        self.teller.start(&self.settings.bpffs, namespaces, |address| dataplane.is_nobodys(address));
    }
}
