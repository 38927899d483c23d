//! What the operator itself measures.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use cilium_lbipam::{Numbers, PoolNumbers};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// Time that one round of planning takes.
pub fn register_plan_seconds(registry: &mut Registry) -> Histogram {
    let histogram = Histogram::new(exponential_buckets(0.000_02, 2.0, 18));
    let help = "Time from news to finished plan, without reading and writing";
    registry.register_with_unit("plan_duration", help, Unit::Seconds, histogram.clone());
    histogram
}

/// Memory of the process, read when somebody asks.
#[derive(Debug)]
pub struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(bytes) = resident_bytes() else { return Ok(()) };
        let gauge = ConstGauge::new(bytes);
        let kind = gauge.metric_type();
        let help = "Resident memory";
        gauge.encode(encoder.encode_descriptor("process_resident_memory", help, Some(&Unit::Bytes), kind)?)
    }
}

/// Addresses of load balancers, under upstream's names. Nothing is said while nothing was planned, nor if somebody else gives addresses.
#[derive(Clone, Debug, Default)]
pub struct LoadBalancers(Arc<Mutex<Option<Numbers>>>);

impl LoadBalancers {
    /// Takes what the last plan says.
    pub fn set(&self, numbers: Option<Numbers>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = numbers;
    }
}

impl Collector for LoadBalancers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let numbers = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(numbers) = numbers else { return Ok(()) };
        for (name, help, number) in [
            (
                "conflicting_pools",
                "Pools that give no addresses, as others have them, too",
                numbers.conflicting_pools,
            ),
            ("services_matching", "Services that get addresses of pools", numbers.services_matching),
            ("services_unsatisfied", "Services without all that they ask for", numbers.services_unsatisfied),
        ] {
            let gauge = ConstGauge::new(u64::try_from(number).unwrap_or(u64::MAX));
            let name = format!("lbipam_{name}");
            gauge.encode(encoder.encode_descriptor(&name, help, None, MetricType::Gauge)?)?;
        }
        encode_pools(
            &mut encoder,
            ("ips_available", "Addresses that the pool may still give"),
            &numbers,
            |it| it.available,
        )?;
        encode_pools(
            &mut encoder,
            ("ips_used", "Addresses of the pool that it does not give any more"),
            &numbers,
            |it| it.used,
        )
    }
}

fn encode_pools(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    numbers: &Numbers,
    number: fn(&PoolNumbers) -> u128,
) -> fmt::Result {
    if numbers.pools.is_empty() {
        return Ok(());
    }
    let name = format!("lbipam_{name}");
    let mut family = encoder.encode_descriptor(&name, help, None, MetricType::Gauge)?;
    for pool in &numbers.pools {
        // The format knows no larger numbers than these, and pools of IPv6 have them.
        #[expect(clippy::cast_precision_loss, reason = "the format's numbers are floating-point ones")]
        let gauge = ConstGauge::new(number(pool) as f64);
        gauge.encode(family.encode_family(&[("pool", pool.name.as_str())])?)?;
    }
    Ok(())
}

/// `VmRSS` of proc_pid_status(5).
fn resident_bytes() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(metrics: &LoadBalancers) -> Vec<String> {
        let mut registry = Registry::with_prefix("cilium_operator");
        registry.register_collector(Box::new(metrics.clone()));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    #[test]
    fn addresses_of_load_balancers_are_counted_under_the_names_of_upstream() {
        let metrics = LoadBalancers::default();
        assert_eq!(said(&metrics), Vec::<String>::new(), "nothing is planned yet");
        let pool = |name: &str, available, used| PoolNumbers { name: name.to_owned(), available, used };
        let mut numbers = Numbers {
            conflicting_pools: 1,
            services_matching: 7,
            services_unsatisfied: 2,
            pools: vec![pool("a", 11, 5), pool("b", 1 << 53, 0)],
        };
        metrics.set(Some(numbers.clone()));
        let expected = [
            "cilium_operator_lbipam_conflicting_pools 1",
            "cilium_operator_lbipam_services_matching 7",
            "cilium_operator_lbipam_services_unsatisfied 2",
            "cilium_operator_lbipam_ips_available{pool=\"a\"} 11.0",
            "cilium_operator_lbipam_ips_available{pool=\"b\"} 9007199254740992.0",
            "cilium_operator_lbipam_ips_used{pool=\"a\"} 5.0",
            "cilium_operator_lbipam_ips_used{pool=\"b\"} 0.0",
        ];
        assert_eq!(said(&metrics), expected);
        numbers.pools.clear();
        metrics.set(Some(numbers));
        assert_eq!(said(&metrics), expected[..3], "a pool that is gone is not spoken of");
    }

    #[test]
    fn memory_is_reported_in_bytes() {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Process));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let line = text.lines().find(|line| line.starts_with("process_resident_memory_bytes ")).unwrap();
        let bytes: i64 = line.split(' ').nth(1).unwrap().parse().unwrap();
        assert!(bytes > 100_000, "{bytes}");
    }
}
