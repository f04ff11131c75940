//! The files that a page loads, inside the binary: their names carry a hash of what they hold, so that they may be
//! cached for ever.

use std::sync::LazyLock;

use axum::{
    extract::Path,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use sha2::{Digest as _, Sha256};

/// The icons, to be put at the top of a page.
pub(crate) const ICONS: &str = include_str!("../../assets/icons.svg");

/// The stylesheet, with the rules that turn `data-v` into a custom property: style attributes are forbidden.
pub(crate) static STYLE: LazyLock<Asset> = LazyLock::new(|| {
    let mut style = include_str!("../../assets/app.css").to_owned();
    style.push_str(include_str!("../../assets/live.css"));
    for percent in 0..=100 {
        style.push_str(&format!("[data-v=\"{percent}\"]{{--v:{percent}%}}\n"));
    }
    Asset::new("app", "css", "text/css; charset=utf-8", style)
});
/// The page module.
pub(crate) static MODULE: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new(
        "live",
        "js",
        "text/javascript; charset=utf-8",
        include_str!("../../assets/live.js").to_owned(),
    )
});
/// Puts the reader's choice of light or dark in place before the first paint.
pub(crate) static THEME: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new(
        "theme",
        "js",
        "text/javascript; charset=utf-8",
        include_str!("../../assets/theme.js").to_owned(),
    )
});
/// The mark in the browser's tab.
pub(crate) static FAVICON: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new("favicon", "svg", "image/svg+xml", include_str!("../../assets/favicon.svg").to_owned())
});

/// What a page may load and do: nothing but its own stylesheet, scripts, favicon, forms and stream.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// One file.
#[derive(Debug)]
pub(crate) struct Asset {
    path: String,
    tag: String,
    kind: &'static str,
    body: String,
}

impl Asset {
    fn new(name: &str, extension: &str, kind: &'static str, body: String) -> Self {
        let hash: String =
            Sha256::digest(body.as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Self { path: format!("/assets/{name}.{hash}.{extension}"), tag: format!("\"{hash}\""), kind, body }
    }

    /// Its address.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }
}

/// `GET /assets/{file}`.
pub(crate) async fn serve(Path(file): Path<String>, headers: HeaderMap) -> Response {
    let all: [&LazyLock<Asset>; 4] = [&STYLE, &MODULE, &THEME, &FAVICON];
    let Some(asset) = all.into_iter().find(|asset| asset.path.strip_prefix("/assets/") == Some(&file)) else {
        return (StatusCode::NOT_FOUND, "there is no such file").into_response();
    };
    let caching =
        [(header::CACHE_CONTROL, "public, max-age=31536000, immutable"), (header::ETAG, asset.tag.as_str())];
    if headers.get(header::IF_NONE_MATCH).is_some_and(|tag| tag.as_bytes() == asset.tag.as_bytes()) {
        return (StatusCode::NOT_MODIFIED, caching).into_response();
    }
    (caching, [(header::CONTENT_TYPE, asset.kind)], asset.body.as_str()).into_response()
}

/// The headers of every answer of the dashboard.
pub(crate) async fn with_headers(response: Response) -> Response {
    put_headers(response)
}

/// The same, for an answer that no layer sees.
pub(crate) fn put_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_changes_with_what_the_file_holds() {
        let (one, two) =
            (Asset::new("a", "css", "text/css", "x".into()), Asset::new("a", "css", "text/css", "y".into()));
        assert_ne!(one.path, two.path);
        assert!(one.path.starts_with("/assets/a.") && one.path.ends_with(".css"));
    }

    #[test]
    fn every_icon_that_is_used_is_in_the_sprite() {
        let sources = [
            include_str!("part/ask.rs"),
            include_str!("part/moment.rs"),
            include_str!("part/prose.rs"),
            include_str!("part/tool.rs"),
            include_str!("page/agent.rs"),
            include_str!("page/fleet.rs"),
            include_str!("page/shell.rs"),
            include_str!("model.rs"),
        ];
        for source in sources {
            for (at, _) in source.match_indices("icon(\"") {
                let name = source[at + 6..].split('"').next().unwrap();
                assert!(ICONS.contains(&format!("id=\"i-{name}\"")), "{name}");
            }
        }
    }

    #[test]
    fn the_policy_allows_no_inline_script_or_style() {
        assert!(!POLICY.contains("unsafe"));
    }
}
