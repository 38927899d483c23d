//! The event ring on the real kernel. Needs root.
#![expect(clippy::unwrap_used, reason = "a test stops where something fails")]

mod common;

use std::net::UdpSocket;

use cilium_bpf::layout::{EVENT_DROP, EVENT_MASK_DROP, EVENT_MASK_VERDICT, METRIC_EGRESS, Slot};
use cilium_delta::Table;
use cilium_drivers::events::Events;
use common::{Node, ip};

#[test]
fn a_drop_is_told_and_counted() {
    let node = Node::create();
    let datapath = node.load();
    let pod = node.add_pod(5);
    node.attach(&datapath, &[&pod]);
    let mut maps = node.maps();
    maps.event_mask.set(&0, &(EVENT_MASK_DROP | EVENT_MASK_VERDICT)).unwrap();
    // The pod's slot is shut.
    maps.slots.set(&5, &Slot { generation: 5, ..Slot::default() }).unwrap();

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut events = Events::open(&node.bpffs).unwrap();
        let client = pod.netns.run(|| UdpSocket::bind("10.1.0.5:4000").unwrap()).unwrap();
        client.send_to(b"into the void", "192.0.2.2:5000").unwrap();
        let event = loop {
            let event = events.next().await.unwrap();
            if event.destination.ip() == Some(ip("192.0.2.2")) {
                break event;
            }
        };
        assert_eq!((event.kind, event.endpoint, event.protocol), (EVENT_DROP, 5, 17));
        assert_eq!((event.source.ip(), event.source_port.0), (Some(ip("10.1.0.5")), 4000));
        assert_eq!(event.ifindex, pod.host_end.index);
        assert!(events.take().is_none());
        let index = u32::from(event.reason) * cilium_bpf::layout::METRIC_COLUMNS + METRIC_EGRESS;
        let totals = maps.metrics.totals().unwrap();
        assert!(totals.get(&index).is_some_and(|total| total.packets >= 1), "{totals:?}");
    });
}
