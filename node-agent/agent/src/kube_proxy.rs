//! kube-proxy on the same node: it may run beside the agent, and its rules stay when it is gone. They do no harm, as Services are served
//! before packets come to them, but whoever looks at them, or takes the agent away, should know that they are there.

use std::time::Duration;

use cilium_drivers::netlink::{Error, KubeProxyMode, KubeProxyRules};
use tokio::sync::watch;

use crate::watch::chain;

/// A few short questions to the kernel.
const EVERY: Duration = Duration::from_secs(10);

/// Looks for rules for as long as somebody wants to know.
pub(crate) async fn follow(sender: watch::Sender<Vec<KubeProxyMode>>) {
    let mut failed = false;
    while !sender.is_closed() {
        match tokio::task::spawn_blocking(find).await {
            Ok(Ok(now)) => {
                failed = false;
                publish(&sender, now);
            }
            Ok(Err(error)) if !failed => {
                failed = true;
                tracing::warn!(
                    error = chain(&error),
                    "whether kube-proxy's rules are on this node is not known"
                );
            }
            Ok(Err(_)) => {}
            Err(_) => return,
        }
        tokio::time::sleep(EVERY).await;
    }
}

fn find() -> Result<Vec<KubeProxyMode>, Error> {
    KubeProxyRules::open()?.find()
}

/// Says what changed, once.
fn publish(sender: &watch::Sender<Vec<KubeProxyMode>>, now: Vec<KubeProxyMode>) {
    sender.send_if_modified(|known| {
        if *known == now {
            return false;
        }
        match words(&now) {
            None => tracing::info!("kube-proxy's rules are gone from this node"),
            Some(modes) => tracing::info!(
                modes,
                "kube-proxy's rules are on this node: Services are served before packets come to them; kube-proxy may be taken away, and `kube-proxy --cleanup` removes the rules"
            ),
        }
        *known = now;
        true
    });
}

/// `nftables, iptables`; `None` when there are none.
fn words(modes: &[KubeProxyMode]) -> Option<String> {
    let words: Vec<String> = modes.iter().map(ToString::to_string).collect();
    (!words.is_empty()).then(|| words.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_is_news() {
        let (sender, mut receiver) = watch::channel(Vec::new());
        publish(&sender, vec![]);
        assert!(!receiver.has_changed().expect("the sender is there"));
        publish(&sender, vec![KubeProxyMode::Nftables]);
        assert!(receiver.has_changed().expect("the sender is there"));
        assert_eq!(*receiver.borrow_and_update(), [KubeProxyMode::Nftables]);
        publish(&sender, vec![KubeProxyMode::Nftables]);
        assert!(!receiver.has_changed().expect("the sender is there"));
        publish(&sender, vec![]);
        assert!(receiver.borrow_and_update().is_empty());
    }

    #[test]
    fn modes_are_named() {
        let all = [KubeProxyMode::Nftables, KubeProxyMode::Iptables, KubeProxyMode::IptablesLegacy];
        assert_eq!(words(&all).as_deref(), Some("nftables, iptables, iptables-legacy"));
        assert_eq!(words(&[]), None);
    }
}
