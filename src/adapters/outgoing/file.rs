//! Small files with certificates and secrets.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use super::CallError;

/// A bundle of all public CAs is a quarter of it.
const MAX_BYTES: u64 = 1 << 20;

/// The whole content. A pipe or a device, which may never end, is an error.
pub(super) fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, CallError> {
    let read = || -> io::Result<Vec<u8>> {
        if !std::fs::metadata(path)?.is_file() {
            return Err(io::Error::other("it is not a regular file"));
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

/// The secret in it, without the line end. An empty file is an error: sending it would only be confusing.
pub(super) fn secret(what: &'static str, path: &Path) -> Result<String, CallError> {
    let text = String::from_utf8(read(what, path)?).map_err(|_| error(what, path, "it is not UTF-8 text"))?;
    match text.trim() {
        "" => Err(error(what, path, "it is empty")),
        text => Ok(text.to_owned()),
    }
}

pub(super) fn error(what: &'static str, path: &Path, detail: &str) -> CallError {
    CallError::File { what, path: path.to_owned(), detail: detail.to_owned() }
}
