//! Every input that the fuzz targets start from, and every one that once broke something, on the stable toolchain and
//! without libFuzzer.

#[expect(
    clippy::panic,
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a target's verdict is a panic"
)]
#[path = "../fuzz/src/lib.rs"]
pub mod fuzz;

use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::{fs, io};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// The names in a folder, without extensions.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        names.extend(entry?.path().file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

#[test]
fn every_corpus_keeps_its_invariants() {
    let mut broken = Vec::new();
    for (name, target) in fuzz::TARGETS {
        let corpus = folder().join("corpus").join(name);
        let mut inputs = 0;
        for entry in fs::read_dir(&corpus).unwrap() {
            let path = entry.unwrap().path();
            let data = fs::read(&path).unwrap();
            inputs += 1;
            if catch_unwind(|| target(&data)).is_err() {
                broken.push(path.display().to_string());
            }
        }
        assert!(inputs > 4, "the corpus of `{name}` has only {inputs} inputs");
    }
    assert!(broken.is_empty(), "inputs that break an invariant:\n{}", broken.join("\n"));
}

/// Targets that build what they read, which takes its time: of their inputs fewer mutilations are tried.
const SLOW: [&str; 2] = ["options", "settings"];

#[test]
fn every_target_keeps_its_invariants_for_mutilated_inputs() {
    for (name, target) in fuzz::TARGETS {
        for entry in fs::read_dir(folder().join("corpus").join(name)).unwrap() {
            let data = fs::read(entry.unwrap().path()).unwrap();
            let step = if SLOW.contains(name) { 16 } else { 1 };
            for cut in (0..data.len().min(200)).step_by(step) {
                target(&data[..cut]);
                let mut changed = data.clone();
                changed[cut] ^= 0x20;
                target(&changed);
            }
        }
    }
}

#[test]
fn every_target_has_a_binary_a_corpus_and_a_dictionary() {
    let targets: Vec<String> = fuzz::TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    for part in ["src/bin", "corpus", "dictionaries"] {
        assert_eq!(names(&folder().join(part)).unwrap(), targets, "fuzz/{part}");
    }
}
