//! Small files that hold certificates and secrets.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use super::CallError;

/// A bundle of all public authorities is a fourth of it.
const MAX_BYTES: u64 = 1 << 20;

/// All of it. A pipe or a device, which may never end, is an error.
pub(super) fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, CallError> {
    let read = || -> io::Result<Vec<u8>> {
        if !std::fs::metadata(path)?.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        let mut bytes = Vec::new();
        File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
        let limit = usize::try_from(MAX_BYTES).unwrap_or(usize::MAX);
        if bytes.len() > limit {
            Err(io::Error::other(format!("it is longer than {MAX_BYTES} bytes")))
        } else {
            Ok(bytes)
        }
    };
    read().map_err(|failure| error(what, path, &failure.to_string()))
}

/// A secret in it, without the line's end. Empty is an error: sent, it would be a puzzle.
pub(super) fn secret(what: &'static str, path: &Path) -> Result<String, CallError> {
    let text = String::from_utf8(read(what, path)?).map_err(|_| error(what, path, "it is no text"))?;
    match text.trim() {
        "" => Err(error(what, path, "it is empty")),
        text => Ok(text.to_owned()),
    }
}

pub(super) fn error(what: &'static str, path: &Path, detail: &str) -> CallError {
    CallError::File { what, path: path.to_owned(), detail: detail.to_owned() }
}
