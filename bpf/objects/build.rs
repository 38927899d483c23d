//! Compiles the eBPF programs with clang and leaves the object where `src/lib.rs` embeds it from.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

const SOURCE: &str = "cilium.bpf.c";

fn main() {
    let manifest = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
    let bpf = manifest.join("..");
    let object = PathBuf::from(variable("OUT_DIR")).join("cilium.bpf.o");
    println!("cargo::rerun-if-changed={}", bpf.join("src").display());
    println!("cargo::rerun-if-changed={}", bpf.join("include").display());
    println!("cargo::rerun-if-env-changed=CLANG");
    if let Err(message) = compile(&bpf, &object) {
        println!("cargo::error={message}");
        exit(1);
    }
}

/// `$CLANG` when set; otherwise the newest clang that is known to be packaged, then whatever `clang` is.
fn compilers() -> Vec<String> {
    match env::var("CLANG") {
        Ok(clang) => vec![clang],
        Err(_) => vec!["clang-19".to_owned(), "clang".to_owned()],
    }
}

fn compile(bpf: &Path, object: &Path) -> Result<(), String> {
    for compiler in compilers() {
        let Ok(output) = arguments(Command::new(&compiler), bpf, object).output() else { continue };
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr).replace('\n', "\ncargo::error=");
        return Err(format!("{compiler} could not compile {SOURCE}:\ncargo::error={text}"));
    }
    Err("no clang found: install clang-19 and libbpf-dev, or set CLANG to the compiler".to_owned())
}

fn arguments(mut clang: Command, bpf: &Path, object: &Path) -> Command {
    clang.args(["-target", "bpf", "-mcpu=v3", "-g", "-O2", "-std=gnu11"]);
    clang.args(["-Wall", "-Wextra", "-Werror", "-fno-stack-protector"]);
    // <asm/types.h> is in a folder named after the machine, which a compiler for the bpf target does not search.
    clang.arg("-idirafter").arg(format!("/usr/include/{}-linux-gnu", env::consts::ARCH));
    clang
        .arg("-I")
        .arg(bpf.join("include"))
        .arg("-c")
        .arg(bpf.join("src").join(SOURCE))
        .arg("-o")
        .arg(object);
    clang
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo sets {name} for build scripts"))
}
