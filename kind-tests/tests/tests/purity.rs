//! Rules about the code itself: what may depend on what, where unsafe code may be, how long a file may get. No cluster needed.
//!
//! Crates that decide are pure: no runtime, no client, no socket, no clock. Two checks hold them to it. What they link is read from
//! cargo's own resolution of each crate by itself, so that features which other members switch on do not count. What they call is
//! read from their sources, without comments and literals.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use serde_json::Value;

/// Crates that decide, and the words of [`IMPURE_WORDS`] that each may use all the same.
const PURE: [(&str, &[&str]); 16] = [
    ("cilium-api", &[]),
    ("cilium-core", &[]),
    ("cilium-policy", &[]),
    ("cilium-identity", &[]),
    ("cilium-ipam", &[]),
    ("cilium-services", &[]),
    ("cilium-lbipam", &[]),
    ("cilium-l2", &[]),
    ("cilium-bgp-plan", &[]),
    ("cilium-plan", &[]),
    ("cilium-delta", &[]),
    ("cilium-dataplane", &[]),
    ("cilium-names", &[]),
    ("cilium-announcer", &[]),
    ("cilium-metallb", &[]),
    // Keeps the accepted state on disk: files, but nothing else.
    ("cilium-state", &["std::fs"]),
];

/// Packages that a pure crate must not reach by normal dependencies.
const IMPURE_PACKAGES: [&str; 13] = [
    "async-io",
    "aya",
    "aya-obj",
    "hyper",
    "kube",
    "kube-client",
    "kube-runtime",
    "mio",
    "netlink-sys",
    "rtnetlink",
    "rustix",
    "socket2",
    "tokio",
];

/// What stands for a clock, a socket, a process, a thread or a file. A path is meant wherever its words stand in one line.
const IMPURE_WORDS: [&str; 15] = [
    "Instant",
    "SystemTime",
    "TcpListener",
    "TcpStream",
    "Timestamp::now",
    "ToSocketAddrs",
    "UdpSocket",
    "UnixDatagram",
    "UnixListener",
    "UnixStream",
    "Zoned::now",
    "std::env",
    "std::fs",
    "std::process",
    "std::thread",
];

/// The one folder with unsafe code.
const UNSAFE_FOLDER: &str = "node-agent/drivers";

/// No file of code is longer than this.
const MAX_LINES: usize = 800;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Standard output of cargo, without network and without touching Cargo.lock.
fn cargo(args: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(env!("CARGO"))
        .args(args)
        .args(["--locked", "--offline"])
        .current_dir(root())
        .output()
        .context("cannot run cargo")?;
    ensure!(output.status.success(), "cargo {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// The members of the workspace, from their manifests.
fn members() -> anyhow::Result<BTreeMap<String, Value>> {
    let metadata: Value = serde_json::from_str(&cargo(&["metadata", "--format-version", "1", "--no-deps"])?)?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    Ok(packages.iter().map(|p| (text(&p["name"]).to_owned(), p.clone())).collect())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Names of all packages that end up in `package` when it is built alone, with its own features.
fn closure(package: &str) -> anyhow::Result<BTreeSet<String>> {
    let tree = cargo(&["tree", "-p", package, "-e", "normal", "--prefix", "none", "-f", "{p}"])?;
    Ok(tree.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect())
}

/// All files below `folder` that belong to the project.
fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let entry = entry?;
        let name = entry.file_name();
        let kind = entry.file_type()?;
        if kind.is_dir() && name != "target" && name != ".git" {
            found.extend(files(&entry.path())?);
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn rust_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = files(folder)?;
    found.retain(|file| file.extension().is_some_and(|extension| extension == "rs"));
    Ok(found)
}

fn read(file: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

/// Rust source without comments and without the content of literals; line breaks stay.
fn code_only(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let skipped = comment(rest).or_else(|| literal(rest)).unwrap_or(0);
        let (kept, taken) = if skipped == 0 { (word_or_char(rest, first), 0) } else { ("", skipped) };
        code.push_str(kept);
        code.extend(rest[..taken].chars().filter(|c| *c == '\n').chain((taken > 0).then_some(' ')));
        rest = &rest[kept.len().max(taken)..];
    }
    code
}

/// A whole word, so that the `r` at the end of a name does not begin a raw string, or one other character.
fn word_or_char(rest: &str, first: char) -> &str {
    let length = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
    &rest[..length.max(if length == 0 { first.len_utf8() } else { 0 })]
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Length of the comment that begins here.
fn comment(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    rest.strip_prefix("/*")?;
    let (mut depth, mut at) = (0_usize, 0_usize);
    while at < rest.len() {
        match &rest.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return Some(at);
        }
    }
    Some(rest.len())
}

/// Length of the string or character literal that begins here. A lifetime is none.
fn literal(rest: &str) -> Option<usize> {
    let body = rest.trim_start_matches(['b', 'c']);
    let prefix = rest.len() - body.len();
    if let Some(raw) = body.strip_prefix('r') {
        let quoted = raw.trim_start_matches('#');
        let hashes = raw.len() - quoted.len();
        let inner = quoted.strip_prefix('"').filter(|_| prefix <= 1)?;
        let end = format!("\"{}", "#".repeat(hashes));
        let length = inner.find(&end).map_or(inner.len(), |at| at + end.len());
        return Some(prefix + 1 + hashes + 1 + length);
    }
    let quote = body.chars().next().filter(|c| matches!(c, '"' | '\'') && prefix <= 1)?;
    let mut escaped = false;
    for (at, c) in body.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return Some(prefix + at + 1),
            // A lifetime or a label: more than one character after the quote.
            _ if quote == '\'' && at > 1 && !body.starts_with("'\\") => return None,
            _ => {}
        }
    }
    None
}

/// Lines of `source` that use one of `paths`, with the path.
fn uses<'p>(source: &str, paths: &[&'p str]) -> Vec<(usize, &'p str)> {
    let mut found = Vec::new();
    for (number, line) in code_only(source).lines().enumerate() {
        let words: BTreeSet<_> = line.split(|c: char| !is_word(c)).collect();
        let used = paths.iter().filter(|path| path.split("::").all(|word| words.contains(word)));
        found.extend(used.map(|path| (number + 1, *path)));
    }
    found
}

#[test]
fn pure_crates_link_nothing_impure() -> anyhow::Result<()> {
    for (package, _) in PURE {
        let reached = closure(package)?;
        ensure!(reached.contains(package), "cargo tree of {package} does not name it: {reached:?}");
        let impure: Vec<_> = IMPURE_PACKAGES.iter().filter(|p| reached.contains(**p)).collect();
        ensure!(
            impure.is_empty(),
            "{package} must stay pure, and reaches {impure:?}: see `cargo tree -p {package} -e normal -i {}`",
            impure[0]
        );
    }
    Ok(())
}

#[test]
fn the_check_sees_what_a_shell_links() -> anyhow::Result<()> {
    let reached = closure("cilium-runtime")?;
    ensure!(["tokio", "kube-client", "hyper"].iter().all(|p| reached.contains(*p)), "{reached:?}");
    Ok(())
}

#[test]
fn pure_crates_read_no_clock_and_open_nothing() -> anyhow::Result<()> {
    let members = members()?;
    for (package, allowed) in PURE {
        let manifest =
            text(&members.get(package).with_context(|| format!("no package {package}"))?["manifest_path"]);
        let sources = rust_files(&Path::new(manifest).with_file_name("src"))?;
        ensure!(!sources.is_empty(), "{package} has no sources");
        let words: Vec<_> = IMPURE_WORDS.into_iter().filter(|word| !allowed.contains(word)).collect();
        for file in sources {
            let found = uses(&read(&file)?, &words);
            ensure!(
                found.is_empty(),
                "{package} must stay pure; {} uses (line, name) {found:?}",
                file.display()
            );
        }
    }
    Ok(())
}

#[test]
fn comments_and_literals_are_not_code() {
    let names = ["Instant", "fs", "now", "std::env"];
    let source = "// Instant\n/* fs /* fs */ */ let a: &'a str = \"now \\\" fs\"; r#\"fs\"#; 'x'; '\\''; b'\"'; our::Instant\nnow()";
    assert_eq!(uses(source, &names), [(2, "Instant"), (3, "now")]);
    assert_eq!(uses("let env = 1;\nuse std::{env, iter};", &names), [(2, "std::env")]);
    assert!(
        uses("fn known<'fs_>(nowhere: &'static str) { b\"now\"; br\"fs\"; \"a\nfs\" }", &names).is_empty()
    );
}

#[test]
fn unsafe_code_is_in_the_drivers_only() -> anyhow::Result<()> {
    let root = root().canonicalize()?;
    let mut drivers = 0;
    for file in rust_files(&root)? {
        let count = uses(&read(&file)?, &["unsafe"]).len();
        let inside = file.strip_prefix(&root)?.starts_with(UNSAFE_FOLDER);
        ensure!(inside || count == 0, "{} has unsafe code; it belongs to {UNSAFE_FOLDER}", file.display());
        drivers += count;
    }
    ensure!(drivers > 0, "no unsafe code found at all: has {UNSAFE_FOLDER} moved?");
    Ok(())
}

/// Code by its extension or, for a script without one, by its first two bytes.
fn is_code(file: &Path, bytes: &[u8]) -> bool {
    match file.extension().and_then(|e| e.to_str()) {
        Some(extension) => ["rs", "c", "h", "sh", "py", "go", "just"].contains(&extension),
        None => bytes.starts_with(b"#!"),
    }
}

#[test]
fn no_file_is_too_long() -> anyhow::Result<()> {
    for file in files(&root())? {
        let bytes = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let lines = bytes.iter().filter(|b| **b == b'\n').count();
        ensure!(
            !is_code(&file, &bytes) || lines <= MAX_LINES,
            "{} has {lines} lines, more than {MAX_LINES}: split it",
            file.display()
        );
    }
    Ok(())
}

/// Names in backquotes in the first cells of the tables of a page.
fn rows(page: &str) -> BTreeSet<String> {
    let cells = page.lines().filter_map(|line| line.strip_prefix('|')?.split('|').next());
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

/// Modules that a go.mod asks for itself: required directly, or home of one of its tools.
fn go_modules(go_mod: &str) -> BTreeSet<String> {
    let (mut required, mut tools) = (BTreeMap::new(), Vec::new());
    for line in go_mod.lines().map(str::trim).filter(|line| !line.contains("=>")) {
        let words: Vec<_> = line.split(' ').filter(|word| !["require", "tool"].contains(word)).collect();
        match words[..] {
            [module, version, ..] if version.starts_with('v') => {
                required.extend([(module, line.ends_with("// indirect"))]);
            }
            [package] if package.contains('/') => tools.push(package),
            _ => {}
        }
    }
    required.retain(|module, indirect| {
        !*indirect || tools.iter().any(|tool| Path::new(tool).starts_with(module))
    });
    required.into_keys().map(str::to_owned).collect()
}

#[test]
fn every_dependency_is_explained() -> anyhow::Result<()> {
    let mut used = BTreeSet::new();
    for package in members()?.values() {
        let dependencies = package["dependencies"].as_array().into_iter().flatten();
        used.extend(dependencies.filter(|d| !d["source"].is_null()).map(|d| text(&d["name"]).to_owned()));
    }
    for file in files(&root().join("kind-tests"))? {
        if file.ends_with("go.mod") {
            used.extend(go_modules(&read(&file)?));
        }
    }
    let explained = rows(&read(&root().join("docs/dependencies.md"))?);
    let missing: Vec<_> = used.difference(&explained).collect();
    ensure!(
        missing.is_empty(),
        "docs/dependencies.md has no row for {missing:?}: say role, reason and licence"
    );
    let gone: Vec<_> = explained.difference(&used).collect();
    ensure!(gone.is_empty(), "docs/dependencies.md explains {gone:?}, which nothing asks for any more");
    Ok(())
}

/// Targets of the links of a Markdown page that are files here.
fn links(page: &str) -> impl Iterator<Item = &str> {
    let targets = page.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
    targets.filter(|target| !target.is_empty() && !target.contains("://"))
}

#[test]
fn links_between_documents_lead_somewhere() -> anyhow::Result<()> {
    let mut pages = files(&root())?;
    pages.retain(|file| file.extension().is_some_and(|extension| extension == "md"));
    ensure!(pages.iter().any(|page| page.ends_with("README.md")), "no README.md among {pages:?}");
    for page in pages {
        for link in links(&read(&page)?) {
            ensure!(
                page.with_file_name(link).exists(),
                "{} links to {link}, which is not there",
                page.display()
            );
        }
    }
    Ok(())
}
