//! Rules of kube-proxy are found on the real kernel, in namespaces of their own. Needs root, nft and iptables.
#![expect(clippy::unwrap_used, reason = "a test stops where something fails")]

use std::process::Command;

use cilium_drivers::{
    netlink::{KubeProxyMode, KubeProxyRules},
    netns::Netns,
    testing,
};

fn run(namespace: &Netns, command: &str) {
    let mut words = command.split(' ');
    let program = words.next().unwrap();
    let output = namespace.run(|| Command::new(program).args(words).output().unwrap()).unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

fn found(namespace: &Netns) -> Vec<KubeProxyMode> {
    namespace.run(|| KubeProxyRules::open().unwrap().find().unwrap()).unwrap()
}

#[test]
fn a_table_of_its_own_is_found_in_either_family() {
    for family in ["ip", "ip6"] {
        let namespace = testing::namespace();
        assert_eq!(found(&namespace), []);
        run(&namespace, &format!("nft add table {family} kube-proxy-of-others"));
        assert_eq!(found(&namespace), [], "another name");
        run(&namespace, &format!("nft add table {family} kube-proxy"));
        assert_eq!(found(&namespace), [KubeProxyMode::Nftables]);
        run(&namespace, &format!("nft delete table {family} kube-proxy"));
        assert_eq!(found(&namespace), []);
    }
}

#[test]
fn a_chain_is_found_in_either_family() {
    for iptables in ["iptables-nft", "ip6tables-nft"] {
        let namespace = testing::namespace();
        run(&namespace, &format!("{iptables} -t nat -N KUBE-SERVICE"));
        assert_eq!(found(&namespace), [], "another name");
        run(&namespace, &format!("{iptables} -t filter -N KUBE-SERVICES"));
        assert_eq!(found(&namespace), [], "another table");
        run(&namespace, &format!("{iptables} -t nat -N KUBE-SERVICES"));
        assert_eq!(found(&namespace), [KubeProxyMode::Iptables]);
        run(&namespace, "nft add table ip kube-proxy");
        assert_eq!(found(&namespace), [KubeProxyMode::Nftables, KubeProxyMode::Iptables]);
    }
}

#[test]
fn a_chain_in_the_older_tables_is_found_and_no_table_is_made() {
    let namespace = testing::namespace();
    assert_eq!(found(&namespace), []);
    let names =
        || namespace.run(|| std::fs::read_to_string("/proc/thread-self/net/ip_tables_names").unwrap());
    assert_eq!(names().unwrap(), "", "to ask for a table must not make it");
    run(&namespace, "iptables-legacy -t nat -N KUBE-SERVICES");
    assert_eq!(found(&namespace), [KubeProxyMode::IptablesLegacy]);
    run(&namespace, "iptables-legacy -t nat -X KUBE-SERVICES");
    assert_eq!(found(&namespace), []);
}
