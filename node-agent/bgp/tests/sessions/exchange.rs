//! What reaches the peer, and what stays of it when a session ends.

use std::time::Duration;

use cilium_bgp::Speaker;
use cilium_rest::bgp::{Password, RouteChanges, RouteTable, SessionState};

use crate::node::{Node, Variant as _, in_namespace, mk_config, mk_peer, mk_routes, net};

/// Two speakers, the second one passive.
fn mk_nodes() -> (Node, Node) {
    let (one, two) = (Node::start(), Node::start());
    one.set(mk_config(1, &[mk_peer(1, 2)]));
    two.set(mk_config(2, &[mk_peer(2, 1).passive()]));
    (one, two)
}

#[test]
fn prefixes_reach_the_peer_and_leave_it() {
    in_namespace(async {
        let (one, two) = mk_nodes();
        one.speaker.set_routes(mk_routes(&[("10.0.0.1/32", "a"), ("10.0.0.2/32", "b"), ("fd00::/64", "a")]));
        two.until_received(&["10.0.0.1/32", "10.0.0.2/32", "fd00::/64"]).await;
        let views = two.speaker.routes();
        let view = views.iter().find(|it| it.table == RouteTable::Received).unwrap();
        assert_eq!((view.prefix, view.next_hop), (net("10.0.0.1/32"), "192.0.2.1".parse().unwrap()));
        assert_eq!((view.as_path.clone(), view.communities.clone()), (vec!["65001".to_owned()], vec![7]));
        let six = views.iter().find(|it| it.prefix == net("fd00::/64")).unwrap();
        assert_eq!(six.next_hop.to_string(), "2001:db8::1");
        one.speaker
            .change_routes(RouteChanges {
                set: mk_routes(&[("10.0.0.3/32", "b")]),
                removed: vec![net("10.0.0.1/32"), net("fd00::/64")],
            })
            .unwrap();
        two.until_received(&["10.0.0.2/32", "10.0.0.3/32"]).await;
        let advertised = one.peer(0).families.iter().map(|it| it.advertised).collect::<Vec<_>>();
        assert_eq!(advertised, [2, 0]);
    });
}

#[test]
fn two_that_connect_to_each_other_have_one_session() {
    in_namespace(async {
        let nodes = [Node::start(), Node::start()];
        nodes[0].set(mk_config(1, &[mk_peer(1, 2)]));
        nodes[1].set(mk_config(2, &[mk_peer(2, 1)]));
        nodes[0].speaker.set_routes(mk_routes(&[("10.0.0.1/32", "a")]));
        nodes[1].speaker.set_routes(mk_routes(&[("10.0.1.1/32", "a")]));
        nodes[0].until_received(&["10.0.1.1/32"]).await;
        nodes[1].until_received(&["10.0.0.1/32"]).await;
        // A second connection would end the first one when it is noticed.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        for node in &nodes {
            assert_eq!(node.peer(0).state, SessionState::Established);
        }
    });
}

#[test]
fn an_unknown_as_may_be_any() {
    in_namespace(async {
        let (one, two) = (Node::start(), Node::start());
        let mut peer = mk_peer(1, 2);
        peer.asn = 0;
        one.set(mk_config(1, &[peer]));
        two.set(mk_config(2, &[mk_peer(2, 1).passive()]));
        one.until(SessionState::Established).await;
        assert_eq!(one.peer(0).asn, 65002);
    });
}

#[test]
fn another_as_is_said_so() {
    in_namespace(async {
        let (one, two) = (Node::start(), Node::start());
        let mut peer = mk_peer(1, 2);
        peer.asn = 65009;
        one.set(mk_config(1, &[peer]));
        two.set(mk_config(2, &[mk_peer(2, 1).passive()]));
        let ours = "the peer's OPEN was refused: Bad Peer AS (2/2); it says AS 65002, configured is AS 65009";
        one.until_reason(ours).await;
        two.until_reason("the peer ended the session: Bad Peer AS (2/2)").await;
    });
}

#[test]
fn nobody_listens_there() {
    in_namespace(async {
        let one = Node::start();
        one.set(mk_config(1, &[mk_peer(1, 2)]));
        one.until_reason("192.0.2.2 port 1790 refuses TCP connections").await;
    });
}

#[test]
fn passwords_have_to_be_the_same() {
    in_namespace(async {
        let (one, two) = (Node::start(), Node::start());
        let with = |password: &str| Some(Password(password.to_owned()));
        let (mut ours, mut theirs) = (mk_peer(1, 2), mk_peer(2, 1).passive());
        ours.connect_retry = 1;
        ours.password = with("one");
        theirs.password = with("another one");
        two.set(mk_config(2, std::slice::from_ref(&theirs)));
        one.set(mk_config(1, &[ours]));
        let silence = "no answer from 192.0.2.2 port 1790 within 1 s; it is also silent where it has another password, or none";
        one.until_reason(silence).await;
        theirs.password = with("one");
        two.set(mk_config(2, &[theirs]));
        one.until(SessionState::Established).await;
    });
}

#[test]
fn hops_are_limited_on_both_sides() {
    in_namespace(async {
        let (one, two) = (Node::start(), Node::start());
        let (mut ours, mut theirs) = (mk_peer(1, 2), mk_peer(2, 1).passive());
        ours.ttl_security = true;
        theirs.ttl_security = true;
        one.set(mk_config(1, &[ours]));
        two.set(mk_config(2, &[theirs]));
        one.until(SessionState::Established).await;
    });
}

#[test]
fn only_what_changes_is_reset() {
    in_namespace(async {
        let (one, two) = mk_nodes();
        one.speaker.set_routes(mk_routes(&[("10.0.0.1/32", "a"), ("10.0.0.2/32", "b")]));
        two.until_received(&["10.0.0.1/32", "10.0.0.2/32"]).await;
        let mut config = mk_config(1, &[mk_peer(1, 2)]);
        for advertisements in config.instances[0].peers[0].families.values_mut() {
            *advertisements = vec!["b".to_owned()];
        }
        one.set(config.clone());
        two.until_received(&["10.0.0.2/32"]).await;
        config.instances[0].advertisements.get_mut("b").unwrap().communities = vec![8];
        one.set(config.clone());
        two.until_true("the community is another one", |node| {
            node.speaker.routes().iter().any(|it| it.table == RouteTable::Received && it.communities == [8])
        })
        .await;
        assert_eq!(two.peer(0).established_count, 1);
        config.instances[0].peers[0].hold_time = 30;
        config.instances[0].peers[0].keepalive = 10;
        one.set(config.clone());
        two.until_true("the session is a new one", |node| node.peer(0).hold_time == 30).await;
        assert_eq!(two.peer(0).established_count, 2);
        config.instances[0].peers.clear();
        one.set(config);
        two.until_reason("the peer ended the session: Peer De-configured (6/3)").await;
        two.until_received(&[]).await;
    });
}

/// The same two nodes, with graceful restart.
fn mk_restarting(restart_time: u16, stale_time: Option<u32>) -> (Node, Node) {
    let (one, two) = (Node::start(), Node::start());
    let (mut ours, mut theirs) = (mk_peer(1, 2), mk_peer(2, 1).passive());
    for peer in [&mut ours, &mut theirs] {
        peer.restart_time = Some(restart_time);
        peer.stale_time = stale_time;
    }
    one.set(mk_config(1, &[ours]));
    two.set(mk_config(2, &[theirs]));
    one.speaker.set_routes(mk_routes(&[("10.0.0.1/32", "a"), ("10.0.0.2/32", "a")]));
    (one, two)
}

#[test]
fn routes_outlive_a_restart() {
    in_namespace(async {
        let (one, two) = mk_restarting(60, None);
        two.until_received(&["10.0.0.1/32", "10.0.0.2/32"]).await;
        one.speaker.shut_down().await;
        two.until(SessionState::Active).await;
        let stale = |node: &Node| node.speaker.routes().iter().filter(|it| it.stale).count();
        assert_eq!(stale(&two), 2);
        assert_eq!(two.peer(0).reason.as_deref(), Some("the peer closed the connection"));
        // What is gone when the speaker is back, goes at the end of its first set.
        let again = Speaker::start(one.directory()).unwrap();
        again
            .change_routes(RouteChanges { removed: vec![net("10.0.0.2/32")], ..RouteChanges::default() })
            .unwrap();
        two.until_received(&["10.0.0.1/32"]).await;
        assert_eq!(stale(&two), 0);
        assert_eq!(two.peer(0).established_count, 2);
    });
}

#[test]
fn who_does_not_come_back_is_forgotten() {
    in_namespace(async {
        let (one, two) = mk_restarting(3, None);
        two.until_received(&["10.0.0.1/32", "10.0.0.2/32"]).await;
        one.speaker.shut_down().await;
        two.until(SessionState::Active).await;
        assert_eq!(two.received().len(), 2);
        two.until_received(&[]).await;
    });
}

#[test]
fn routes_stay_for_long_as_a_last_resort() {
    in_namespace(async {
        let (one, two) = mk_restarting(0, Some(3));
        two.until_received(&["10.0.0.1/32", "10.0.0.2/32"]).await;
        one.speaker.shut_down().await;
        two.until(SessionState::Active).await;
        assert_eq!(two.received().len(), 2);
        two.until_received(&[]).await;
    });
}

#[test]
fn without_graceful_restart_routes_go_at_once() {
    in_namespace(async {
        let (one, two) = mk_nodes();
        one.speaker.set_routes(mk_routes(&[("10.0.0.1/32", "a")]));
        two.until_received(&["10.0.0.1/32"]).await;
        one.speaker.shut_down().await;
        two.until_reason("the peer ended the session: Administrative Shutdown (6/2)").await;
        assert!(two.received().is_empty());
    });
}

#[test]
fn a_peer_with_too_many_prefixes_has_no_session() {
    in_namespace(async {
        let (one, two) = mk_nodes();
        two.speaker.set_max_prefixes(2);
        let routes = [("10.0.0.1/32", "a"), ("2001:db8:1::/64", "a"), ("10.0.0.3/32", "a")];
        one.speaker.set_routes(mk_routes(&routes[..2]));
        two.until_received(&["10.0.0.1/32", "2001:db8:1::/64"]).await;
        one.speaker.set_routes(mk_routes(&routes));
        let reason = "the peer ended the session: Maximum Number of Prefixes Reached (6/1)";
        one.until_reason(reason).await;
        assert_eq!(two.received(), [""; 0]);
        assert_eq!(two.peer(0).reason.as_deref(), Some("the peer made more than 2 prefixes known"));
        one.speaker.set_routes(mk_routes(&routes[1..]));
        two.until_received(&["10.0.0.3/32", "2001:db8:1::/64"]).await;
    });
}

#[test]
fn equally_good_routes_are_imported_together() {
    in_namespace(async {
        let nodes = [Node::start(), Node::start(), Node::start()];
        let peers = [2, 3].map(|other| {
            let mut peer = mk_peer(1, other).passive();
            peer.import = true;
            peer
        });
        nodes[0].set(mk_config(1, &peers));
        for (node, number) in [(&nodes[1], 2), (&nodes[2], 3)] {
            node.set(mk_config(number, &[mk_peer(number, 1)]));
        }
        nodes[1].speaker.set_routes(mk_routes(&[("10.0.0.0/24", "a"), ("10.0.2.0/24", "a")]));
        nodes[2].speaker.set_routes(mk_routes(&[("10.0.0.0/24", "a")]));
        let shown = |node: &Node| {
            let all = node.speaker.import();
            all.iter().map(|it| format!("{} {:?}", it.prefix, it.next_hops)).collect::<Vec<_>>()
        };
        let expected = ["10.0.0.0/24 [192.0.2.2, 192.0.2.3]", "10.0.2.0/24 [192.0.2.2]"];
        nodes[0].until_true("both routes are imported", |node| shown(node) == expected).await;
    });
}

#[test]
fn families_without_a_next_hop_are_explained() {
    in_namespace(async {
        let (one, two) = (Node::start(), Node::start());
        let mut config = mk_config(1, &[mk_peer(1, 2)]);
        config.instances[0].next_hop6 = None;
        one.set(config);
        two.set(mk_config(2, &[mk_peer(2, 1).passive()]));
        one.speaker.set_routes(mk_routes(&[("fd00::/64", "a"), ("10.0.0.1/32", "a")]));
        let reason =
            "IPv6 prefixes are not sent: the session has no IPv6 address, and the instance no nextHop6";
        one.until_reason(reason).await;
        two.until_received(&["10.0.0.1/32"]).await;
    });
}

#[test]
fn an_ipv6_session_carries_both_families() {
    in_namespace(async {
        let (one, two) = (Node::start(), Node::start());
        one.set(mk_config(1, &[mk_peer(1, 2).over_ipv6()]));
        two.set(mk_config(2, &[mk_peer(2, 1).over_ipv6().passive()]));
        one.speaker.set_routes(mk_routes(&[("fd00::/64", "a"), ("10.0.0.1/32", "a")]));
        two.until_received(&["10.0.0.1/32", "fd00::/64"]).await;
        let views = two.speaker.routes();
        let received: Vec<_> = views.iter().filter(|it| it.table == RouteTable::Received).collect();
        assert!(received.iter().all(|it| it.next_hop.to_string() == "2001:db8::1"), "{received:?}");
        assert!(one.peer(0).capabilities.contains(&"extended-next-hop".to_owned()));
    });
}
