//! The command line. Names of commands and options are upstream's where it has them.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use cilium_print::output::{DataOutput, TableOutput};

/// What the agent of this node knows and does
#[derive(Debug, Parser)]
#[command(
    name = "cilium-dbg",
    version,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Examples:
  cilium-dbg status
  cilium-dbg endpoint list
  cilium-dbg monitor -t drop

In a cluster it runs in the agent's pod:
  kubectl -n kube-system exec ds/cilium -c cilium-agent -- cilium-dbg status"
)]
pub(crate) struct Cli {
    /// Socket of the agent's API [default: /var/run/cilium/cilium.sock]
    #[arg(short = 'H', long, global = true, env = cilium_rest::SOCKET_VARIABLE, value_name = "SOCKET")]
    pub(crate) host: Option<String>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// State of the agent; exits with 1 when it is not well
    #[command(after_help = "Examples:
  cilium-dbg status
  cilium-dbg status --brief
  cilium-dbg status --verbose
  cilium-dbg status -o json")]
    Status(StatusArgs),
    /// Pods of this node
    #[command(subcommand)]
    Endpoint(EndpointCommand),
    /// Policy of this node's pods
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Security identities and their labels
    #[command(subcommand)]
    Identity(IdentityCommand),
    /// Services and their backends
    #[command(subcommand)]
    Service(ServiceCommand),
    /// Policies that redirect to pods of this node
    #[command(subcommand)]
    Lrp(RedirectCommand),
    /// Sessions and routes of this node's BGP speaker
    #[command(subcommand)]
    Bgp(BgpCommand),
    /// Addresses of Services that this node makes known on its links
    #[command(subcommand, name = "l2-announce")]
    L2Announce(AnnouncementCommand),
    /// Addresses and their identities
    #[command(subcommand)]
    Ip(IpCommand),
    /// Names that pods of this node asked for
    #[command(subcommand)]
    Fqdn(FqdnCommand),
    /// Nodes of the cluster
    #[command(subcommand)]
    Node(NodeCommand),
    /// Entries of the kernel's maps
    #[command(subcommand)]
    Bpf(BpfCommand),
    /// Show drops and policy verdicts as they happen
    #[command(after_help = "Examples:
  cilium-dbg monitor
  cilium-dbg monitor -t drop
  cilium-dbg monitor -t drop -t policy-verdict -j")]
    Monitor(MonitorArgs),
    /// Versions of this program and of the agent
    #[command(after_help = "Examples:
  cilium-dbg version
  cilium-dbg version -o json")]
    Version(DataOutput),
}

/// Options of `status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// One line: OK, or what is wrong
    #[arg(long)]
    pub(crate) brief: bool,
    /// Also addresses, kernel features and the sizes of maps
    #[arg(long, conflicts_with = "brief")]
    pub(crate) verbose: bool,
    /// Also the addresses of pods
    #[arg(long)]
    pub(crate) all_addresses: bool,
    /// How long to wait for the agent, for example 500ms, 30s or 1m
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub(crate) timeout: Duration,
    #[command(flatten)]
    pub(crate) output: DataOutput,
}

/// `endpoint …`
#[derive(Debug, Subcommand)]
pub(crate) enum EndpointCommand {
    /// Enforcement, identity, labels and addresses of each
    #[command(
        visible_alias = "ls",
        after_help = "Examples:
  cilium-dbg endpoint list
  cilium-dbg endpoint list -o json
  cilium-dbg endpoint list --no-headers"
    )]
    List(TableOutput),
    /// Everything about one
    #[command(after_help = "Examples:
  cilium-dbg endpoint get 17
  cilium-dbg endpoint get pod-name:default/xwing
  cilium-dbg endpoint get ipv4:10.0.1.17 -o yaml")]
    Get {
        /// Number, or pod-name:NAMESPACE/NAME, container-id:ID, cni-attachment-id:ID, ipv4:ADDRESS, ipv6:ADDRESS
        id: String,
        #[command(flatten)]
        output: DataOutput,
    },
}

/// `fqdn …`
#[derive(Debug, Subcommand)]
pub(crate) enum FqdnCommand {
    /// Names, addresses and how long they hold
    #[command(subcommand)]
    Cache(FqdnCacheCommand),
}

/// `fqdn cache …`
#[derive(Debug, Subcommand)]
pub(crate) enum FqdnCacheCommand {
    /// What was learned, for all endpoints of the node
    #[command(
        visible_alias = "ls",
        after_help = "Names are known to a node as a whole: any of its endpoints with a rule for a name may use its addresses. Source says
what keeps an address: lookup, as the answer still holds, or connection, as one is still open.

Examples:
  cilium-dbg fqdn cache list
  cilium-dbg fqdn cache list -o json"
    )]
    List(TableOutput),
}

/// `policy …`
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// What is allowed, for each identity with pods on this node
    #[command(after_help = "Examples:
  cilium-dbg policy get
  cilium-dbg policy get -o yaml")]
    Get(DataOutput),
}

/// `identity …`
#[derive(Debug, Subcommand)]
pub(crate) enum IdentityCommand {
    /// All that the node knows
    #[command(
        visible_alias = "ls",
        after_help = "Examples:
  cilium-dbg identity list
  cilium-dbg identity list -o json"
    )]
    List(TableOutput),
    /// One of them
    #[command(after_help = "Examples:
  cilium-dbg identity get 20011")]
    Get {
        /// Number
        id: i64,
        #[command(flatten)]
        output: TableOutput,
    },
}

/// Commands that can only list.
macro_rules! list_command {
    ($name:ident, $command:literal, $about:literal) => {
        #[doc = concat!("`", $command, " …`")]
        #[derive(Debug, Subcommand)]
        pub(crate) enum $name {
            #[command(
                about = $about,
                visible_alias = "ls",
                after_help = concat!(
                    "Examples:\n  cilium-dbg ", $command, " list\n  cilium-dbg ", $command, " list -o json"
                )
            )]
            List(TableOutput),
        }
    };
}
list_command!(ServiceCommand, "service", "Addresses and ports of Services, with their backends");
list_command!(
    RedirectCommand,
    "lrp",
    "Addresses and ports that lead to pods of this node (CiliumLocalRedirectPolicy)"
);
list_command!(
    AnnouncementCommand,
    "l2-announce",
    "Addresses that this node answers for, or would (CiliumL2AnnouncementPolicy)"
);
list_command!(IpCommand, "ip", "Prefixes with their identity, and the node behind which they are");
list_command!(NodeCommand, "node", "Addresses and pod prefixes of the nodes");
list_command!(BpfEndpointCommand, "bpf endpoint", "Local addresses and what is behind them");
list_command!(IpcacheCommand, "bpf ipcache", "Prefixes with identity and tunnel endpoint");
list_command!(CtCommand, "bpf ct", "Connections");
list_command!(NatCommand, "bpf nat", "Translations of masqueraded connections");
list_command!(MetricsCommand, "bpf metrics", "Packets by what happened to them");

/// `bgp …`
#[derive(Debug, Subcommand)]
pub(crate) enum BgpCommand {
    /// Neighbours, with the state of each session and why it is not established
    #[command(after_help = "Examples:
  cilium-dbg bgp peers
  cilium-dbg bgp peers -o json")]
    Peers(TableOutput),
    /// Routes: what there is to make known, what peers were told, what they told
    #[command(after_help = "Examples:
  cilium-dbg bgp routes
  cilium-dbg bgp routes advertised ipv4 unicast
  cilium-dbg bgp routes received ipv6 unicast peer fd00::1
  cilium-dbg bgp routes available ipv4 unicast vrouter 64512 -o yaml")]
    Routes {
        /// Which table
        #[arg(default_value = "available")]
        table: TableName,
        /// Address family
        #[arg(default_value = "ipv4")]
        afi: Afi,
        /// The only one there is
        #[arg(default_value = "unicast", value_parser = ["unicast"])]
        safi: String,
        /// vrouter ASN: of instances with this AS number; peer ADDRESS: of this neighbour
        #[arg(value_name = "vrouter ASN | peer ADDRESS")]
        which: Vec<String>,
        #[command(flatten)]
        output: TableOutput,
    },
    /// Which prefixes go to which peer, and with what
    #[command(after_help = "Examples:
  cilium-dbg bgp route-policies
  cilium-dbg bgp route-policies -o json")]
    RoutePolicies(TableOutput),
}

/// Tables of routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TableName {
    /// What there is to make known
    Available,
    /// What peers were told
    Advertised,
    /// What peers told
    Received,
}

/// Address families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Afi {
    Ipv4,
    Ipv6,
}

/// `bpf …`
#[derive(Debug, Subcommand)]
pub(crate) enum BpfCommand {
    /// Pods of this node
    #[command(subcommand)]
    Endpoint(BpfEndpointCommand),
    /// Identities of addresses
    #[command(subcommand)]
    Ipcache(IpcacheCommand),
    /// Policy
    #[command(subcommand)]
    Policy(BpfPolicyCommand),
    /// Connection tracking
    #[command(subcommand)]
    Ct(CtCommand),
    /// Address translation
    #[command(subcommand)]
    Nat(NatCommand),
    /// Load balancing
    #[command(subcommand)]
    Lb(LbCommand),
    /// Counters
    #[command(subcommand)]
    Metrics(MetricsCommand),
}

/// `bpf policy …`
#[derive(Debug, Subcommand)]
pub(crate) enum BpfPolicyCommand {
    /// What is allowed, generation by generation
    #[command(
        visible_alias = "ls",
        after_help = "Examples:
  cilium-dbg bpf policy list
  cilium-dbg bpf policy list -o json"
    )]
    List(TableOutput),
    /// What is allowed for one endpoint, by the policy that it is under now
    #[command(after_help = "Examples:
  cilium-dbg bpf policy get 17
  cilium-dbg bpf policy get pod-name:default/xwing
  cilium-dbg bpf policy get 17 -o json")]
    Get {
        /// Number, or another name that endpoint get takes
        id: String,
        #[command(flatten)]
        output: TableOutput,
    },
    /// Empty the map; the agent notices and writes it again
    #[command(
        after_help = "Until the agent has written it again, pods whose policy is enforced lose what it allows. For fault tests.

Examples:
  cilium-dbg bpf policy flush
  cilium-dbg bpf policy flush --yes"
    )]
    Flush(FlushArgs),
}

/// Options of `bpf policy flush`.
#[derive(Debug, Args)]
pub(crate) struct FlushArgs {
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// The agent's directory in the BPF file system
    #[arg(long, value_name = "DIRECTORY", default_value = "/sys/fs/bpf/cilium")]
    pub(crate) bpffs: PathBuf,
}

/// `bpf lb …`
#[derive(Debug, Subcommand)]
pub(crate) enum LbCommand {
    /// Service addresses with their backends
    #[command(
        visible_alias = "ls",
        after_help = "Examples:
  cilium-dbg bpf lb list
  cilium-dbg bpf lb list --backends
  cilium-dbg bpf lb list -o json"
    )]
    List {
        /// The entries of the backend map instead
        #[arg(long)]
        backends: bool,
        #[command(flatten)]
        output: TableOutput,
    },
    /// Tables by which nodes agree on backends
    #[command(subcommand)]
    Maglev(MaglevCommand),
}

/// `bpf lb maglev …`
#[derive(Debug, Subcommand)]
pub(crate) enum MaglevCommand {
    /// How much of its table each backend of a service has
    #[command(
        visible_alias = "ls",
        after_help = "Equal digests on two nodes: both send a connection to the same backend.

Examples:
  cilium-dbg bpf lb maglev list
  cilium-dbg bpf lb maglev list -o json"
    )]
    List(TableOutput),
}

/// Options of `monitor`.
#[derive(Debug, Args)]
pub(crate) struct MonitorArgs {
    /// Only events of this type; may be given several times
    #[arg(short = 't', long = "type", value_name = "TYPE")]
    pub(crate) types: Vec<MonitorType>,
    /// Print each event as a line of JSON
    #[arg(short, long)]
    pub(crate) json: bool,
}

/// Types of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum MonitorType {
    Drop,
    PolicyVerdict,
}

/// A duration such as `500ms`, `30s` or `1m`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|end: char| end.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| format!("{digits:?} is no whole number"))?;
    let milliseconds = match &text[digits.len()..] {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        unit => return Err(format!("{unit:?} is none of the units ms, s and m")),
    };
    match number.checked_mul(milliseconds) {
        Some(0) | None => Err("must be more than nothing, and not forever".into()),
        Some(milliseconds) => Ok(Duration::from_millis(milliseconds)),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    /// Every command that does something, with its examples.
    fn leaves(command: &clap::Command, found: &mut Vec<(String, String)>) {
        for child in command.get_subcommands() {
            leaves(child, found);
        }
        if !command.has_subcommands() {
            let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            found.push((command.get_name().into(), examples));
        }
    }

    #[test]
    fn every_command_has_examples_that_parse() {
        Cli::command().debug_assert();
        let mut found = Vec::new();
        leaves(&Cli::command(), &mut found);
        assert_eq!(found.len(), 27);
        for (command, help) in found {
            let examples: Vec<&str> = help.lines().filter_map(|line| line.strip_prefix("  ")).collect();
            assert!(!examples.is_empty(), "{command}");
            for example in examples {
                let parsed = Cli::try_parse_from(example.split(' '));
                assert!(parsed.is_ok(), "{command}: {example}: {parsed:?}");
            }
        }
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("5ms"), Ok(Duration::from_millis(5)));
        for nonsense in
            ["", "30", "s", "0s", "-1s", "1h", "1.5s", "99999999999999999999s", "9999999999999999999s"]
        {
            assert!(duration(nonsense).is_err(), "{nonsense}");
        }
    }
}
