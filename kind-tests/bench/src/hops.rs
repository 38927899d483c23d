//! The floor of a policy's way: two changes of the smallest objects, one after the other, each until a watcher has it.

use std::pin::Pin;
use std::time::Instant;

use anyhow::{Context as _, bail};
use cluster_tests::Namespace;
use futures::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use serde_json::json;

type Events = Pin<Box<dyn Stream<Item = kube::Result<WatchEvent<ConfigMap>>>>>;

/// Two objects and a watch on both.
pub(crate) struct Hops {
    api: Api<ConfigMap>,
    events: Events,
    round: u64,
}

impl Hops {
    /// In a namespace of the measurement.
    pub(crate) async fn start(ns: &Namespace) -> anyhow::Result<Self> {
        let client = kube::Client::try_default().await.context("no client: run through `just bench`")?;
        let api: Api<ConfigMap> = Api::namespaced(client, &ns.name);
        api.create(&PostParams::default(), &named("state")).await.context("cannot create a ConfigMap")?;
        let events = api.watch(&WatchParams::default(), "0").await.context("cannot watch ConfigMaps")?;
        Ok(Self { api, events: events.boxed_local(), round: 0 })
    }

    /// Milliseconds for: create one, see it, change the other, see that.
    pub(crate) async fn create(&mut self) -> anyhow::Result<f64> {
        let start = Instant::now();
        self.api
            .create(&PostParams::default(), &named("policy"))
            .await
            .context("cannot create a ConfigMap")?;
        self.await_event(|event| matches!(event, WatchEvent::Added(map) if is(map, "policy"))).await?;
        self.second_hop(start).await
    }

    /// Milliseconds for: delete one, see that, change the other, see that.
    pub(crate) async fn delete(&mut self) -> anyhow::Result<f64> {
        let start = Instant::now();
        self.api.delete("policy", &DeleteParams::default()).await.context("cannot delete a ConfigMap")?;
        self.await_event(|event| matches!(event, WatchEvent::Deleted(map) if is(map, "policy"))).await?;
        self.second_hop(start).await
    }

    async fn second_hop(&mut self, start: Instant) -> anyhow::Result<f64> {
        self.round += 1;
        let round = self.round.to_string();
        let patch = Patch::Merge(json!({"data": {"round": round}}));
        self.api.patch("state", &PatchParams::default(), &patch).await.context("cannot patch a ConfigMap")?;
        let has_round =
            |map: &ConfigMap| map.data.as_ref().and_then(|data| data.get("round")) == Some(&round);
        self.await_event(|event| matches!(event, WatchEvent::Modified(map) if has_round(map))).await?;
        Ok(start.elapsed().as_secs_f64() * 1e3)
    }

    async fn await_event(&mut self, wanted: impl Fn(&WatchEvent<ConfigMap>) -> bool) -> anyhow::Result<()> {
        while let Some(event) = self.events.next().await {
            if wanted(&event.context("the watch on ConfigMaps broke")?) {
                return Ok(());
            }
        }
        bail!("the watch on ConfigMaps ended")
    }
}

fn named(name: &str) -> ConfigMap {
    let mut map = ConfigMap::default();
    map.metadata.name = Some(name.to_owned());
    map
}

fn is(map: &ConfigMap, name: &str) -> bool {
    map.metadata.name.as_deref() == Some(name)
}
