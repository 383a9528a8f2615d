//! One target under libFuzzer, which is linked in and has the `main`: `FUZZ_TARGET` names it. With `FUZZ_SEEDS`, its seeds
//! and its words (as a dictionary) are written into that folder first. The script `guided` builds and starts this.

#![no_main]
#![allow(clippy::unwrap_used, reason = "the fuzzer reports a panic")]

use std::{cell::OnceCell, env, fs, path::Path};

use fuzz::{Judge, TARGETS};

thread_local! {
    static JUDGE: OnceCell<Judge> = const { OnceCell::new() };
}

fn prepare() {
    let name = env::var("FUZZ_TARGET").expect("FUZZ_TARGET names a target");
    let (_, target) =
        TARGETS.iter().find(|(known, _)| *known == name).expect("FUZZ_TARGET is a target of tests/fuzz/lib.rs");
    let target = target();
    if let Some(dir) = env::var_os("FUZZ_SEEDS") {
        let dir = Path::new(&dir);
        for (number, seed) in target.seeds.iter().enumerate() {
            fs::write(dir.join("seeds").join(number.to_string()), seed).unwrap();
        }
        let quoted = |word: &&str| {
            let bytes: String = word.bytes().map(|byte| format!("\\x{byte:02x}")).collect();
            format!("\"{bytes}\"\n")
        };
        // libFuzzer refuses an empty file.
        let words: String = ["# its words\n".to_owned()].into_iter().chain(target.words.iter().map(quoted)).collect();
        fs::write(dir.join("words"), words).unwrap();
    }
    JUDGE.with(|judge| assert!(judge.set(target.judge).is_ok()));
}

libfuzzer_sys::fuzz_target!(
    init: prepare(),
    |bytes: &[u8]| {
        JUDGE.with(|judge| judge.get().unwrap()(bytes)).unwrap();
    }
);
