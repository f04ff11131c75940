//! Every rule of the town.

use std::time::Duration;

use protocol::{AgentId, Timestamp};

use crate::{
    Agent, AgentPhase, By, Change, Command, Registration, Rejection, Repository, Request, Runtime,
    RuntimeKind, Share, StartCause, Town, TownEvent, UserToken, WrapperExit,
    limits::{
        AGENTS, KEY_BYTES, KEY_LIFE, LABEL_BYTES, PATH_BYTES, REASON_BYTES, RESTART_WINDOW, RESTARTS,
        SHARE_LIFE, SHARES, TOKEN_LIFE, TOKENS,
    },
    restart,
    token::check_name,
};

impl Town {
    /// What comes of a request: the events to commit, in order and all or none; nothing if it asks for what is so
    /// already, or was carried out before under the same key.
    ///
    /// # Errors
    /// When the request is refused; see [`Rejection`].
    pub fn decide(&self, now: Timestamp, request: &Request) -> Result<Vec<TownEvent>, Rejection> {
        if self.was_done(now, request)? {
            return Ok(Vec::new());
        }
        let changes = match &request.command {
            Command::Register { registration, start } => self.register_agent(registration, *start)?,
            Command::Start { agent } => start(self.find(agent)?)?,
            Command::Stop { agent, drain } => stop(self.find(agent)?, *drain),
            Command::Remove { agent } => remove(self.find(agent)?),
            Command::WrapperExited { agent, generation, exit } => {
                exited(now, self.find_generation(agent, *generation)?, exit)
            }
            Command::WrapperLost { agent, generation } => lost(self.find_generation(agent, *generation)?),
            Command::Share { agent, share, lasts, label } => {
                check_life(*lasts, SHARE_LIFE, Rejection::BadExpiry)?;
                let agent = self.find(agent)?.id.clone();
                let (share, label) = (share.clone(), label.clone());
                self.share(Share { share, agent, issued: now, expires: now.after(*lasts), label })?
            }
            Command::Unshare { agent, share } => self.unshare(now, &self.find(agent)?.id, share)?,
            Command::IssueToken { token, name, scope, digest, lasts } => {
                lasts.map_or(Ok(()), |lasts| check_life(lasts, TOKEN_LIFE, Rejection::BadTokenExpiry))?;
                self.issue_token(UserToken {
                    token: token.clone(),
                    name: name.clone(),
                    scope: *scope,
                    digest: digest.clone(),
                    issued: now,
                    expires: lasts.map(|lasts| now.after(lasts)),
                })?
            }
            Command::RevokeToken { name } => self.revoke_token(now, name)?,
            Command::Tick => self.due(now),
        };
        let by = By {
            actor: request.actor.clone(),
            command: request.command.name().to_owned(),
            key: request.key.clone(),
        };
        Ok(changes.into_iter().map(|change| TownEvent { time: now, by: by.clone(), change }).collect())
    }

    fn find(&self, id: &AgentId) -> Result<&Agent, Rejection> {
        self.agent(id).ok_or_else(|| Rejection::UnknownAgent { agent: id.clone() })
    }

    fn find_generation(&self, id: &AgentId, generation: u64) -> Result<&Agent, Rejection> {
        let agent = self.find(id)?;
        if agent.generation == generation {
            return Ok(agent);
        }
        Err(Rejection::StaleGeneration { agent: id.clone(), generation, latest: agent.generation })
    }

    /// Whether the request was carried out before, by its key.
    fn was_done(&self, now: Timestamp, request: &Request) -> Result<bool, Rejection> {
        let Some(key) = &request.key else { return Ok(false) };
        if key.is_empty() || key.len() > KEY_BYTES || key.chars().any(char::is_control) {
            return Err(Rejection::BadKey);
        }
        let Some(done) = self.done.get(&(request.actor.clone(), key.clone())) else { return Ok(false) };
        if now.since(done.time) >= KEY_LIFE {
            return Ok(false);
        }
        let is_about_the_same = match &request.command {
            Command::Register { registration, .. } => {
                agent_id(&registration.name).is_ok_and(|id| id.as_str() == done.about)
            }
            Command::Start { agent }
            | Command::Stop { agent, .. }
            | Command::Remove { agent }
            | Command::WrapperExited { agent, .. }
            | Command::WrapperLost { agent, .. }
            | Command::Share { agent, .. }
            | Command::Unshare { agent, .. } => agent.as_str() == done.about,
            Command::IssueToken { name, .. } | Command::RevokeToken { name } => *name == done.about,
            Command::Tick => true,
        };
        if is_about_the_same && done.command == request.command.name() {
            Ok(true)
        } else {
            Err(Rejection::KeyReused)
        }
    }

    fn register_agent(&self, registration: &Registration, start: bool) -> Result<Vec<Change>, Rejection> {
        let name = &registration.name;
        let agent = agent_id(name)
            .map_err(|source| Rejection::BadName { name: name.chars().take(80).collect(), source })?;
        if self.agent(&agent).is_some() {
            return Err(Rejection::NameTaken { name: name.clone(), agent });
        }
        if self.agents().len() >= AGENTS {
            return Err(Rejection::TooManyAgents { limit: AGENTS });
        }
        check_path("directory", &registration.directory)?;
        check_runtime(&registration.runtime)?;
        registration.repository.as_ref().map_or(Ok(()), check_repository)?;
        let generation = self.retired().get(&agent).copied().unwrap_or(0) + 1;
        let mut changes =
            vec![Change::AgentRegistered { agent: agent.clone(), registration: registration.clone() }];
        if start {
            changes.push(Change::AgentStarted { agent, generation, cause: StartCause::Requested });
        }
        Ok(changes)
    }

    fn share(&self, share: Share) -> Result<Vec<Change>, Rejection> {
        let Share { issued, label, .. } = &share;
        if label
            .as_ref()
            .is_some_and(|label| label.len() > LABEL_BYTES || label.chars().any(char::is_control))
        {
            return Err(Rejection::BadLabel);
        }
        if self.shares(*issued).count() >= SHARES {
            return Err(Rejection::TooManyShares);
        }
        Ok(vec![Change::ShareIssued(share)])
    }

    fn unshare(&self, now: Timestamp, agent: &AgentId, id: &str) -> Result<Vec<Change>, Rejection> {
        let found = self.shares(now).find(|share| share.agent == *agent && share.share == id);
        let unknown =
            || Rejection::UnknownShare { agent: agent.clone(), share: id.chars().take(80).collect() };
        let share = found.ok_or_else(unknown)?.share.clone();
        Ok(vec![Change::ShareRevoked { agent: agent.clone(), share }])
    }

    fn issue_token(&self, token: UserToken) -> Result<Vec<Change>, Rejection> {
        check_name(&token.name)?;
        if self.user_tokens(token.issued).any(|other| other.name.eq_ignore_ascii_case(&token.name)) {
            return Err(Rejection::TokenNameTaken { name: token.name });
        }
        if self.user_tokens(token.issued).count() >= TOKENS {
            return Err(Rejection::TooManyTokens);
        }
        Ok(vec![Change::TokenIssued(token)])
    }

    fn revoke_token(&self, now: Timestamp, name: &str) -> Result<Vec<Change>, Rejection> {
        let found = self.user_tokens(now).find(|token| token.name.eq_ignore_ascii_case(name));
        let UserToken { token, name, .. } =
            found.ok_or_else(|| Rejection::UnknownToken { name: name.chars().take(80).collect() })?.clone();
        Ok(vec![Change::TokenRevoked { token, name }])
    }

    /// What is due by now.
    fn due(&self, now: Timestamp) -> Vec<Change> {
        let is_due =
            |agent: &&Agent| matches!(&agent.phase, AgentPhase::BackingOff { until, .. } if *until <= now);
        self.agents().values().filter(is_due).map(|agent| next(agent, StartCause::Crashed)).collect()
    }
}

/// Refuses a credential that would be over at once, or too late.
fn check_life(lasts: Duration, longest: Duration, refusal: Rejection) -> Result<(), Rejection> {
    if lasts < Duration::from_secs(1) || lasts > longest { Err(refusal) } else { Ok(()) }
}

/// The id of an agent of this name.
fn agent_id(name: &str) -> Result<AgentId, protocol::IdError> {
    name.to_ascii_lowercase().parse()
}

fn start(agent: &Agent) -> Result<Vec<Change>, Rejection> {
    match &agent.phase {
        AgentPhase::Running => Ok(Vec::new()),
        AgentPhase::Stopping { .. } => Err(Rejection::Stopping { agent: agent.id.clone() }),
        AgentPhase::Stopped { .. } | AgentPhase::BackingOff { .. } | AgentPhase::Failed { .. } => {
            Ok(vec![next(agent, StartCause::Requested)])
        }
    }
}

fn stop(agent: &Agent, drain: bool) -> Vec<Change> {
    match &agent.phase {
        AgentPhase::Running => vec![stopping(agent, drain, false)],
        // Whoever has no more patience with its turn.
        AgentPhase::Stopping { drain: true, remove } if !drain => vec![stopping(agent, false, *remove)],
        AgentPhase::BackingOff { .. } => vec![stopped(agent, None)],
        AgentPhase::Stopped { .. } | AgentPhase::Stopping { .. } | AgentPhase::Failed { .. } => Vec::new(),
    }
}

fn remove(agent: &Agent) -> Vec<Change> {
    match &agent.phase {
        AgentPhase::Running | AgentPhase::Stopping { remove: false, .. } => {
            vec![stopping(agent, false, true)]
        }
        AgentPhase::Stopping { remove: true, .. } => Vec::new(),
        AgentPhase::Stopped { .. } | AgentPhase::BackingOff { .. } | AgentPhase::Failed { .. } => {
            vec![removed(agent)]
        }
    }
}

fn exited(now: Timestamp, agent: &Agent, exit: &WrapperExit) -> Vec<Change> {
    match &agent.phase {
        AgentPhase::Running => vec![match exit {
            WrapperExit::Finished => stopped(agent, Some("it ended by itself")),
            WrapperExit::Superseded => stopped(agent, Some("a wrapper of a newer generation has this agent")),
            WrapperExit::Unusable { reason } => failed(agent, reason.clone()),
            WrapperExit::Crashed { reason } => crashed(now, agent, reason),
        }],
        AgentPhase::Stopping { .. } => vec![ended(agent)],
        // It was reported before: the second report changes nothing.
        AgentPhase::Stopped { .. } | AgentPhase::BackingOff { .. } | AgentPhase::Failed { .. } => Vec::new(),
    }
}

fn lost(agent: &Agent) -> Vec<Change> {
    match &agent.phase {
        AgentPhase::Running => vec![next(agent, StartCause::Lost)],
        AgentPhase::Stopping { .. } => vec![ended(agent)],
        AgentPhase::Stopped { .. } | AgentPhase::BackingOff { .. } | AgentPhase::Failed { .. } => Vec::new(),
    }
}

fn crashed(now: Timestamp, agent: &Agent, reason: &str) -> Change {
    match restart::delay(&agent.restarts, now) {
        Some(delay) => Change::AgentRestartScheduled {
            agent: agent.id.clone(),
            generation: agent.generation,
            at: now.after(delay),
            reason: shorten(reason),
        },
        None => {
            let minutes = RESTART_WINDOW.as_secs() / 60;
            failed(
                agent,
                format!("it was restarted {RESTARTS} times in {minutes} minutes and died again: {reason}"),
            )
        }
    }
}

/// What a wrapper's end means for an agent that was told to stop.
fn ended(agent: &Agent) -> Change {
    match &agent.phase {
        AgentPhase::Stopping { remove: true, .. } => removed(agent),
        AgentPhase::Stopping { remove: false, .. }
        | AgentPhase::Stopped { .. }
        | AgentPhase::Running
        | AgentPhase::BackingOff { .. }
        | AgentPhase::Failed { .. } => stopped(agent, None),
    }
}

fn next(agent: &Agent, cause: StartCause) -> Change {
    Change::AgentStarted { agent: agent.id.clone(), generation: agent.generation + 1, cause }
}

fn stopping(agent: &Agent, drain: bool, remove: bool) -> Change {
    Change::AgentStopping { agent: agent.id.clone(), generation: agent.generation, drain, remove }
}

fn stopped(agent: &Agent, reason: Option<&str>) -> Change {
    Change::AgentStopped {
        agent: agent.id.clone(),
        generation: agent.generation,
        reason: reason.map(str::to_owned),
    }
}

fn failed(agent: &Agent, reason: impl AsRef<str>) -> Change {
    Change::AgentFailed {
        agent: agent.id.clone(),
        generation: agent.generation,
        reason: shorten(reason.as_ref()),
    }
}

fn removed(agent: &Agent) -> Change {
    Change::AgentRemoved { agent: agent.id.clone(), generation: agent.generation }
}

fn shorten(reason: &str) -> String {
    let end = reason.floor_char_boundary(REASON_BYTES);
    reason[..end].to_owned()
}

fn check_path(what: &'static str, path: &str) -> Result<(), Rejection> {
    let bad = !path.starts_with('/') || path.len() > PATH_BYTES || path.chars().any(char::is_control);
    if bad { Err(Rejection::BadPath { what, found: path.chars().take(80).collect() }) } else { Ok(()) }
}

fn check_repository(repository: &Repository) -> Result<(), Rejection> {
    for (what, text) in [("repository", Some(&repository.url)), ("branch", repository.branch.as_ref())] {
        let Some(text) = text else { continue };
        let is_bad = text.is_empty()
            || text.len() > PATH_BYTES
            || text.starts_with('-')
            || text.chars().any(char::is_control);
        if is_bad {
            return Err(Rejection::BadRepository { what });
        }
    }
    // Into the journal goes what may be shown to anybody.
    let authority =
        repository.url.split_once("://").map(|(_, rest)| rest.split('/').next().unwrap_or_default());
    if authority.and_then(|authority| authority.rsplit_once('@')).is_some_and(|(user, _)| user.contains(':'))
    {
        return Err(Rejection::PasswordInUrl);
    }
    repository.token_file.as_ref().map_or(Ok(()), |path| check_path("token file", path))
}

fn check_runtime(runtime: &Runtime) -> Result<(), Rejection> {
    let missing = |option| Err(Rejection::MissingOption { runtime: runtime.kind, option });
    match runtime.kind {
        RuntimeKind::Scripted if runtime.scenario.is_none() => return missing("scenario"),
        RuntimeKind::Replay if runtime.recording.is_none() => return missing("recording"),
        RuntimeKind::Acp if runtime.command.is_empty() => return missing("command"),
        RuntimeKind::Opencode
        | RuntimeKind::Kilo
        | RuntimeKind::Acp
        | RuntimeKind::Scripted
        | RuntimeKind::Replay => {}
    }
    for (what, path) in [
        ("agent binary", &runtime.agent_bin),
        ("scenario", &runtime.scenario),
        ("recording", &runtime.recording),
    ] {
        if let Some(path) = path {
            check_path(what, path)?;
        }
    }
    match &runtime.speed {
        Some(speed) if !is_speed(speed) => {
            Err(Rejection::BadSpeed { found: speed.chars().take(40).collect() })
        }
        Some(_) | None => Ok(()),
    }
}

fn is_speed(text: &str) -> bool {
    matches!(text, "max" | "step")
        || text.parse::<f64>().is_ok_and(|factor| factor.is_finite() && factor > 0.0)
}
