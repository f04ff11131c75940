//! The JSON Schema of every frame, as other languages read it.

use std::{env, fs, path::PathBuf};

use protocol::{
    ErrorBody, Event,
    frame::{FromViewer, FromWrapper, ToViewer, ToWrapper},
    search::Found,
};
use schemars::{Schema, schema_for};

#[test]
fn the_schemas_that_are_checked_in_are_those_of_the_types() {
    for (name, schema) in schemas() {
        let path = folder().join(format!("{name}.json"));
        let text = format!("{}\n", serde_json::to_string_pretty(&schema).unwrap());
        if env::var_os("UPDATE_SCHEMA").is_some() {
            fs::create_dir_all(folder()).unwrap();
            fs::write(&path, &text).unwrap();
        }
        let found = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == text,
            "{} is out of date: run `UPDATE_SCHEMA=1 cargo test -p gastown-event-protocol schema` and look at the change",
            path.display()
        );
    }
}

#[test]
fn no_schema_is_left_over() {
    let mut names: Vec<_> = schemas().into_iter().map(|(name, _)| format!("{name}.json")).collect();
    let mut found: Vec<_> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    found.sort();
    assert_eq!(found, names);
}

#[test]
fn a_frames_schema_names_every_type_of_the_frame() {
    let schemas = schemas();
    let of = |name: &str| schemas.iter().find(|(found, _)| *found == name).unwrap().1.as_value().to_string();
    for tag in ["hello", "append", "presence", "result", "heartbeat", "bye"] {
        assert!(of("from-wrapper").contains(&format!(r#""const":"{tag}""#)), "{tag}");
    }
    for tag in
        ["hello", "subscribed", "events", "live", "gap", "presence", "patch", "heartbeat", "ended", "error"]
    {
        assert!(of("to-viewer").contains(&format!(r#""const":"{tag}""#)), "{tag}");
    }
}

fn schemas() -> Vec<(&'static str, Schema)> {
    vec![
        ("error", schema_for!(ErrorBody)),
        ("event", schema_for!(Event)),
        ("found", schema_for!(Found)),
        ("from-viewer", schema_for!(FromViewer)),
        ("from-wrapper", schema_for!(FromWrapper)),
        ("to-viewer", schema_for!(ToViewer)),
        ("to-wrapper", schema_for!(ToWrapper)),
    ]
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/schema")
}
