//! Bytes as a YAML file of a bundle: parsed, linked with nothing else, and what is wrong with them rendered.
#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use tollgate::policy::{Bundle, Loader, SourceFile};
use tollgate::policy::{parse, report};

thread_local! {
    /// Kept, so that Tollgate's own schema is read once.
    static LOADER: RefCell<Loader> = RefCell::default();
}

fuzz_target!(|bytes: &[u8]| {
    let Some(file) = SourceFile::new("fuzz.yaml", bytes) else { return };
    let parsed = parse::parse(&file);
    for problem in &parsed.problems {
        let place = problem.place;
        assert!(place.line > 0 && place.column > 0, "{problem} has no place");
    }
    let outcome = LOADER.with_borrow_mut(|loader| loader.load(&Bundle::new(vec![file])));
    let problems = match &outcome {
        Ok(loaded) => {
            assert!(!parsed.problems.iter().any(|problem| problem.is_error()), "a file with errors loaded");
            assert!(loaded.snapshot.counts().rules > 0, "a bundle without rules loaded");
            &loaded.problems
        }
        Err(problems) => {
            assert!(problems.iter().any(|problem| problem.is_error()), "nothing says why it does not load");
            problems
        }
    };
    let text = report::text(problems, false);
    assert!(!text.chars().any(|one| one.is_control() && one != '\n'), "a control character would reach a terminal");
    let _ = report::json(problems);
    let _ = report::sarif(problems, "policies");
    let _ = report::github(problems, "policies");
});
