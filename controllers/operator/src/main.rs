//! `cilium-operator`: the process. See the library for its parts.

use anyhow::Context;

use cilium_operator::options::{Action, Options};
use cilium_operator::{rbac, run};

fn main() -> anyhow::Result<()> {
    let options = Options::load()?;
    match options.action {
        Some(Action::Rbac { namespaced: false }) => print!("{}", rbac::to_yaml(&rbac::cluster_rules())),
        Some(Action::Rbac { namespaced: true }) => print!("{}", rbac::to_yaml(&rbac::namespace_rules())),
        None => start(&options)?,
    }
    Ok(())
}

fn start(options: &Options) -> anyhow::Result<()> {
    let level = if options.debug { DEBUG } else { USUAL };
    tracing_subscriber::fmt().with_env_filter(level).with_writer(std::io::stderr).with_ansi(false).init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start the event loop")?.block_on(run::run(options))
}

/// The client library repeats at length what `cilium_runtime` says in a line.
const USUAL: &str = "info,kube_client=error,kube_runtime=error";

/// What `--debug` shows.
const DEBUG: &str =
    "info,kube_client=error,kube_runtime=error,cilium_operator=debug,cilium_runtime=debug,cilium_plan=debug";
