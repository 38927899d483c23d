//! What the operator itself measures.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
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
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Some(bytes) = resident_bytes() else { return Ok(()) };
        let gauge = ConstGauge::new(bytes);
        let kind = gauge.metric_type();
        let help = "Resident memory";
        gauge.encode(encoder.encode_descriptor("process_resident_memory", help, Some(&Unit::Bytes), kind)?)
    }
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
