//! Real agents, offline: where their binaries are, and the environment that points them at the scripted model.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// Makes one test per server of each of these functions.
macro_rules! on_both_servers {
    ($($(#[$attribute:meta])* $name:ident),+ $(,)?) => {
        crate::support::agent_server::on_agent!(opencode, Opencode: $($(#[$attribute])* $name),+);
        crate::support::agent_server::on_agent!(kilo, Kilo: $($(#[$attribute])* $name),+);
    };
}
pub(crate) use on_both_servers;

/// Makes a module with one test of each of these functions, for one kind of agent.
macro_rules! on_agent {
    ($module:ident, $agent:ident: $($(#[$attribute:meta])* $name:ident),+ $(,)?) => {
        mod $module {
            $($(#[$attribute])*
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(super::Server::$agent).await;
            })+
        }
    };
}
pub(crate) use on_agent;

/// A real agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Server {
    Opencode,
    Kilo,
    /// Claude Code behind its adapter: no server, but an agent of the Agent Client Protocol.
    Claude,
}

impl Server {
    /// The runtime's name on the command line and in the API.
    pub(crate) fn runtime(self) -> &'static str {
        match self {
            Self::Opencode => "opencode",
            Self::Kilo => "kilo",
            Self::Claude => "acp",
        }
    }

    /// The command that runs it as an agent of the Agent Client Protocol.
    pub(crate) fn acp_command(self) -> Vec<String> {
        let binary = self.binary().display().to_string();
        match self {
            Self::Opencode | Self::Kilo => vec![binary, "acp".to_owned()],
            Self::Claude => vec!["node".to_owned(), binary],
        }
    }

    /// Its binary, as `cargo xtask setup` installs it.
    pub(crate) fn binary(self) -> PathBuf {
        let path = match self {
            Self::Opencode => "opencode-linux-x64/bin/opencode",
            Self::Kilo => "@kilocode/cli-linux-x64/bin/kilo",
            Self::Claude => "@agentclientprotocol/claude-agent-acp/dist/index.js",
        };
        let binary = tools().join("node_modules").join(path);
        assert!(binary.is_file(), "{} is missing: run `cargo xtask setup`", binary.display());
        binary
    }

    /// An environment in which it starts without any network but the scripted model, in a home of its own.
    pub(crate) fn environment(self, home: &Path, model_url: &str, snapshots: bool) -> Vec<(String, String)> {
        let mut environment =
            vec![("HOME".to_owned(), home.display().to_string()), ("LANG".to_owned(), "C.UTF-8".to_owned())];
        let prefix = match self {
            Self::Opencode => "OPENCODE",
            Self::Kilo => "KILO",
            Self::Claude => {
                environment
                    .push(("ANTHROPIC_BASE_URL".to_owned(), model_url.trim_end_matches("/v1").to_owned()));
                environment.push(("ANTHROPIC_API_KEY".to_owned(), "dummy".to_owned()));
                // As root it runs in a sandbox only, or where it is told that it does.
                for flag in [
                    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC",
                    "DISABLE_AUTOUPDATER",
                    "DISABLE_TELEMETRY",
                    "IS_SANDBOX",
                ] {
                    environment.push((flag.to_owned(), "1".to_owned()));
                }
                return environment;
            }
        };
        environment.push((format!("{prefix}_CONFIG_CONTENT"), config(model_url, snapshots).to_string()));
        for folder in ["DATA", "CONFIG", "STATE", "CACHE"] {
            let path = home.join(format!(".xdg-{}", folder.to_lowercase()));
            environment.push((format!("XDG_{folder}_HOME"), path.display().to_string()));
        }
        for flag in [
            "DISABLE_AUTOUPDATE",
            "DISABLE_MODELS_FETCH",
            "DISABLE_LSP_DOWNLOAD",
            "DISABLE_DEFAULT_PLUGINS",
            "DISABLE_SHARE",
            "ENABLE_QUESTION_TOOL",
        ] {
            environment.push((format!("{prefix}_{flag}"), "1".to_owned()));
        }
        // Where plugins are configured, they fetch a package for them.
        environment.push(("npm_config_offline".to_owned(), "true".to_owned()));
        if self == Self::Kilo {
            environment.push(("KILO_TELEMETRY_LEVEL".to_owned(), "off".to_owned()));
            environment.push(("KILO_DISABLE_SESSION_INGEST".to_owned(), "1".to_owned()));
            environment.push(("KILO_DISABLE_PRESENCE".to_owned(), "1".to_owned()));
        }
        environment
    }
}

/// What a running agent server answers about itself: the other side of the comparison.
#[derive(Debug)]
pub(crate) struct Truth {
    http: reqwest::Client,
    pub(crate) url: String,
    username: String,
    password: String,
}

impl Truth {
    /// Of the server whose particulars its wrapper keeps in this folder.
    pub(crate) fn of(state_dir: &Path) -> Self {
        let path = state_dir.join("agent-server.json");
        let text =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let fields: Value = serde_json::from_str(&text).expect("the file is JSON");
        let text =
            |key: &str| fields[key].as_str().unwrap_or_else(|| panic!("no {key} in {fields}")).to_owned();
        Self { http: super::http(), url: text("url"), username: text("username"), password: text("password") }
    }

    /// The messages of a session with their parts.
    pub(crate) async fn messages(&self, session: &str) -> Vec<Value> {
        let answer = self.get(&format!("/session/{session}/message")).await;
        answer.as_array().expect("a list of messages").clone()
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let request =
            self.http.get(format!("{}{path}", self.url)).basic_auth(&self.username, Some(&self.password));
        request.send().await.expect("the agent server answers").json().await.expect("JSON")
    }

    /// Begins another session on the same server, which the agent must not show.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Value {
        let request =
            self.http.post(format!("{}{path}", self.url)).basic_auth(&self.username, Some(&self.password));
        request.json(body).send().await.expect("the agent server answers").json().await.unwrap_or(Value::Null)
    }
}

fn tools() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools")
}

fn model(name: &str) -> Value {
    json!({
        "name": name, "reasoning": true, "tool_call": true, "attachment": true,
        "modalities": { "input": ["text", "image"], "output": ["text"] }, "limit": { "context": 200_000, "output": 8192 },
    })
}

fn config(model_url: &str, snapshots: bool) -> Value {
    json!({
        "model": "local/scripted", "small_model": "local/scripted", "enabled_providers": ["local"],
        "autoupdate": false, "share": "disabled", "snapshot": snapshots,
        "provider": { "local": {
            "npm": "@ai-sdk/openai-compatible", "name": "Local scripted",
            "options": { "baseURL": model_url, "apiKey": "dummy" },
            "models": { "scripted": model("Scripted"), "second": model("Second") },
        } },
        "command": {
            "greet": { "template": "[[plain]] greet $ARGUMENTS", "description": "Greets somebody" },
            "linger": { "template": "[[slow]] linger", "description": "Takes its time" },
        },
        "permission": {
            "*": "allow", "bash": { "*": "allow", "rm *": "ask" }, "edit": { "*": "allow", "guarded/*": "ask" },
            "external_directory": "ask"
        }
    })
}
