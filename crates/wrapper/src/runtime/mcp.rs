//! The MCP servers that an agent is given at its start: a file with the `mcpServers` of the Agent Client Protocol, a JSON array.
//!
//! ACP agents get them as they are; agent servers have words of their own for them.

use std::path::Path;

use protocol::agent::Failed;
use serde_json::{Map, Value, json};

use super::failed;

/// Reads the file; no servers without one.
pub(super) async fn read(file: Option<&Path>) -> Result<Vec<Value>, Failed> {
    let Some(file) = file else { return Ok(Vec::new()) };
    let told = |why: String| failed(format!("the MCP servers in {}: {why}", file.display()));
    let text = tokio::fs::read_to_string(file).await.map_err(|error| told(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| told(error.to_string()))
}

/// What `POST /mcp` of an agent server takes for one of them. The error says what is wrong with it.
pub(super) fn for_agent_server(server: &Value) -> Result<Value, String> {
    let name = server["name"].as_str().ok_or_else(|| "one of them has no name".to_owned())?;
    let config = match (server["command"].as_str(), server["url"].as_str()) {
        (Some(command), None) => {
            let words = server["args"].as_array().cloned().unwrap_or_default();
            let command: Vec<Value> = std::iter::once(json!(command)).chain(words).collect();
            json!({ "type": "local", "command": command, "environment": pairs(&server["env"]), "enabled": true })
        }
        (None, Some(url)) => {
            json!({ "type": "remote", "url": url, "headers": pairs(&server["headers"]), "enabled": true })
        }
        (Some(_), Some(_)) | (None, None) => {
            return Err(format!("{name} has to have a `command` or a `url`"));
        }
    };
    Ok(json!({ "name": name, "config": config }))
}

/// `[{"name", "value"}]` as an object.
fn pairs(list: &Value) -> Map<String, Value> {
    let pairs = list.as_array().into_iter().flatten();
    pairs.filter_map(|pair| Some((pair["name"].as_str()?.to_owned(), pair["value"].clone()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_and_a_url_get_the_words_of_agent_servers() {
        let program = json!({
            "name": "files", "command": "npx", "args": ["-y", "files"], "env": [{ "name": "ROOT", "value": "/w" }],
        });
        let config = json!({
            "type": "local", "command": ["npx", "-y", "files"], "environment": { "ROOT": "/w" }, "enabled": true,
        });
        assert_eq!(for_agent_server(&program), Ok(json!({ "name": "files", "config": config })));
        let url = json!({
            "type": "http", "name": "docs", "url": "http://127.0.0.1:1/mcp", "headers": [{ "name": "A", "value": "b" }],
        });
        let config = json!({
            "type": "remote", "url": "http://127.0.0.1:1/mcp", "headers": { "A": "b" }, "enabled": true,
        });
        assert_eq!(for_agent_server(&url), Ok(json!({ "name": "docs", "config": config })));
    }

    #[test]
    fn what_cannot_be_started_is_named() {
        assert!(for_agent_server(&json!({ "command": "npx" })).unwrap_err().contains("no name"));
        assert!(for_agent_server(&json!({ "name": "docs" })).unwrap_err().contains("docs"));
    }

    #[tokio::test]
    async fn a_file_that_is_no_list_stops_the_start_and_says_which_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mcp.json");
        std::fs::write(&file, "{}").unwrap();
        let message = read(Some(&file)).await.unwrap_err().message;
        assert!(message.contains("mcp.json"), "{message}");
        assert_eq!(read(None).await, Ok(Vec::new()));
    }
}
