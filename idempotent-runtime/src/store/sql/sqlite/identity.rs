//! That the file is still the one that was opened.
//!
//! A process goes on reading and writing a file that somebody deleted or put another one in the place of, and the next
//! process opens the new one: then both execute the same request, and what the first one acknowledged is gone with it.
//! So the writer looks, before it answers, whether the names still lead, for this process, to the files that it has
//! open. It cannot see that a file was overwritten in place, nor what others find under the name, as behind a mount in
//! another container.

use std::{
    io,
    path::{Path, PathBuf},
};

/// The file, its log and its shared memory, as they were when they were opened.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Identity {
    files: Vec<(PathBuf, Id)>,
}

impl Identity {
    /// Of the file alone.
    ///
    /// # Errors
    ///
    /// If it is not there, or not to be seen.
    pub(super) fn of(file: &Path) -> io::Result<Self> {
        // The process may change its folder.
        let file = std::path::absolute(file)?;
        let id = id(&file).map_err(|error| unseen(&file, &error))?;
        Ok(Self {
            files: vec![(file, id)],
        })
    }

    /// With its companions, once it was written to, which makes them.
    ///
    /// # Errors
    ///
    /// If they are not there, or not to be seen.
    pub(super) fn with_companions(mut self) -> io::Result<Self> {
        let companions: &[&str] = if cfg!(unix) { &["-wal", "-shm"] } else { &[] };
        for suffix in companions {
            // SQLite puts them beside the file itself, not beside a link to it.
            let mut name = self.files[0].0.canonicalize()?.into_os_string();
            name.push(suffix);
            let companion = PathBuf::from(name);
            match id(&companion) {
                Ok(id) => self.files.push((companion, id)),
                // With `locking_mode = exclusive` no memory is shared.
                Err(error) if error.kind() == io::ErrorKind::NotFound && *suffix == "-shm" => {}
                Err(error) => return Err(unseen(&companion, &error)),
            }
        }
        Ok(self)
    }

    /// # Errors
    ///
    /// If one of the names leads elsewhere or nowhere. Whoever may not look, as after giving up privileges, cannot
    /// tell and goes on.
    pub(super) fn check(&self) -> io::Result<()> {
        for (file, opened) in &self.files {
            let is_there = match id(file) {
                Ok(found) => found == *opened,
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

fn unseen(file: &Path, error: &io::Error) -> io::Error {
    let message = format!("{} cannot be looked at: {error}", file.display());
    io::Error::new(error.kind(), message)
}

#[cfg(unix)]
type Id = (u64, u64);

/// What tells the file from all others of this machine.
#[cfg(unix)]
fn id(file: &Path) -> io::Result<Id> {
    use std::os::unix::fs::MetadataExt as _;
    let file = std::fs::metadata(file)?;
    Ok((file.dev(), file.ino()))
}

#[cfg(not(unix))]
type Id = ();

/// Elsewhere files that are open keep their place.
#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "it may fail elsewhere")]
fn id(_: &Path) -> io::Result<Id> {
    Ok(())
}
