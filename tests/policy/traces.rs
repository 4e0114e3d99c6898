//! The rule `layer` against the timing of the paper authors' reference cache (`golden/progressive_traces.json`).

#[test]
fn placeholder() {}
