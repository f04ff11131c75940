//! The operator's token: made at first start, kept in a file that only its owner may read.

use std::{
    fs::OpenOptions,
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use relay::auth::Secret;

/// Name of the token's file in the data folder.
pub(crate) const FILE: &str = "operator-token";
/// Bytes that a token has at least: shorter ones can be guessed.
const MIN_BYTES: usize = 20;

/// Why there is no operator token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OperatorTokenError {
    /// The file cannot be read or made.
    #[error("the operator token {path} can neither be read nor made")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Others may read the file.
    #[error("others may read the operator token {path}: run `chmod 600 {path}`")]
    Permissions {
        /// The file.
        path: PathBuf,
    },
    /// The file holds no token.
    #[error("{path} holds no token of at least {MIN_BYTES} characters: remove it, and a new one is made")]
    Format {
        /// The file.
        path: PathBuf,
    },
}

/// The operator's token of a data folder, and whether it was made just now (then it should be shown once). The folder
/// and the token are made if they are not there.
///
/// # Errors
/// When it can neither be read nor made, or others may read it.
pub fn operator_token(data_dir: &Path) -> Result<(Secret, bool), OperatorTokenError> {
    let path = data_dir.join(FILE);
    let failed = |source| OperatorTokenError::File { path: path.clone(), source };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(data_dir).map_err(failed)?;
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
        Ok(mut file) => {
            let token = Secret::new(format!("gt_{}{}", Secret::random().expose(), Secret::random().expose()));
            writeln!(file, "{}", token.expose()).and_then(|()| file.sync_all()).map_err(failed)?;
            Ok((token, true))
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok((load(&path)?, false)),
        Err(error) => Err(failed(error)),
    }
}

/// Whether a data folder has an operator token.
pub(crate) fn exists(data_dir: &Path) -> bool {
    data_dir.join(FILE).exists()
}

fn load(path: &Path) -> Result<Secret, OperatorTokenError> {
    let failed = |source| OperatorTokenError::File { path: path.to_owned(), source };
    let mode = std::fs::metadata(path).map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(OperatorTokenError::Permissions { path: path.to_owned() });
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    let token = text.trim();
    if token.len() < MIN_BYTES || token.contains(char::is_whitespace) {
        return Err(OperatorTokenError::Format { path: path.to_owned() });
    }
    Ok(Secret::new(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_once_and_readable_by_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().join("data");
        assert!(!exists(&data_dir));
        let (token, made) = operator_token(&data_dir).unwrap();
        assert!(made && exists(&data_dir));
        let mode = std::fs::metadata(data_dir.join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let (again, made) = operator_token(&data_dir).unwrap();
        assert!(!made && again.is(token.expose()));
    }

    #[test]
    fn one_that_others_may_read_is_refused_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        operator_token(folder.path()).unwrap();
        let path = folder.path().join(FILE);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let error = operator_token(folder.path()).unwrap_err();
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }

    #[test]
    fn an_empty_or_short_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (token, _) = operator_token(folder.path()).unwrap();
        for text in ["", "\n", "short\n", &format!("{} {}", token.expose(), token.expose())] {
            std::fs::write(folder.path().join(FILE), text).unwrap();
            assert!(matches!(operator_token(folder.path()), Err(OperatorTokenError::Format { .. })));
        }
    }
}
