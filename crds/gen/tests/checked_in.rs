//! The checked-in YAML is what the types give.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crd_gen::{file_name, render};

const HINT: &str = "run `cargo run -p crd-gen -- --write crds/yaml` and commit the result";

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../yaml")
}

#[test]
fn yaml_is_up_to_date() {
    for crd in cilium_api::all() {
        let path = directory().join(file_name(&crd));
        let text =
            fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}; {HINT}", path.display()));
        assert!(text == render(&crd).unwrap(), "{} differs from the types; {HINT}", path.display());
    }
}

#[test]
fn there_is_no_yaml_without_a_type() {
    let expected: BTreeSet<String> = cilium_api::all().iter().map(file_name).collect();
    let found: BTreeSet<String> = fs::read_dir(directory())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn yaml_reads_back_as_the_same_definition() {
    for crd in cilium_api::all() {
        let read: serde_json::Value = serde_yaml::from_str(&render(&crd).unwrap()).unwrap();
        let read: k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition =
            serde_json::from_value(read).unwrap();
        assert_eq!(read, crd);
    }
}
