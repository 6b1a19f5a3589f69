//! What a built thing was built of, so that the next compile knows whether it may be kept.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::values::Files;

/// Content of a file when it was read; `None` when it could not be.
type Content = Option<Arc<[u8]>>;

/// Files that were read through [`RecordedFiles`].
pub(super) type FileInputs = Box<[(PathBuf, Content)]>;

/// Passes reads on and remembers them.
pub struct RecordedFiles<'a> {
    files: &'a dyn Files,
    seen: Mutex<Vec<(PathBuf, Content)>>,
}

impl<'a> RecordedFiles<'a> {
    /// Records what is read of `files`.
    pub fn new(files: &'a dyn Files) -> Self {
        Self { files, seen: Mutex::default() }
    }

    /// What was read.
    pub(super) fn finish(self) -> FileInputs {
        self.seen.into_inner().unwrap_or_else(PoisonError::into_inner).into_boxed_slice()
    }
}

impl Files for RecordedFiles<'_> {
    fn read(&self, path: &Path) -> io::Result<Arc<[u8]>> {
        let result = self.files.read(path);
        let content = result.as_ref().ok().cloned();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.push((path.to_owned(), content));
        result
    }

    fn exists(&self, path: &Path) -> bool {
        self.files.exists(path)
    }
}

/// Whether all of `inputs` still read the same.
pub(super) fn unchanged(inputs: &FileInputs, files: &dyn Files) -> bool {
    inputs.iter().all(|(path, content)| match (files.read(path).ok(), content) {
        (Some(now), Some(then)) => Arc::ptr_eq(&now, then) || now == *then,
        (None, None) => true,
        _ => false,
    })
}

/// Whether two shared things are the same object.
pub(super) fn same<T: ?Sized>(one: &Arc<T>, other: &Arc<T>) -> bool {
    std::ptr::addr_eq(Arc::as_ptr(one), Arc::as_ptr(other))
}
