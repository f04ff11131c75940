//! `gastown backup` and `gastown restore`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::Args;
use relay::DataDirArgs;

use super::{
    Exit,
    exit::Refusal,
    paint::Paint,
    print, progress,
    verify::{STORES, as_text, look_through, stores_in},
};

/// Copy everything that is stored, while the server runs
#[derive(Debug, Args)]
#[command(after_help = "\
Each store of the data directory is copied as of one commit, and the copy is looked through. The server may run, and no \
append waits. Tokens and keys are not copied.

Examples:
  gastown backup /backups/$(date +%F)
  gastown restore /backups/2026-11-20            on a data directory that has no store")]
pub(super) struct Backup {
    /// A folder that is not there yet, or has no copy yet
    #[arg(value_name = "FOLDER")]
    to: PathBuf,
    #[command(flatten)]
    data_dir: DataDirArgs,
}

/// Put a backup in the place of what was lost
#[derive(Debug, Args)]
#[command(after_help = "\
The server must not run, and the data directory must have no store: move a damaged one away first. What was stored \
since the backup is gone, and everybody is told: a viewer whose cursor is of before gets a gap and begins anew, and an \
agent's wrapper names what it was acked and the backup does not have.

Examples:
  mv ~/.gastown/gastown.db ~/.gastown/gastown.db.damaged
  gastown restore /backups/2026-11-20")]
pub(super) struct Restore {
    /// The folder that `gastown backup` wrote, or a single copy in it
    #[arg(value_name = "FOLDER")]
    from: PathBuf,
    #[command(flatten)]
    data_dir: DataDirArgs,
}

impl Backup {
    pub(super) async fn run(self) -> anyhow::Result<Exit> {
        let files = stores_in(&self.data_dir.path()?)?;
        fs::create_dir_all(&self.to).with_context(|| format!("cannot make {}", self.to.display()))?;
        let mut reports = Vec::new();
        for file in files {
            let copy = self.to.join(file.file_name().unwrap_or_default());
            copied(&file, &copy, store::backup).await?;
            let report = look_through(&copy).await?;
            reports.push((copy, report));
        }
        print(&as_text(&reports, Paint::of(&io::stdout())))?;
        let is_sound = reports.iter().all(|(_, report)| report.findings.is_empty());
        Ok(if is_sound { Exit::Done } else { Exit::Failed })
    }
}

impl Restore {
    pub(super) async fn run(self) -> anyhow::Result<Exit> {
        let data_dir = self.data_dir.path()?;
        let copies = copies_at(&self.from)?;
        fs::create_dir_all(&data_dir).with_context(|| format!("cannot make {}", data_dir.display()))?;
        let mut reports = Vec::new();
        for copy in copies {
            let file = data_dir.join(copy.file_name().unwrap_or_default());
            if file.exists() {
                let message = format!("{} is there already: move it away first", file.display());
                return Err(Refusal::because(Exit::Conflict, message));
            }
            copied(&copy, &file, store::restore).await?;
            let report = look_through(&file).await?;
            reports.push((file, report));
        }
        print(&as_text(&reports, Paint::of(&io::stdout())))?;
        let is_sound = reports.iter().all(|(_, report)| report.findings.is_empty());
        Ok(if is_sound { Exit::Done } else { Exit::Failed })
    }
}

/// The copies in a folder, or the one that is named.
fn copies_at(from: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !from.is_file() {
        return stores_in(from);
    }
    let is_named = from.file_name().and_then(|name| name.to_str()).is_some_and(|name| STORES.contains(&name));
    if is_named {
        return Ok(vec![from.to_owned()]);
    }
    let message = format!("a copy is named as the store is: {}", STORES.join(", "));
    Err(Refusal::because(Exit::Usage, message))
}

/// Copies, beside the thread that shows how long it takes.
async fn copied(
    from: &Path,
    to: &Path,
    copy: impl FnOnce(&Path, &Path, fn(u64, u64)) -> Result<(), store::OpenError> + Send + 'static,
) -> anyhow::Result<()> {
    let what = format!("copying {}", from.display());
    let (from, to) = (from.to_owned(), to.to_owned());
    let work = tokio::task::spawn_blocking(move || copy(&from, &to, |_, _| {}));
    Ok(progress::shown(&what, work).await.context("the thread that copies panicked")??)
}

#[cfg(test)]
mod tests {
    use protocol::{NewEvent, Timestamp};
    use store::{Append, EventStore as _, SqliteOptions, SqliteStore};

    use super::*;
    use crate::cli::exit::exit_of;

    #[tokio::test]
    async fn what_was_backed_up_under_a_running_server_is_restored() {
        let dir = tempfile::tempdir().unwrap();
        let (town, copies, other) =
            (dir.path().join("town"), dir.path().join("copies"), dir.path().join("other"));
        fs::create_dir(&town).unwrap();
        let store = SqliteStore::open(town.join("gastown.db"), SqliteOptions::default()).unwrap();
        let event = NewEvent::of(Timestamp::from_unix_ms(0), "file.edited", &1).unwrap();
        store.append(&"agent/a".parse().unwrap(), Append::of(vec![event])).await.unwrap();
        let backup = || Backup { to: copies.clone(), data_dir: data_dir(&town) };
        assert_eq!(backup().run().await.unwrap(), Exit::Done);
        assert!(backup().run().await.is_err(), "a copy is not overwritten");
        let restore = |to: &Path| Restore { from: copies.clone(), data_dir: data_dir(to) };
        assert_eq!(exit_of(&restore(&town).run().await.unwrap_err()), Exit::Conflict);
        assert_eq!(restore(&other).run().await.unwrap(), Exit::Done);
        let restored = SqliteStore::open(other.join("gastown.db"), SqliteOptions::default()).unwrap();
        assert_eq!(restored.list().await.unwrap()[0].events, 1);
    }

    #[tokio::test]
    async fn without_a_store_there_is_nothing_to_copy() {
        let dir = tempfile::tempdir().unwrap();
        let backup = Backup { to: dir.path().join("copies"), data_dir: data_dir(dir.path()) };
        assert_eq!(exit_of(&backup.run().await.unwrap_err()), Exit::NotFound);
        let restore = Restore { from: dir.path().join("nowhere"), data_dir: data_dir(dir.path()) };
        assert_eq!(exit_of(&restore.run().await.unwrap_err()), Exit::NotFound);
    }

    fn data_dir(path: &Path) -> DataDirArgs {
        DataDirArgs { data_dir: Some(path.to_owned()) }
    }
}
