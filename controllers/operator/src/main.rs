//! `cilium-operator`: the process. See the library for its parts.

use std::process::ExitCode;

use anyhow::Context;

use cilium_operator::options::{Action, Options};
use cilium_operator::{rbac, run};

/// A plan of many writes is made of many pieces of some kilobytes, which glibc searches for in its free lists: half of the time of
/// such a plan. Measured by `just bench-plan`: a fifth of the memory less, too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let result = Options::load().and_then(|options| match options.action {
        Some(Action::Rbac { heartbeat: true, .. }) => print(&rbac::heartbeat_rules()),
        Some(Action::Rbac { bgp_secrets: true, .. }) => print(&rbac::bgp_secret_rules()),
        Some(Action::Rbac { namespaced: true, .. }) => print(&rbac::namespace_rules()),
        Some(Action::Rbac { .. }) => print(&rbac::cluster_rules()),
        None => start(options),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cilium-operator: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn print(rules: &[rbac::Rule]) -> anyhow::Result<()> {
    print!("{}", rbac::to_yaml(rules));
    Ok(())
}

fn start(options: Options) -> anyhow::Result<()> {
    let level = if options.debug { DEBUG } else { USUAL };
    tracing_subscriber::fmt().with_env_filter(level).with_writer(std::io::stderr).with_ansi(false).init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the event loop")?;
    // As a task: waking the future that the runtime blocks on costs a system call and a turn of the event loop.
    let process = runtime.spawn(run::run(options));
    runtime.block_on(process).context("the operator panicked")?
}

/// The client library repeats at length what `cilium_runtime` says in a line.
const USUAL: &str = "info,kube_client=error,kube_runtime=error";

/// What `--debug` shows.
const DEBUG: &str =
    "info,kube_client=error,kube_runtime=error,cilium_operator=debug,cilium_runtime=debug,cilium_plan=debug";
