//! What agents are run with (`docs/protocol.md` §10): the town's config, over it that of a role, and over that the agent's own,
//! in a file that only its owner may read, since there are secrets in it. The journal, which many may read, has none of it.

use std::{
    collections::BTreeMap,
    fmt,
    fs::OpenOptions,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use protocol::{
    AgentId,
    config::{ConfigError, TownConfig},
};
use relay::{ApiError, RelayApi};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::sync::Notify;
use town::{Agent, Role};

/// Name of the file in the data folder.
const FILE: &str = "config.json";
/// How a secret is shown. In a patch it leaves the secret as it is.
const MASKED: &str = "***";
/// How long the relay may take to take an agent's config before the agent goes on with the one before.
const TELL_TIMEOUT: Duration = Duration::from_secs(2);

/// Whose config. A later one of these wins over those before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Layer {
    /// Of all agents.
    Town,
    /// Of those of this role.
    Role(Role),
    /// Of this one, which has this role.
    Agent(AgentId, Role),
}

impl Layer {
    /// An agent's own.
    pub(crate) fn of(agent: &Agent) -> Self {
        Self::Agent(agent.id.clone(), agent.role)
    }

    /// This one and those below it, lowest first.
    fn stack(&self) -> Vec<Self> {
        match self {
            Self::Town => vec![Self::Town],
            Self::Role(role) => vec![Self::Town, Self::Role(*role)],
            Self::Agent(_, role) => vec![Self::Town, Self::Role(*role), self.clone()],
        }
    }
}

/// `town`, `role/polecat` or `agent/toast`.
impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Town => f.write_str("town"),
            Self::Role(role) => write!(f, "role/{role}"),
            Self::Agent(agent, _) => write!(f, "agent/{agent}"),
        }
    }
}

/// Why there is no config.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigFileError {
    /// The file cannot be read or written.
    #[error("the config {path} can neither be read nor written")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Its text is no JSON of this shape.
    #[error(
        "{path} is no config: it is to be {{\"town\": {{…}}, \"roles\": {{\"<role>\": {{…}}}}, \"agents\": {{\"<id>\": {{…}}}}}}"
    )]
    Shape {
        /// The file.
        path: PathBuf,
    },
    /// A config in it is not understood.
    #[error("{path}: {layer}")]
    Config {
        /// The file.
        path: PathBuf,
        /// Whose it is: `town`, the role, or the agent's id.
        layer: String,
        /// What is wrong with it.
        #[source]
        source: ConfigError,
    },
}

/// Why a patch was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PatchError {
    /// What would come of it is not understood.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The file cannot be written: nothing has changed.
    #[error(transparent)]
    File(#[from] ConfigFileError),
}

/// A layer of config, as it is shown: secrets are masked.
#[derive(Debug, Serialize)]
pub(crate) struct Explained {
    /// What it says itself.
    config: Value,
    /// What comes of it and those below it.
    resolved: Value,
    /// The layer that each key of that is from. Each name of `tools` and `env` is a key by itself.
    from: BTreeMap<String, String>,
}

/// The configs of a town's agents.
#[derive(Debug)]
pub(crate) struct AgentConfigs {
    path: PathBuf,
    layers: Mutex<Layers>,
    /// Says that the relay has an older config of some agent.
    untold: Notify,
}

#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Layers {
    #[serde(default)]
    town: Map<String, Value>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    roles: BTreeMap<Role, Map<String, Value>>,
    #[serde(default)]
    agents: BTreeMap<AgentId, Map<String, Value>>,
}

impl AgentConfigs {
    /// Reads the file of a data folder; without one there is no config.
    pub(crate) fn open(data_dir: &Path) -> Result<Self, ConfigFileError> {
        let path = data_dir.join(FILE);
        let layers = match std::fs::read(&path) {
            Ok(text) => {
                serde_json::from_slice(&text).map_err(|_| ConfigFileError::Shape { path: path.clone() })?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Layers::default(),
            Err(source) => return Err(ConfigFileError::File { path, source }),
        };
        layers.check(&path)?;
        Ok(Self { path, layers: Mutex::new(layers), untold: Notify::new() })
    }

    /// What comes of a layer and those below it: for an agent's own, what it is run with.
    pub(crate) fn resolved(&self, layer: &Layer) -> TownConfig {
        let layers = self.layers();
        layer.stack().iter().fold(TownConfig::default(), |config, layer| config.overlaid(layers.read(layer)))
    }

    /// A layer, what comes of it and those below it, and which of them each key of that is from; secrets are masked.
    pub(crate) fn explain(&self, layer: &Layer) -> Explained {
        let layers = self.layers();
        let mut resolved = TownConfig::default();
        let mut from = BTreeMap::new();
        for layer in layer.stack() {
            let config = layers.read(&layer);
            from.extend(config.keys().into_iter().map(|key| (key, layer.to_string())));
            resolved = resolved.overlaid(config);
        }
        Explained { config: layers.read(layer).masked(), resolved: resolved.masked(), from }
    }

    /// Gives the relay what goes with the greeting and commands of an agent's wrapper; whether it took that. When this returns,
    /// it has no older one, whoever else told it meanwhile.
    pub(crate) async fn tell(&self, relay: &dyn RelayApi, agent: &Agent) -> bool {
        let layer = Layer::of(agent);
        let telling = async {
            loop {
                let config = self.resolved(&layer);
                relay.configure(&agent.id, config.seal()).await?;
                if self.resolved(&layer) == config {
                    return Ok::<(), ApiError>(());
                }
            }
        };
        let agent = &agent.id;
        match tokio::time::timeout(TELL_TIMEOUT, telling).await {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(%agent, error, "the relay does not take its config yet");
            }
            Err(_) => tracing::warn!(%agent, "the relay does not answer: its config is not there yet"),
        }
        self.untold.notify_one();
        false
    }

    /// Waits until a relay did not take a config.
    pub(crate) async fn untold(&self) {
        self.untold.notified().await;
    }

    /// Changes a layer: keys that are named get their new value, `null` takes one away, of `env` and `tools` each name by itself.
    /// It is on disk when this returns. Blocks.
    pub(crate) fn patch(&self, layer: &Layer, patch: Map<String, Value>) -> Result<(), PatchError> {
        let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut fields = layers.of(layer);
        merge(&mut fields, patch);
        TownConfig::read(Value::Object(fields.clone()))?;
        let mut changed = layers.clone();
        changed.put(layer, fields);
        changed
            .write(&self.path)
            .map_err(|source| ConfigFileError::File { path: self.path.clone(), source })?;
        *layers = changed;
        Ok(())
    }

    /// Takes an agent's own away: it is gone, and another one may take its name. Blocks.
    pub(crate) fn forget(&self, agent: &AgentId) {
        let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        if layers.agents.remove(agent).is_some()
            && let Err(error) = layers.write(&self.path)
        {
            tracing::warn!(%agent, %error, "its config is still in the file");
        }
    }

    fn layers(&self) -> Layers {
        self.layers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Layers {
    fn of(&self, layer: &Layer) -> Map<String, Value> {
        let fields = match layer {
            Layer::Town => Some(&self.town),
            Layer::Role(role) => self.roles.get(role),
            Layer::Agent(agent, _) => self.agents.get(agent),
        };
        fields.cloned().unwrap_or_default()
    }

    fn read(&self, layer: &Layer) -> TownConfig {
        TownConfig::read(Value::Object(self.of(layer))).expect("what is kept was checked")
    }

    fn put(&mut self, layer: &Layer, fields: Map<String, Value>) {
        match layer {
            Layer::Town => self.town = fields,
            Layer::Role(role) if fields.is_empty() => drop(self.roles.remove(role)),
            Layer::Role(role) => drop(self.roles.insert(*role, fields)),
            Layer::Agent(agent, _) if fields.is_empty() => drop(self.agents.remove(agent)),
            Layer::Agent(agent, _) => drop(self.agents.insert(agent.clone(), fields)),
        }
    }

    fn check(&self, path: &Path) -> Result<(), ConfigFileError> {
        let roles = self.roles.iter().map(|(role, fields)| (role.as_str(), fields));
        let agents = self.agents.iter().map(|(agent, fields)| (agent.as_str(), fields));
        for (layer, fields) in std::iter::once(("town", &self.town)).chain(roles).chain(agents) {
            TownConfig::read(Value::Object(fields.clone())).map_err(|source| ConfigFileError::Config {
                path: path.to_owned(),
                layer: layer.to_owned(),
                source,
            })?;
        }
        Ok(())
    }

    /// Whole or not at all, and the owner's alone.
    fn write(&self, path: &Path) -> io::Result<()> {
        let draft = path.with_extension("draft");
        let _ = std::fs::remove_file(&draft);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.sync_all()?;
        std::fs::rename(&draft, path)
    }
}

impl fmt::Debug for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (roles, agents) = (self.roles.keys(), self.agents.keys());
        f.debug_struct("Layers").field("roles", &roles).field("agents", &agents).finish_non_exhaustive()
    }
}

fn merge(fields: &mut Map<String, Value>, patch: Map<String, Value>) {
    for (key, value) in patch {
        match (value, fields.remove(&key)) {
            (Value::Null, _) => {}
            (value, Some(old)) if value == json!(MASKED) => drop(fields.insert(key, old)),
            // A model is one value; what has names of its own is patched by name.
            (Value::Object(inner), old) if key != "model" => {
                let mut names = if let Some(Value::Object(old)) = old { old } else { Map::new() };
                merge(&mut names, inner);
                fields.insert(key, Value::Object(names));
            }
            (value, _) => drop(fields.insert(key, value)),
        }
    }
    fields.retain(|_, value| *value != json!({}));
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn an_agents_own_config_wins_over_the_towns() {
        let folder = tempfile::tempdir().unwrap();
        let configs = AgentConfigs::open(folder.path()).unwrap();
        patch(&configs, &Layer::Town, json!({ "variant": "low", "env": { "A": "1", "B": "1" } })).unwrap();
        patch(&configs, &toast(), json!({ "variant": "high", "env": { "B": "2" } })).unwrap();
        let resolved = configs.resolved(&toast());
        assert_eq!(
            serde_json::to_value(resolved.seal()).unwrap(),
            json!({ "variant": "high", "env": { "A": "1", "B": "2" } })
        );
        let other = configs.resolved(&Layer::Agent("other".parse().unwrap(), Role::Polecat));
        assert_eq!(other.turn.variant.as_deref(), Some("low"));
    }

    #[test]
    fn a_role_stands_between_the_town_and_the_agent_and_each_value_says_where_it_is_from() {
        let folder = tempfile::tempdir().unwrap();
        let configs = AgentConfigs::open(folder.path()).unwrap();
        let town = json!({ "variant": "low", "system": "be brief", "env": { "A": "1", "B": "1" } });
        patch(&configs, &Layer::Town, town).unwrap();
        let role = json!({ "variant": "high", "tools": { "bash": true, "web": false }, "env": { "B": "2" } });
        patch(&configs, &Layer::Role(Role::Polecat), role).unwrap();
        patch(&configs, &toast(), json!({ "tools": { "bash": false } })).unwrap();
        let configs = AgentConfigs::open(folder.path()).unwrap();
        let explained = serde_json::to_value(configs.explain(&toast())).unwrap();
        assert_eq!(
            explained,
            json!({
                "config": { "tools": { "bash": false } },
                "resolved": { "variant": "high", "system": "be brief", "tools": { "bash": false, "web": false },
                    "env": { "A": "***", "B": "***" } },
                "from": { "variant": "role/polecat", "system": "town", "tools.bash": "agent/toast",
                    "tools.web": "role/polecat", "env.A": "town", "env.B": "role/polecat" },
            })
        );
        assert_eq!(explained["resolved"], configs.resolved(&toast()).masked());
        let mayor = configs.resolved(&Layer::Agent("max".parse().unwrap(), Role::Mayor));
        assert_eq!(mayor.masked(), configs.resolved(&Layer::Town).masked(), "the role of others");
    }

    #[test]
    fn to_take_away_what_is_not_there_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let configs = AgentConfigs::open(folder.path()).unwrap();
        let nothing = json!({ "variant": null, "tools": { "bash": null }, "env": { "KEY": null } });
        patch(&configs, &Layer::Town, nothing).unwrap();
        assert_eq!(shown(&configs, &Layer::Town), json!({}));
    }

    #[test]
    fn a_patch_changes_what_it_names_and_survives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let configs = AgentConfigs::open(folder.path()).unwrap();
        patch(
            &configs,
            &Layer::Town,
            json!({ "variant": "low", "model": "a/b", "tools": { "x": true, "y": true } }),
        )
        .unwrap();
        patch(&configs, &Layer::Town, json!({ "variant": null, "tools": { "x": false, "y": null } }))
            .unwrap();
        let again = AgentConfigs::open(folder.path()).unwrap();
        let model = json!({ "providerID": "a", "modelID": "b" });
        assert_eq!(shown(&again, &Layer::Town), json!({ "model": model, "tools": { "x": false } }));
        patch(&again, &Layer::Town, json!({ "model": null, "tools": { "x": null } })).unwrap();
        assert_eq!(shown(&again, &Layer::Town), json!({}));
    }

    #[test]
    fn p19_secrets_are_in_a_file_of_the_owner_and_shown_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let configs = AgentConfigs::open(folder.path()).unwrap();
        patch(&configs, &toast(), json!({ "env": { "KEY": "canary" } })).unwrap();
        let mode = std::fs::metadata(folder.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(shown(&configs, &toast()), json!({ "env": { "KEY": "***" } }));
        assert!(!format!("{configs:?}").contains("canary"));
        patch(&configs, &toast(), json!({ "env": { "KEY": "***", "OTHER": "1" } })).unwrap();
        let sealed = serde_json::to_value(configs.resolved(&toast()).seal()).unwrap();
        assert_eq!(sealed["env"], json!({ "KEY": "canary", "OTHER": "1" }), "what is masked stays as it is");
    }

    #[test]
    fn what_is_wrong_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let configs = AgentConfigs::open(folder.path()).unwrap();
        patch(&configs, &Layer::Town, json!({ "variant": "low" })).unwrap();
        for wrong in
            [json!({ "colour": "blue" }), json!({ "variant": 1 }), json!({ "env": { "GASTOWN_X": "1" } })]
        {
            assert!(matches!(patch(&configs, &Layer::Town, wrong), Err(PatchError::Config(_))));
        }
        assert_eq!(shown(&configs, &Layer::Town), json!({ "variant": "low" }));
        std::fs::write(folder.path().join(FILE), r#"{"town":{"variant":["canary"]}}"#).unwrap();
        let error = AgentConfigs::open(folder.path()).unwrap_err();
        assert!(matches!(error, ConfigFileError::Config { .. }) && !format!("{error:?}").contains("canary"));
        std::fs::write(folder.path().join(FILE), "{}}").unwrap();
        assert!(matches!(AgentConfigs::open(folder.path()), Err(ConfigFileError::Shape { .. })));
    }

    #[test]
    fn what_an_agent_had_goes_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let configs = AgentConfigs::open(folder.path()).unwrap();
        patch(&configs, &toast(), json!({ "variant": "high" })).unwrap();
        configs.forget(&"toast".parse().unwrap());
        assert_eq!(shown(&AgentConfigs::open(folder.path()).unwrap(), &toast()), json!({}));
    }

    fn patch(configs: &AgentConfigs, layer: &Layer, patch: Value) -> Result<(), PatchError> {
        let Value::Object(patch) = patch else { unreachable!("an object") };
        configs.patch(layer, patch)
    }

    fn shown(configs: &AgentConfigs, layer: &Layer) -> Value {
        configs.explain(layer).config
    }

    fn toast() -> Layer {
        Layer::Agent("toast".parse().unwrap(), Role::Polecat)
    }
}
