//! The process, as the system sees it: under the names that Prometheus' own clients give it. Nothing where there is no
//! `/proc`.

use std::fs;

use super::text::Text;

/// Ticks of `/proc/<pid>/stat` in a second, on every Linux (proc(5): `sysconf(_SC_CLK_TCK)`, `USER_HZ`).
const TICKS: f64 = 100.0;

pub(super) fn render(text: &mut Text) {
    let mut value = |name, kind, help, found: Option<f64>| {
        if let Some(found) = found {
            text.value(name, kind, help, found);
        }
    };
    value("process_resident_memory_bytes", "gauge", "memory that is resident", resident_bytes());
    value("process_cpu_seconds_total", "counter", "time of processors, of user and system", cpu_seconds());
    value("process_open_fds", "gauge", "descriptors that are open", open_descriptors());
    value("process_threads", "gauge", "threads", status("Threads:"));
}

fn resident_bytes() -> Option<f64> {
    status("VmRSS:").map(|kib| kib * 1024.0)
}

/// The number in this line of `/proc/self/status`.
fn status(name: &str) -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program, the second field, is in parentheses, and may hold anything.
    let fields = stat.rsplit_once(')')?.1.split_whitespace().collect::<Vec<_>>();
    let ticks = |field: usize| fields.get(field)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / TICKS)
}

fn open_descriptors() -> Option<f64> {
    Some(fs::read_dir("/proc/self/fd").ok()?.count() as f64)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_process_has_memory_descriptors_and_threads() {
        assert!(resident_bytes().unwrap() > 1e6);
        assert!(open_descriptors().unwrap() >= 3.0);
        assert!(status("Threads:").unwrap() >= 1.0);
        assert!(cpu_seconds().is_some());
    }
}
