//! The way in.

use maud::{DOCTYPE, Markup, html};

use super::shell;
use crate::dashboard::{assets, element};

/// The login page of a town. `error` is a sentence that says what was wrong; `next` is where to go afterwards.
pub(crate) fn page(town: &str, error: Option<&str>, next: &str) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            (shell::head("Sign in · Gastown"))
            body {
                (element::ready(assets::ICONS))
                main class="login" id="main" {
                    span class="brand" { (shell::brand_mark()) span { "Gastown" } }
                    form class="card login-card" method="post" action="/login" aria-labelledby="login-h" {
                        div {
                            h1 id="login-h" { "Sign in to " (town) }
                            p class="muted" { "Use your token. It stays in a cookie that scripts cannot read." }
                        }
                        input type="hidden" name="next" value=(next);
                        div {
                            label for="token" { "Token" }
                            input class="field" id="token" name="token" type="password" autocomplete="current-password" required autofocus
                                aria-invalid=[error.map(|_| "true")] aria-describedby=[error.map(|_| "token-error")];
                            @if let Some(error) = error { p class="field-error" id="token-error" role="alert" { (element::icon("s-failed")) (error) } }
                        }
                        button class="btn btn-primary" type="submit" { "Sign in" }
                        div class="stack login-help" {
                            span class="muted" { "No token yet? On the machine that runs the town:" }
                            code class="cmd" { "gastown token" }
                        }
                    }
                    div class="login-foot" { span { "gastown " (env!("CARGO_PKG_VERSION")) } }
                }
            }
        }
    }
}
