//! How a conversation with an ACP agent begins: `initialize`, then the session, the one to resume if it still has it.

use std::path::Path;

use serde_json::{Value, json};

use super::{
    content::PromptCapabilities,
    pipe::{Deaf, Pipe},
    rpc::{AUTH_REQUIRED, Incoming, METHOD_NOT_FOUND, RpcError},
};

/// The version of the protocol that is spoken here.
const VERSION: u64 = 1;

/// An agent that takes prompts.
#[derive(Debug)]
pub(super) struct Ready {
    /// Its name and version, as it says them.
    pub(super) info: String,
    pub(super) session: String,
    pub(super) resumed: bool,
    pub(super) settings: Settings,
    pub(super) can: PromptCapabilities,
}

/// What of a session can be chosen, and its slash commands.
#[derive(Debug, Default)]
pub(super) struct Settings {
    /// `configOptions`, `modes` and `models` of the answer to `session/new`.
    answer: Value,
    /// Names of slash commands, once the agent has said which it has: it does so some time after the session began.
    commands: Option<Vec<String>>,
}

/// Gets the agent ready. The error says what it did not do.
pub(super) async fn shake_hands(
    pipe: &mut Pipe,
    folder: &Path,
    mcp_servers: &Value,
    resume: Option<&str>,
) -> Result<Ready, String> {
    let mut settings = Settings::default();
    let hello = json!({
        "protocolVersion": VERSION,
        "clientCapabilities": { "fs": { "readTextFile": true, "writeTextFile": true }, "terminal": true },
        "clientInfo": { "name": "gastown", "title": "Gastown", "version": env!("CARGO_PKG_VERSION") },
    });
    let agent = ask(pipe, &mut settings, "initialize", &hello)
        .await?
        .map_err(|error| format!("it refuses to be initialised: {}", error.reason()))?;
    if agent["protocolVersion"].as_u64() != Some(VERSION) {
        return Err(format!(
            "it speaks version {} of the Agent Client Protocol, this wrapper version {VERSION}",
            agent["protocolVersion"]
        ));
    }
    let capabilities = &agent["agentCapabilities"];
    let can = PromptCapabilities::of(&capabilities["promptCapabilities"]);
    let info = [&agent["agentInfo"]["name"], &agent["agentInfo"]["version"]];
    let info = info.into_iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ");
    let place = json!({ "cwd": folder, "mcpServers": mcp_servers });

    if let Some(id) = resume {
        let mut named = place.clone();
        named["sessionId"] = json!(id);
        // Resuming says nothing again; loading tells the whole history, which the log has already: it is not listened to.
        let ways = [
            ("session/resume", !capabilities["sessionCapabilities"]["resume"].is_null()),
            ("session/load", capabilities["loadSession"] == true),
        ];
        for (method, _) in ways.into_iter().filter(|(_, offered)| *offered) {
            match ask(pipe, &mut settings, method, &named).await? {
                Ok(answer) => {
                    settings.answer = answer;
                    return Ok(Ready { info, session: id.to_owned(), resumed: true, settings, can });
                }
                Err(error) => {
                    tracing::warn!(
                        session = id,
                        method,
                        error = error.reason(),
                        "the session cannot be gone on with"
                    );
                }
            }
        }
    }
    let answer =
        ask(pipe, &mut settings, "session/new", &place).await?.map_err(|error| refused(&error, &agent))?;
    let session = answer["sessionId"].as_str().ok_or("it gives a session without an id")?.to_owned();
    settings.answer = answer;
    Ok(Ready { info, session, resumed: false, settings, can })
}

impl Settings {
    /// The model that answers, as the agent names it.
    pub(super) fn model(&self) -> Option<&str> {
        let option = self.option("model").and_then(|option| option["currentValue"].as_str());
        option.or_else(|| self.answer["models"]["currentModelId"].as_str())
    }

    /// The request that chooses a model by `provider/model` or by its own name.
    pub(super) fn choose_model(
        &self,
        session: &str,
        provider: &str,
        model: &str,
    ) -> Option<(&'static str, Value)> {
        let names = [format!("{provider}/{model}"), model.to_owned()];
        if let Some(option) = self.option("model") {
            return choice(session, option, &names);
        }
        let offered = self.answer["models"]["availableModels"].as_array()?;
        let id = offered
            .iter()
            .filter_map(|model| model["modelId"].as_str())
            .find(|id| names.iter().any(|name| name == id))?;
        Some(("session/set_model", json!({ "sessionId": session, "modelId": id })))
    }

    /// The request that chooses one of the agent's modes.
    pub(super) fn choose_mode(&self, session: &str, mode: &str) -> Option<(&'static str, Value)> {
        if let Some(option) = self.option("mode") {
            return choice(session, option, &[mode.to_owned()]);
        }
        let offered = self.answer["modes"]["availableModes"].as_array()?;
        offered.iter().find(|offered| offered["id"] == mode)?;
        Some(("session/set_mode", json!({ "sessionId": session, "modeId": mode })))
    }

    /// Whether the agent may have this slash command: before it has named those that it has, it is the one to say so.
    pub(super) fn may_have_command(&self, name: &str) -> bool {
        self.commands.as_ref().is_none_or(|names| names.iter().any(|known| known == name))
    }

    /// Takes what an update says of them.
    pub(super) fn update(&mut self, update: &Value) {
        match update["sessionUpdate"].as_str() {
            Some("available_commands_update") => {
                let commands = update["availableCommands"].as_array().into_iter().flatten();
                let names = commands.filter_map(|command| command["name"].as_str()).map(str::to_owned);
                self.commands = Some(names.collect());
            }
            Some("config_option_update") if update["configOptions"].is_array() => {
                self.answer["configOptions"] = update["configOptions"].clone();
            }
            Some(_) | None => {}
        }
    }

    fn option(&self, category: &str) -> Option<&Value> {
        let options = self.answer["configOptions"].as_array()?;
        options.iter().find(|option| option["category"] == category || option["id"] == category)
    }
}

fn choice(session: &str, option: &Value, names: &[String]) -> Option<(&'static str, Value)> {
    // Options may come in groups.
    let flat = option["options"].as_array()?.iter().flat_map(|entry| match entry["options"].as_array() {
        Some(group) => group.iter().collect::<Vec<_>>(),
        None => vec![entry],
    });
    let value = flat
        .filter_map(|entry| entry["value"].as_str())
        .find(|value| names.iter().any(|name| name == value))?;
    Some((
        "session/set_config_option",
        json!({ "sessionId": session, "configId": option["id"], "value": value }),
    ))
}

/// Asks, and waits for the answer. What the agent says meanwhile is its history, or of its settings.
async fn ask(
    pipe: &mut Pipe,
    settings: &mut Settings,
    method: &str,
    params: &Value,
) -> Result<Result<Value, RpcError>, String> {
    let deaf = |error: Deaf| error.to_string();
    let number = pipe.request(method, params).map_err(deaf)?;
    loop {
        match pipe.next().await.ok_or("it ended before it was ready")? {
            Incoming::Response { id, result } if id == number => return Ok(result),
            Incoming::Response { .. } => {}
            Incoming::Notification { params, .. } => settings.update(&params["update"]),
            Incoming::Request { id, .. } => {
                let error = RpcError::new(METHOD_NOT_FOUND, "not before the session is there");
                pipe.respond(&id, &Err(error)).map_err(deaf)?;
            }
        }
    }
}

fn refused(error: &RpcError, agent: &Value) -> String {
    if error.code != AUTH_REQUIRED {
        return format!("it gives no session: {}", error.reason());
    }
    let ways = agent["authMethods"].as_array().into_iter().flatten();
    let ways: Vec<&str> =
        ways.filter_map(|way| way["description"].as_str().or_else(|| way["name"].as_str())).collect();
    format!("somebody has to log in to it first ({}): {}", error.reason(), ways.join("; or "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_chosen_by_either_name_wherever_the_agent_lists_its_models() {
        let options = json!([{ "value": "p/large" }, { "name": "more", "options": [{ "value": "small" }] }]);
        let option = json!({ "id": "m", "category": "model", "currentValue": "p/large", "options": options });
        let listed = json!({ "currentModelId": "p/large", "availableModels": [{ "modelId": "p/large" }, { "modelId": "small" }] });
        for (answer, method, named) in [
            (json!({ "configOptions": [option] }), "session/set_config_option", "value"),
            (json!({ "models": listed }), "session/set_model", "modelId"),
        ] {
            let settings = Settings { answer, commands: None };
            assert_eq!(settings.model(), Some("p/large"), "{method}");
            for (model, id) in [("large", "p/large"), ("small", "small")] {
                let (chosen, params) = settings.choose_model("s", "p", model).expect("it is offered");
                assert_eq!((chosen, &params[named]), (method, &json!(id)));
            }
            assert_eq!(settings.choose_model("s", "p", "huge"), None);
        }
    }

    #[test]
    fn what_can_be_chosen_is_what_the_agent_said_last() {
        let mut settings = Settings::default();
        assert_eq!(settings.choose_mode("s", "plan"), None);
        let option = json!({ "id": "mode", "options": [{ "value": "plan" }] });
        settings.update(&json!({ "sessionUpdate": "config_option_update", "configOptions": [option] }));
        assert!(settings.choose_mode("s", "plan").is_some());
        assert!(settings.may_have_command("init"), "it has not said what it has");
        let commands = json!([{ "name": "init" }]);
        settings
            .update(&json!({ "sessionUpdate": "available_commands_update", "availableCommands": commands }));
        assert!(settings.may_have_command("init") && !settings.may_have_command("review"));
    }
}
