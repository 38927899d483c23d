//! kubectl, as users call it.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, bail};
use serde_json::Value;

/// Runs kubectl and returns what it printed.
///
/// # Errors
/// It could not be run, or it failed: then the error holds what it wrote to stderr.
pub fn kubectl(args: &[&str]) -> anyhow::Result<String> {
    feed(args, "")
}

/// Runs kubectl with `-o json`.
///
/// # Errors
/// As [`kubectl`], or the answer is not JSON.
pub fn kubectl_json(args: &[&str]) -> anyhow::Result<Value> {
    let text = kubectl(&[args, &["-o", "json"]].concat())?;
    serde_json::from_str(&text)
        .with_context(|| format!("kubectl {} did not answer with JSON", args.join(" ")))
}

/// Applies manifests to a namespace.
///
/// # Errors
/// As [`kubectl`].
pub fn apply(namespace: &str, manifests: &str) -> anyhow::Result<String> {
    feed(&["apply", "-n", namespace, "-f", "-"], manifests)
}

/// Runs kubectl with `input` on its standard input.
///
/// # Errors
/// As [`kubectl`].
pub fn feed(args: &[&str], input: &str) -> anyhow::Result<String> {
    let mut child = Command::new("kubectl")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run kubectl: run the tests through `just test-e2e`")?;
    child.stdin.take().context("kubectl has no standard input")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("kubectl {} failed: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A namespace of one test; deleted with it.
pub struct Namespace {
    /// Its name, unique in the cluster.
    pub name: String,
}

impl Namespace {
    /// Creates `<prefix>-<pid>-<n>`.
    ///
    /// # Errors
    /// As [`kubectl`].
    pub fn new(prefix: &str) -> anyhow::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{prefix}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        kubectl(&["create", "namespace", &name])?;
        let namespace = Self { name };
        // Pods need the namespace's service account, which the controller manager makes a moment later.
        crate::eventually("the default service account exists", || {
            namespace.kubectl(&["get", "serviceaccount", "default"]).map(|_| true)
        })?;
        Ok(namespace)
    }

    /// kubectl in this namespace.
    ///
    /// # Errors
    /// As [`kubectl`].
    pub fn kubectl(&self, args: &[&str]) -> anyhow::Result<String> {
        kubectl(&[&["-n", self.name.as_str()], args].concat())
    }

    /// Applies manifests here.
    ///
    /// # Errors
    /// As [`kubectl`].
    pub fn apply(&self, manifests: &str) -> anyhow::Result<String> {
        apply(&self.name, manifests)
    }

    /// Waits until pods are ready.
    ///
    /// # Errors
    /// They are not within two minutes: the error holds their description.
    pub fn ready(&self, pods: &[&str]) -> anyhow::Result<()> {
        let names: Vec<String> = pods.iter().map(|pod| format!("pod/{pod}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let args = [&["wait", "--for=condition=Ready", "--timeout=120s"], names.as_slice()].concat();
        self.kubectl(&args)
            .map(drop)
            .or_else(|error| bail!("{error}\n{}", self.kubectl(&["describe", "pods"])?))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = kubectl(&["delete", "namespace", &self.name, "--wait=false"]) {
            eprintln!("namespace {} is left behind: {error}", self.name);
        }
    }
}
