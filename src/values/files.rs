//! The one door through which compiling reads files, and Traefik's "file or content" options.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Reads whole files. A test may put something else in its place.
pub trait Files: Send + Sync {
    /// The content of the file at `path`.
    fn read(&self, path: &Path) -> io::Result<Arc<[u8]>>;
    /// Whether there is something at `path`.
    fn exists(&self, path: &Path) -> bool;
}

/// The file system.
#[derive(Debug, Default, Clone, Copy)]
pub struct Disk;

impl Files for Disk {
    fn read(&self, path: &Path) -> io::Result<Arc<[u8]>> {
        std::fs::read(path).map(Arc::from)
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }
}

/// A path when a file of that name exists, otherwise the PEM itself (Traefik `FileOrContent`).
#[derive(Clone, Default, PartialEq, Eq)]
pub struct FileOrContent(String);

impl FileOrContent {
    /// The bytes that this option means.
    pub fn read(&self, files: &dyn Files) -> io::Result<Arc<[u8]>> {
        if self.is_content() { Ok(Arc::from(self.0.as_bytes())) } else { files.read(self.path()) }
    }

    /// Whether the option holds PEM text and not a path.
    pub fn is_content(&self) -> bool {
        self.0.contains("-----BEGIN")
    }

    /// Whether nothing is written.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The option as a path.
    pub fn path(&self) -> &Path {
        Path::new(&self.0)
    }
}

impl From<&str> for FileOrContent {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for FileOrContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_content() { f.write_str("content") } else { fmt::Debug::fmt(&self.0, f) }
    }
}

impl<'de> Deserialize<'de> for FileOrContent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

impl Serialize for FileOrContent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if self.is_content() { "xxxx" } else { &self.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pem_text_is_content_and_is_not_shown() {
        let pem = FileOrContent::from("-----BEGIN PRIVATE KEY-----\nabc");
        assert!(pem.is_content());
        assert_eq!(serde_json::to_string(&pem).unwrap(), "\"xxxx\"");
        assert_eq!(&*pem.read(&Disk).unwrap(), b"-----BEGIN PRIVATE KEY-----\nabc");
    }

    #[test]
    fn a_path_that_is_not_there_is_an_error() {
        assert!(FileOrContent::from("/does/not/exist.pem").read(&Disk).is_err());
    }
}
