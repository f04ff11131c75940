//! What the system says of itself.

use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
};

use anyhow::{Context as _, Result};
use meter::{
    clock::{now_ns, seconds},
    processes::{kib_of, read},
};
use rustix::{
    fs::fdatasync,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

/// Raises this process's limit of open files as far as the system lets it; its children have it too.
pub(crate) fn raise_open_files() -> Result<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let most = maximum.unwrap_or(u64::MAX);
    // Root may go beyond the hard limit, where it is not confined.
    for limit in [most.max(65_536), most] {
        if setrlimit(Resource::Nofile, Rlimit { current: Some(limit), maximum: Some(limit) }).is_ok() {
            return Ok(limit);
        }
    }
    current.context("the limit of open files is not known")
}

/// The machine, in lines for people.
pub(crate) fn describe(data: &Path) -> Vec<(String, String)> {
    let processors = read(Path::new("/proc/cpuinfo"));
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = processors.lines().filter(|line| line.starts_with("processor")).count();
    let memory = kib_of(&read(Path::new("/proc/meminfo")), "MemTotal:") / 1024.0 / 1024.0;
    let line = |name: &str, value: String| (name.to_owned(), value);
    vec![
        line("processor", format!("{cores} × {}", model.map_or("unknown", |(_, model)| model))),
        line("memory", format!("{memory:.0} GiB")),
        line("system", read(Path::new("/proc/sys/kernel/osrelease")).trim().to_owned()),
        line("file system", file_system(data)),
    ]
}

/// The type of the file system that a directory is on.
fn file_system(directory: &Path) -> String {
    let directory = fs::canonicalize(directory).unwrap_or_default();
    let mounts = read(Path::new("/proc/mounts"));
    let mut of_directory = mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            Some((words.next()?, words.next()?))
        })
        .filter(|(mounted, _)| directory.starts_with(mounted))
        .collect::<Vec<_>>();
    of_directory.sort_by_key(|(mounted, _)| mounted.len());
    of_directory.last().map_or_else(|| "unknown".to_owned(), |(_, kind)| (*kind).to_owned())
}

/// How many appends of 512 bytes, each followed by an `fdatasync`, a file in this directory takes in a second.
pub(crate) fn syncs_per_second(directory: &Path, for_s: f64) -> Result<f64> {
    let mut file = File::create(directory.join("sync-probe"))?;
    let (began, mut count) = (now_ns(), 0.0);
    loop {
        file.write_all(&[b'x'; 512])?;
        fdatasync(&file)?;
        count += 1.0;
        let elapsed = seconds(began, now_ns());
        if elapsed > for_s {
            return Ok(count / elapsed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_open_files_is_what_the_system_says_afterwards() {
        let limit = raise_open_files().unwrap();
        assert_eq!(getrlimit(Resource::Nofile).current, Some(limit));
    }

    #[test]
    fn the_file_system_of_proc_is_proc() {
        assert_eq!(file_system(Path::new("/proc/self")), "proc");
    }
}
