//! Names that come from outside: of repositories, branches and beads. What is one of these cannot be an option, leave its folder, or
//! run a program.

use std::{fmt, str::FromStr};

use protocol::AgentId;

/// Bytes of a URL.
const URL_BYTES: usize = 2048;
/// Bytes of a branch's name.
const BRANCH_BYTES: usize = 200;
/// Bytes of a bead's name.
const BEAD_BYTES: usize = 64;
/// Bytes of a mirror's folder that come from the URL.
const FOLDER_BYTES: usize = 40;
/// How a repository may be reached: nothing that runs a program of its own (`ext::`).
const SCHEMES: &[&str] = &["https", "http", "ssh", "git", "file"];

/// A name that is not usable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}")]
pub(super) struct NameError {
    pub(super) expected: &'static str,
    /// It may hold a secret.
    is_secret: bool,
}

impl NameError {
    const fn new(expected: &'static str) -> Self {
        Self { expected, is_secret: false }
    }

    /// The name as an error may tell it.
    pub(super) fn shown(&self, text: &str) -> String {
        if self.is_secret { "(not shown)".to_owned() } else { text.chars().take(80).collect() }
    }
}

/// Where a repository is: a URL, `user@host:path`, or an absolute path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RepositoryUrl(String);

impl RepositoryUrl {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Scheme and host of an http(s) URL, and the user that it names: what a credential is for.
    pub(super) fn web_host(&self) -> Option<(String, Option<&str>)> {
        let (scheme, rest) = self.0.split_once("://").filter(|(scheme, _)| scheme.starts_with("http"))?;
        let authority = rest.split('/').next()?;
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        Some((format!("{scheme}://{host}"), user))
    }

    /// The name of the mirror's folder: what the repository is called, and a checksum that tells those of one name apart.
    pub(super) fn folder_name(&self) -> String {
        let last = self.0.trim_end_matches('/').rsplit(['/', ':']).next().unwrap_or_default();
        let last = last.strip_suffix(".git").unwrap_or(last);
        let safe = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
        let name: String = last.chars().map(safe).take(FOLDER_BYTES).collect();
        format!("{name}-{:08x}.git", crc32c::crc32c(self.0.as_bytes()))
    }
}

impl FromStr for RepositoryUrl {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let wrong = NameError::new(
            "a URL (https, http, ssh, git or file), user@host:path, or an absolute path, without `..`",
        );
        let is_plain = text.len() <= URL_BYTES
            && !text.starts_with('-')
            && !text.contains(|c: char| c.is_control() || c.is_whitespace())
            && !text.split(['/', ':', '\\']).any(|segment| segment == "..");
        if !is_plain {
            return Err(wrong);
        }
        if let Some((scheme, rest)) = text.split_once("://") {
            let authority = rest.split('/').next().unwrap_or_default();
            if authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':')) {
                let expected = "a URL without a password: give a token with --git-token-file";
                return Err(NameError { is_secret: true, ..NameError::new(expected) });
            }
            let host = authority.rsplit('@').next().unwrap_or_default();
            // What begins like an option would be one of ssh's.
            let is_reachable = scheme == "file" || (!host.is_empty() && !host.starts_with('-'));
            let is_known = SCHEMES.contains(&scheme) && rest.contains('/') && is_reachable;
            return if is_known { Ok(Self(text.to_owned())) } else { Err(wrong) };
        }
        let is_path = text.starts_with('/');
        let is_remote = text.split_once(':').is_some_and(|(host, path)| {
            let host = host.rsplit('@').next().unwrap_or_default();
            !host.is_empty()
                && !host.starts_with('-')
                && !host.contains('/')
                && !path.is_empty()
                && !path.starts_with(':')
        });
        if (is_path && !text.contains("::")) || is_remote { Ok(Self(text.to_owned())) } else { Err(wrong) }
    }
}

impl fmt::Display for RepositoryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A branch, by the rules of git-check-ref-format(1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BranchName(String);

impl BranchName {
    /// The branch of an attempt: `gt/<agent>/<bead>`.
    pub(super) fn of_attempt(agent: &AgentId, bead: &BeadName) -> Self {
        Self(format!("gt/{agent}/{}", bead.0))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for BranchName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let good_part = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock");
        let is_branch = text.len() <= BRANCH_BYTES
            && !text.starts_with('-')
            && !text.ends_with('.')
            && text != "@"
            && text != "HEAD"
            && !text.contains("..")
            && !text.contains("@{")
            && !text.contains(|c: char| c.is_control() || " ~^:?*[\\".contains(c))
            && text.split('/').all(good_part);
        if is_branch {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::new("the name of a branch, as git has them"))
        }
    }
}

impl fmt::Display for BranchName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is worked on, as a part of a branch's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BeadName(String);

impl FromStr for BeadName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let is_name = (1..=BEAD_BYTES).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
        if is_name {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::new("1 to 64 letters, digits, `_` and `-`, the first a letter or digit"))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn repositories_are_urls_remotes_and_absolute_paths() {
        for good in [
            "https://github.com/acme/app.git",
            "http://127.0.0.1:8080/app",
            "https://someone@example.org/app.git",
            "ssh://git@example.org:22/app.git",
            "git@github.com:acme/app.git",
            "file:///srv/git/app.git",
            "/srv/git/app.git",
        ] {
            assert!(good.parse::<RepositoryUrl>().is_ok(), "{good}");
        }
    }

    #[test]
    fn what_is_an_option_a_program_or_leaves_its_folder_is_no_repository() {
        for bad in [
            "",
            "app",
            "./app",
            "--upload-pack=touch /tmp/x",
            "-oProxyCommand=x:y",
            "ssh://-oProxyCommand=x/app",
            "git@-oProxyCommand=x:app",
            "ext::sh -c touch% /tmp/x",
            "ext::x",
            "fd::7",
            "https://example.org/../x",
            "/srv/../etc",
            "file:///srv/..",
            "https://example.org/a b",
            "https://example.org/a\u{0}b",
            "https://example.org/a\nb",
            "https://",
            "ftp://example.org/app",
        ] {
            assert!(bad.parse::<RepositoryUrl>().is_err(), "{bad:?}");
        }
        assert!(format!("/{}", "x".repeat(URL_BYTES)).parse::<RepositoryUrl>().is_err());
    }

    #[test]
    fn p19_a_password_in_a_url_is_refused_and_not_repeated() {
        let url = "https://me:hunter2@example.org/app.git";
        let error = url.parse::<RepositoryUrl>().unwrap_err();
        assert!(!error.to_string().contains("hunter2") && !error.shown(url).contains("hunter2"));
        assert!(error.expected.contains("--git-token-file"));
    }

    #[test]
    fn a_credential_is_for_the_host_of_the_repository_alone() {
        let of = |url: &str| {
            url.parse::<RepositoryUrl>()
                .unwrap()
                .web_host()
                .map(|(host, user)| (host, user.map(str::to_owned)))
        };
        assert_eq!(of("https://example.org:444/a/b"), Some(("https://example.org:444".to_owned(), None)));
        assert_eq!(
            of("https://me@example.org/a"),
            Some(("https://example.org".to_owned(), Some("me".to_owned())))
        );
        assert_eq!(of("git@example.org:a"), None);
        assert_eq!(of("ssh://example.org/a"), None);
    }

    #[test]
    fn mirrors_of_repositories_that_are_called_the_same_lie_apart() {
        let of = |url: &str| url.parse::<RepositoryUrl>().unwrap().folder_name();
        assert!(of("https://example.org/acme/app.git").starts_with("app-"));
        assert_ne!(of("https://example.org/acme/app.git"), of("https://example.org/other/app.git"));
        assert!(of("git@example.org:app").starts_with("app-"));
    }

    #[test]
    fn branches_follow_gits_rules() {
        for good in ["main", "release/1.x", "gt/toast/app-1", "ünïcode"] {
            assert!(good.parse::<BranchName>().is_ok(), "{good}");
        }
        for bad in [
            "", "-x", "a..b", "a b", "a~1", "a^", "a:b", "a?", "a*", "a[", "a\\b", "/a", "a/", "a//b", ".a",
            "a/.b", "a.lock", "a.", "@", "a@{1}", "HEAD", "a\u{7f}",
        ] {
            assert!(bad.parse::<BranchName>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_passes_makes_names_that_stay_in_place(text in any::<String>()) {
            if let Ok(url) = text.parse::<RepositoryUrl>() {
                let folder = url.folder_name();
                prop_assert!(!folder.contains(['/', '\\', '\0']) && !folder.starts_with(['.', ' ']));
                prop_assert!(!text.starts_with('-'));
            }
            if let Ok(bead) = text.parse::<BeadName>() {
                let branch = BranchName::of_attempt(&"toast".parse().unwrap(), &bead);
                prop_assert!(branch.as_str().parse::<BranchName>().is_ok());
            }
        }
    }
}
