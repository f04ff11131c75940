//! The agents of the demo: scenarios and a recording that are part of this binary.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde::Deserialize;
use town::{Registration, Runtime};

/// Who is there, and what each of them plays.
const FLEET: &str = include_str!("../../../demo/fleet.json");

/// What they play, by file name.
const FILES: &[(&str, &str)] = &[
    ("failing.json", include_str!("../../../demo/failing.json")),
    ("feature.json", include_str!("../../../demo/feature.json")),
    ("mayor.json", include_str!("../../../demo/mayor.json")),
    ("recording.jsonl", include_str!("../../../demo/recording.jsonl")),
    ("research.json", include_str!("../../../demo/research.json")),
];

#[derive(Deserialize)]
struct Fleet {
    agents: Vec<Member>,
}

#[derive(Deserialize)]
struct Member {
    name: String,
    role: String,
    runtime: String,
    file: String,
    #[serde(default)]
    speed: Option<String>,
}

/// Writes down what the agents play and makes a work folder for each; gives what to register.
pub(super) fn lay_out(dir: &Path) -> anyhow::Result<Vec<Registration>> {
    let scripts = dir.join("demo");
    let made = || -> io::Result<()> {
        fs::create_dir_all(&scripts)?;
        FILES.iter().try_for_each(|(name, text)| fs::write(scripts.join(name), text))
    };
    made().with_context(|| format!("the demo cannot be written to {}", scripts.display()))?;
    let fleet: Fleet = serde_json::from_str(FLEET).context("demo/fleet.json")?;
    fleet.agents.into_iter().map(|member| registration(dir, &scripts, member)).collect()
}

fn registration(dir: &Path, scripts: &Path, member: Member) -> anyhow::Result<Registration> {
    let work = dir.join("work").join(&member.name);
    fs::create_dir_all(&work).with_context(|| format!("{} cannot be made", work.display()))?;
    let kind = member.runtime.parse().with_context(|| format!("the runtime of {}", member.name))?;
    let script = text(scripts.join(&member.file))?;
    let mut runtime = Runtime::of(kind);
    runtime = if kind == town::RuntimeKind::Replay {
        runtime.with_recording(script).repeated()
    } else {
        runtime.with_scenario(script)
    };
    if let Some(speed) = member.speed {
        runtime = runtime.with_speed(speed);
    }
    let role = member.role.parse().with_context(|| format!("the role of {}", member.name))?;
    Ok(Registration { name: member.name, role, runtime, directory: text(work)?, repository: None })
}

fn text(path: PathBuf) -> anyhow::Result<String> {
    path.into_os_string()
        .into_string()
        .map_err(|path| anyhow::anyhow!("{} is no text", Path::new(&path).display()))
}

#[cfg(test)]
mod tests {
    use town::RuntimeKind;

    use super::*;

    #[test]
    fn the_demo_has_scripted_agents_and_a_replay_each_with_its_script_and_folder() {
        let dir = tempfile::tempdir().unwrap();
        let fleet = lay_out(dir.path()).unwrap();
        let of = |kind| fleet.iter().filter(move |agent| agent.runtime.kind == kind).count();
        assert!(of(RuntimeKind::Scripted) >= 4 && of(RuntimeKind::Replay) == 1, "{fleet:?}");
        for agent in &fleet {
            let script = agent.runtime.scenario.as_ref().or(agent.runtime.recording.as_ref()).unwrap();
            assert!(fs::metadata(script).unwrap().len() > 0, "{script}");
            assert!(Path::new(&agent.directory).is_dir(), "{}", agent.directory);
        }
    }

    #[test]
    fn every_script_of_the_fleet_is_in_the_binary() {
        let fleet: Fleet = serde_json::from_str(FLEET).unwrap();
        for member in fleet.agents {
            assert!(FILES.iter().any(|(name, _)| *name == member.file), "{}", member.file);
        }
    }
}
