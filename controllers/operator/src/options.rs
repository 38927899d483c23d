//! Flags, environment and the configuration directory.
//!
//! Every flag can also come from the environment variable `CILIUM_<FLAG>`, or from a file of the flag's name in
//! `--config-dir` (a mounted ConfigMap). The command line wins over the environment, that over the directory. Files for
//! other programs are passed over.

use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use cilium_core::LabelFilter;
use clap::builder::BoolishValueParser;
use clap::{ArgAction, Command, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;

/// Plans the network of a Kubernetes cluster: reads pods, Services and policies, and writes what each node has to do.
#[derive(Clone, Debug, Parser)]
#[command(name = "cilium-operator", version, args_override_self = true)]
pub struct Options {
    /// Directory with one file for each flag.
    #[arg(long, value_name = "DIR")]
    pub config_dir: Option<PathBuf>,

    /// Name of the cluster, a label of every pod's identity.
    #[arg(long, default_value = "default", value_name = "NAME", value_parser = parse_cluster_name)]
    pub cluster_name: String,

    /// Give pods IPv4 addresses.
    #[arg(long, default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        action = ArgAction::Set, value_parser = BoolishValueParser::new(), value_name = "BOOL")]
    pub enable_ipv4: bool,

    /// Give pods IPv6 addresses.
    #[arg(long, default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        action = ArgAction::Set, value_parser = BoolishValueParser::new(), value_name = "BOOL")]
    pub enable_ipv6: bool,

    /// When a pod is closed to what no policy allows: if a policy selects it, always, never.
    #[arg(long, default_value = "default", value_name = "MODE")]
    pub enable_policy: PolicyMode,

    /// Labels that count for identities beside the usual ones, as [SOURCE:][!]PATTERN, separated by blanks or commas.
    #[arg(long, default_value = "", value_name = "PATTERNS")]
    pub labels: String,

    /// Give every node an identity of its own, with its labels, so that policies can name nodes by them.
    #[arg(long, default_value = "false", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        action = ArgAction::Set, value_parser = BoolishValueParser::new(), value_name = "BOOL")]
    pub enable_node_selector_labels: bool,

    /// Enforce ClusterNetworkPolicies (policy.networking.k8s.io/v1alpha2), whose definition has to be installed apart.
    #[arg(long, default_value = "false", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        action = ArgAction::Set, value_parser = BoolishValueParser::new(), value_name = "BOOL")]
    pub enable_k8s_cluster_network_policy: bool,

    /// Let policies select nodes (nodeSelector), whose own traffic is enforced then. Agents need the same flag.
    #[arg(long, default_value = "false", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        action = ArgAction::Set, value_parser = BoolishValueParser::new(), value_name = "BOOL")]
    pub enable_host_firewall: bool,

    /// Put CiliumLocalRedirectPolicies in force. Agents need the same flag.
    #[arg(long, default_value = "false", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        action = ArgAction::Set, value_parser = BoolishValueParser::new(), value_name = "BOOL")]
    pub enable_local_redirect_policy: bool,

    /// Prefixes in which addresses have to lie that a CiliumLocalRedirectPolicy may redirect, separated by blanks or commas. All may be
    /// if empty.
    #[arg(long, default_value = "", value_name = "PREFIXES")]
    pub lrp_address_matcher_cidrs: String,

    /// First and last of the ports on which nodes serve Services, as agents have it: users are told of Services with others.
    #[arg(long, default_value = "30000,32767", value_parser = parse_port_range, value_name = "FIRST,LAST")]
    pub node_port_range: RangeInclusive<u16>,

    /// Agents let a Service choose how its backends are chosen (service.cilium.io/lb-algorithm).
    #[arg(long, default_value = "false", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        action = ArgAction::Set, value_parser = BoolishValueParser::new(), value_name = "BOOL")]
    pub bpf_lb_algorithm_annotation: bool,

    /// Agents let a Service choose how backends on other nodes see clients (service.cilium.io/forwarding-mode).
    #[arg(long, default_value = "false", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        action = ArgAction::Set, value_parser = BoolishValueParser::new(), value_name = "BOOL")]
    pub bpf_lb_mode_annotation: bool,

    /// Where pods get addresses from: kubernetes (spec.podCIDRs of Nodes), or multi-pool (CiliumPodIPPools).
    #[arg(long, default_value = "kubernetes", value_name = "HOW")]
    pub ipam: IpamMode,

    /// Give Services of type LoadBalancer addresses of CiliumLoadBalancerIPPools.
    #[arg(long, default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        action = ArgAction::Set, value_parser = BoolishValueParser::new(), value_name = "BOOL")]
    pub enable_lb_ipam: bool,

    /// Who gives addresses to Services without loadBalancerClass: lbipam is this operator, nodeipam and none are not.
    #[arg(long, default_value = "lbipam", value_name = "WHO")]
    pub default_lb_service_ipam: DefaultServiceIpam,

    /// Give addresses to Services of the class io.cilium/bgp-control-plane, too.
    #[arg(long, default_value = "false", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        action = ArgAction::Set, value_parser = BoolishValueParser::new(), value_name = "BOOL")]
    pub enable_bgp_control_plane: bool,

    /// Where Secrets with passwords of BGP sessions are; empty: nowhere. Agents need the same.
    #[arg(long, default_value = "kube-system", value_name = "NAMESPACE")]
    pub bgp_secrets_namespace: String,

    /// Where BGP router IDs come from: default (a node's IPv4 address, or else its name), or ip-pool.
    #[arg(long, default_value = "default", value_name = "HOW")]
    pub bgp_router_id_allocation_mode: RouterIdMode,

    /// IPv4 prefix that router IDs are taken from with ip-pool.
    #[arg(long, default_value = "", value_name = "CIDR")]
    pub bgp_router_id_allocation_ip_pool: String,

    /// Write conditions of CiliumBGPClusterConfigs and CiliumBGPPeerConfigs. Agents need the same, for CiliumBGPNodeConfigs.
    #[arg(long, default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        action = ArgAction::Set, value_parser = BoolishValueParser::new(), value_name = "BOOL")]
    pub enable_bgp_control_plane_status_report: bool,

    /// Make addresses of Services known by BGP that have no backend at all, too.
    #[arg(long, default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        action = ArgAction::Set, value_parser = BoolishValueParser::new(), value_name = "BOOL")]
    pub enable_no_service_endpoints_routable: bool,

    /// Put CiliumL2AnnouncementPolicies in force, and give addresses to Services of the class io.cilium/l2-announcer, too. Agents need the
    /// same flag.
    #[arg(long, default_value = "false", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        action = ArgAction::Set, value_parser = BoolishValueParser::new(), value_name = "BOOL")]
    pub enable_l2_announcements: bool,

    /// How owners of announced addresses know that one of them is gone: heartbeat, for which the operator makes a key, or lease. Agents
    /// need the same.
    #[arg(long, default_value = "heartbeat", value_name = "HOW")]
    pub l2_announcements_mode: L2Mode,

    /// How often identities are looked through for those that no pod has had for half an hour; 0 keeps them for ever.
    #[arg(long, default_value = "15m", value_parser = parse_duration, value_name = "DURATION")]
    pub identity_gc_interval: Duration,

    /// Leave CustomResourceDefinitions alone, and wait until somebody else has installed them.
    #[arg(long, default_value = "false", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        action = ArgAction::Set, value_parser = BoolishValueParser::new(), value_name = "BOOL")]
    pub skip_crd_creation: bool,

    /// Key of the taint that keeps pods away from a node until its agent works.
    #[arg(long, default_value = "node.cilium.io/agent-not-ready", value_name = "KEY")]
    pub agent_not_ready_taint_key: String,

    /// Remove that taint when the agent works.
    #[arg(long, default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        action = ArgAction::Set, value_parser = BoolishValueParser::new(), value_name = "BOOL")]
    pub remove_cilium_node_taints: bool,

    /// Set the node's condition NetworkUnavailable to False when the agent works.
    #[arg(long, default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        action = ArgAction::Set, value_parser = BoolishValueParser::new(), value_name = "BOOL")]
    pub set_cilium_is_up_condition: bool,

    /// Address of the health endpoint.
    #[arg(long, default_value = "127.0.0.1:9234", value_name = "HOST:PORT")]
    pub operator_api_serve_addr: String,

    /// Address of the metrics endpoint, for example :9963. Off if empty.
    #[arg(long, default_value = "", value_name = "HOST:PORT")]
    pub operator_prometheus_serve_addr: String,

    /// Address of this operator at which the API server reaches the admission webhook, usually that of the pod. No webhook if empty.
    #[arg(long, default_value = "", value_name = "IP")]
    pub admission_webhook_address: String,

    /// Port of the admission webhook.
    #[arg(long, default_value = "9236", value_name = "PORT")]
    pub admission_webhook_port: u16,

    /// Sizes of maps of the agents, as map=entries,map=entries: policies tell how much room there is.
    #[arg(long, default_value = "", value_name = "SIZES")]
    pub bpf_map_sizes: String,

    /// Most writes to the API server in a second; 0 for no limit, which is for the API server to set.
    #[arg(long, alias = "k8s-client-qps", default_value = "0", value_name = "NUMBER")]
    pub operator_k8s_client_qps: f64,

    /// Kubeconfig; without it the service account of the pod is used, or what kubectl would use.
    #[arg(long, value_name = "FILE")]
    pub k8s_kubeconfig_path: Option<PathBuf>,

    /// Namespace of the operator, where its Lease lies.
    #[arg(long, default_value = "kube-system", value_name = "NAMESPACE")]
    pub k8s_namespace: String,

    /// How long a silent leader keeps the Lease.
    #[arg(long, default_value = "15s", value_parser = parse_duration, value_name = "DURATION")]
    pub leader_election_lease_duration: Duration,

    /// How long a leader acts without renewing the Lease.
    #[arg(long, default_value = "10s", value_parser = parse_duration, value_name = "DURATION")]
    pub leader_election_renew_deadline: Duration,

    /// Pause between attempts to get or renew the Lease.
    #[arg(long, default_value = "2s", value_parser = parse_duration, value_name = "DURATION")]
    pub leader_election_retry_period: Duration,

    /// Log more.
    #[arg(long, default_value = "false", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        action = ArgAction::Set, value_parser = BoolishValueParser::new(), value_name = "BOOL")]
    pub debug: bool,

    /// What to do instead of running.
    #[command(subcommand)]
    pub action: Option<Action>,
}

/// What to do instead of running.
#[derive(Clone, Debug, Subcommand)]
pub enum Action {
    /// Print the rules of the ClusterRole that the operator needs, as YAML.
    Rbac {
        /// Print the rules of the Role in the operator's namespace.
        #[arg(long)]
        namespaced: bool,
        /// Print the rules that it needs there in addition, to make the key of heartbeats.
        #[arg(long, conflicts_with = "namespaced")]
        heartbeat: bool,
        /// Print the rules of its Role in the namespace for secrets of BGP.
        #[arg(long, conflicts_with_all = ["namespaced", "heartbeat"])]
        bgp_secrets: bool,
    },
}

/// Values of `--enable-policy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PolicyMode {
    /// Pods that a policy selects are closed.
    Default,
    /// All pods are closed.
    Always,
    /// No pod is closed.
    Never,
}

/// Values of `--default-lb-service-ipam`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DefaultServiceIpam {
    /// Pools.
    Lbipam,
    /// Addresses of nodes, which this operator does not give.
    Nodeipam,
    /// Somebody else.
    None,
}

/// Values of `--ipam`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum IpamMode {
    /// Out of the pod prefixes of their nodes.
    Kubernetes,
    /// Out of pools.
    MultiPool,
}

/// Values of `--bgp-router-id-allocation-mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RouterIdMode {
    /// A node's IPv4 address, or else its name.
    Default,
    /// A pool of their own.
    IpPool,
}

/// Values of `--l2-announcements-mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum L2Mode {
    /// They tell each other on their links that they live.
    Heartbeat,
    /// They hold a Lease.
    Lease,
}

impl From<PolicyMode> for cilium_policy::Mode {
    fn from(mode: PolicyMode) -> Self {
        match mode {
            PolicyMode::Default => Self::Default,
            PolicyMode::Always => Self::Always,
            PolicyMode::Never => Self::Never,
        }
    }
}

impl Options {
    /// Reads everything that the process was given. Prints help, version or usage errors and exits where clap does.
    ///
    /// # Errors
    /// A file of the configuration directory cannot be read, or has a value that does not fit.
    pub fn load() -> anyhow::Result<Self> {
        let given: Vec<OsString> = std::env::args_os().collect();
        let first = Self::parse_from(given.iter());
        let options = match &first.config_dir {
            None => first,
            Some(dir) => Self::with_dir(&given, dir, |name| std::env::var(name).ok())?,
        };
        options.check()?;
        Ok(options)
    }

    fn with_dir(
        given: &[OsString],
        dir: &Path,
        environment: impl Fn(&str) -> Option<String>,
    ) -> anyhow::Result<Self> {
        let command = Self::command();
        let mut arguments: Vec<OsString> = given.iter().take(1).cloned().collect();
        for flag in flags(&command) {
            if let Some(value) = value_of(dir, &flag, &environment)? {
                arguments.push(format!("--{flag}={value}").into());
            }
        }
        let matches = command.clone().try_get_matches_from(&arguments);
        matches
            .with_context(|| format!("a value in {} or in the environment does not fit", dir.display()))?;
        arguments.extend(given.iter().skip(1).cloned());
        Ok(Self::from_arg_matches(&command.try_get_matches_from(arguments)?)?)
    }

    /// Which labels count for identities.
    ///
    /// # Errors
    /// A pattern cannot be read.
    pub fn label_filter(&self) -> anyhow::Result<LabelFilter> {
        let items = self.labels.split([' ', ',', '\n']).filter(|item| !item.is_empty());
        LabelFilter::with(items).context("--labels does not fit")
    }

    /// Entries that the policy map of a node has room for. Other maps, and what is no size, are for the agents to judge.
    ///
    /// # Errors
    /// The size is no number.
    pub fn policy_map_entries(&self) -> anyhow::Result<u32> {
        let sizes = self.bpf_map_sizes.split(',').filter_map(|item| item.split_once('='));
        let mut sizes = sizes.filter(|(name, _)| name.trim() == "cilium_policy").map(|(_, size)| size);
        let Some(size) = sizes.next_back() else { return Ok(cilium_policy::MAP_ENTRIES) };
        size.trim()
            .parse()
            .with_context(|| format!("bpf-map-sizes: cilium_policy={size} is no number of entries"))
    }

    /// Whether agents need a key for heartbeats.
    pub fn needs_heartbeat_key(&self) -> bool {
        self.enable_l2_announcements && self.l2_announcements_mode == L2Mode::Heartbeat
    }

    /// How BGP is planned, if at all.
    ///
    /// # Errors
    /// The pool of router IDs is no IPv4 prefix.
    pub fn bgp(&self) -> anyhow::Result<Option<cilium_bgp_plan::Config>> {
        if !self.enable_bgp_control_plane {
            return Ok(None);
        }
        let pool = &self.bgp_router_id_allocation_ip_pool;
        let router_ids = match self.bgp_router_id_allocation_mode {
            RouterIdMode::Default => cilium_bgp_plan::RouterIds::Node,
            RouterIdMode::IpPool => {
                let parsed = pool.parse().with_context(|| {
                    format!(
                        "--bgp-router-id-allocation-ip-pool: {pool:?} is no IPv4 prefix such as 10.1.0.0/16"
                    )
                })?;
                cilium_bgp_plan::RouterIds::Pool(parsed)
            }
        };
        Ok(Some(cilium_bgp_plan::Config {
            router_ids,
            secrets: !self.bgp_secrets_namespace.is_empty(),
            without_backends: self.enable_no_service_endpoints_routable,
        }))
    }

    /// Prefixes in which redirected addresses have to lie.
    ///
    /// # Errors
    /// One of them is none.
    pub fn redirect_cidrs(&self) -> anyhow::Result<Vec<IpNet>> {
        let items = self.lrp_address_matcher_cidrs.split([' ', ',', '\n']).filter(|item| !item.is_empty());
        let read = |item: &str| {
            let prefix = item.parse::<IpNet>().map(|prefix| prefix.trunc());
            prefix.with_context(|| {
                format!("lrp-address-matcher-cidrs: {item:?} is no prefix such as 169.254.0.0/16")
            })
        };
        items.map(read).collect()
    }

    fn check(&self) -> anyhow::Result<()> {
        self.label_filter()?;
        self.redirect_cidrs()?;
        self.policy_map_entries()?;
        if !self.enable_ipv4 && !self.enable_ipv6 {
            bail!("enable-ipv4 and enable-ipv6 are both false: pods need addresses of one family at least");
        }
        let (lease, renew) = (self.leader_election_lease_duration, self.leader_election_renew_deadline);
        if renew >= lease || self.leader_election_retry_period >= renew {
            bail!(
                "leader-election: the lease duration must be longer than the renew deadline, and that than the retry period"
            );
        }
        Ok(())
    }
}

/// Long names of the flags that a file may set.
fn flags(command: &Command) -> Vec<String> {
    let names = command.get_arguments().filter_map(|argument| argument.get_long().map(str::to_owned));
    names.filter(|name| !["config-dir", "help", "version"].contains(&name.as_str())).collect()
}

fn value_of(
    dir: &Path,
    flag: &str,
    environment: &impl Fn(&str) -> Option<String>,
) -> anyhow::Result<Option<String>> {
    let variable = format!("CILIUM_{}", flag.to_uppercase().replace('-', "_"));
    if let Some(value) = environment(&variable) {
        return Ok(Some(value));
    }
    let file = dir.join(flag);
    match std::fs::read_to_string(&file) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
    }
}

/// Durations as Go writes them, for example `15m0s`; a bare `0` is zero.
fn parse_duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let parsed = text.parse::<jiff::SignedDuration>().map_err(|error| error.to_string())?;
    Duration::try_from(parsed).map_err(|_| format!("{text} is negative"))
}

/// `<first>,<last>`.
fn parse_port_range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let read = || {
        let (first, last) = text.split_once(',')?;
        let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        (0 < first && first < last).then_some(first..=last)
    };
    read().ok_or_else(|| "expected is first,last with 0 < first < last".to_owned())
}

fn parse_cluster_name(text: &str) -> Result<String, String> {
    let middle = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let edge = |c: Option<char>| c.is_some_and(|c| middle(c) && c != '-');
    let fits = text.len() <= 32
        && text.chars().all(middle)
        && edge(text.chars().next())
        && edge(text.chars().last());
    if fits {
        Ok(text.to_owned())
    } else {
        Err("1 to 32 lower-case letters, digits and dashes, no dash at either end".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(files: &[(&str, &str)], variables: &[(&str, &str)], line: &[&str]) -> anyhow::Result<Options> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let given: Vec<OsString> = ["cilium-operator"].iter().chain(line).map(OsString::from).collect();
        let variable = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        Options::with_dir(&given, dir.path(), variable)
    }

    #[test]
    fn the_command_line_wins_over_the_environment_and_that_over_files() {
        let files = [("cluster-name", "file\n"), ("enable-ipv6", "false"), ("identity-gc-interval", "20m0s")];
        let options = load(&files, &[], &[]).unwrap();
        assert_eq!((options.cluster_name.as_str(), options.enable_ipv6), ("file", false));
        assert_eq!(options.identity_gc_interval, Duration::from_secs(1200));
        let variables = [("CILIUM_CLUSTER_NAME", "variable")];
        assert_eq!(load(&files, &variables, &[]).unwrap().cluster_name, "variable");
        let options = load(&files, &variables, &["--cluster-name=line", "--enable-ipv6"]).unwrap();
        assert_eq!((options.cluster_name.as_str(), options.enable_ipv6), ("line", true));
    }

    #[test]
    fn files_of_other_programs_are_passed_over() {
        let options = load(&[("routing-mode", "native"), ("tunnel-port", "8472")], &[], &[]).unwrap();
        assert_eq!(options.cluster_name, "default");
    }

    #[test]
    fn who_gives_addresses_is_one_of_three() {
        let files = [("enable-lb-ipam", "false"), ("default-lb-service-ipam", "none")];
        let options = load(&files, &[], &[]).unwrap();
        assert_eq!(
            (options.enable_lb_ipam, options.default_lb_service_ipam),
            (false, DefaultServiceIpam::None)
        );
        let options = load(&[], &[], &[]).unwrap();
        assert_eq!(
            (options.enable_lb_ipam, options.default_lb_service_ipam),
            (true, DefaultServiceIpam::Lbipam)
        );
        assert!(load(&[("default-lb-service-ipam", "somebody")], &[], &[]).is_err());
    }

    #[test]
    fn a_key_is_needed_for_heartbeats_only() {
        let needs = |files: &[(&str, &str)]| load(files, &[], &[]).unwrap().needs_heartbeat_key();
        assert!(!needs(&[]));
        assert!(needs(&[("enable-l2-announcements", "true")]));
        assert!(needs(&[("enable-l2-announcements", "true"), ("l2-announcements-mode", "heartbeat")]));
        assert!(!needs(&[("enable-l2-announcements", "true"), ("l2-announcements-mode", "lease")]));
        assert!(!needs(&[("enable-l2-announcements", "false"), ("l2-announcements-mode", "heartbeat")]));
        assert!(load(&[("l2-announcements-mode", "both")], &[], &[]).is_err());
    }

    #[test]
    fn router_ids_come_from_nodes_or_a_pool() {
        let of = |files: &[(&str, &str)]| load(files, &[], &[]).unwrap().bgp();
        assert_eq!(of(&[("bgp-router-id-allocation-mode", "ip-pool")]).unwrap(), None, "BGP is off");
        let on = ("enable-bgp-control-plane", "true");
        assert_eq!(of(&[on]).unwrap(), Some(cilium_bgp_plan::Config::default()));
        let (mode, pool) = (("bgp-router-id-allocation-mode", "ip-pool"), "bgp-router-id-allocation-ip-pool");
        let found = of(&[on, mode, (pool, "10.1.0.0/16"), ("bgp-secrets-namespace", "")]).unwrap().unwrap();
        assert_eq!(found.router_ids, cilium_bgp_plan::RouterIds::Pool("10.1.0.0/16".parse().unwrap()));
        assert!(!found.secrets);
        let error = of(&[on, mode, (pool, "fd00::/64")]).unwrap_err();
        assert!(format!("{error:#}").contains("is no IPv4 prefix"), "{error:#}");
    }

    #[test]
    fn a_value_that_does_not_fit_is_named_with_its_flag() {
        let error = load(&[("enable-policy", "sometimes")], &[], &[]).unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("sometimes") && text.contains("--enable-policy"), "{text}");
    }

    #[test]
    fn the_room_for_policies_is_that_of_the_agents() {
        let entries =
            |sizes: &str| load(&[("bpf-map-sizes", sizes)], &[], &[]).unwrap().policy_map_entries().unwrap();
        assert_eq!(entries(""), cilium_policy::MAP_ENTRIES);
        assert_eq!(entries("cilium_ipcache=7, cilium_policy=5"), 5);
        assert_eq!(entries("cilium_ipcache=7"), cilium_policy::MAP_ENTRIES);
        let error = load(&[("bpf-map-sizes", "cilium_policy=many")], &[], &[]).unwrap().check().unwrap_err();
        assert!(format!("{error:#}").contains("cilium_policy=many"), "{error:#}");
    }

    #[test]
    fn prefixes_for_redirects_are_read() {
        let line = "--lrp-address-matcher-cidrs=169.254.20.10/16, fd00::/8";
        let prefixes = load(&[], &[], &[line]).unwrap().redirect_cidrs().unwrap();
        let texts: Vec<String> = prefixes.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["169.254.0.0/16", "fd00::/8"]);
    }

    #[test]
    fn ports_of_nodes_are_a_range() {
        assert_eq!(
            load(&[("node-port-range", "20000, 22767")], &[], &[]).unwrap().node_port_range,
            20_000..=22_767
        );
        assert_eq!(load(&[], &[], &[]).unwrap().node_port_range, 30_000..=32_767);
        for text in ["30000", "0,5", "5,5", "1,70000"] {
            assert!(load(&[("node-port-range", text)], &[], &[]).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_read_as_go_writes_them() {
        assert_eq!(parse_duration("15m0s"), Ok(Duration::from_secs(900)));
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("150ms"), Ok(Duration::from_millis(150)));
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        assert!(parse_duration("-1s").is_err());
        assert!(parse_duration("soon").is_err());
    }

    #[test]
    fn what_cannot_work_is_refused() {
        for line in [
            vec!["--enable-ipv4=false", "--enable-ipv6=false"],
            vec!["--leader-election-renew-deadline=20s"],
            vec!["--leader-election-retry-period=10s"],
            vec!["--labels=k8s:app !"],
            vec!["--lrp-address-matcher-cidrs=169.254.169.254"],
        ] {
            assert!(load(&[], &[], &line).unwrap().check().is_err(), "{line:?}");
        }
        for name in ["", "-a", "a-", "Upper", "a_b"] {
            assert!(parse_cluster_name(name).is_err(), "{name}");
        }
    }
}
