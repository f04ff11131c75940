//! Processes of a test: found in /proc, signalled by pid, and counted when they should be gone.

use std::{collections::BTreeMap, fmt, fs, path::Path, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{sleep, timeout};

use super::server::PATIENCE;

/// Between two looks at what tells nobody when it changes.
const NEXT_LOOK: Duration = Duration::from_millis(20);
/// Open files that may come and go: connections that are kept for the next request.
const HANDLES_THAT_COME_AND_GO: usize = 12;

/// What a process of a test is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// `gastown up`: worker and relay.
    Town,
    Wrapper,
    Guard,
    AgentServer,
    /// Whatever an agent server began, and what that began.
    Tool,
}

/// One town with its agent, and nobody else.
pub(crate) const ONE_AGENT: &[Role] = &[Role::Town, Role::Wrapper, Role::Guard, Role::AgentServer];
/// A town whose agent was stopped.
pub(crate) const NO_AGENT: &[Role] = &[Role::Town];
/// Nobody.
pub(crate) const NOBODY: &[Role] = &[];

/// Looks at all processes of one test: those with its home folder in their environment, which all of them inherit.
#[derive(Debug)]
pub(crate) struct Processes {
    home: String,
    /// Open files when they were counted first.
    handles: BTreeMap<Role, usize>,
}

impl Processes {
    /// Of the test with this home folder.
    pub(crate) fn of_home(home: &Path) -> Self {
        Self { home: format!("HOME={}", home.display()), handles: BTreeMap::new() }
    }

    /// The one process of a role.
    pub(crate) fn only(&self, role: Role) -> Pid {
        let census = self.census();
        let found: Vec<&Process> = census.iter().filter(|process| process.role == role).collect();
        let [process] = found[..] else { panic!("one {role:?}, not {census:#?}") };
        process.pid
    }

    /// The agent server and all that it began.
    pub(crate) fn of_the_agent(&self) -> Vec<Pid> {
        let census = self.census();
        let of_the_agent = |process: &&Process| matches!(process.role, Role::AgentServer | Role::Tool);
        census.iter().filter(of_the_agent).map(|process| process.pid).collect()
    }

    /// Waits until there is a process of this role.
    pub(crate) async fn until_running(&self, role: Role) {
        until(&format!("a process that is {role:?}"), || {
            let census = self.census();
            if census.iter().any(|process| process.role == role) { Ok(()) } else { Err(census) }
        })
        .await;
    }

    /// Waits until exactly these are left, none of them has a child that died and was not buried, and neither town nor
    /// wrapper has more files open than when they were counted first.
    pub(crate) async fn settle(&mut self, expected: &[Role]) {
        let settled = until("a quiet process table", || {
            let census = self.census();
            match trouble_in(&census, expected, &self.handles) {
                None => Ok(census),
                Some(trouble) => Err((trouble, census)),
            }
        });
        for process in settled.await {
            if matches!(process.role, Role::Town | Role::Wrapper) {
                self.handles.entry(process.role).or_insert(process.handles.len());
            }
        }
    }

    fn census(&self) -> Vec<Process> {
        let all: Vec<Stat> = pids().into_iter().filter_map(Stat::of).collect();
        let living = all.iter().filter(|stat| !stat.is_zombie);
        living.filter_map(|stat| self.process(stat, &all)).collect()
    }

    fn process(&self, &Stat { pid, parent, .. }: &Stat, all: &[Stat]) -> Option<Process> {
        let folder = format!("/proc/{}", pid.as_raw_pid());
        let environment = fs::read(format!("{folder}/environ")).ok()?;
        if !environment.split(|byte| *byte == 0).any(|pair| pair == self.home.as_bytes()) {
            return None;
        }
        let command = command_of(pid)?;
        let handles = fs::read_dir(format!("{folder}/fd")).into_iter().flatten().flatten();
        let handles = handles.filter_map(|handle| fs::read_link(handle.path()).ok());
        let zombies = all.iter().filter(|stat| stat.is_zombie && stat.parent == pid.as_raw_pid());
        Some(Process {
            pid,
            role: role_of(&command, parent),
            command: command.join(" "),
            handles: handles.map(|to| to.display().to_string()).collect(),
            zombies: zombies.map(|stat| stat.pid).collect(),
        })
    }
}

/// What is not as it should be among these processes: others than expected, an unburied child, too many open files.
fn trouble_in(census: &[Process], expected: &[Role], first: &BTreeMap<Role, usize>) -> Option<String> {
    let mut roles: Vec<Role> = census.iter().map(|process| process.role).collect();
    roles.sort_unstable();
    if roles != expected {
        return Some(format!("there are {roles:?}, not {expected:?}"));
    }
    census.iter().find_map(|process| {
        let Process { pid, role, zombies, handles, .. } = process;
        let most = first.get(role).map_or(usize::MAX, |first| first + HANDLES_THAT_COME_AND_GO);
        if !zombies.is_empty() {
            Some(format!("{role:?} ({pid:?}) did not bury {zombies:?}"))
        } else if handles.len() > most {
            Some(format!("{role:?} ({pid:?}) has {} files open, more than {most}", handles.len()))
        } else {
            None
        }
    })
}

/// Waits until none of these processes lives, and panics if that takes longer than is promised.
pub(crate) async fn gone_within(promised: Duration, pids: &[Pid]) {
    let what = format!("the end of {pids:?} within {promised:?}");
    until_within(promised, &what, || {
        let living: Vec<Pid> = pids.iter().copied().filter(|pid| lives(*pid)).collect();
        if living.is_empty() { Ok(()) } else { Err(living) }
    })
    .await;
}

/// Looks until there is something to give back, where nobody tells when that is (/proc, a file); panics with what was
/// looked at last.
pub(crate) async fn until<T, E: fmt::Debug>(what: &str, look: impl FnMut() -> Result<T, E>) -> T {
    until_within(PATIENCE, what, look).await
}

async fn until_within<T, E: fmt::Debug>(
    limit: Duration,
    what: &str,
    mut look: impl FnMut() -> Result<T, E>,
) -> T {
    let mut last = None;
    let looking = async {
        loop {
            match look() {
                Ok(found) => return found,
                Err(seen) => last = Some(seen),
            }
            sleep(NEXT_LOOK).await;
        }
    };
    match timeout(limit, looking).await {
        Ok(found) => found,
        Err(_) => panic!("waited in vain for {what}; seen last: {last:#?}"),
    }
}

/// One line of a census.
#[derive(Debug)]
struct Process {
    pid: Pid,
    role: Role,
    #[expect(dead_code, reason = "a failed test shows it")]
    command: String,
    /// What its open files are.
    handles: Vec<String>,
    /// Its children that died and were not waited for.
    zombies: Vec<Pid>,
}

/// What /proc says of any process.
#[derive(Debug)]
struct Stat {
    pid: Pid,
    parent: i32,
    is_zombie: bool,
}

impl Stat {
    fn of(pid: Pid) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())).ok()?;
        let (_, fields) = stat.rsplit_once(") ")?;
        let mut fields = fields.split(' ');
        let is_zombie = fields.next()? == "Z";
        Some(Self { pid, parent: fields.next()?.parse().ok()?, is_zombie })
    }
}

/// The pids of processes whose arguments hold all of these texts.
pub(crate) fn running(words: &[&str]) -> Vec<Pid> {
    let holds_all = |pid: &Pid| {
        let arguments = command_of(*pid).unwrap_or_default().join(" ");
        words.iter().all(|word| arguments.contains(word))
            && Stat::of(*pid).is_some_and(|stat| !stat.is_zombie)
    };
    pids().into_iter().filter(holds_all).collect()
}

/// Sends a signal to a process that is there.
pub(crate) fn send(pid: Pid, signal: Signal) {
    kill_process(pid, signal).unwrap_or_else(|error| panic!("{pid:?} cannot be sent {signal:?}: {error}"));
}

/// Whether a process of this pid is there and no zombie.
pub(crate) fn lives(pid: Pid) -> bool {
    Stat::of(pid).is_some_and(|stat| !stat.is_zombie)
}

fn pids() -> Vec<Pid> {
    let folder = fs::read_dir("/proc").expect("/proc is there").flatten();
    folder.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)).collect()
}

fn command_of(pid: Pid) -> Option<Vec<String>> {
    let arguments = fs::read(format!("/proc/{}/cmdline", pid.as_raw_pid())).ok()?;
    let words = arguments.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
    Some(words.filter(|word| !word.is_empty()).collect())
}

fn role_of(command: &[String], parent: i32) -> Role {
    let role = role_of_program(command);
    // A child that has not become its program yet goes by its parent's name.
    let parent = Pid::from_raw(parent).and_then(command_of);
    if parent.is_some_and(|parent| role_of_program(&parent) == role) { Role::Tool } else { role }
}

fn role_of_program(command: &[String]) -> Role {
    let program =
        command.first().map(|program| Path::new(program).file_name().unwrap_or_default().to_owned());
    match (program.unwrap_or_default().to_str(), command.get(1).map(String::as_str)) {
        (Some("gastown"), Some("up")) => Role::Town,
        (Some("gastown"), Some("wrapper")) => Role::Wrapper,
        (Some("gastown"), Some("guard")) => Role::Guard,
        (Some("opencode" | "kilo"), Some("serve")) => Role::AgentServer,
        _ => Role::Tool,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_that_is_left_and_a_child_that_was_not_buried_are_found() {
        let home = tempfile::tempdir().unwrap();
        let processes = Processes::of_home(home.path());
        assert_eq!(trouble_in(&processes.census(), NOBODY, &processes.handles), None);
        // The shell becomes a `sleep`, which buries nobody.
        let _left = tokio::process::Command::new("sh")
            .args(["-c", "true & exec sleep 1000"])
            .env("HOME", home.path())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let unburied = |census: &[Process]| census.len() == 1 && !census[0].zombies.is_empty();
        let census = until("a zombie", || {
            let census = processes.census();
            if unburied(&census) { Ok(census) } else { Err(census) }
        });
        let census = census.await;
        assert!(trouble_in(&census, NOBODY, &processes.handles).unwrap().contains("there are [Tool]"));
        assert!(trouble_in(&census, &[Role::Tool], &processes.handles).unwrap().contains("did not bury"));
    }

    #[test]
    fn open_files_that_come_and_go_are_no_growth_and_more_are() {
        let first = BTreeMap::from([(Role::Wrapper, 20)]);
        let trouble = |open| {
            let handles = vec!["socket:[1]".to_owned(); open];
            let wrapper = Process {
                pid: Pid::INIT,
                role: Role::Wrapper,
                command: "gastown wrapper".to_owned(),
                handles,
                zombies: Vec::new(),
            };
            trouble_in(&[wrapper], &[Role::Wrapper], &first)
        };
        assert_eq!(trouble(20 + HANDLES_THAT_COME_AND_GO), None);
        assert!(trouble(21 + HANDLES_THAT_COME_AND_GO).is_some_and(|said| said.contains("files open")));
    }
}
