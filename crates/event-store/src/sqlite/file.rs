//! Opening the database: the lock, what kind of file it is, its schema and its settings.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{Durability, SqliteOptions, migrate, tables::SCHEMA};

/// "gstn": says that a SQLite file is an event store.
pub(super) const APPLICATION_ID: i32 = 0x6773_746e;
/// The schema this code writes; a higher one is refused.
pub(super) const SCHEMA_VERSION: i32 = 2;
/// A segment is a few pages: large ones are read from a cold disk with fewer seeks, small ones write less.
const PAGE_BYTES: u64 = 16 * 1024;
/// The write-ahead log is cut back to this after a checkpoint.
const WAL_BYTES: u64 = 64 * 1024 * 1024;
/// Pages in the write-ahead log after which it is copied into the database: 48 MiB, so that what is written meanwhile
/// has room.
pub(super) const CHECKPOINT_PAGES: u32 = 3072;
/// SQLite checkpoints within the commit at this many, should the writer not see how many there are.
const AUTOCHECKPOINT_PAGES: u32 = 4 * CHECKPOINT_PAGES;
/// How long a statement of the writer waits for a lock that another connection of this process has.
pub(super) const BUSY: Duration = Duration::from_secs(5);
/// Compiled statements that a connection keeps: all there are.
const STATEMENTS: usize = 64;

/// Why a store was not opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process, or another handle of this one, has it open.
    #[error("{path} is in use by another process")]
    Locked {
        /// The database.
        path: PathBuf,
    },
    /// The file is no SQLite database, or one of another application.
    #[error("{path} is not an event store")]
    NotAStore {
        /// The file.
        path: PathBuf,
    },
    /// A newer version of this software wrote it.
    #[error("{path} has schema {found}, this version reads up to {supported}: use the newer version")]
    NewerSchema {
        /// The database.
        path: PathBuf,
        /// The schema it has.
        found: i32,
        /// The newest schema this version knows.
        supported: i32,
    },
    /// Part of it is missing or wrong: restore it from a backup, or move it away to start anew.
    #[error("{path} is damaged: {what}")]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What was found.
        what: &'static str,
        /// What SQLite says, if it was SQLite that found it.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The file system refused.
    #[error("{path} cannot be opened")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Anything else.
    #[error("{path} cannot be opened: SQLite failed")]
    Backend {
        /// The database.
        path: PathBuf,
        /// What SQLite says.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A database that is this process's alone.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) path: PathBuf,
    pub(super) writer: Connection,
    pub(super) readers: Vec<Connection>,
    /// Held as long as the store is open. The file itself stays: removing it would let two openers lock two files.
    pub(super) lock: File,
}

/// Opens or creates the database.
pub(super) fn open(path: &Path, options: &SqliteOptions) -> Result<Opened, OpenError> {
    let path = resolve(path)?;
    let lock = lock(&path)?;
    check_magic(&path)?;
    let failed = |source| refine(&path, source);
    let mut writer = connect(&path).map_err(failed)?;
    if version(&path, &writer)? == migrate::FROM {
        drop(writer);
        migrate::migrate(&path)?;
        writer = connect(&path).map_err(failed)?;
    }
    configure(&writer, options).map_err(failed)?;
    check_length(&path, &writer)?;
    let readers = (0..options.readers.max(1)).map(|_| connect_reader(&path)).collect::<Result<_, _>>();
    Ok(Opened { writer, readers: readers.map_err(failed)?, lock, path })
}

/// The same file has the same lock, by whatever links it is reached.
fn resolve(path: &Path) -> Result<PathBuf, OpenError> {
    let io = |source| OpenError::Io { path: path.to_owned(), source };
    // Readable by its owner only: events hold whatever agents see. SQLite gives its other files the same mode.
    let mut create = OpenOptions::new();
    create.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut create, 0o600);
    drop(create.open(path).map_err(io)?);
    path.canonicalize().map_err(io)
}

pub(super) fn lock(path: &Path) -> Result<File, OpenError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let io = |source| OpenError::Io { path: name.clone(), source };
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&name).map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(io(source)),
    }
}

fn check_magic(path: &Path) -> Result<(), OpenError> {
    const MAGIC: &[u8] = b"SQLite format 3\0";
    let io = |source| OpenError::Io { path: path.to_owned(), source };
    let mut start = Vec::new();
    File::open(path).map_err(io)?.take(MAGIC.len() as u64).read_to_end(&mut start).map_err(io)?;
    if start.is_empty() || start == MAGIC {
        return Ok(());
    }
    Err(OpenError::NotAStore { path: path.to_owned() })
}

pub(super) fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let conn = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(conn)
}

pub(super) fn connect_reader(path: &Path) -> rusqlite::Result<Connection> {
    let conn = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    conn.execute_batch("PRAGMA query_only=ON; PRAGMA cell_size_check=ON; PRAGMA cache_size=-2048;")?;
    Ok(conn)
}

/// Finds out whose database it is before anything in it is changed, and which schema it has; makes the tables of one
/// that is new.
pub(super) fn version(path: &Path, conn: &Connection) -> Result<i32, OpenError> {
    let failed = |source| refine(path, source);
    let pragma = |name| conn.pragma_query_value(None, name, |row| row.get::<_, i32>(0)).map_err(failed);
    match (pragma("application_id")?, pragma("user_version")?) {
        (APPLICATION_ID, found @ (SCHEMA_VERSION | migrate::FROM)) => Ok(found),
        (APPLICATION_ID, found) if found > SCHEMA_VERSION => {
            Err(OpenError::NewerSchema { path: path.to_owned(), found, supported: SCHEMA_VERSION })
        }
        (0, 0) if is_empty(conn).map_err(failed)? => {
            create(conn).map_err(failed)?;
            Ok(SCHEMA_VERSION)
        }
        (APPLICATION_ID, _) => Err(damaged(path, "it has no known schema")),
        _ => Err(OpenError::NotAStore { path: path.to_owned() }),
    }
}

fn is_empty(conn: &Connection) -> rusqlite::Result<bool> {
    conn.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| row.get(0))
}

/// One transaction, so that a crash leaves an empty database or a whole one.
pub(super) fn create(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute_batch(&format!("PRAGMA page_size={PAGE_BYTES}; PRAGMA journal_mode=WAL;"))?;
    conn.execute_batch(&format!(
        "BEGIN IMMEDIATE;
         {SCHEMA}
         PRAGMA application_id={APPLICATION_ID};
         PRAGMA user_version={SCHEMA_VERSION};
         COMMIT;"
    ))
}

fn configure(conn: &Connection, options: &SqliteOptions) -> rusqlite::Result<()> {
    let synchronous = match options.durability {
        Durability::Full => "FULL",
        Durability::Normal => "NORMAL",
    };
    conn.execute_batch(&format!(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous={synchronous}; PRAGMA wal_autocheckpoint={AUTOCHECKPOINT_PAGES};
         PRAGMA journal_size_limit={WAL_BYTES}; PRAGMA cache_size=-16384; PRAGMA cell_size_check=ON;"
    ))?;
    if let Some(bytes) = options.max_bytes {
        conn.execute_batch(&format!(
            "PRAGMA max_page_count={}",
            (bytes / PAGE_BYTES).clamp(1, u64::from(u32::MAX - 1))
        ))?;
    }
    Ok(())
}

/// A file that is shorter than its pages lost its end. Only after everything in the write-ahead log is in it: a crash
/// during a checkpoint leaves it short for a while, and nothing is lost by that.
fn check_length(path: &Path, conn: &Connection) -> Result<(), OpenError> {
    let failed = |source| refine(path, source);
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(failed)?;
    let pragma = |name| conn.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(failed);
    let expected = pragma("page_count")?.saturating_mul(pragma("page_size")?);
    let found = path.metadata().map_err(|source| OpenError::Io { path: path.to_owned(), source })?.len();
    if found < expected.cast_unsigned() {
        return Err(damaged(path, "its end is missing"));
    }
    Ok(())
}

pub(super) fn damaged(path: &Path, what: &'static str) -> OpenError {
    OpenError::Damaged { path: path.to_owned(), what, source: None }
}

/// What a failure while opening means.
pub(super) fn refine(path: &Path, source: rusqlite::Error) -> OpenError {
    let path = path.to_owned();
    match source.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => OpenError::NotAStore { path },
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => OpenError::Locked { path },
        Some(ErrorCode::DatabaseCorrupt) => {
            OpenError::Damaged { path, what: "SQLite cannot read it", source: Some(source.into()) }
        }
        Some(_) | None => OpenError::Backend { path, source: source.into() },
    }
}
