//! What the planner is told once, at start.

/// Settings of the cluster. More fields may come: fill the rest from [`Config::default`].
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the cluster, part of every pod's identity (`k8s:io.cilium.k8s.policy.cluster`).
    pub cluster: String,
    /// Pods have IPv4 addresses.
    pub ipv4: bool,
    /// Pods have IPv6 addresses.
    pub ipv6: bool,
    /// How long an identity without endpoints stays, in seconds; it goes on the second look. 0 keeps it for ever.
    pub identity_gc_interval: i64,
}

impl Default for Config {
    fn default() -> Self {
        Self { cluster: "default".to_owned(), ipv4: true, ipv6: true, identity_gc_interval: 15 * 60 }
    }
}
