//! What agents are run with (`docs/protocol.md` §10): the town's config and over it that of each agent, in a file that only its
//! owner may read, since there are secrets in it. The journal, which many may read, has none of it.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use protocol::{
    AgentId,
    config::{ConfigError, TownConfig},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Name of the file in the data folder.
const FILE: &str = "config.json";
/// How a secret is shown. In a patch it leaves the secret as it is.
const MASKED: &str = "***";

/// Whose config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Layer {
    /// Of all agents.
    Town,
    /// Of this one: it wins over the town's.
    Agent(AgentId),
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
    #[error("{path} is no config: it is to be {{\"town\": {{…}}, \"agents\": {{\"<id>\": {{…}}}}}}")]
    Shape {
        /// The file.
        path: PathBuf,
    },
    /// A config in it is not understood.
    #[error("{path}: {layer}")]
    Config {
        /// The file.
        path: PathBuf,
        /// Whose it is: `town`, or the agent's id.
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

/// The configs of a town's agents.
#[derive(Debug)]
pub(crate) struct AgentConfigs {
    path: PathBuf,
    layers: Mutex<Layers>,
}

#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Layers {
    #[serde(default)]
    town: Map<String, Value>,
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
        Ok(Self { path, layers: Mutex::new(layers) })
    }

    /// What an agent is run with: the town's, and over it its own.
    pub(crate) fn resolved(&self, agent: &AgentId) -> TownConfig {
        let layers = self.layers();
        let read = |layer: &Map<String, Value>| {
            TownConfig::read(Value::Object(layer.clone())).expect("what is kept was checked")
        };
        let own = layers.agents.get(agent).map(read).unwrap_or_default();
        read(&layers.town).overlaid(own)
    }

    /// A layer, its secrets masked.
    pub(crate) fn show(&self, layer: &Layer) -> Value {
        let fields = self.layers().of(layer);
        TownConfig::read(Value::Object(fields)).expect("what is kept was checked").masked()
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
        match layer {
            Layer::Town => self.town.clone(),
            Layer::Agent(agent) => self.agents.get(agent).cloned().unwrap_or_default(),
        }
    }

    fn put(&mut self, layer: &Layer, fields: Map<String, Value>) {
        match layer {
            Layer::Town => self.town = fields,
            Layer::Agent(agent) if fields.is_empty() => drop(self.agents.remove(agent)),
            Layer::Agent(agent) => drop(self.agents.insert(agent.clone(), fields)),
        }
    }

    fn check(&self, path: &Path) -> Result<(), ConfigFileError> {
        let named = self.agents.iter().map(|(agent, fields)| (agent.as_str(), fields));
        for (layer, fields) in std::iter::once(("town", &self.town)).chain(named) {
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

impl std::fmt::Debug for Layers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Layers").field("agents", &self.agents.keys()).finish_non_exhaustive()
    }
}

fn merge(fields: &mut Map<String, Value>, patch: Map<String, Value>) {
    for (key, value) in patch {
        match (value, fields.get_mut(&key)) {
            (Value::Null, _) => drop(fields.remove(&key)),
            (value, Some(_)) if value == json!(MASKED) => {}
            // A model is one value; what has names of its own is patched by name.
            (Value::Object(inner), Some(Value::Object(old))) if key != "model" => merge(old, inner),
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
        let resolved = configs.resolved(&"toast".parse().unwrap());
        assert_eq!(
            serde_json::to_value(resolved.seal()).unwrap(),
            json!({ "variant": "high", "env": { "A": "1", "B": "2" } })
        );
        let other = configs.resolved(&"other".parse().unwrap());
        assert_eq!(other.turn.variant.as_deref(), Some("low"));
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
        assert_eq!(again.show(&Layer::Town), json!({ "model": model, "tools": { "x": false } }));
        patch(&again, &Layer::Town, json!({ "model": null, "tools": { "x": null } })).unwrap();
        assert_eq!(again.show(&Layer::Town), json!({}));
    }

    #[test]
    fn p19_secrets_are_in_a_file_of_the_owner_and_shown_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let configs = AgentConfigs::open(folder.path()).unwrap();
        patch(&configs, &toast(), json!({ "env": { "KEY": "canary" } })).unwrap();
        let mode = std::fs::metadata(folder.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(configs.show(&toast()), json!({ "env": { "KEY": "***" } }));
        assert!(!format!("{configs:?}").contains("canary"));
        patch(&configs, &toast(), json!({ "env": { "KEY": "***", "OTHER": "1" } })).unwrap();
        let sealed = serde_json::to_value(configs.resolved(&"toast".parse().unwrap()).seal()).unwrap();
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
        assert_eq!(configs.show(&Layer::Town), json!({ "variant": "low" }));
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
        assert_eq!(AgentConfigs::open(folder.path()).unwrap().show(&toast()), json!({}));
    }

    fn patch(configs: &AgentConfigs, layer: &Layer, patch: Value) -> Result<(), PatchError> {
        let Value::Object(patch) = patch else { unreachable!("an object") };
        configs.patch(layer, patch)
    }

    fn toast() -> Layer {
        Layer::Agent("toast".parse().unwrap())
    }
}
