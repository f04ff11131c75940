//! The signing key, and secrets in general.

use std::{
    fmt,
    fs::OpenOptions,
    io::{self, Write},
    path::Path,
};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rand::Rng as _;
use subtle::ConstantTimeEq as _;

use super::{AuthError, Claims};

/// Bytes of a signing key: as many as the hash has (RFC 7518 §3.2).
const KEY_BYTES: usize = 32;
/// Bytes of a random secret or id: 128 bits that nobody guesses.
const RANDOM_BYTES: usize = 16;

/// A text that must not be seen: `Debug` hides it, it does not serialise, and comparing it takes the same time
/// whatever it is compared with.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text secret.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// A fresh one of 128 random bits, in hexadecimal digits.
    #[must_use]
    pub fn random() -> Self {
        Self(random_hex())
    }

    /// The text, for the one place that sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether this is the secret, in constant time for texts of the same length.
    #[must_use]
    pub fn is(&self, text: &str) -> bool {
        self.0.as_bytes().ct_eq(text.as_bytes()).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Signs and verifies tokens with HMAC-SHA-256 (`HS256`).
#[derive(Clone)]
pub struct Keys {
    signing: EncodingKey,
    verifying: DecodingKey,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(…)")
    }
}

/// Why there is no signing key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The file could not be read or made.
    #[error("the signing key {path} could not be read or made")]
    File {
        /// The file.
        path: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// What the file holds is no key.
    #[error("the signing key {path} does not hold {} hexadecimal digits", 2 * KEY_BYTES)]
    Format {
        /// The file.
        path: String,
    },
    /// Others may read the file.
    #[error("the signing key {path} may be read by others: chmod 600 {path}")]
    Permissions {
        /// The file.
        path: String,
    },
}

impl Keys {
    /// A fresh key.
    #[must_use]
    pub fn random() -> Self {
        let mut key = [0; KEY_BYTES];
        rand::rng().fill_bytes(&mut key);
        Self::from_bytes(&key)
    }

    /// This key.
    #[must_use]
    pub fn from_bytes(key: &[u8; KEY_BYTES]) -> Self {
        Self { signing: EncodingKey::from_secret(key), verifying: DecodingKey::from_secret(key) }
    }

    /// The key in a file of 64 hexadecimal digits that only its owner may read; the file is made if it is not there.
    ///
    /// # Errors
    /// When it can neither be read nor made, holds something else, or may be read by others.
    pub fn load_or_create(path: &Path) -> Result<Self, KeyError> {
        let name = || path.display().to_string();
        match open_new(path) {
            Ok(mut file) => {
                let mut key = [0; KEY_BYTES];
                rand::rng().fill_bytes(&mut key);
                writeln!(file, "{}", hex(&key))
                    .and_then(|()| file.sync_all())
                    .map_err(|source| KeyError::File { path: name(), source })?;
                Ok(Self::from_bytes(&key))
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Self::load(path),
            Err(source) => Err(KeyError::File { path: name(), source }),
        }
    }

    /// The key in a file that is there.
    ///
    /// # Errors
    /// As [`Keys::load_or_create`].
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let name = || path.display().to_string();
        let failed = |source| KeyError::File { path: name(), source };
        if others_may_read(path).map_err(failed)? {
            return Err(KeyError::Permissions { path: name() });
        }
        let text = std::fs::read_to_string(path).map_err(failed)?;
        let key = unhex(text.trim()).ok_or_else(|| KeyError::Format { path: name() })?;
        Ok(Self::from_bytes(&key))
    }

    /// A token that says this.
    #[must_use]
    pub fn sign(&self, claims: &Claims) -> Secret {
        let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &self.signing)
            .expect("claims serialise, and the key is one for HS256");
        Secret(token)
    }

    /// What a token says, if this key signed it. Its time is not looked at: that takes a clock.
    ///
    /// # Errors
    /// [`AuthError::Invalid`].
    pub fn verify(&self, token: &str) -> Result<Claims, AuthError> {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.validate_exp = false;
        validation.required_spec_claims.clear();
        jsonwebtoken::decode(token, &self.verifying, &validation)
            .map(|data| data.claims)
            .map_err(|_| AuthError::Invalid)
    }
}

/// 128 random bits, in hexadecimal digits.
pub(super) fn random_hex() -> String {
    let mut bytes = [0; RANDOM_BYTES];
    rand::rng().fill_bytes(&mut bytes);
    hex(&bytes)
}

fn open_new(path: &Path) -> io::Result<std::fs::File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(unix)]
fn others_may_read(path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::PermissionsExt;
    Ok(std::fs::metadata(path)?.permissions().mode() & 0o077 != 0)
}

#[cfg(not(unix))]
fn others_may_read(path: &Path) -> io::Result<bool> {
    std::fs::metadata(path).map(|_| false)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; KEY_BYTES]> {
    let mut key = [0; KEY_BYTES];
    if text.len() != 2 * KEY_BYTES || !text.is_ascii() {
        return None;
    }
    for (i, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(key)
}
