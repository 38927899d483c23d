//! What the CNI plugin asks for.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::Context as _;
use cilium_dataplane::Planned;
use cilium_drivers::datapath::Datapath;
use cilium_rest::model::{EndpointChange, IpamAnswer};
use tokio::sync::oneshot;

use super::Brain;
use crate::links::{netns_cookie, to_link};

/// A pod that waits for its plan.
pub(crate) struct Waiter {
    pub(crate) namespace: String,
    pub(crate) pod: String,
    /// Empty when the runtime did not say.
    pub(crate) uid: String,
    /// In milliseconds of the clock.
    pub(crate) deadline: u64,
    pub(crate) reply: oneshot::Sender<Result<IpamAnswer, String>>,
}

/// How long CNI ADD waits for a plan, in milliseconds.
const PATIENCE: u64 = 30_000;

impl Brain {
    /// Answers with the addresses of a pod, now or when it has been planned.
    pub(crate) fn ipam(
        &mut self,
        namespace: String,
        pod: String,
        uid: String,
        reply: oneshot::Sender<Result<IpamAnswer, String>>,
    ) {
        let deadline = self.clock.now() + PATIENCE;
        self.waiters.push(Waiter { namespace, pod, uid, deadline, reply });
        self.answer_waiters();
    }

    /// Answers those whose plan is there, and those who have waited long enough.
    pub(super) fn answer_waiters(&mut self) {
        let now = self.clock.now();
        let waiters = std::mem::take(&mut self.waiters);
        for waiter in waiters {
            let answer = self.plan_of(&waiter);
            let is_final = answer.is_ok() || waiter.deadline <= now;
            if !is_final && !waiter.reply.is_closed() {
                self.waiters.push(waiter);
            } else if waiter.reply.send(answer).is_err() {
                tracing::debug!("the plugin gave up before its answer was there");
            }
        }
    }

    /// The answer for a pod, or what it waits for.
    fn plan_of(&self, waiter: &Waiter) -> Result<IpamAnswer, String> {
        let Some(running) = &self.running else { return Err(self.obstacle.clone()) };
        let Waiter { namespace, pod, uid, .. } = waiter;
        let planned = running.dataplane.planned(namespace, pod).ok_or_else(|| {
            let revision = self.state.accepted().map_or(0, |accepted| accepted.revision);
            format!("waited for the plan of pod {namespace}/{pod}: revision {revision} of the node's state has none")
        })?;
        if !uid.is_empty() && planned.uid != *uid {
            let has = &planned.uid;
            return Err(format!(
                "waited for the plan of pod {namespace}/{pod} with UID {uid}: there is one of UID {has}"
            ));
        }
        self.answer(planned)
    }

    fn answer(&self, planned: &Planned) -> Result<IpamAnswer, String> {
        let Some(running) = &self.running else { return Err(self.obstacle.clone()) };
        let mut answer = IpamAnswer {
            endpoint_id: planned.id,
            identity: planned.identity,
            device_mtu: running.host.device_mtu,
            route_mtu: running.host.route_mtu,
            ..IpamAnswer::default()
        };
        for address in &planned.addresses {
            let router = running.dataplane.router(address.is_ipv4());
            match (*address, router) {
                (IpAddr::V4(v4), Some(IpAddr::V4(router))) => {
                    (answer.ipv4, answer.gateway4) = (Some(v4), Some(router));
                }
                (IpAddr::V6(v6), Some(IpAddr::V6(router))) => {
                    (answer.ipv6, answer.gateway6) = (Some(v6), Some(router));
                }
                (address, _) => {
                    return Err(format!("the node has no router address of the family of {address}"));
                }
            }
        }
        Ok(answer)
    }

    /// Looks whether a pod that the plugin has linked is the planned one. Returns what its device's programs are attached with
    /// before [`Brain::connect`].
    pub(crate) fn admit(
        &self,
        id: u16,
        mut change: EndpointChange,
    ) -> Result<(Arc<Datapath>, EndpointChange), String> {
        let Some(running) = &self.running else { return Err(self.obstacle.clone()) };
        let (key, planned) = running
            .dataplane
            .planned_by_id(id)
            .ok_or_else(|| format!("endpoint {id} is not planned any more: the pod was deleted"))?;
        if change.k8s_uid.is_empty() {
            change.k8s_uid.clone_from(&planned.uid);
        }
        let wanted = format!("endpoint/{}/{}", change.k8s_namespace, change.k8s_pod_name);
        if *key.0 != *wanted || planned.uid != change.k8s_uid {
            return Err(format!(
                "endpoint {id} is planned for {key} with UID {}, not for {wanted} with UID {}",
                planned.uid, change.k8s_uid
            ));
        }
        Ok((running.host.datapath.clone(), change))
    }

    /// Connects a pod whose device has its programs. On failure it is not connected.
    pub(crate) fn connect(&mut self, id: u16, change: EndpointChange) -> Result<EndpointChange, String> {
        // The pod may have gone meanwhile.
        let (_, change) = self.admit(id, change)?;
        let pod = format!("{}/{}", change.k8s_namespace, change.k8s_pod_name);
        self.connect_planned(id, change).map_err(|error| format!("endpoint {id} ({pod}): {error:#}"))
    }

    fn connect_planned(&mut self, id: u16, change: EndpointChange) -> anyhow::Result<EndpointChange> {
        let link = to_link(&change, self.cookie_of(&change))
            .context("the MAC addresses of its device cannot be read")?;
        let now = self.clock.now();
        let running = self.running.as_mut().context("the node does not work yet")?;
        self.links.insert(id, change.clone())?;
        running.dataplane.link(id, Some(link));
        running.dataplane.apply(&mut running.tables, now);
        if let Err(why) = running.dataplane.ready(id) {
            self.forget(id)?;
            anyhow::bail!("it is linked, but {why}: see the failures in cilium-dbg status");
        }
        self.after_change();
        self.settle_soon();
        Ok(change)
    }

    /// Number of a pod's network namespace, if anybody asks for it; 0 is none.
    pub(super) fn cookie_of(&self, change: &EndpointChange) -> u64 {
        if self.settings.local_redirects { netns_cookie(change) } else { 0 }
    }

    /// Disconnects an attachment `<container>:<interface>`. One that is not known is a success.
    pub(crate) fn disconnect(&mut self, attachment: &str) -> anyhow::Result<()> {
        match self.links.by_attachment(attachment) {
            Some(id) => self.forget(id),
            None => Ok(()),
        }
    }

    /// Takes an endpoint's link away.
    pub(super) fn forget(&mut self, id: u16) -> anyhow::Result<()> {
        let change = self.links.remove(id)?;
        if let Some(running) = &mut self.running {
            running.dataplane.link(id, None);
            running.dataplane.apply(&mut running.tables, self.clock.now());
            if let Some(change) = change {
                // The device goes with the pod; to detach would wait for the kernel.
                running.host.datapath.unpin(&change.interface_name)?;
            }
        }
        self.after_change();
        Ok(())
    }
}
