//! What is attacked: something that reads bytes, and what it must hold.

/// A judge's error is a failure, as a panic is.
pub type Judge = Box<dyn Fn(&[u8]) -> Result<(), String>>;

/// Something that reads bytes.
pub struct Target {
    pub name: &'static str,
    /// Good documents.
    pub seeds: Vec<Vec<u8>>,
    /// The same as trees, if they are such: JSON is YAML, too. The generator changes them.
    pub trees: Vec<serde_json::Value>,
    /// What means something to the reader.
    pub words: &'static [&'static str],
    /// How many times as long as others one case takes.
    pub cost: u32,
    pub judge: Judge,
}
