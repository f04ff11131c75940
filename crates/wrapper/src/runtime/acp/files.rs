//! Files of the work folder, read and written for the agent (`fs/*`). Nothing outside of it is touched, whatever a path says, and
//! nothing but regular files: a FIFO would keep whoever reads it waiting for ever.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Component, Path, PathBuf},
};

use rustix::fs::OFlags;
use serde::Deserialize;
use serde_json::{Value, json};

use super::rpc::{INTERNAL_ERROR, INVALID_PARAMS, RpcError};

/// Bytes of a file that an agent may read or write at once.
const FILE: u64 = 8 * 1024 * 1024;

#[derive(Deserialize)]
struct Read {
    path: PathBuf,
    /// The first line, from 1.
    line: Option<usize>,
    /// How many lines.
    limit: Option<usize>,
}

#[derive(Deserialize)]
struct Write {
    path: PathBuf,
    content: String,
}

/// `fs/read_text_file`. Blocks.
pub(super) fn read(folder: &Path, params: &Value) -> Result<Value, RpcError> {
    let Read { path, line, limit } = Read::deserialize(params).map_err(|error| invalid(error.to_string()))?;
    let path = inside(folder, &path)?;
    let mut file = open(&path, OpenOptions::new().read(true))?;
    let len = file.metadata().map_err(|error| failed(&path, &error))?.len();
    if len > FILE {
        return Err(invalid(format!("{} has {len} bytes, at most {FILE} can be read", path.display())));
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(|error| failed(&path, &error))?;
    let skipped = line.unwrap_or(1).saturating_sub(1);
    if skipped == 0 && limit.is_none() {
        return Ok(json!({ "content": text }));
    }
    let lines = text.split_inclusive('\n').skip(skipped).take(limit.unwrap_or(usize::MAX));
    Ok(json!({ "content": lines.collect::<String>() }))
}

/// `fs/write_text_file`: the file is made if it is not there, and the folders that lead to it. Blocks.
pub(super) fn write(folder: &Path, params: &Value) -> Result<Value, RpcError> {
    let Write { path, content } = Write::deserialize(params).map_err(|error| invalid(error.to_string()))?;
    if content.len() as u64 > FILE {
        return Err(invalid(format!(
            "the content has {} bytes, at most {FILE} can be written",
            content.len()
        )));
    }
    let path = inside(folder, &path)?;
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(|error| failed(parent, &error))?;
    }
    let mut file = open(&path, OpenOptions::new().write(true).create(true).truncate(false))?;
    let written = file.set_len(0).and_then(|()| file.write_all(content.as_bytes()));
    written.map_err(|error| failed(&path, &error))?;
    Ok(json!({}))
}

/// Opens a regular file, and nothing else.
fn open(path: &Path, how: &mut OpenOptions) -> Result<File, RpcError> {
    let not_regular = || invalid(format!("{} is no regular file", path.display()));
    // Opening a device may do something already.
    if path.metadata().is_ok_and(|there| !there.is_file()) {
        return Err(not_regular());
    }
    // What takes the file's place meanwhile is opened without waiting for its other end.
    let how = how.custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    let file = how.open(path).map_err(|error| failed(path, &error))?;
    let there = file.metadata().map_err(|error| failed(path, &error))?;
    if there.is_file() { Ok(file) } else { Err(not_regular()) }
}

/// The folder a terminal is to run in.
pub(super) fn folder_inside(folder: &Path, path: Option<&str>) -> Result<PathBuf, RpcError> {
    path.map_or_else(|| Ok(folder.to_owned()), |path| inside(folder, Path::new(path)))
}

/// The path, if it lies in the folder once every link on the way is followed.
fn inside(folder: &Path, path: &Path) -> Result<PathBuf, RpcError> {
    let outside = || invalid(format!("{} is not in the work folder {}", path.display(), folder.display()));
    let full = folder.join(path);
    if full.components().any(|part| part == Component::ParentDir) {
        return Err(outside());
    }
    // What is not there yet has no links in it: the longest part that is there decides.
    let there = full.ancestors().find(|part| part.symlink_metadata().is_ok()).ok_or_else(outside)?;
    let real = there.canonicalize().map_err(|error| failed(there, &error))?;
    let rest = full.strip_prefix(there).map_err(|_| outside())?;
    match real.starts_with(folder) {
        // Joined with nothing, a path would end in a slash.
        true if rest.as_os_str().is_empty() => Ok(real),
        true => Ok(real.join(rest)),
        false => Err(outside()),
    }
}

fn invalid(message: String) -> RpcError {
    RpcError::new(INVALID_PARAMS, message)
}

fn failed(path: &Path, error: &io::Error) -> RpcError {
    RpcError::new(INTERNAL_ERROR, format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, Mode, mkfifoat};
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_file_is_read_whole_or_by_lines() {
        let (_keep, folder) = folder();
        std::fs::write(folder.join("a"), "1\n2\n3\n").unwrap();
        let read = |params| read(&folder, &params).unwrap()["content"].as_str().unwrap().to_owned();
        assert_eq!(read(json!({ "path": folder.join("a") })), "1\n2\n3\n");
        assert_eq!(read(json!({ "path": "a", "line": 2, "limit": 1 })), "2\n");
        assert_eq!(read(json!({ "path": "a", "line": 9 })), "");
    }

    #[test]
    fn a_file_is_written_with_the_folders_that_lead_to_it() {
        let (_keep, folder) = folder();
        write(&folder, &json!({ "path": folder.join("new/deep/a"), "content": "x" })).unwrap();
        assert_eq!(std::fs::read_to_string(folder.join("new/deep/a")).unwrap(), "x");
    }

    #[test]
    fn nothing_outside_of_the_work_folder_is_touched_whatever_the_path_says() {
        let (_keep, folder) = folder();
        let elsewhere = tempfile::tempdir().unwrap();
        std::fs::write(elsewhere.path().join("secret"), "s").unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), folder.join("link")).unwrap();
        std::os::unix::fs::symlink(elsewhere.path().join("not there"), folder.join("dangling")).unwrap();
        let absolute = elsewhere.path().join("secret").display().to_string();
        for path in ["../a", "/etc/passwd", "link/secret", "x/../../a", absolute.as_str()] {
            let error = read(&folder, &json!({ "path": path })).unwrap_err();
            assert_eq!(error.code, INVALID_PARAMS, "{path}: {error}");
        }
        for path in ["link/new", "link/deep/new", "dangling"] {
            assert!(write(&folder, &json!({ "path": path, "content": "x" })).is_err(), "{path}");
        }
        assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 1, "nothing was made there");
    }

    #[test]
    fn what_is_too_large_is_neither_read_nor_written() {
        let (_keep, folder) = folder();
        for (bytes, taken) in [(FILE, true), (FILE + 1, false)] {
            File::create(folder.join("large")).unwrap().set_len(bytes).unwrap();
            assert_eq!(super::read(&folder, &json!({ "path": "large" })).is_ok(), taken);
            let content = "x".repeat(usize::try_from(bytes).unwrap());
            assert_eq!(super::write(&folder, &json!({ "path": "new", "content": content })).is_ok(), taken);
        }
    }

    #[test]
    fn a_fifo_a_socket_and_a_folder_are_refused_at_once() {
        let (_keep, folder) = folder();
        mkfifoat(CWD, folder.join("fifo"), Mode::RUSR | Mode::WUSR).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(folder.join("socket")).unwrap();
        std::fs::create_dir(folder.join("folder")).unwrap();
        std::os::unix::fs::symlink("fifo", folder.join("link")).unwrap();
        for path in ["fifo", "socket", "folder", "link"] {
            let (read, write) = (json!({ "path": path }), json!({ "path": path, "content": "x" }));
            for refused in [super::read(&folder, &read), super::write(&folder, &write)] {
                let error = refused.unwrap_err();
                assert!(error.message.ends_with("is no regular file"), "{path}: {error}");
            }
        }
    }

    #[test]
    fn what_is_written_takes_the_place_of_what_was_there() {
        let (_keep, folder) = folder();
        std::fs::write(folder.join("a"), "a long line that was there").unwrap();
        write(&folder, &json!({ "path": "a", "content": "short" })).unwrap();
        assert_eq!(std::fs::read_to_string(folder.join("a")).unwrap(), "short");
    }

    #[test]
    fn a_file_that_is_not_there_is_an_error_that_names_it() {
        let (_keep, folder) = folder();
        let error = read(&folder, &json!({ "path": "nothing" })).unwrap_err();
        assert!(error.message.contains("nothing"), "{error}");
        assert_eq!(read(&folder, &json!({})).unwrap_err().code, INVALID_PARAMS);
    }

    fn folder() -> (TempDir, PathBuf) {
        let keep = tempfile::tempdir().unwrap();
        let path = keep.path().canonicalize().unwrap();
        (keep, path)
    }
}
