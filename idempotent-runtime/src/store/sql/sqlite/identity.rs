//! That the file is still the one that was opened.
//!
//! A process goes on reading and writing a file that somebody deleted or put another one in the place of, and the next
//! process opens the new one: then both execute the same request, and what the first one acknowledged is gone with it.
//! So the writer looks, before it answers, whether the names still lead to the files that it has open.

use std::{
    io,
    path::{Path, PathBuf},
};

/// The file, its log and its shared memory, as they were when they were opened.
pub(super) struct Identity {
    files: Vec<(PathBuf, Id)>,
}

impl Identity {
    /// Of a file that is open and was written to, so that its companions are there.
    pub(super) fn of(file: &Path) -> Self {
        // The process may change its folder.
        let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
        // SQLite puts the companions beside the file itself, not beside a link to it.
        let real = file.canonicalize().unwrap_or_else(|_| file.clone());
        let companion = |suffix: &str| {
            let mut name = real.clone().into_os_string();
            name.push(suffix);
            PathBuf::from(name)
        };
        let files = [companion("-wal"), companion("-shm"), file];
        Self {
            files: files
                .into_iter()
                .filter_map(|file| id(&file).ok().flatten().map(|id| (file, id)))
                .collect(),
        }
    }

    /// # Errors
    ///
    /// If one of the names leads elsewhere or nowhere. Whoever may not look, as after giving up privileges, cannot
    /// tell and goes on.
    pub(super) fn check(&self) -> io::Result<()> {
        for (file, opened) in &self.files {
            let is_there = match id(file) {
                Ok(found) => found == Some(*opened),
                Err(error) => error.kind() != io::ErrorKind::NotFound,
            };
            if !is_there {
                return Err(io::Error::other(
                    "the SQLite file, its -wal or its -shm was moved, deleted or replaced while it was open: put it \
                     back, or restart all processes that use it",
                ));
            }
        }
        Ok(())
    }
}

#[cfg(unix)]
type Id = (u64, u64);

/// What tells the file from all others of this machine.
#[cfg(unix)]
fn id(file: &Path) -> io::Result<Option<Id>> {
    use std::os::unix::fs::MetadataExt as _;
    let file = std::fs::metadata(file)?;
    Ok(Some((file.dev(), file.ino())))
}

#[cfg(not(unix))]
type Id = ();

/// Elsewhere files that are open keep their place.
#[cfg(not(unix))]
fn id(_: &Path) -> io::Result<Option<Id>> {
    Ok(None)
}
