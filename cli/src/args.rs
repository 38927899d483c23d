//! The command line.

use std::net::IpAddr;
use std::path::PathBuf;

use cilium_api::selector::LabelSelector;
use cilium_core::Selector;
use cilium_print::output::{DataOutput, TableOutput};
use clap::{Args, Parser, Subcommand};

/// Questions about a cluster, from wherever a kubeconfig is
#[derive(Debug, Parser)]
#[command(
    name = "cilium",
    version,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Examples:
  cilium policy explain --from default/xwing --to default/deathstar --port 80/TCP
  cilium policy diff -f rule1.yaml
  cilium migrate metallb -f metallb.yaml
  cilium bgp peers

It reads through the API server and changes nothing. What policy commands need to read: pods, namespaces, nodes, services,
endpointslices, and the kinds of cilium.io."
)]
pub(crate) struct Cli {
    /// Kubeconfig [default: $KUBECONFIG, ~/.kube/config, the service account of a pod]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// Namespace of names that are given without one [default: that of the context]
    #[arg(short, long, global = true)]
    pub(crate) namespace: Option<String>,
    /// Namespace in which the product is installed
    #[arg(long, global = true, value_name = "NAMESPACE", default_value = "kube-system")]
    pub(crate) system_namespace: String,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// What policies do to traffic
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// BGP sessions and routes of all nodes
    #[command(subcommand)]
    Bgp(BgpCommand),
    /// What another product's objects are here
    #[command(subcommand)]
    Migrate(MigrateCommand),
}

/// `bgp …`
#[derive(Debug, Subcommand)]
pub(crate) enum BgpCommand {
    /// Neighbours of each node, with the state of each session and why it is not established
    #[command(after_help = "Examples:
  cilium bgp peers
  cilium bgp peers --node worker-1
  cilium bgp peers -o json

It runs cilium-dbg in the pods of the speakers (k8s-app=cilium-bgp), for which the right to create pods/exec in the system
namespace is needed; an agent need not run.

Exit status: 0 all nodes answered, 1 some did not: which, is on standard error.")]
    Peers(BgpPeersArgs),
    /// Routes of each node: what there is to make known, what peers were told, what they told
    #[command(after_help = "Examples:
  cilium bgp routes
  cilium bgp routes advertised ipv4 unicast
  cilium bgp routes received ipv6 unicast peer fd00::1
  cilium bgp routes available ipv4 unicast vrouter 64512 --node worker-1 -o json

Exit status: as of bgp peers.")]
    Routes(BgpRoutesArgs),
}

/// Options of `bgp peers`.
#[derive(Debug, Args)]
pub(crate) struct BgpPeersArgs {
    /// Only this node
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Option<String>,
    #[command(flatten)]
    pub(crate) output: TableOutput,
}

/// Options of `bgp routes`.
#[derive(Debug, Args)]
pub(crate) struct BgpRoutesArgs {
    /// Which table
    #[arg(default_value = "available", value_parser = ["available", "advertised", "received"])]
    pub(crate) table: String,
    /// Address family
    #[arg(default_value = "ipv4", value_parser = ["ipv4", "ipv6"])]
    pub(crate) afi: String,
    /// The only one there is
    #[arg(default_value = "unicast", value_parser = ["unicast"])]
    pub(crate) safi: String,
    /// vrouter ASN: of instances with this AS number; peer ADDRESS: of this neighbour
    #[arg(value_name = "vrouter ASN | peer ADDRESS")]
    pub(crate) which: Vec<String>,
    /// Only this node
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Option<String>,
    #[command(flatten)]
    pub(crate) output: TableOutput,
}

/// `migrate …`
#[derive(Debug, Subcommand)]
pub(crate) enum MigrateCommand {
    /// MetalLB's pools, L2 advertisements and Services; asks no cluster
    #[command(after_help = "Examples:
  kubectl get ipaddresspools,l2advertisements,bgppeers,bgpadvertisements -n metallb-system -o yaml > metallb.yaml
  kubectl get services -A -o yaml > services.yaml
  cilium migrate metallb -f metallb.yaml -f services.yaml > cilium.yaml
  kubectl apply --dry-run=server -f cilium.yaml

Pools and policies go to standard output, with what to set on Services as comments (-o has all of it as data). What has
no counterpart, or another meaning, goes to standard error, with what to do. docs/guides/metallb-migration.md leads
through a migration. Services that name no namespace are in that of -n, or in default.

Exit status: 0 everything is converted, 1 something has no counterpart or another meaning, 2 the input cannot be read;
then nothing is printed.")]
    Metallb(MetallbArgs),
}

/// Options of `migrate metallb`.
#[derive(Debug, Args)]
pub(crate) struct MetallbArgs {
    /// Manifests, as YAML or JSON, of MetalLB's objects and of Services; - is standard input
    #[arg(short, long, value_name = "FILE", required = true)]
    pub(crate) filename: Vec<PathBuf>,
    /// Let policies select only Services with this label, while MetalLB runs beside
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    pub(crate) moved_label: Option<(String, String)>,
    /// Announce from nodes with node.kubernetes.io/exclude-from-external-load-balancers, too, as MetalLB does with its
    /// flag of this name
    #[arg(long)]
    pub(crate) ignore_exclude_lb: bool,
    #[command(flatten)]
    pub(crate) output: DataOutput,
}

/// `policy …`
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Why traffic passes or does not: the rule that decides, or the one that came nearest
    #[command(after_help = "Examples:
  cilium policy explain --from default/xwing --to default/deathstar --port 80/TCP
  cilium policy explain --from xwing --to deathstar.default.svc --port 80/TCP
  cilium policy explain --from xwing --to 192.0.2.7 --port 443/TCP -o json
  cilium policy explain --from xwing --to api.example.com --port 443/TCP
  cilium policy explain --from xwing --to deathstar --port 8/ICMP

A Service stands for each of its backends; --port is then the port of the Service. Other names are outside of the
cluster: whether the pod may ask for the name counts, and what is allowed by name and for every address outside. ICMP and ICMPv6 have the type of the message in place of the port.")]
    Explain(ExplainArgs),
    /// What would change for which pods if policies were applied; changes nothing
    #[command(after_help = "Examples:
  cilium policy diff -f new.yaml
  kubectl kustomize overlays/prod | cilium policy diff -f -
  cilium policy diff -f new.yaml -o json

Exit status: 0 nothing would change, 1 something would, 2 it could not be found out, for example as a policy is not valid.")]
    Diff(DiffArgs),
}

/// Options of `policy explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// Sender: [NAMESPACE/]POD, or an address
    #[arg(long, value_name = "POD|IP")]
    pub(crate) from: String,
    /// Receiver: [NAMESPACE/]POD, an address, a Service (NAME, NAME.NAMESPACE, NAME.NAMESPACE.svc), or another DNS name
    #[arg(long, value_name = "POD|IP|NAME")]
    pub(crate) to: String,
    /// Destination port and protocol: 80/TCP, 53/UDP, 8/ICMP
    #[arg(long, value_name = "PORT[/PROTOCOL]", value_parser = port)]
    pub(crate) port: Port,
    #[command(flatten)]
    pub(crate) output: DataOutput,
}

/// Options of `policy diff`.
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// Manifests with policies, as YAML or JSON; - is standard input
    #[arg(short, long, value_name = "FILE", required = true)]
    pub(crate) filename: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) output: DataOutput,
}

/// A destination port with its protocol, or a type of ICMP message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    /// IP protocol number.
    pub(crate) protocol: u8,
    /// Port or type.
    pub(crate) number: u16,
}

/// Names of protocols that policies know, with their numbers (IANA, protocol numbers).
const PROTOCOLS: [(&str, u8); 5] = [("TCP", 6), ("UDP", 17), ("SCTP", 132), ("ICMP", 1), ("ICMPv6", 58)];

impl std::fmt::Display for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = PROTOCOLS.iter().find(|(_, number)| *number == self.protocol).map_or("", |(name, _)| name);
        write!(f, "{}/{name}", self.number)
    }
}

fn port(text: &str) -> Result<Port, String> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "TCP"));
    let known = PROTOCOLS.iter().find(|(name, _)| name.eq_ignore_ascii_case(protocol));
    let (_, protocol) =
        known.ok_or_else(|| format!("{protocol} is none of TCP, UDP, SCTP, ICMP and ICMPv6"))?;
    let last = if matches!(protocol, 1 | 58) { 255 } else { u16::MAX };
    let number: u32 = number.parse().map_err(|_| format!("{number:?} is not a number"))?;
    match u16::try_from(number).ok().filter(|number| *number <= last) {
        Some(number) => Ok(Port { protocol: *protocol, number }),
        None if last == 255 => Err(format!("{number} is not a type of ICMP message, they go up to 255")),
        None => Err(format!("{number} is not a port, they go up to {last}")),
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    let match_labels = Some([(key.to_owned(), value.to_owned())].into());
    let selector = LabelSelector { match_labels, match_expressions: None };
    Selector::parse(&selector).map_err(|error| error.reason)?;
    Ok((key.to_owned(), value.to_owned()))
}

/// What `--from` and `--to` name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// An address.
    Address(IpAddr),
    /// A pod, by namespace and name.
    Pod(String, String),
    /// A Service, by namespace and name.
    Service(String, String),
    /// Another name of the DNS.
    Name(String),
}

impl Target {
    /// Reads what was given; `namespace` is that of names without one.
    pub(crate) fn parse(text: &str, namespace: &str) -> Self {
        if let Ok(address) = text.parse() {
            return Self::Address(address);
        }
        if let Some((namespace, pod)) = text.split_once('/') {
            return Self::Pod(namespace.to_owned(), pod.to_owned());
        }
        let labels: Vec<&str> = text.trim_end_matches('.').split('.').collect();
        match labels.as_slice() {
            [pod] => Self::Pod(namespace.to_owned(), (*pod).to_owned()),
            [service, namespace, "svc", ..] => Self::Service((*namespace).to_owned(), (*service).to_owned()),
            _ => Self::Name(text.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn ports_are_read_with_their_protocol() {
        assert_eq!(port("80"), Ok(Port { protocol: 6, number: 80 }));
        assert_eq!(port("53/udp"), Ok(Port { protocol: 17, number: 53 }));
        assert_eq!(port("8/ICMP").unwrap().to_string(), "8/ICMP");
        assert!(port("http").unwrap_err().contains("not a number"));
        assert!(port("1/GRE").unwrap_err().contains("none of"));
        assert!(port("256/ICMP").unwrap_err().contains("up to 255"));
        assert!(port("70000/TCP").unwrap_err().contains("up to 65535"));
    }

    #[test]
    fn a_label_has_key_and_value() {
        assert_eq!(label("example.org/moved=yes"), Ok(("example.org/moved".to_owned(), "yes".to_owned())));
        assert_eq!(label("moved").unwrap_err(), "write KEY=VALUE");
        assert_eq!(label("moved=a b").unwrap_err(), "\"a b\" is not a label value");
    }

    #[test]
    fn targets_are_told_apart() {
        let pod = |namespace: &str, name: &str| Target::Pod(namespace.to_owned(), name.to_owned());
        assert_eq!(Target::parse("fd00::1", "x"), Target::Address("fd00::1".parse().unwrap()));
        assert_eq!(Target::parse("xwing", "x"), pod("x", "xwing"));
        assert_eq!(Target::parse("a/xwing", "x"), pod("a", "xwing"));
        let service = Target::Service("default".to_owned(), "deathstar".to_owned());
        assert_eq!(Target::parse("deathstar.default.svc", "x"), service);
        assert_eq!(Target::parse("deathstar.default.svc.cluster.local.", "x"), service);
        assert_eq!(Target::parse("example.com", "x"), Target::Name("example.com".to_owned()));
    }
}
