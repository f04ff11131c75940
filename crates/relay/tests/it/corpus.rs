//! The inputs of `fuzz/corpus`, tried as any other test: what fuzzing found stays found.

#[path = "../../../../fuzz/src/relay.rs"]
mod targets;

#[test]
fn p20_the_machines_and_the_websocket_take_every_input_of_the_corpus() {
    for (name, body) in targets::TARGETS {
        let folder = format!("{}/../../fuzz/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
        let inputs =
            std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
        assert!(!inputs.is_empty(), "{folder} is empty");
        for input in inputs {
            println!("{}", input.display());
            body(&std::fs::read(input).unwrap());
        }
    }
}
