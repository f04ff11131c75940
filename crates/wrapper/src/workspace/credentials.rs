//! The credential of a repository's server. Git asks a helper for it, which reads it in a file: it is in no URL, no argument, no
//! variable and no log. The helper is set for the repository's host alone, so that no other server is ever told it.

use std::path::{Path, PathBuf};

use tokio::{fs, io::AsyncWriteExt as _};

use super::{RepositoryUrl, WorkspaceError, io_at};
use crate::git::{Git, GitError, LOCAL};

/// The user of a token where the URL names none: what GitHub wants, and what others take.
const TOKEN_USER: &str = "x-access-token";

/// Sets the helper in the mirror, with this token; the agents' work trees use it as well. `git` is in the mirror.
pub(super) async fn install(
    git: &Git,
    url: &RepositoryUrl,
    token: &str,
    mirror: &Path,
) -> Result<(), WorkspaceError> {
    let Some((host, user)) = url.web_host() else { return Ok(()) };
    let kept = mirror.with_extension("token");
    keep(token, &kept).await?;
    let name = format!("credential.{host}.helper");
    // The first, empty one makes git forget the helpers that the user has: theirs would store what this one says.
    let helper = helper(&kept, user.unwrap_or(TOKEN_USER));
    match git.run(LOCAL, &["config", "--unset-all", &name]).await {
        Ok(_) | Err(GitError::Failed { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    for value in ["", &helper] {
        git.run(LOCAL, &["config", "--add", &name, value]).await?;
    }
    Ok(())
}

/// A helper in the shell's words (gitcredentials(7)): it is asked with `get`, and answers with a line each for user and password.
fn helper(token_file: &Path, user: &str) -> String {
    let file = quoted(&token_file.to_string_lossy());
    let user = quoted(user);
    format!(
        "!f() {{ test \"$1\" = get || exit 0; printf 'username=%s\\npassword=%s\\n' {user} \"$(cat {file})\"; }}; f"
    )
}

/// One word of the shell's.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// Keeps the token, readable for this user alone, whole or not at all.
async fn keep(token: &str, kept: &Path) -> Result<(), WorkspaceError> {
    let draft: PathBuf = kept.with_extension("token.new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&draft)
        .await
        .map_err(io_at(&draft))?;
    file.write_all(token.as_bytes()).await.map_err(io_at(&draft))?;
    file.sync_all().await.map_err(io_at(&draft))?;
    fs::rename(&draft, kept).await.map_err(io_at(kept))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_helper_reads_the_token_whatever_its_path_is() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("it's a $(token) \"file\"");
        std::fs::write(&file, "hunter2").unwrap();
        let said = |asked: &str| {
            let script = format!("{} {asked}", helper(&file, "me").trim_start_matches('!'));
            let output = Command::new("sh").args(["-c", &script]).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        assert_eq!(said("get"), "username=me\npassword=hunter2\n");
        assert_eq!(said("store"), "", "it keeps nothing");
    }

    #[test]
    fn p19_the_helper_itself_holds_no_token() {
        assert!(!helper(Path::new("/rigs/app.token"), "me").contains("hunter2"));
    }
}
