//! The guide's example, word for word.

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected ends")]

use cilium_metallb::{Options, Source, convert};

const GUIDE: &str = include_str!("../../../docs/guides/metallb-migration.md");

/// Blocks of a language that stand at the margin.
fn blocks(language: &str) -> Vec<&'static str> {
    let start = format!("\n```{language}\n");
    GUIDE.split(start.as_str()).skip(1).map(|rest| &rest[..=rest.find("\n```").unwrap()]).collect()
}

#[test]
fn the_example_becomes_what_the_guide_shows() {
    let yaml = blocks("yaml");
    let [input, output] = yaml.as_slice() else { panic!("{yaml:?}") };
    let options = Options {
        namespace: "default".to_owned(),
        moved_label: Some(("announced-by".to_owned(), "cilium".to_owned())),
        ignore_exclude_lb: false,
    };
    assert!(GUIDE.contains("--moved-label announced-by=cilium"));
    let converted = convert(&[Source { name: "metallb.yaml", text: input }], &options).unwrap();
    assert_eq!(converted.text().unwrap(), *output);
    assert_eq!(blocks("text"), [converted.report()]);
}
