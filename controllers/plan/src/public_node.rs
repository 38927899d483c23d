//! CiliumNodes: nodes as the network sees them.

use cilium_api::CiliumNode;
use cilium_api::digest::digest;
use cilium_api::node::{NodeAddress, NodeSpec};

use crate::object::{Kind, ObjectKey};
use crate::output::Write;
use crate::planner::Planner;
use crate::slices::owned_by_node;

/// Digest of the spec: what of a CiliumNode is compared.
fn print(object: &CiliumNode) -> String {
    digest(serde_json::to_string(&object.spec).expect("a spec holds nothing that JSON cannot").as_bytes())
}

impl Planner {
    pub(crate) fn observe_public_node(&mut self, object: &CiliumNode) {
        if let Some(records) = &mut self.records {
            records.add_public_node(object);
        }
        let meta = &object.metadata;
        let key = ObjectKey::cluster(Kind::CiliumNode, meta.name.as_deref().unwrap_or_default());
        self.reports.nodes.observe(
            &key,
            print(object),
            meta.resource_version.as_deref(),
            meta.uid.as_deref(),
        );
    }

    pub(crate) fn report_node(&mut self, key: &ObjectKey) -> Option<Write<CiliumNode>> {
        let object = self.public_node(&key.name);
        let action = self.reports.nodes.decide(key, object.as_ref().map(print), || object)?;
        Some(Write { key: key.clone(), action })
    }

    fn public_node(&self, name: &str) -> Option<CiliumNode> {
        let node = self.nodes.get(name)?.object.as_ref()?;
        let router = self.endpoints.ipam.router(name);
        let router = [router.ipv4.map(|it| it.to_string()), router.ipv6.map(|it| it.to_string())];
        let of_type = |type_: &str, ip: String| NodeAddress { type_: Some(type_.to_owned()), ip: Some(ip) };
        let internal = node.internal.iter().map(|ip| of_type("InternalIP", ip.to_string()));
        let external = node.external.iter().map(|ip| of_type("ExternalIP", ip.to_string()));
        let own = router.into_iter().flatten().map(|ip| of_type("CiliumInternalIP", ip));
        let mut object = CiliumNode::default();
        object.metadata.name = Some(name.to_owned());
        object.metadata.owner_references = Some(vec![owned_by_node(name, &node.uid)]);
        object.spec = NodeSpec {
            addresses: Some(internal.chain(external).chain(own).collect()),
            ipam: Some(self.public_ipam(name, &node.pod_cidrs)),
            ..NodeSpec::default()
        };
        Some(object)
    }
}
