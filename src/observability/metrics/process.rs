//! What the kernel knows of this process, as `process_*` metrics.

use std::fmt::Write as _;
use std::fs;

use super::render::family;

/// Clock ticks per second in `/proc`: 100 on every architecture that Linux serves us on.
const TICKS: f64 = 100.0;

/// Appends the `process_*` metrics; what cannot be read is left out.
pub(super) fn render(out: &mut String) {
    let process = Stat::read();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let cpu = process.as_ref().map(|stat| stat.cpu_ticks / TICKS);
    gauge(
        out,
        "process_cpu_seconds_total",
        "counter",
        "Total user and system CPU time spent in seconds.",
        cpu,
    );
    let max = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let max = max.and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok());
    gauge(out, "process_max_fds", "gauge", "Maximum number of open file descriptors.", max);
    // The listing itself has one open.
    let open = fs::read_dir("/proc/self/fd").ok().map(|fds| fds.count().saturating_sub(1));
    let open = open.and_then(|open| u32::try_from(open).ok()).map(f64::from);
    gauge(out, "process_open_fds", "gauge", "Number of open file descriptors.", open);
    let resident = kilobytes(&status, "VmRSS:");
    gauge(
        out,
        "process_resident_memory_bytes",
        "gauge",
        "Resident memory size in bytes.",
        resident,
    );
    let start = process.and_then(|stat| Some(boot_time()? + stat.start_ticks / TICKS));
    gauge(
        out,
        "process_start_time_seconds",
        "gauge",
        "Start time of the process since unix epoch in seconds.",
        start,
    );
    let threads = status.lines().find_map(|line| line.strip_prefix("Threads:"));
    let threads = threads.and_then(|count| count.trim().parse().ok());
    gauge(out, "process_threads", "gauge", "Number of OS threads in the process.", threads);
    let virtual_memory = kilobytes(&status, "VmSize:");
    gauge(
        out,
        "process_virtual_memory_bytes",
        "gauge",
        "Virtual memory size in bytes.",
        virtual_memory,
    );
}

fn gauge(out: &mut String, name: &str, kind: &str, help: &str, value: Option<f64>) {
    if let Some(value) = value {
        family(out, name, kind, help);
        let _ = writeln!(out, "{name} {value}");
    }
}

struct Stat {
    cpu_ticks: f64,
    start_ticks: f64,
}

impl Stat {
    fn read() -> Option<Self> {
        let text = fs::read_to_string("/proc/self/stat").ok()?;
        // The second field is the program's name in parentheses and may hold anything.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        Some(Self { cpu_ticks: field(14)? + field(15)?, start_ticks: field(22)? })
    }
}

fn boot_time() -> Option<f64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

fn kilobytes(status: &str, name: &str) -> Option<f64> {
    let value = status.lines().find_map(|line| line.strip_prefix(name))?;
    value.split_ascii_whitespace().next()?.parse::<f64>().ok().map(|value| value * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_asked() {
        let mut out = String::new();
        render(&mut out);
        for name in [
            "process_cpu_seconds_total",
            "process_max_fds",
            "process_open_fds",
            "process_resident_memory_bytes",
            "process_start_time_seconds",
            "process_virtual_memory_bytes",
        ] {
            let line = out.lines().find(|line| line.starts_with(&format!("{name} ")));
            let value: f64 =
                line.and_then(|line| line.rsplit(' ').next()).unwrap().parse().unwrap();
            assert!(value >= 0.0, "{name}");
        }
    }
}
