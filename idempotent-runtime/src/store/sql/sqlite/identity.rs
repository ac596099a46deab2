//! Checks that the file is still the one that was opened.
//!
//! When an open file is deleted or replaced, its process goes on reading and writing it, while the next process opens
//! the new file: then both execute the same request, and whatever the first one acknowledged is lost. So the writer
//! checks before each answer that the names still lead, for this process, to the files that it has open. It cannot
//! detect that a file was overwritten in place, nor what other processes find under the name, as behind a mount in
//! another container.

use std::{
    io,
    path::{Path, PathBuf},
};

/// The identities of the file, its log and its shared memory at the moment they were opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    files: Vec<(PathBuf, Id)>,
}

impl Identity {
    /// The identity of the file alone.
    ///
    /// # Errors
    ///
    /// If the file does not exist or its metadata cannot be read.
    pub(super) fn of(file: &Path) -> io::Result<Self> {
        // The process may change its working directory.
        let file = std::path::absolute(file)?;
        let id = id(&file).map_err(|error| unreadable(&file, &error))?;
        Ok(Self {
            files: vec![(file, id)],
        })
    }

    /// The file itself.
    pub(super) fn file(&self) -> &Path {
        &self.files[0].0
    }

    /// Adds the companion files, which exist once the file was written to.
    ///
    /// # Errors
    ///
    /// If a companion does not exist or its metadata cannot be read.
    pub(super) fn with_companions(mut self) -> io::Result<Self> {
        let companions: &[&str] = if cfg!(unix) { &["-wal", "-shm"] } else { &[] };
        for suffix in companions {
            // SQLite creates them beside the file itself, not beside a link to it.
            let mut name = self.files[0].0.canonicalize()?.into_os_string();
            name.push(suffix);
            let companion = PathBuf::from(name);
            match id(&companion) {
                Ok(id) => self.files.push((companion, id)),
                // With `locking_mode = exclusive` there is no shared memory.
                Err(error) if error.kind() == io::ErrorKind::NotFound && *suffix == "-shm" => {}
                Err(error) => return Err(unreadable(&companion, &error)),
            }
        }
        Ok(self)
    }

    /// # Errors
    ///
    /// If one of the names leads to another file or to none. A process that may not read the metadata, as after it
    /// dropped privileges, cannot tell and goes on.
    pub(super) fn check(&self) -> io::Result<()> {
        for (file, opened) in &self.files {
            let is_same = match id(file) {
                Ok(found) => found == *opened,
                Err(error) => error.kind() != io::ErrorKind::NotFound,
            };
            if !is_same {
                return Err(io::Error::other(
                    "the SQLite file, its -wal or its -shm was moved, deleted or replaced while it was open: put it \
                     back, or restart all processes that use it",
                ));
            }
        }
        Ok(())
    }
}

fn unreadable(file: &Path, error: &io::Error) -> io::Error {
    let message = format!("the metadata of {} cannot be read: {error}", file.display());
    io::Error::new(error.kind(), message)
}

#[cfg(unix)]
type Id = (u64, u64);

/// Device and inode: unique among the files of this machine.
#[cfg(unix)]
fn id(file: &Path) -> io::Result<Id> {
    use std::os::unix::fs::MetadataExt as _;
    let file = std::fs::metadata(file)?;
    Ok((file.dev(), file.ino()))
}

#[cfg(not(unix))]
type Id = ();

/// On other systems an open file cannot be moved, deleted or replaced.
#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "on Unix it may fail")]
fn id(_: &Path) -> io::Result<Id> {
    Ok(())
}
