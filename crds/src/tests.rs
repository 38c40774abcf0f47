//! Texts that go through [`Quantity`] and [`Duration`] unchanged, and the shape of the definition.

use std::path::Path;

use kube::CustomResourceExt;
use serde_json::{Value, json};

use crate::{Duration, KalamDB, KalamDBSpec, Quantity, crd_yaml};

/// The largest definition that still fits with room into a request and an annotation-free apply.
const MAX_CRD_BYTES: usize = 200 * 1024;

#[test]
fn quantities_keep_their_text_and_know_their_value() {
    for (text, value) in [
        ("0", 0),
        ("1", 1),
        ("500m", 1),
        ("20Gi", 20 << 30),
        ("1.5Gi", 3 << 29),
        ("0.5Ki", 512),
        ("256Mi", 256 << 20),
        ("1k", 1000),
        ("1.25M", 1_250_000),
    ] {
        let quantity: Quantity = text.parse().expect(text);
        assert_eq!((quantity.to_string().as_str(), quantity.value()), (text, value));
        assert_eq!(serde_json::to_value(&quantity).expect("json"), json!(text));
    }
    assert_eq!(serde_json::from_value::<Quantity>(json!(4096)).expect("a number").value(), 4096);
}

#[test]
fn texts_that_are_no_amount_are_refused_with_an_example() {
    for text in ["", "Gi", "-1Gi", "1 Gi", "1gi", "1.", ".5", "1.2345", "1e3", "999999999999999999999Pi"] {
        let error = text.parse::<Quantity>().expect_err(text).to_string();
        assert!(error.contains("such as 512Mi"), "{error}");
    }
}

#[test]
fn approximate_bytes_have_two_digits() {
    for (bytes, text) in [(0, "0"), (999, "990"), (1023, "1000"), (1024, "1Ki"), (12_900_000, "12Mi"), (1 << 40, "1Ti")]
    {
        assert_eq!(Quantity::approximate_bytes(bytes).as_str(), text);
        assert!(text.parse::<Quantity>().is_ok());
    }
}

#[test]
fn durations_keep_their_text_and_know_their_seconds() {
    for (text, seconds) in
        [("1s", 1), ("10m", 600), ("1h30m", 5400), ("90s", 90), ("2d", 172_800), ("1d1h1m1s", 90_061)]
    {
        let duration: Duration = text.parse().expect(text);
        assert_eq!((duration.to_string().as_str(), duration.seconds()), (text, seconds));
    }
    for text in ["", "10", "m", "0s", "1m1h", "1.5h", "-1s", "1m1m", "1h 30m"] {
        assert!(text.parse::<Duration>().is_err(), "{text}");
    }
}

#[test]
fn a_spec_of_the_object_store_alone_gets_all_defaults() {
    let spec: KalamDBSpec = serde_json::from_value(json!({ "objectStore": { "type": "Volume" } })).expect("a spec");
    assert_eq!(
        serde_json::to_value(&spec).expect("json"),
        json!({
            "storage": { "size": "10Gi", "accessMode": "ReadWriteOnce" },
            "objectStore": { "type": "Volume" },
            "flush": { "maxBytes": "256Mi", "maxRows": 1_000_000, "maxAge": "10m", "maxConcurrent": 2 },
            "deletionPolicy": "Retain",
        })
    );
}

#[test]
fn the_definition_is_small_and_every_rule_tells_what_is_wrong() {
    assert!(crd_yaml().len() < MAX_CRD_BYTES);
    let definition = serde_json::to_value(KalamDB::crd()).expect("json");
    let mut rules = Vec::new();
    collect_rules(&definition, &mut rules);
    assert_eq!(rules.len(), 16, "a rule was added or lost: {rules:#?}");
    for rule in rules {
        assert!(rule["message"].as_str().is_some_and(|message| message.len() > 30), "{rule}");
    }
    let defaults = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    assert_eq!(defaults["storage"]["default"], json!({ "size": "10Gi", "accessMode": "ReadWriteOnce" }));
    assert_eq!(defaults["deletionPolicy"]["default"], "Retain");
}

/// The chart's template is this definition with the labels of its release, kept when the release goes.
#[test]
fn the_chart_holds_this_definition() {
    const NAME: &str = "metadata:\n  name: kalamdbs.kalamdb.io\n";
    const METADATA: &str = "metadata:
  name: kalamdbs.kalamdb.io
  annotations:
    # Without the definition every KalamDB would be deleted.
    helm.sh/resource-policy: keep
  labels:
    {{- include \"kalamdb-crds.labels\" . | nindent 4 }}
";
    let definition = crd_yaml();
    assert!(definition.contains(NAME) && !definition.contains("{{"));
    let template = format!(
        "{{{{- if .Values.crds.enabled }}}}\n# Generated: KALAMDB_BLESS=1 cargo test -p kalamdb-crds\n{}{{{{- end }}}}\n",
        definition.replacen(NAME, METADATA, 1)
    );
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/kalamdb-crds/templates/kalamdbs.yaml");
    if std::env::var_os("KALAMDB_BLESS").is_some() {
        std::fs::write(&path, &template).expect("write the template");
    }
    let chart = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(chart == template, "the chart is out of date: run KALAMDB_BLESS=1 cargo test -p kalamdb-crds");
}

fn collect_rules(value: &Value, rules: &mut Vec<Value>) {
    match value {
        Value::Object(members) => members.iter().for_each(|(name, member)| match member.as_array() {
            Some(found) if name == "x-kubernetes-validations" => rules.extend(found.iter().cloned()),
            _ => collect_rules(member, rules),
        }),
        Value::Array(elements) => elements.iter().for_each(|element| collect_rules(element, rules)),
        _ => {}
    }
}
