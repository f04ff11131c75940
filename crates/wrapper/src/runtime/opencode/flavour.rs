//! What differs between the two servers.

use std::path::{Path, PathBuf};

use protocol::agent::Failed;

/// Which agent server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Flavour {
    /// `opencode serve`.
    Opencode,
    /// `kilo serve`.
    Kilo,
}

impl Flavour {
    /// The name of the runtime, of the binary, and of the user that the server lets in.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Opencode => "opencode",
            Self::Kilo => "kilo",
        }
    }

    /// A variable of its environment.
    pub(super) fn variable(self, suffix: &str) -> String {
        let prefix = match self {
            Self::Opencode => "OPENCODE",
            Self::Kilo => "KILO",
        };
        format!("{prefix}_{suffix}")
    }

    /// It asks a person what to do when the network is lost (`/network`).
    pub(super) fn asks_about_the_network(self) -> bool {
        self == Self::Kilo
    }

    /// It writes the message of a commit when it is asked to (`/commit-message`).
    pub(super) fn writes_commit_messages(self) -> bool {
        self == Self::Kilo
    }

    /// The server's binary: this file, the one in the `node_modules` of this folder, or the first one in `path`.
    pub(super) fn find_binary(self, given: Option<&Path>, path: Option<&str>) -> Result<PathBuf, Failed> {
        let name = self.name();
        let Some(given) = given else {
            let folders = path.map(std::env::split_paths).into_iter().flatten();
            return folders.map(|folder| folder.join(name)).find(|file| file.is_file()).ok_or_else(|| {
                super::failed(format!(
                    "there is no {name} in PATH: install it (npm install -g {}) or say where it is with --agent-bin",
                    self.package()
                ))
            });
        };
        let mut places = vec![given.to_owned()];
        // The platform's own binary first: the one in .bin is a script that needs Node.
        places.extend(
            self.platform_packages()
                .map(|package| given.join("node_modules").join(package).join("bin").join(name)),
        );
        places.push(given.join("node_modules/.bin").join(name));
        places.into_iter().find(|file| file.is_file()).and_then(|file| std::path::absolute(file).ok()).ok_or_else(|| {
            super::failed(format!(
                "--agent-bin {} is neither the {name} binary nor a folder with it: in an empty folder run \
                 `npm install {}` and give that folder",
                given.display(),
                self.package()
            ))
        })
    }

    fn package(self) -> &'static str {
        match self {
            Self::Opencode => "opencode-ai",
            Self::Kilo => "@kilocode/cli",
        }
    }

    fn platform_packages(self) -> impl Iterator<Item = String> {
        let base = match self {
            Self::Opencode => "opencode",
            Self::Kilo => "@kilocode/cli",
        };
        let processor = if cfg!(target_arch = "aarch64") { "arm64" } else { "x64" };
        ["", "-baseline", "-musl"]
            .into_iter()
            .map(move |variant| format!("{base}-linux-{processor}{variant}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(folder: &Path, file: &str) -> PathBuf {
        let file = folder.join(file);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, "").unwrap();
        file
    }

    #[test]
    fn a_folder_stands_for_the_binary_in_its_node_modules_and_the_script_comes_last() {
        let folder = tempfile::tempdir().unwrap();
        let find = || Flavour::Kilo.find_binary(Some(folder.path()), None);
        let script = put(folder.path(), "node_modules/.bin/kilo");
        assert_eq!(find(), Ok(script));
        let package = Flavour::Kilo.platform_packages().next().unwrap();
        let binary = put(folder.path(), &format!("node_modules/{package}/bin/kilo"));
        assert_eq!(find(), Ok(binary));
    }

    #[test]
    fn without_a_word_the_first_one_in_path_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let second = put(folder.path(), "second/opencode");
        let path = format!("{0}/first:{0}/second", folder.path().display());
        assert_eq!(Flavour::Opencode.find_binary(None, Some(&path)), Ok(second));
    }

    #[test]
    fn a_missing_binary_says_what_to_do() {
        let in_path = Flavour::Opencode.find_binary(None, None).unwrap_err().message;
        assert!(
            in_path.contains("npm install -g opencode-ai") && in_path.contains("--agent-bin"),
            "{in_path}"
        );
        let given = Flavour::Kilo.find_binary(Some(Path::new("/no/such/place")), None).unwrap_err().message;
        assert!(given.contains("/no/such/place") && given.contains("npm install @kilocode/cli"), "{given}");
    }
}
